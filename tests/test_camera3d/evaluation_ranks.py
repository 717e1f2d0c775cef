"""One of several processes that evaluate together; started by test_evaluation_detector.py.

Usage: evaluation_ranks.py DATAROOT OUT RANK WORLD_SIZE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch.distributed as dist
from evaluation_cases import PIPELINE, VERSION, SeesTheTruth

from camera3d.data import build_index
from camera3d.errors import ImagesBroken
from camera3d.evaluation import evaluate_detector


def main(dataroot: str, out: str, rank: int, world_size: int) -> None:
    dist.init_process_group("gloo", init_method=f"file://{out}/rendezvous", rank=rank, world_size=world_size)
    index = build_index(dataroot, VERSION, "all")
    detector = SeesTheTruth(index)
    options = {"version": VERSION, "split": "all", "device": "cpu", "workers": 0, "progress": False}
    metrics = evaluate_detector(detector, index, PIPELINE, dataroot, out_dir=f"{out}/metrics", **options)
    print(json.dumps({"metrics": metrics.to_dict(), "seen": detector.seen}))  # noqa: T201
    # A frame of one process cannot be read: all must hear of it, or the others would wait for hours.
    dist.barrier()
    if rank == 0:
        (Path(dataroot) / index.scenes[0].frames[0].image_paths[0]).unlink()
    dist.barrier()
    try:
        evaluate_detector(detector, index, PIPELINE, dataroot, out_dir=None, **options)
    except ImagesBroken as error:
        print(json.dumps({"error": str(error)}))  # noqa: T201
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
