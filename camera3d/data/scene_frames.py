"""The frames of many scenes, read ahead by worker processes and handed out scene by scene."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.data import Dataset

from camera3d.data.datasets import streaming_frames
from camera3d.data.images import ImagePipeline
from camera3d.data.split_index import Scene, SplitIndex
from camera3d.data.streaming import StreamingItem
from camera3d.data.worker_errors import Failure, TellingLoader, or_failure


class _GuardedFrames(Dataset):
    """Frames or failures."""

    def __init__(self, frames: Dataset) -> None:
        self._frames = frames

    def __getitem__(self, row: int) -> StreamingItem | Failure:
        return or_failure(lambda: self._frames[row])


class SceneFrames:
    """Scenes with their frames, in the order of the index.

    The worker processes start here and not later: what the caller opens afterwards, locks above all, is none
    of theirs.

    Args:
        workers: processes that read images ahead; with 0 they are read when they are asked for.
        pin_memory: whether a GPU will copy from the frames.
        skip: asked for a scene's name when its first frame is about to be read; true leaves it out.
    """

    def __init__(
        self,
        index: SplitIndex,
        pipeline: ImagePipeline,
        dataroot: str | Path,
        *,
        workers: int,
        pin_memory: bool = False,
        skip: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self._index = index
        self._skip = skip
        self._begun: deque[Scene] = deque()
        loader = TellingLoader(
            _GuardedFrames(streaming_frames(index, pipeline, dataroot)),
            batch_size=None,
            sampler=_Rows(self._rows),
            num_workers=workers,
            pin_memory=pin_memory,
            prefetch_factor=2 if workers else None,
            worker_init_fn=_leave_signals_to_parent,
            # Otherwise the loader draws a seed, and a training that evaluates sees other random numbers.
            generator=torch.Generator(),
        )
        self._items = iter(loader)

    def _rows(self) -> Iterator[int]:
        for scene, rows in zip(self._index.scenes, self._index.scene_rows, strict=True):
            if not self._skip(scene.name):
                self._begun.append(scene)
                yield from range(rows.first, rows.stop)

    def __iter__(self) -> Iterator[tuple[Scene, Iterator[StreamingItem]]]:
        """Each scene with its frames. Take all frames of a scene before the next scene.

        Raises as reading a frame does, whichever process read it.
        """
        for first in self._items:
            scene = self._begun.popleft()
            yield scene, self._frames_of(scene, first)

    def _frames_of(self, scene: Scene, first: StreamingItem) -> Iterator[StreamingItem]:
        for number in range(len(scene.frames)):
            yield next(self._items) if number else first


@dataclass(frozen=True)
class _Rows:
    """A sampler that decides as late as it can."""

    rows: Callable[[], Iterator[int]]

    def __iter__(self) -> Iterator[int]:
        return self.rows()


def _leave_signals_to_parent(worker: int) -> None:
    # Ctrl-C reaches every process of the terminal; a worker that dies of it hides the reason from its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # With SIGTERM the parent ends its workers: it must not do there what it does in the parent.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
