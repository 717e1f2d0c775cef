"""A head's command that dies at a sample of its layer, counted from 1: `head_killed.py SAMPLE ARGUMENTS…`."""

from __future__ import annotations

import os
import signal
import sys
from itertools import count

import torch

from cache_schema.scene_writer import SceneWriter
from train.train_distillation_head import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    append, samples = SceneWriter.append, count(1)

    def counted(self, *args, **options):
        if next(samples) == int(sys.argv[1]):
            os.kill(os.getpid(), signal.SIGKILL)
        return append(self, *args, **options)

    SceneWriter.append = counted
    sys.exit(main(sys.argv[2:]))
