"""Losses and gradients that are not finite, at chosen steps.

As a command, `train_faults.py RANK STEP ARGUMENTS…`, a distillation with one in one process.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from unittest import mock

import torch

from train.distill_from_cache import main
from train.distillers.terms import FocalTerm


@contextmanager
def not_finite(steps: Collection[int], *, gradient_only: bool = False) -> Iterator[None]:
    """The focal term of these steps, counted from 1, is NaN; or is fine and has a gradient that is not."""
    original, calls = FocalTerm.forward, [0]

    def forward(self, step):
        losses = original(self, step)
        calls[0] += 1
        if calls[0] in steps:
            own = step.student_bev
            losses["loss_focal"] = (
                losses["loss_focal"] + (own.sum() * 0).sqrt() if gradient_only else own.sum() * torch.nan
            )
        return losses

    with mock.patch.object(FocalTerm, "forward", forward):
        yield


if __name__ == "__main__":
    torch.set_num_threads(1)
    with not_finite([int(sys.argv[2])] if os.environ["RANK"] == sys.argv[1] else []):
        sys.exit(main(sys.argv[3:]))
