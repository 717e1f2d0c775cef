"""Fix what decides the last bits of a number, so that two runs of a dump agree."""

from __future__ import annotations

import os

import torch


def fix_numerics(threads: int | None = None) -> int:
    """Full float32, deterministic kernels, a known number of threads; returns that number.

    Results on a CPU depend on the number of threads, and launchers set OMP_NUM_THREADS behind one's back:
    the number is set here, and recorded in the store.
    """
    threads = threads or os.cpu_count() or 1
    torch.set_num_threads(threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    return threads
