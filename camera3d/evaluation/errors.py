"""What can be wrong with results, and with what they are to be compared with."""

from __future__ import annotations

from camera3d.errors import Camera3DError


class ResultsIncomplete(Camera3DError):
    """Results that lack samples of the split they are to be scored on."""


class ResultsInvalid(Camera3DError):
    """Detections that the official format cannot hold, or a file that is not in that format."""


class NothingToScore(Camera3DError):
    """The split has no ground truth here."""


class ResultsUnwritable(Camera3DError):
    """The folder for results does not let us write."""
