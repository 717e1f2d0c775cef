"""From options and a store to what a head is trained on: checked before the first step."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmengine.config import Config
from torch.utils.data import DataLoader

from cache_schema.array_spec import BEV_MAP, ArraySpec
from cache_schema.documents import is_there
from cache_schema.errors import AlreadyPublished, NotWritable, SampleMissing
from cache_schema.fingerprint import require
from cache_schema.layers import layer_path
from cache_schema.reader import TargetReader
from cache_schema.storage import StorePath
from cache_schema.zarr_metadata import METADATA_NAME
from camera3d.boxes import BOX_CONVENTION
from camera3d.data import ImagePipeline, NuScenesIndex, load_or_build_index
from camera3d.errors import ConfigInvalid, shown
from train.distillation_head.data import stored_map_loader
from train.engine.checkpoints import checkpoints
from train.engine.options import HeadOptions
from train.engine.targets import told_of_store
from train.targets.checks import TargetsUnfit

HEAD_TYPE = "DistillationHead"
FROM_STORE = ("class_names", "bev_map")


@dataclass(frozen=True, kw_only=True)
class HeadSetting:
    """What a head is made of.

    Attributes:
        config: with what the store says about its map in `model`.
        reader: of the store, which is sealed.
        bev_map: the array that the head reads.
        index: the frames of the store, all of them.
        place: of the layer.
        told: for the head of the log.
    """

    config: Config
    reader: TargetReader
    bev_map: ArraySpec
    index: NuScenesIndex
    place: StorePath
    told: dict[str, str]

    @property
    def loader(self) -> Callable[..., DataLoader]:
        """Makes the training's loader, see `stored_map_loader`."""
        return partial(stored_map_loader, self.reader, self.bev_map)

    @property
    def planned(self) -> dict[str, int]:
        """Samples of every scene of the layer: those of the store."""
        return {name: len(tokens) for name, tokens in self.reader.scenes.items()}

    def layer_told(self) -> str:
        """What would be written."""
        return f"layer: {self.place}, {len(self.reader):,} samples in {len(self.planned):,} scenes"


def head_setting(config: Config, options: HeadOptions) -> HeadSetting:
    """Open the store, and see that a layer can be made of it.

    Raises:
        CacheError: the store, or the place of its layer.
        TargetsUnfit: the store has no whole BEV map.
        ConfigInvalid: the config is of no head.
    """
    if not 0 <= options.min_score <= 1:
        raise ConfigInvalid(f"--min-score {options.min_score}: expected a score from 0 to 1")
    kind = config.model.get("type")
    if kind != HEAD_TYPE or any(name in config.model for name in FROM_STORE):
        raise ConfigInvalid(
            f"config {config.filename or ''}: model must be of type {HEAD_TYPE}, without"
            f" {' and '.join(FROM_STORE)}, which the store says; its type is {kind}. configs/demo/head.py is"
            " such a config."
        )
    if config.get("augmentation") is not None:
        raise ConfigInvalid("augmentation: a head sees stored maps as they are; set it to None")
    reader = TargetReader(options.cache, expect_digest=options.expect_digest)
    bev_map = whole_map(reader)
    place = require_place(reader, options)
    index = frames_of(reader, options)
    expected = {
        "inputs": {"pipeline": ImagePipeline.from_config(config.inputs).to_dict()},
        "outputs": {"box_convention": BOX_CONVENTION},
        "dataset": {"name": "nuscenes", "version": index.version},
    }
    require(expected, reader.spec, reader.path)
    config = copy.deepcopy(config)
    config.model.update(
        class_names=list(reader.spec.outputs.class_names),
        bev_map={
            "name": bev_map.name,
            "shape": list(bev_map.shape),
            "dimension_names": list(bev_map.dimension_names),
            "extent_m": list(bev_map.extent_m),
            "frame": bev_map.frame,
        },
    )
    told = {**told_of_store(reader), "layer": f"{place}, reads {bev_map.name}, the {bev_map.frame} frame's"}
    return HeadSetting(config=config, reader=reader, bev_map=bev_map, index=index, place=place, told=told)


def whole_map(reader: TargetReader) -> ArraySpec:
    """The BEV map that terms compare, the first of a store. Raises TargetsUnfit unless it is there whole."""
    spec = reader.spec
    found = [array for array in spec.arrays if array.role == BEV_MAP]
    if not found:
        there = any(array.role == BEV_MAP for array in spec.outputs.not_stored)
        remedy = "dump with --arrays that name bev" if there else "its teacher makes none"
        raise TargetsUnfit(f"{reader.path} has no BEV map, which a distillation head reads: {remedy}")
    if spec.profile == "focal":
        raise TargetsUnfit(
            f"{reader.path} has profile focal, which keeps of a BEV map what lies around instances; a head is"
            " trained on the whole map: dump with profile compact or exact"
        )
    return found[0]


def require_place(reader: TargetReader, options: HeadOptions) -> StorePath:
    """Where the layer will be.

    Raises:
        SampleMissing: the store is not finished.
        AlreadyPublished: there is a layer of this name, and it is not to be gone on with.
        NotWritable: the store's folder.
    """
    place = layer_path(reader.path, options.layer)
    if reader.digest is None:
        raise SampleMissing(
            f"{reader.path} is not sealed, and only a finished store gets layers: run its dump to the end"
        )
    if is_there(place / METADATA_NAME) and not (options.resume and checkpoints(options.work_dir)):
        raise AlreadyPublished(
            f"{reader.path} has a layer {options.layer}: give another --layer, or go on with it by --resume"
            " and the --work-dir of its head"
        )
    if isinstance(reader.path, Path) and not os.access(reader.path, os.W_OK | os.X_OK):
        raise NotWritable(f"{reader.path} cannot be written to, and the layer belongs there")
    return place


def frames_of(reader: TargetReader, options: HeadOptions) -> NuScenesIndex:
    """The frames of a store. Raises TargetsUnfit when the dataset lacks some of them."""
    dataset = reader.spec.dataset
    index = load_or_build_index(options.dataroot, options.version, dataset.split)
    known = {token.decode() for token in index.columns["sample_token"].tolist()}
    missing = [token for token in reader.sample_tokens if token not in known]
    if missing:
        raise TargetsUnfit(
            f"split {dataset.split!r} of {options.version} in {options.dataroot} lacks {len(missing)} of the"
            f" {len(reader)} samples of {reader.path}:\n{shown(missing)}\nGive the dataset that was dumped."
        )
    return index.select(list(reader.scenes))
