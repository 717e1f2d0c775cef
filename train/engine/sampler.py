"""Which frames come in which order, so that a killed run goes on with exactly the next one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import Sampler


class ResumableSampler(Sampler[int]):
    """A shuffled epoch, dealt out to the ranks, from any position on.

    The order depends on seed and epoch alone. Rank r takes every world-th frame, so that a step sees the same
    frames whether one process takes two of them or two processes take one each.

    Args:
        rows: of the dataset, some perhaps several times; the epoch is filled up with its own beginning
            to a multiple of `world`.

    Attributes:
        resumable_steps: a training can be resumed after every multiple of this many steps.
    """

    resumable_steps = 1

    def __init__(self, rows: Sequence[int], *, seed: int, rank: int = 0, world: int = 1) -> None:
        self.rows, self.seed, self.rank, self.world = torch.as_tensor(rows), seed, rank, world
        self.epoch, self.start = 0, 0

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration is of this epoch and leaves out this rank's first `start` frames."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Frames of a whole epoch for one rank."""
        return -(-len(self.rows) // self.world)

    def __iter__(self) -> Iterator[int]:
        # A large odd step between seeds: neighbouring seeds share no epoch.
        rng = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = self.rows[torch.randperm(len(self.rows), generator=rng)]
        total = len(self) * self.world
        rows = order.repeat(-(-total // len(order)))[self.rank : total : self.world]
        return iter(rows[self.start :].tolist())


def class_balanced_rows(labels: Sequence[Collection[int]], num_classes: int, *, seed: int) -> list[int]:
    """Rows of an epoch in which every class has equally many frames, drawn from those that show it.

    A frame counts for each class that it shows, so the epoch has as many frames as there are pairs of a frame
    and a class that it shows: some four times the frames of nuScenes.
    Source: Zhu et al., Class-balanced Grouping and Sampling, arXiv:1908.09492, section 3.1, as mmdet3d's
    CBGSDataset draws it; from a seed here.

    Args:
        labels: of each frame the classes that it shows.
    """
    rng = np.random.default_rng([seed, 0xCB65])
    showing = [[row for row, shown in enumerate(labels) if label in shown] for label in range(num_classes)]
    each = int(sum(map(len, showing)) / num_classes)
    return [int(row) for rows in showing if rows for row in rng.choice(rows, each)]
