"""What a dump costs and saves, worked out before anything is spent.

Live distillation runs the teacher on every frame of the student's queue in every step; a dump runs it on
every frame once, and every epoch reads the store instead.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache_schema.array_spec import DETECTION, QUERY, ArraySpec
from cache_schema.errors import CacheError
from cache_schema.inspection.planned_arrays import planned_arrays
from cache_schema.inspection.tables import aligned, bytes_text, shape_text
from cache_schema.profiles import PROFILES, stored_arrays
from cache_schema.zarr_metadata import samples_per_shard

# Samples and scenes of the official splits of nuScenes.
SPLITS = {
    ("v1.0-trainval", "train"): (28_130, 700),
    ("v1.0-trainval", "val"): (6_019, 150),
    ("v1.0-mini", "mini_train"): (323, 8),
    ("v1.0-mini", "mini_val"): (81, 2),
    ("v1.0-test", "test"): (6_008, 150),
}
LIVE_FRAMES = 4  # teacher forwards a sample in live distillation: the queue of the released recipe


@dataclass(frozen=True, kw_only=True)
class FocalShares:
    """What is assumed of a `focal` store: shares in [0, 1] of map cells and queries that are kept."""

    cells: float
    queries: float
    background_block: int


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a dump and the trainings on it come to. Hours are None when the teacher's speed is not known."""

    samples: int
    scenes: int
    arrays: tuple[tuple[ArraySpec, int], ...]  # with the bytes of a sample that are expected
    files: int
    epochs: int
    dump_hours: float | None
    live_hours_per_epoch: float | None
    read_hours_per_epoch: float

    @property
    def bytes_per_sample(self) -> int:
        """Before compression."""
        return sum(n_bytes for _, n_bytes in self.arrays)

    @property
    def pays_after_epochs(self) -> float | None:
        """Epochs from which on the dump was cheaper; None when reading takes longer than the live teacher.

        Reading counts in full, although data workers do most of it while the student computes.
        """
        if self.dump_hours is None or self.live_hours_per_epoch is None:
            return 1 / LIVE_FRAMES
        saved = self.live_hours_per_epoch - self.read_hours_per_epoch
        return self.dump_hours / saved if saved > 0 else None


def costs(
    config: Path,
    *,
    version: str,
    split: str,
    profile: str,
    groups: Sequence[str],
    shares: FocalShares,
    fps: float | None,
    epochs: int,
    gpus: int,
    read_gb_s: float,
) -> Costs:
    """Work it out. Raises CacheError for an unknown split, profile or detector, or an unreadable config."""
    if (version, split) not in SPLITS:
        known = "; ".join(f"{known_version} {known_split}" for known_version, known_split in SPLITS)
        raise CacheError(f"no official split {split} of {version}; known: {known}")
    if profile not in PROFILES:
        raise CacheError(f"no profile {profile}; known: {', '.join(PROFILES)}")
    samples, scenes = SPLITS[version, split]
    given = planned_arrays(config, groups)
    stored = stored_arrays(profile, given, shares.background_block)
    arrays = tuple((array, _expected_bytes(array, shares)) for array in stored)
    all_bytes = samples * sum(n_bytes for _, n_bytes in arrays)
    forward_hours = None if fps is None else samples / (fps * gpus) / 3600
    return Costs(
        samples=samples,
        scenes=scenes,
        arrays=arrays,
        files=_files(stored, samples, scenes),
        epochs=epochs,
        dump_hours=forward_hours,
        live_hours_per_epoch=None if forward_hours is None else LIVE_FRAMES * forward_hours,
        read_hours_per_epoch=all_bytes / (read_gb_s * 1e9) / 3600,
    )


def _expected_bytes(array: ArraySpec, shares: FocalShares) -> int:
    if not array.ragged:
        return array.bytes_per_sample
    if array.role == DETECTION:
        return array.bytes_per_sample  # a detector gives all that there is room for, however unsure
    share = shares.queries if array.role == QUERY else shares.cells
    return array.n_chunks(round(array.shape[0] * share)) * array.chunk_nbytes


def _files(arrays: Sequence[ArraySpec], samples: int, scenes: int) -> int:
    """Files of the root and of all scenes, taken to be of equal length; without those of the teacher head."""
    short, n_long = divmod(samples, scenes)
    return 3 + sum(
        n_scenes * (2 + sum(1 + -(-length // samples_per_shard(array, length)) for array in arrays))
        for length, n_scenes in ((short, scenes - n_long), (short + 1, n_long))
        if n_scenes
    )


def as_text(found: Costs, *, profile: str, fps: float | None, gpus: int, shares: FocalShares) -> str:
    """The plan for people, with everything that was assumed."""
    rows = [("array", "dtype", "shape of a sample", "bytes/sample", "whole split")]
    for array, n_bytes in found.arrays:
        shape = ("≤ " if array.ragged else "") + shape_text(array.shape)
        rows.append((array.name, array.dtype, shape, f"{n_bytes:,}", bytes_text(n_bytes * found.samples)))
    total = found.bytes_per_sample
    rows.append(("all", "", "", f"{total:,}", bytes_text(total * found.samples)))
    facts = [
        ("samples", f"{found.samples:,} in {found.scenes} scenes"),
        ("bytes", f"{bytes_text(total * found.samples)} before compression, which gains little"),
        ("files", f"{found.files:,}, besides some hundreds of the teacher's head"),
        ("teacher forwards", f"{found.samples:,}; live, {LIVE_FRAMES * found.samples * found.epochs:,}"),
        ("reading", f"{found.read_hours_per_epoch:.3g} h an epoch, if nothing hid it"),
    ]
    if found.dump_hours is None:
        facts.append(("dump", "give --fps, frames a second of the teacher on one device, for hours"))
        facts.append(("pays after", f"{found.pays_after_epochs:g} epochs, by teacher forwards alone"))
    else:
        live = found.live_hours_per_epoch * found.epochs
        cached = found.dump_hours + found.read_hours_per_epoch * found.epochs
        pays = found.pays_after_epochs
        where = f"{gpus} {'device' if gpus == 1 else 'devices'} at {fps:g} frames/s each"
        facts += [
            ("dump", f"{found.dump_hours:.3g} h on {where}"),
            ("live teacher", f"{live:.1f} h over {found.epochs} epochs; dump and reading {cached:.1f} h"),
            (
                "pays after",
                "never: reading takes longer than the teacher" if pays is None else f"{pays:.2f} epochs",
            ),
        ]
    lines = [*aligned(rows, right=(3, 4)), "", *aligned(facts)]
    if profile == "focal":
        lines += [
            "",
            "Assumed, and to be changed with --kept-cells, --kept-queries and --background-block:",
            f"{shares.cells:.1%} of the cells and {shares.queries:.1%} of the queries are kept,"
            f" background in blocks of {shares.background_block} cells.",
        ]
    return "\n".join(lines)
