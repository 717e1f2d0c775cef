"""Synthetic scenes in nuScenes' own format: everything the devkit and our readers need, drawn from a seed.

`generate` writes the dataset; `python -m synthetic_nuscenes` is the same as a command.
"""

from synthetic_nuscenes.generate import generate
from synthetic_nuscenes.options import TRAIN_SPLIT, VAL_SPLIT, VERSION

__all__ = ["TRAIN_SPLIT", "VAL_SPLIT", "VERSION", "generate"]
