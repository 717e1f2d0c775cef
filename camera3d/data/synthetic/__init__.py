"""Synthetic scenes in nuScenes' own format: everything the devkit and our readers need, drawn from a seed.

`generate` writes the dataset; `python -m camera3d.data.synthetic` is the same as a command.
"""

from camera3d.data.synthetic.generate import generate
from camera3d.data.synthetic.options import TRAIN_SPLIT, VAL_SPLIT, VERSION

__all__ = ["TRAIN_SPLIT", "VAL_SPLIT", "VERSION", "generate"]
