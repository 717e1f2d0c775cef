"""Targets that the data workers have read from a store."""

from __future__ import annotations

from collections.abc import Mapping

from mmdet3d.structures import Det3DDataSample
from torch import Tensor

from train.targets import TargetLayout, TeacherTargets


class CacheSource:
    """Hands on what `CachedTargets` read and the preprocessor moved to the device.

    Args:
        layout: of the store.
    """

    def __init__(self, layout: TargetLayout) -> None:
        self.layout = layout

    def targets(
        self,
        inputs: Mapping[str, Tensor],
        data_samples: list[Det3DDataSample],
        extras: Mapping[str, list],
    ) -> TeacherTargets:
        """See TargetSource."""
        return TeacherTargets(extras["targets"], self.layout)
