"""Which frames come in which order, so that a killed run goes on with exactly the next one."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class ResumableSampler(Sampler[int]):
    """A shuffled epoch, dealt out to the ranks, from any position on.

    The order depends on seed and epoch alone. Rank r takes every world-th frame, so that a step sees the same
    frames whether one process takes two of them or two processes take one each.

    Args:
        length: frames of the dataset; the epoch is filled up with its own beginning to a multiple of `world`.
    """

    def __init__(self, length: int, *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length, self.seed, self.rank, self.world = length, seed, rank, world
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration is of this epoch and leaves out this rank's first `start` frames."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Frames of a whole epoch for one rank."""
        return -(-self.length // self.world)

    def __iter__(self) -> Iterator[int]:
        # A large odd step between seeds: neighbouring seeds share no epoch.
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=rng)
        total = len(self) * self.world
        rows = order.repeat(-(-total // self.length))[self.rank : total : self.world]
        return iter(rows[self.start :].tolist())
