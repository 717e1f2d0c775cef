"""Which boxes the branches of a checkpoint speak, and how to make them speak ours.

Two forms of the same keys and shapes are about. The original code trains on legacy boxes: its branches answer
in the official encoding of camera3d.boxes, and so do ours. The port to mmdet3d 1.x trains on that version's
boxes: l before w, and the right-handed yaw. Its released checkpoints are of that form, and so is what its
converter makes of an original one. The last layer of a box branch is linear, so four of its rows are all that
differs; the weights themselves do not tell.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from camera3d.checkpoint import Checkpoint
from camera3d.errors import CheckpointMismatch, ConfigInvalid

CHOICES = ("auto", "official", "mmdet3d")
BRANCHES = "pts_bbox_head.reg_branches"

# What the port's converter leaves in `meta`; it keeps all else that the original's file says there.
CONVERTED = "detr3d_convert_tag"
# mmengine writes the config of a training as text: the port's names its head, one of ours this option.
HEAD_OF_PORT = "DETR3DHead"
OPTION = "checkpoint_boxes"


def check_choice(choice: str) -> str:
    """The choice itself. Raises ConfigInvalid when it is none of CHOICES."""
    if choice not in CHOICES:
        raise ConfigInvalid(f"model.{OPTION} is {choice!r}: choose one of {', '.join(CHOICES)}")
    return choice


def box_form(checkpoint: Checkpoint, choice: str) -> str:
    """`official` or `mmdet3d`: what the box branches of a checkpoint answer in.

    With `auto` the file's `meta` decides. Where it says nothing that speaks for mmdet3d 1.x the weights are
    official: the original's files, plain ones as our own training exports, state dicts in memory.

    Raises:
        CheckpointMismatch: `auto` and it cannot be told; or `meta` says otherwise than `choice`.
    """
    told = _told(checkpoint.meta)
    if choice != "auto":
        if told not in (None, choice):
            raise CheckpointMismatch(
                f"{checkpoint.source} predicts {told} boxes by its own record, but model.{OPTION} is"
                f" {choice!r}. Nothing was loaded; leave model.{OPTION} at 'auto'."
            )
        return choice
    if told is not None:
        return told
    newer = _newer_code(checkpoint.meta)
    if newer is None:
        return "official"
    raise CheckpointMismatch(
        f"{checkpoint.source} does not say which boxes it predicts, and both forms have the same keys and"
        f" shapes; it was written by {newer}. Nothing was loaded.\n"
        f"Set model.{OPTION}='mmdet3d' in the config if it was trained or converted with mmdet3d 1.x (l"
        f" before w, right-handed yaw), model.{OPTION}='official' if it follows the original code."
    )


def _told(meta: Mapping[str, object]) -> str | None:
    """The form that a record proves, or None."""
    if meta.get(CONVERTED):
        return "mmdet3d"
    config = str(meta.get("cfg", "")) if "mmengine_version" in meta else ""
    if HEAD_OF_PORT in config:
        return "mmdet3d"
    return "official" if OPTION in config else None


def _newer_code(meta: Mapping[str, object]) -> str | None:
    """The code that wrote the file, if it came after the change of the boxes."""
    if "mmengine_version" in meta:
        return f"mmengine {meta['mmengine_version']}"
    version = str(meta.get("mmdet3d_version", "0"))
    return None if version.startswith("0") else f"mmdet3d {version}"


def exchange_box_rows(weights: Mapping[str, Tensor], reg_branches: nn.ModuleList) -> dict[str, Tensor]:
    """The same weights with box branches that speak the other form; applied twice, nothing has changed.

    Width and length change places. With yaw' = -yaw - π/2, sin yaw' = -cos yaw and cos yaw' = -sin yaw, so
    sine and cosine change places and sign.
    """
    exchanged = dict(weights)
    for layer, branch in enumerate(reg_branches):
        for kind in ("weight", "bias"):
            key = f"{BRANCHES}.{layer}.{len(branch) - 1}.{kind}"
            x, y, third, fourth, z, height, sin, cos, vx, vy = weights[key].unbind(0)
            exchanged[key] = torch.stack((x, y, fourth, third, z, height, -cos, -sin, vx, vy))
    return exchanged
