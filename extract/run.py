"""From the options of a dump to its report: load everything, check everything, then run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from mmengine.config import Config

from cache_schema.disk_room import explained, missing_nbytes
from cache_schema.errors import AlreadyPublished, SampleMissing, StoreNotFound
from cache_schema.layers import begin_layer, layer_path
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath, store_path
from cache_schema.store_plan import some
from cache_schema.writer import StoreWriter, open_begun
from camera3d.checkpoint import load_official
from camera3d.data import DatasetChoice, ImagePipeline, SplitIndex, check_images
from camera3d.data.worker_errors import worker_deaths_told
from camera3d.detectors import Detector
from camera3d.detectors.builder import build_detector, draw_weights, load_config
from camera3d.devices import checked_device, told
from camera3d.errors import CheckpointMismatch, ConfigInvalid
from camera3d.fixed_numerics import fixed_numerics
from extract.engine import DumpReport, dump
from extract.focal_areas import FocalAreas, FocalOptions, covered_frame, covered_m
from extract.layer import layer_spec
from extract.sharding import process_shard, scenes_of
from extract.sharing import one_dump_at_a_time
from extract.store_spec import ARRAY_GROUPS, TeacherWeights, build_store_spec, require_teacher


@dataclass(frozen=True, kw_only=True)
class DumpOptions:
    """What the command line says. Either `checkpoint` or `seed` of an untrained teacher is given."""

    config: str
    dataroot: str
    version: str
    split: str
    out: str
    layer: str | None = None  # of the finished store at `out`: add the arrays that it lacks
    checkpoint: str | None = None
    seed: int = 0
    device: str | None = None  # a GPU where there is one
    arrays: Sequence[str] = tuple(ARRAY_GROUPS)
    profile: str = "exact"
    focal: FocalOptions = field(default_factory=FocalOptions)
    scenes: Sequence[str] | None = None
    workers: int = 2
    threads: int | None = None
    shard: str | None = None
    max_gap_s: float = 0.9
    check_images: bool = False  # decode every image before the first scene


@dataclass(frozen=True, kw_only=True)
class PreparedDump:
    """A dump of which everything has been loaded and checked, and nothing written.

    Attributes:
        planned: samples of every scene of the store, by name.
        part: the scenes of this process; of these `todo` are not published.
    """

    config: Config
    detector: Detector
    pipeline: ImagePipeline
    device: torch.device
    spec: StoreSpec
    focal: FocalAreas | None
    planned: Mapping[str, int]
    part: SplitIndex
    todo: SplitIndex
    store: StorePath


def run_dump(options: DumpOptions) -> tuple[DumpReport, StoreSpec]:
    """Load the teacher and the split, then dump this process's part of the scenes.

    Nothing is written before everything has been checked. Run again after whatever ended it, it does what is
    missing. Whoever publishes the last scene seals the store.

    Raises:
        CacheError, Camera3DError: something the user can put right.
        KeyboardInterrupt: from a signal; the store can be resumed.
    """
    check_options(options)
    return dump_index(options, chosen_index(options))


def chosen_index(options: DumpOptions) -> SplitIndex:
    """The frames that the store is to hold."""
    return DatasetChoice.from_config(load_config(options.config)).index(
        options.dataroot,
        options.version,
        options.split,
        scenes=options.scenes,
        max_gap_s=options.max_gap_s,
    )


def check_options(options: DumpOptions) -> None:
    """What can be told before the tables are loaded, which takes a minute for the whole dataset.

    Raises:
        ConfigInvalid: config, device, shard or numbers cannot be.
        CheckpointMismatch: there is no such checkpoint file.
    """
    config = load_config(options.config)
    require_teacher(config)
    DatasetChoice.from_config(config)
    ImagePipeline.from_config(config.inputs)
    told(checked_device(options.device))
    process_shard(options.shard, os.environ)
    if options.workers < 0 or (options.threads is not None and options.threads < 1):
        raise ConfigInvalid(
            f"--workers {options.workers}, --threads {options.threads}: workers must be 0 or more,"
            " threads 1 or more"
        )
    if options.checkpoint is not None and not Path(options.checkpoint).is_file():
        raise CheckpointMismatch(f"no checkpoint file {options.checkpoint}")


def dump_index(options: DumpOptions, index: SplitIndex) -> tuple[DumpReport, StoreSpec]:
    """`run_dump` for an index that is there already."""
    shard = process_shard(options.shard, os.environ)
    with (
        fixed_numerics(options.threads) as threads,
        one_dump_at_a_time(store_path(options.out), shard, chosen=options.shard is not None),
    ):
        ready = prepared(options, index, threads)
        detector, pipeline, device, focal = ready.detector, ready.pipeline, ready.device, ready.focal
        store, spec, planned, part = ready.store, ready.spec, ready.planned, ready.part
        with worker_deaths_told(), explained(store, lambda: missing_nbytes(store, spec, planned)):
            if options.layer is None:
                writer = open_store(store, spec, planned) or create_store(store, spec, planned)
            else:
                writer = begin_layer(store_path(options.out), options.layer, spec, planned)
            writer.remove_abandoned()
            head = {key: value.float().cpu().numpy() for key, value in detector.head_weights().items()}
            if head and options.layer is None:
                writer.write_teacher_head(head)
            report = dump(
                detector,
                part,
                pipeline,
                options.dataroot,
                writer,
                device=device,
                focal=focal,
                workers=options.workers,
                progress=os.environ.get("LOCAL_RANK", "0") == "0",
            )
            missing = writer.missing_scenes()
            require_published(part.scene_names, missing, store)
            sealed = not missing and writer.seal()
    return replace(report, shard=str(shard), scenes_missing=len(missing), sealed=sealed), spec


def prepared(options: DumpOptions, index: SplitIndex, threads: int) -> PreparedDump:
    """Load and check everything that a dump needs, under fixed numerics of these `threads`."""
    device = checked_device(options.device)
    config = load_config(options.config)
    pipeline = ImagePipeline.from_config(config.inputs)
    pipeline.require_fit(*index.image_sizes)
    detector, weights = load_teacher(options, config)
    spec = build_store_spec(
        detector=detector,
        config=config,
        pipeline=pipeline,
        index=index,
        weights=weights,
        groups=options.arrays,
        profile=options.profile,
        focal=options.focal,
        device=device,
        threads=threads,
    )
    planned = {scene.name: scene.stop - scene.first for scene in index.scene_rows}
    store = store_path(options.out)
    if options.layer is not None:
        spec = layer_spec(store, spec, planned)
        store = layer_path(store, options.layer)
    focal = None
    if options.profile == "focal":
        focal = FocalAreas(
            options.focal,
            arrays=spec.arrays,
            range_m=covered_m(spec.teacher_outputs),
            range_frame=covered_frame(spec.teacher_outputs),
        )
    part = index.select(scenes_of(process_shard(options.shard, os.environ), planned))
    todo = unpublished(part, open_store(store, spec, planned))
    check_images(options.dataroot, todo.frames(), decode=options.check_images)
    return PreparedDump(
        config=config,
        detector=detector,
        pipeline=pipeline,
        device=device,
        spec=spec,
        focal=focal,
        planned=planned,
        part=part,
        todo=todo,
        store=store,
    )


def load_teacher(options: DumpOptions, config: object) -> tuple[Detector, TeacherWeights]:
    """The teacher with its checkpoint's weights, or with random ones."""
    torch.manual_seed(options.seed)
    detector = build_detector(config)
    if options.checkpoint is None:
        draw_weights(detector)
        return detector, TeacherWeights(seed=options.seed)
    load_official(detector, options.checkpoint)
    return detector, TeacherWeights(checkpoint=Path(options.checkpoint))


