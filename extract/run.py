"""From the options of a dump to its report: load everything, check everything, then run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from cache_schema.errors import FingerprintMismatch
from cache_schema.spec import StoreSpec
from cache_schema.writer import StoreWriter
from camera3d.checkpoint import load_official
from camera3d.data import ImagePipeline, NuScenesIndex, check_images, load_or_build_index
from camera3d.detectors import Detector, build_detector
from camera3d.detectors.builder import load_config
from camera3d.errors import ConfigInvalid
from extract.engine import DumpReport, dump
from extract.numerics import fix_numerics
from extract.store_spec import ARRAY_GROUPS, TeacherWeights, build_store_spec


@dataclass(frozen=True, kw_only=True)
class DumpOptions:
    """What the command line says. Either `checkpoint` or `seed` of an untrained teacher is given."""

    config: str
    dataroot: str
    version: str
    split: str
    out: str
    checkpoint: str | None = None
    seed: int = 0
    device: str = "cpu"
    arrays: Sequence[str] = ARRAY_GROUPS
    scenes: Sequence[str] | None = None
    workers: int = 2
    threads: int | None = None
    max_gap_s: float = 0.9


def run_dump(options: DumpOptions) -> tuple[DumpReport, StoreSpec]:
    """Load the teacher and the split, then dump. Nothing is written before everything has been checked."""
    index = load_or_build_index(options.dataroot, options.version, options.split, max_gap_s=options.max_gap_s)
    if options.scenes:
        index = index.select(options.scenes)
    return dump_index(options, index)


def dump_index(options: DumpOptions, index: NuScenesIndex) -> tuple[DumpReport, StoreSpec]:
    """`run_dump` for an index that is there already."""
    device = checked_device(options.device)
    threads = fix_numerics(options.threads)
    config = load_config(options.config)
    pipeline = ImagePipeline.from_config(config.inputs)
    check_images(options.dataroot, index.frames())
    detector, weights = load_teacher(options, config)
    spec = build_store_spec(
        detector=detector,
        config=config,
        pipeline=pipeline,
        index=index,
        weights=weights,
        groups=options.arrays,
        device=device,
        threads=threads,
    )
    writer = open_store(Path(options.out), spec)
    head = {key: value.float().cpu().numpy() for key, value in detector.distillation_head().items()}
    writer.write_teacher_head(head)
    report = dump(detector, index, pipeline, options.dataroot, writer, device=device, workers=options.workers)
    return report, spec


def load_teacher(options: DumpOptions, config: object) -> tuple[Detector, TeacherWeights]:
    """The teacher with its checkpoint's weights, or with random ones."""
    torch.manual_seed(options.seed)
    detector = build_detector(config)
    if options.checkpoint is None:
        detector.init_weights()
        return detector, TeacherWeights(seed=options.seed)
    load_official(detector, options.checkpoint)
    return detector, TeacherWeights(checkpoint=Path(options.checkpoint))


def open_store(path: Path, spec: StoreSpec) -> StoreWriter:
    """A new store, or the one at that path if the same dump began it.

    Raises:
        FingerprintMismatch: the store at that path was begun by another dump; names the parts that differ.
    """
    if not path.exists():
        return StoreWriter.create(path, spec)
    writer = StoreWriter.open(path)
    ours, theirs = spec.to_dict(), writer.spec.to_dict()
    different = [part for part in ours if ours[part] != theirs.get(part)]
    if different:
        raise FingerprintMismatch(
            f"{path} was begun by another dump: {', '.join(different)} differ.\n"
            "Give another --out, or remove that store."
        )
    return writer


def checked_device(name: str) -> torch.device:
    """The device of that name. Raises ConfigInvalid when this machine does not have it."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigInvalid(f"--device {name}: {error}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigInvalid(f"--device {name}: choose cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigInvalid(
            f"--device {name}: torch {torch.__version__} sees no CUDA device; use --device cpu"
        )
    return device
