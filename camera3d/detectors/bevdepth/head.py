"""The BEV encoder and the detection heads: maps of what stands where, for each group of classes.

Shapes: B batch, C channels, Y X cells of the BEV map.
Source: Li et al., BEVDepth, AAAI 2023; Yin et al., CenterPoint, CVPR 2021 (heads). Parameter names are those
of the official checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from mmcv.cnn import ConvModule
from torch import Tensor, nn

HEATMAP = "heatmap"
# Numbers of each branch; `heatmap` follows, with one a class.
BRANCHES: Mapping[str, int] = {"reg": 2, "height": 1, "dim": 3, "rot": 2, "vel": 2}


def task_output(task: int, branch: str) -> str:
    """The name of a head's map among a detector's outputs."""
    return f"task{task}_{branch}"


class TaskHead(nn.Module):
    """The branches of one group of classes.

    Args:
        classes: how many; heatmap_bias: where its logits start, None leaves PyTorch's default.
    """

    def __init__(self, channels: int, classes: int, heatmap_bias: float | None) -> None:
        super().__init__()
        for name, numbers in {**BRANCHES, HEATMAP: classes}.items():
            conv = ConvModule(channels, channels, 3, padding=1, bias=False, norm_cfg={"type": "BN2d"})
            self.add_module(name, nn.Sequential(conv, nn.Conv2d(channels, numbers, 3, padding=1)))
        if heatmap_bias is not None:
            nn.init.constant_(self.heatmap[-1].bias, heatmap_bias)

    def forward(self, feats_BCYX: Tensor) -> dict[str, Tensor]:
        """By branch (B, numbers, Y, X)."""
        return {name: branch(feats_BCYX) for name, branch in self.named_children()}


class BEVDepthHead(nn.Module):
    """Encodes the pooled BEV map and predicts from it.

    Args:
        trunk: a ResNet whose stem has no max-pooling here; its stages go to the neck after the map itself.
        neck: gives one map of the size of the pooled one.
        tasks: how many classes each group has.
    """

    def __init__(
        self,
        *,
        trunk: nn.Module,
        neck: nn.Module,
        bev_channels: int,
        tasks: Sequence[int],
        channels: int = 64,
        heatmap_bias: float | None = -2.19,
    ) -> None:
        super().__init__()
        self.trunk, self.neck = trunk, neck
        self.shared_conv = ConvModule(
            bev_channels, channels, 3, padding=1, bias=False, norm_cfg={"type": "BN2d"}
        )
        self.task_heads = nn.ModuleList(TaskHead(channels, classes, heatmap_bias) for classes in tasks)

    def init_weights(self) -> None:
        """The encoder's own start; the heads keep that of their making."""
        self.trunk.init_weights()
        self.neck.init_weights()

    def encode(self, lifted_BCYX: Tensor) -> Tensor:
        """The BEV map behind the encoder, as large as the pooled one."""
        with torch.autocast(lifted_BCYX.device.type, enabled=False):
            x = lifted_BCYX.float()
            maps, x = [x], self.trunk.relu(self.trunk.norm1(self.trunk.conv1(x)))
            for name in self.trunk.res_layers:
                x = getattr(self.trunk, name)(x)
                maps.append(x)
            (bev,) = self.neck(maps)
        return bev

    def forward(self, bev_BCYX: Tensor) -> dict[str, Tensor]:
        """The heads' maps, float32, by `task_output`."""
        with torch.autocast(bev_BCYX.device.type, enabled=False):
            shared = self.shared_conv(bev_BCYX.float())
            return {
                task_output(number, branch): values
                for number, head in enumerate(self.task_heads)
                for branch, values in head(shared).items()
            }
