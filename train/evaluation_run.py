"""From the options of an evaluation to its metrics: check everything that is quick, then load and run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from cache_schema.detections import DETECTION_SCORES
from cache_schema.layers import open_layer
from cache_schema.reader import TargetReader
from camera3d.checkpoint import load_official
from camera3d.data import DatasetChoice, ImagePipeline
from camera3d.data.coco.folder import ANNOTATIONS, annotation_file
from camera3d.data.coco.reader import open_coco
from camera3d.data.datasets import COCO
from camera3d.data.devkit import open_nuscenes
from camera3d.data.worker_errors import worker_deaths_told
from camera3d.detectors import Detections
from camera3d.detectors.builder import build_detector, load_config
from camera3d.devices import checked_device, process_group, told
from camera3d.errors import ConfigInvalid
from camera3d.evaluation import (
    CocoMetrics,
    Metrics,
    evaluate_detections,
    evaluate_detector,
    evaluate_pictures,
    score,
    score_results_file,
)
from camera3d.evaluation.coco import picture_tokens
from camera3d.evaluation.results_file import check_coverage, check_writable
from camera3d.evaluation.score import split_tokens
from camera3d.evaluation.submission import check_class_names
from train.engine.data import require_images
from train.targets.stored_detections import check_replayable, stored_detections


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What the command line says. One of `config` with `checkpoint`, `from_cache` and `results` is given."""

    dataroot: str
    version: str
    split: str
    config: str | None = None
    checkpoint: str | None = None
    from_cache: str | None = None
    layer: str | None = None  # of the store, whose detections are scored
    expect_digest: str | None = None  # of the store, or its first 12 digits or more
    results: str | None = None
    out: str | None = None
    device: str | None = None  # a GPU where there is one
    workers: int = 2
    max_gap_s: float = 0.9
    check_images: bool = False


def run_evaluation(options: EvaluationOptions) -> Metrics | CocoMetrics:
    """The metrics of what the options name; under torchrun the same in every process.

    Raises:
        CacheError, Camera3DError: something the user can put right.
    """
    check_options(options)
    if options.out is not None:
        check_writable(options.out)
    where = (options.dataroot, options.version, options.split)
    if options.results is not None:
        scored = score_results_file if is_list(options.results) else score
        return scored(options.results, *where, options.out)
    if options.from_cache is not None:
        if looks_like_nuscenes(options.dataroot, options.version):
            DatasetChoice().require_split(*where)  # before a store is opened, which may be far away
        return evaluate_cache(options)
    return evaluate_checkpoint(options)


def looks_like_nuscenes(dataroot: str, version: str) -> bool:
    """Whether a folder has tables, and no COCO-format annotations beside them."""
    return (Path(dataroot) / version).is_dir() and not (Path(dataroot) / ANNOTATIONS).is_dir()


def is_list(path: str) -> bool:
    """Whether a results JSON is COCO's, a list of boxes; nuScenes' is an object."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(100).lstrip().startswith("[")
    except (OSError, UnicodeDecodeError):
        return False  # told of by who reads it


def check_options(options: EvaluationOptions) -> None:
    """Raise ConfigInvalid when the options do not name one thing to evaluate, or cannot work."""
    sources = (options.checkpoint, options.from_cache, options.results)
    if sum(source is not None for source in sources) != 1 or (options.config is None) != (
        options.checkpoint is None
    ):
        raise ConfigInvalid(
            "name one thing to evaluate: a config with --checkpoint, or --from-cache STORE, or --results FILE"
        )
    if options.expect_digest is not None and options.from_cache is None:
        raise ConfigInvalid("--expect-digest concerns a store: name it with --from-cache, or leave it out")
    if options.layer is not None and options.from_cache is None:
        raise ConfigInvalid("--layer concerns a store: name it with --from-cache, or leave it out")
    if options.check_images and options.config is None:
        raise ConfigInvalid("--check-images needs a detector that sees images: leave it out here")
    if options.workers < 0:
        raise ConfigInvalid(f"--workers {options.workers}: must be 0 or more")
    if options.checkpoint is None and _world_size() > 1:
        raise ConfigInvalid("only a checkpoint is evaluated by several processes; start this one with python")


def evaluate_checkpoint(options: EvaluationOptions) -> Metrics | CocoMetrics:
    """Predict with a plain detector, strictly loaded, and score."""
    device = told(checked_device(options.device))
    config = load_config(options.config)
    dataset = DatasetChoice.from_config(config)
    dataset.require_split(options.dataroot, options.version, options.split)
    pipeline = ImagePipeline.from_config(config.inputs)
    detector = build_detector(config)
    load_official(detector, options.checkpoint)
    index = dataset.index(options.dataroot, options.version, options.split, max_gap_s=options.max_gap_s)
    pipeline.require_fit(*index.image_sizes)
    with process_group(device, tensors=False), worker_deaths_told():
        if options.check_images:
            require_images(options.dataroot, index)
        return evaluate_detector(
            detector,
            index,
            pipeline,
            options.dataroot,
            version=options.version,
            split=options.split,
            out_dir=options.out,
            device=device,
            workers=options.workers,
        )


def evaluate_cache(options: EvaluationOptions) -> Metrics | CocoMetrics:
    """Score what the teacher of a store, or the head of one of its layers, detected.

    Raises ResultsIncomplete when it lacks samples of the split, with their count and the first tokens.
    """
    reader = TargetReader(options.from_cache, expect_digest=options.expect_digest)
    if options.layer is not None:
        reader = open_layer(reader, options.layer)
        if DETECTION_SCORES not in {array.name for array in reader.spec.arrays}:
            raise ConfigInvalid(
                f"--layer {options.layer}: it has no detections of its own; leave --layer out"
            )
    check_replayable(reader)
    DatasetChoice(type=reader.spec.dataset.name).require_split(
        options.dataroot, options.version, options.split
    )
    class_names = reader.spec.outputs.class_names
    if reader.spec.dataset.name == COCO:
        coco = open_coco(annotation_file(options.dataroot, options.version, options.split))
        return evaluate_pictures(
            replayed(reader, picture_tokens(coco), options),
            class_names,
            options.dataroot,
            version=options.version,
            split=options.split,
            out_dir=options.out,
            coco=coco,
        )
    check_class_names(class_names)
    nusc = open_nuscenes(options.dataroot, options.version)
    tokens = split_tokens(nusc, options.split)
    return evaluate_detections(
        replayed(reader, tokens, options),
        class_names,
        options.dataroot,
        version=options.version,
        split=options.split,
        out_dir=options.out,
        nusc=nusc,
    )


def replayed(
    reader: TargetReader, tokens: Sequence[str], options: EvaluationOptions
) -> Iterator[tuple[str, Detections]]:
    """The stored detections of all samples of a split.

    Raises ResultsIncomplete, and ResultsUnwritable, before the first.
    """
    check_coverage(reader.sample_tokens, tokens, f"store {reader.path}", options.split)
    check_writable(options.out, len(tokens))
    return stored_detections(reader, tqdm(tokens, unit="sample", desc="replay"))


def _world_size() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))
