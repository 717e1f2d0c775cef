"""Fix what decides the last bits of a number, so that two runs that write a store agree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import torch

# A sum on a CPU depends on the number of threads. A constant, and not the machine's cores or the launcher's
# OMP_NUM_THREADS, so that a dump may be continued with more processes, or on another machine of its kind.
DEFAULT_THREADS = 4


# One of the two settings with which cuBLAS sums in one order; another one of the user's is left alone.
WORKSPACE = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


@contextlib.contextmanager
def deterministic_kernels(*, warn_only: bool) -> Iterator[None]:
    """Kernels that repeat themselves; as before after the block.

    Enter it before CUDA starts: cuBLAS reads its setting once, when first used, and torch insists on it.

    Args:
        warn_only: an operation that has no such kernel warns and runs, and does not raise RuntimeError.
    """
    os.environ.setdefault(*WORKSPACE)
    switches = [
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
        # Costs time and is for finding bugs: no result depends on it.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    ]
    was_strict = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    with switched(switches):
        try:
            torch.use_deterministic_algorithms(True, warn_only=warn_only)
            yield
        finally:
            torch.use_deterministic_algorithms(was_strict, warn_only=only_warned)


@contextlib.contextmanager
def switched(switches: Sequence[tuple[object, str, object]]) -> Iterator[None]:
    """Attributes of these objects set to these values, and back."""
    before = [(where, name, getattr(where, name)) for where, name, _ in switches]
    try:
        for where, name, value in switches:
            setattr(where, name, value)
        yield
    finally:
        for where, name, value in before:
            setattr(where, name, value)


@contextlib.contextmanager
def fixed_numerics(threads: int | None = None) -> Iterator[int]:
    """Full float32, deterministic kernels, a known number of threads (yielded); as before after the block.

    With a GPU, an operation that has no deterministic form raises RuntimeError instead of varying.
    """
    threads, threads_before = threads or DEFAULT_THREADS, torch.get_num_threads()
    in_float32 = [
        (torch.backends.cuda.matmul, "allow_tf32", False),
        (torch.backends.cudnn, "allow_tf32", False),
    ]
    with deterministic_kernels(warn_only=False), switched(in_float32):
        try:
            torch.set_num_threads(threads)
            yield threads
        finally:
            torch.set_num_threads(threads_before)
