"""A distillation whose unsmoothed losses go into a file a process: `train_steps.py OUT ARGUMENTS…`."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from train_cases import recorded_losses

from train.distill_from_cache import main

if __name__ == "__main__":
    torch.set_num_threads(1)
    with recorded_losses() as steps:
        code = main(sys.argv[2:])
    Path(f"{sys.argv[1]}.{os.environ['RANK']}.json").write_text(json.dumps(steps))
    sys.exit(code)
