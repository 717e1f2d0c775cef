"""What the teacher said about a sample: read by data workers, checked first, unpacked on the device."""

from train.targets.cached import CachedTargets
from train.targets.checks import TargetsUnfit, check_areas, check_store
from train.targets.layout import TargetLayout
from train.targets.teacher_targets import TeacherTargets

__all__ = ["CachedTargets", "TargetLayout", "TargetsUnfit", "TeacherTargets", "check_areas", "check_store"]