def open_store(path: StorePath, spec: StoreSpec, planned: Mapping[str, int]) -> StoreWriter | None:
    """The store at that path, begun by the same dump; None when there is none yet.

    Raises:
        FingerprintMismatch: another dump began it; names the parts or the scenes that differ.
    """
    try:
        return open_begun(
            path,
            spec,
            planned,
            fault=f"{path} was begun by another dump",
            way_out="Give this dump what that one was given, or another --out; or remove that store.",
        )
    except StoreNotFound:
        return None


def create_store(path: StorePath, spec: StoreSpec, planned: Mapping[str, int]) -> StoreWriter:
    """A new store, unless another process of the same dump is quicker: then the one that it made."""
    try:
        return StoreWriter.create(path, spec, planned=planned)
    except AlreadyPublished:
        writer = open_store(path, spec, planned)
        if writer is None:
            raise
        return writer


def require_published(own: Sequence[str], missing: Sequence[str], store: StorePath) -> None:
    """Raise SampleMissing when scenes of this process's part are not there, although it has dumped them."""
    left = [name for name in own if name in set(missing)]
    if left:
        raise SampleMissing(
            f"{store} still lacks {some(left)}, which this dump had to publish.\n"
            "Look at what stands in their place in its folder of scenes, then run the same command again."
        )


def unpublished(index: SplitIndex, writer: StoreWriter | None) -> SplitIndex:
    """The scenes that a store does not hold yet."""
    return index.select([n for n in index.scene_names if writer is None or not writer.is_published(n)])
