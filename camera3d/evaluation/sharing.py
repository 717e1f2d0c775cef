"""Evaluation by several processes: who takes which scenes, and how their detections come together.

Objects travel through a gloo group of its own, whatever backend the training uses: they live on the CPU, and
while the first process scores, the others wait longer than a training's group would let them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta

import torch.distributed as dist

PATIENCE = timedelta(hours=4)


class Ranks:
    """The processes that evaluate together; without torch.distributed, this one alone."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self._group = group
        self.rank = 0 if group is None else dist.get_rank()
        self.world_size = 1 if group is None else dist.get_world_size()

    def gather(self, value: object) -> list[object] | None:
        """Every process's value, in the order of ranks, on the first one; None on the others."""
        if self._group is None:
            return [value]
        values = [None] * self.world_size if self.rank == 0 else None
        dist.gather_object(value, values, dst=0, group=self._group)
        return values

    def from_first(self, value: object) -> object:
        """The value of the first process, everywhere."""
        if self._group is None:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, group=self._group)
        return values[0]


@contextlib.contextmanager
def all_ranks() -> Iterator[Ranks]:
    """The processes of torch.distributed, if it is initialised. Every process has to enter."""
    if not (dist.is_available() and dist.is_initialized()):
        yield Ranks(None)
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield Ranks(group)
    finally:
        dist.destroy_process_group(group)
