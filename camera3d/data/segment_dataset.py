"""The training samples of a stream: single frames, whose history the training carries from step to step."""

from __future__ import annotations

from typing import NamedTuple

from camera3d.data.queue_dataset import NuScenesQueueDataset


class SegmentFrame(NamedTuple):
    """What a sampler asks for: a frame, and where the history that it is given begins.

    Attributes:
        row: of the frame.
        first: row of the frame, `row` or one before it in the scene, that was seen without history.
    """

    row: int
    first: int


class NuScenesSegmentDataset(NuScenesQueueDataset):
    """Frames of an index, each with its motion since the frame before, in queues of one.

    All frames that share a history share its photometric distortion and its augmentation too, drawn for each
    camera: a scene whose colours jump from frame to frame is none that a detector meets. Frames without
    ground truth are kept: the next ones need their state.

    Args:
        options: of NuScenesQueueDataset, but for those of a queue.
    """

    def __init__(self, *args: object, **options: object):
        super().__init__(*args, **options, queue_length=1, drop_history_frame=False, filter_empty_gt=False)

    def __getitem__(self, asked: SegmentFrame) -> dict[str, object]:
        """The frame as a queue of one, see NuScenesQueueDataset; `has_prev` is false at its history's start.

        Raises ImagesBroken when a file cannot be read.
        """
        previous = self.index.frame(asked.row - 1) if asked.row > asked.first else None
        # The same draws for every frame of a history: they do not depend on what is in an image.
        return self._item([asked.row], previous, self._draws(asked.first), self._augmented(asked.first))
