"""Fix what decides the last bits of a number, so that two runs that write a store agree."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

# A sum on a CPU depends on the number of threads. A constant, and not the machine's cores or the launcher's
# OMP_NUM_THREADS, so that a dump may be continued with more processes, or on another machine of its kind.
DEFAULT_THREADS = 4


@contextlib.contextmanager
def fixed_numerics(threads: int | None = None) -> Iterator[int]:
    """Full float32, deterministic kernels, a known number of threads (yielded); as before after the block.

    With a GPU, an operation that has no deterministic form raises RuntimeError instead of varying.
    """
    threads = threads or DEFAULT_THREADS
    # cuBLAS looks at this once, when it is first used, and torch insists on it.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    switches = [
        (torch.backends.cuda.matmul, "allow_tf32", False),
        (torch.backends.cudnn, "allow_tf32", False),
        (torch.backends.cudnn, "benchmark", False),
        (torch.backends.cudnn, "deterministic", True),
        # Costs time and is for finding bugs: no result depends on it.
        (torch.utils.deterministic, "fill_uninitialized_memory", False),
    ]
    before = [(where, name, getattr(where, name)) for where, name, _ in switches]
    threads_before = torch.get_num_threads()
    was_strict = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        for where, name, value in switches:
            setattr(where, name, value)
        torch.use_deterministic_algorithms(True)
        torch.set_num_threads(threads)
        yield threads
    finally:
        for where, name, value in before:
            setattr(where, name, value)
        torch.use_deterministic_algorithms(was_strict, warn_only=only_warned)
        torch.set_num_threads(threads_before)
