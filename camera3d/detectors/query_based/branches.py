"""The class and box branches behind every decoder layer, and how much each box number counts.

Parameter names are those of the official checkpoints.
"""

from __future__ import annotations

import copy
import math

from torch import nn

# Centre x, y, log w, log l, z, log h, sin, cos count fully, the two velocities a fifth.
CODE_WEIGHTS = (1.0,) * 8 + (0.2,) * 2
FOREGROUND_PRIOR = 0.01


def class_branch(embed_dims: int, num_classes: int) -> nn.Sequential:
    """Linear, LayerNorm, ReLU twice, then the logits."""
    hidden = [
        layer
        for _ in range(2)
        for layer in (nn.Linear(embed_dims, embed_dims), nn.LayerNorm(embed_dims), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(*hidden, nn.Linear(embed_dims, num_classes))


def box_branch(embed_dims: int, code_size: int) -> nn.Sequential:
    """Linear, ReLU twice, then the box code."""
    hidden = [layer for _ in range(2) for layer in (nn.Linear(embed_dims, embed_dims), nn.ReLU(inplace=True))]
    return nn.Sequential(*hidden, nn.Linear(embed_dims, code_size))


def prediction_branches(
    num_layers: int, *, embed_dims: int, num_classes: int, code_size: int
) -> tuple[nn.ModuleList, nn.ModuleList]:
    """Class and box branches, one of each a decoder layer. All layers start from the same, as released.

    The class bias starts where every query is foreground with probability `FOREGROUND_PRIOR`.
    """
    classes = class_branch(embed_dims, num_classes)
    nn.init.constant_(classes[-1].bias, -math.log((1 - FOREGROUND_PRIOR) / FOREGROUND_PRIOR))
    boxes = box_branch(embed_dims, code_size)
    return (
        nn.ModuleList(copy.deepcopy(classes) for _ in range(num_layers)),
        nn.ModuleList(copy.deepcopy(boxes) for _ in range(num_layers)),
    )
