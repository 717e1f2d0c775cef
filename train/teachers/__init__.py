"""Where the teacher's outputs of a batch come from: a store, or the teacher in the loop."""

from train.teachers.cache import CacheSource
from train.teachers.live import DistortedLiveSource, LiveSource

__all__ = ["CacheSource", "DistortedLiveSource", "LiveSource"]
