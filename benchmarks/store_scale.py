"""What opening a sealed store and reading it at random costs, from a hundred scenes to a hundred thousand.

    python benchmarks/store_scale.py --folder /dev/shm

Tiny arrays, 40 samples a scene. Root, index and seal are those of the whole store; of its scenes only those
are made that the reads come upon, and the digests of the others are random. Every row is measured in
processes of its own, files are in the page cache. Writes benchmarks/results/store_scale.md.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import ROOT, markdown_table, publish
from store_scale_steps import WORKERS
from tqdm import tqdm

from cache_schema import files
from cache_schema.seal import make_seal, write_seal
from cache_schema.store_index import StoreIndex
from cache_schema.writer import StoreWriter

sys.path.insert(0, str(ROOT / "tests" / "test_cache_schema"))
from store_cases import SMALL_ARRAYS, sample_values, small_spec

PER_SCENE = 40
TARGET_S, TARGET_MB = 2.0, 300
OPENS = 4  # in each turn, of which the one counts that other work disturbed least

ARRAYS = tuple(replace(array, compressed=False) for array in SMALL_ARRAYS)


def tokens_of(n_scenes: int) -> np.ndarray:
    """(scenes × PER_SCENE,) tokens of 32 hexadecimal digits, as nuScenes has them."""
    digests = np.random.default_rng(n_scenes).bytes(16 * n_scenes * PER_SCENE).hex().encode()
    return np.frombuffer(digests, "S32")


def write(path: Path, n_scenes: int, n_reads: int) -> list[str]:
    """A store of that many scenes; returns the tokens of n_reads samples, whose scenes are really there."""
    scene_names = [f"scene-{number:06}" for number in range(n_scenes)]
    tokens = tokens_of(n_scenes)
    chosen = np.random.default_rng(1).permutation(len(tokens))[:n_reads]
    writer = StoreWriter.create(path, small_spec(ARRAYS), planned=dict.fromkeys(scene_names, PER_SCENE))
    values = sample_values("the same in all", ARRAYS)
    digests = np.random.default_rng(2).integers(0, 256, (n_scenes, 32), np.uint8)
    for number in tqdm(sorted({*(chosen // PER_SCENE).tolist()}), desc=f"{n_scenes} scenes"):
        own = [token.decode() for token in tokens[number * PER_SCENE : (number + 1) * PER_SCENE]]
        samples = [(token, 500_000 * row) for row, token in enumerate(own)]
        with writer.scene(scene_names[number], f"{number}", samples) as scene:
            for token in own:
                scene.append(token, values)
        manifest = (path / "scenes" / scene_names[number] / "manifest.json").read_bytes()
        digests[number] = np.frombuffer(hashlib.sha256(manifest).digest(), np.uint8)
    index = StoreIndex.of_arrays(
        np.array([name.encode() for name in scene_names]), np.full(n_scenes, PER_SCENE), digests, tokens
    )
    write_seal(path, make_seal(path, index), index)
    return [tokens[number].decode() for number in chosen]


def fresh(step: str, path: Path) -> dict[str, float]:
    """What a step finds in a process of its own."""
    command = [sys.executable, str(ROOT / "benchmarks" / "store_scale_steps.py"), step, str(path)]
    command += [str(path.with_suffix(".json"))]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def measure(folder: Path, counts: list[int], n_reads: int, repeats: int) -> list[list[str]]:
    """Rows of the table; the stores take turns, as the machine may have other work."""
    stores = {n: folder / f"{n}.zarr" for n in counts}
    for n, path in stores.items():
        path.with_suffix(".json").write_text(json.dumps(write(path, n, n_reads)))
    found: dict[int, list[dict[str, float]]] = {n: [] for n in counts}
    for _ in range(repeats):
        for n, path in stores.items():
            found[n].append(fresh("read", path) | fresh("share", path))
            found[n][-1] |= min((fresh("open", path) for _ in range(OPENS)), key=lambda run: run["open"])
    rows = []
    first = {}
    for n, runs in found.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        first = first or middle
        least = min(run["open"] for run in runs)
        met = least <= TARGET_S and middle["Rss MB"] <= TARGET_MB
        rows.append(
            [
                f"{n:,}",
                f"{n * PER_SCENE:,}",
                f"{(stores[n] / 'index.bin').stat().st_size / 1e6:.1f}",
                f"{least:.3f}",
                f"{middle['computing']:.3f}",
                f"{middle['Rss MB']:.0f}",
                f"{middle['before MB']:.0f}",
                f"{middle['peak MB']:.0f}",
                f"{middle['worker MB']:.0f}",
                f"{1e6 * middle['look-up']:.0f}",
                f"{middle['rate']:,.0f}",
                f"{middle['ms a sample']:.2f}",
                f"{first['ms a sample'] / middle['ms a sample']:.2f}",
                "ok" if met else "**missed**",
            ]
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scenes", type=int, nargs="+", default=[100, 1_000, 10_000, 100_000], metavar="N")
    parser.add_argument("--reads", type=int, default=1_000, metavar="N", help="samples (default 1000)")
    parser.add_argument("--repeats", type=int, default=3, help="turns (default 3)")
    parser.add_argument("--folder", type=Path, metavar="F", help="where the stores go (default: TMPDIR)")
    args = parser.parse_args(argv)
    files.sync_to_disk = lambda descriptor: None  # nothing here is kept
    folder = Path(tempfile.mkdtemp(dir=args.folder))
    try:
        rows = measure(folder, args.scenes, args.reads, args.repeats)
    finally:
        shutil.rmtree(folder)
    columns = (
        "scenes",
        "samples",
        "index, MB",
        "open, least s",
        "of it computing",
        "RSS, MB",
        "of it imports",
        "peak, MB",
        "worker's own, MB",
        "look-up, µs",
        "samples/s",
        "computing, ms a sample",
        "speed to the first row's",
        f"< {TARGET_S:.0f} s, < {TARGET_MB} MB",
    )
    cores = f"load average {os.getloadavg()[0]:.0f} on {os.cpu_count()} cores"
    body = (
        f"Medians of {args.repeats} turns; {cores}, so `open` is the least of {args.repeats * OPENS}, and "
        "what was computed is given too. It ends when the first sample can be asked for, the digest of the "
        "index tested. RSS is that of the process then. `worker's own` is the private memory of one of "
        f"{WORKERS} forked workers after its reads. {args.reads:,} samples are read in random order. Speed "
        "is compared by what was computed: from a thousand scenes on hardly two samples are of one scene, "
        f"so each opens a manifest and {len(ARRAYS)} shards, most of which a reader of a hundred scenes has "
        f"open.\n\n{markdown_table(columns, rows)}"
    )
    publish("store_scale", "A sealed store from a hundred to a hundred thousand scenes", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
