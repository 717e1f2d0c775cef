"""The exceptions of camera3d: one small tree.

Entry scripts turn a `Camera3DError` into its message and exit code 2; anything else is a bug and keeps its
traceback. Every message names the file, the value and the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

SHOWN_AT_MOST = 10


class Camera3DError(Exception):
    """Something the user can put right: a path, a table, a config, a checkpoint."""


class DatasetNotFound(Camera3DError):
    """No such dataroot or version, or its tables cannot be read."""


class SplitMismatch(Camera3DError):
    """The split is unknown, or belongs to another version of the dataset."""


class ImagesBroken(Camera3DError):
    """Image files are missing, truncated or unreadable.

    Attributes:
        paths: every broken file, as the tables name it; the message shows the first ten.
        reasons: why, in the same order.
    """

    def __init__(self, message: str, broken: Sequence[tuple[str, str]] = ()):
        super().__init__(message)
        self.paths = tuple(path for path, _ in broken)
        self.reasons = tuple(reason for _, reason in broken)

    def __reduce__(self):
        # Raised inside data workers: the default would lose the list on the way to the parent process.
        return type(self), (self.args[0], tuple(zip(self.paths, self.reasons, strict=True)))


class InputsPartial(Camera3DError):
    """Some scenes have an input that the detector reads, and others lack it."""


class DataWorkerDied(Camera3DError):
    """A process that reads images and targets ahead was killed."""


class SharedMemoryShort(Camera3DError):
    """The batches that data workers keep ready do not fit into shared memory."""


class SceneGap(Camera3DError):
    """The keyframes of a scene are not one unbroken, evenly spaced chain."""


class SampleUnknown(Camera3DError):
    """A scene name or sample token that the index does not hold."""


class CheckpointMismatch(Camera3DError):
    """A state dict does not fit the detector: missing, unexpected or misshapen entries."""


class ConfigInvalid(Camera3DError):
    """A config or option has a value that cannot work."""


class StartUnfit(Camera3DError):
    """A teacher's head does not fit the student's. `faults` has a line for each reason."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__(f"the head cannot start from the teacher's:\n{shown(self.faults)}")


class OutputsNotFinite(Camera3DError):
    """A detector's predictions of a sample are NaN or infinite."""


class ShapeMismatch(Camera3DError):
    """An array does not have the shape that its consumer needs."""


def shown(lines: Iterable[str], limit: int = SHOWN_AT_MOST) -> str:
    """The lines indented one below the other, the first `limit` of them and a count of the rest."""
    lines = list(lines)
    text = "\n".join(f"  {line}" for line in lines[:limit])
    return text if len(lines) <= limit else f"{text}\n  ... and {len(lines) - limit} more"
