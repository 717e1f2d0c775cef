"""What the teacher said about a sample: checked first, read by data workers or computed, then unpacked."""

from train.targets.cached import CachedTargets, CacheSource
from train.targets.checks import TargetsUnfit, check_areas, check_store
from train.targets.layout import TargetLayout
from train.targets.live import DistortedLiveSource, LiveSource
from train.targets.teacher_targets import TeacherTargets
from train.targets.warp import TargetWarp

__all__ = [
    "CacheSource",
    "CachedTargets",
    "DistortedLiveSource",
    "LiveSource",
    "TargetLayout",
    "TargetWarp",
    "TargetsUnfit",
    "TeacherTargets",
    "check_areas",
    "check_store",
]
