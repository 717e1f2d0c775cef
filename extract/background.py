"""Store samples on a thread of its own, while the detector sees the next frame."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from cache_schema.errors import AlreadyPublished
from cache_schema.writer import StoreWriter
from camera3d.data import Scene
from extract.focal_areas import Kept

# One sample is being written, one waits, one is being made: more would only cost memory, since in the long
# run the slower side decides.
DEPTH = 1
NOTHING_CHOSEN = Kept()


@dataclass(frozen=True)
class _Sample:
    token: str
    arrays: Callable[[], Mapping[str, np.ndarray]]
    kept: Kept


class _Abandoned(Exception):
    """The producer has given up; ends the scene in flight, which discards it."""


class BackgroundWriter:
    """Writes whole scenes, in the order they are begun; use it in a `with` block.

    `begin` and `append` return as soon as the bounded queue has room: a slow disk slows the caller and never
    fills the memory. What goes wrong on the thread is raised by the next call, or at the end of the block.
    Leaving the block with an exception discards the scene in flight; leaving it without waits for the disk.

    Attributes:
        samples, scenes: published so far.
    """

    def __init__(self, store: StoreWriter, depth: int = DEPTH) -> None:
        self.samples = 0
        self.scenes = 0
        self._store = store
        self._queue: queue.Queue[Scene | _Sample | None] = queue.Queue(depth)
        self._abandoned = False
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="store-writer")

    def begin(self, scene: Scene) -> None:
        """Announce a scene; all its samples must follow before the next one."""
        self._put(scene)

    def append(
        self, sample_token: str, arrays: Callable[[], Mapping[str, np.ndarray]], kept: Kept = NOTHING_CHOSEN
    ) -> None:
        """Hand over the next sample of the scene.

        Args:
            arrays: called on the thread; may wait for a copy.
            kept: for profile `focal`, what to keep of the sample.

        Raises whatever the thread failed with.
        """
        self._put(_Sample(sample_token, arrays, kept))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._abandoned = kind is not None
        try:
            # The thread takes until it is given None, come what may: this cannot block for ever.
            self._queue.put(None)
            self._thread.join()
        except BaseException:
            self._abandoned = True
            raise
        if kind is None and self._error is not None:
            raise self._error

    def _put(self, message: Scene | _Sample) -> None:
        self._queue.put(message)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        message: object = True
        try:
            while (message := self._queue.get()) is not None:
                self._write(message)
        except _Abandoned:
            message = None
        except BaseException as error:
            self._error = error
        while message is not None:
            message = self._queue.get()

    def _write(self, scene: Scene) -> None:
        samples = [(frame.sample_token, frame.timestamp_us) for frame in scene.frames]
        n_taken = 0
        try:
            with self._store.scene(scene.name, scene.token, samples) as open_scene:
                while n_taken < len(samples):
                    sample = self._take()
                    n_taken += 1
                    kept = sample.kept
                    open_scene.append(
                        sample.token, sample.arrays(), areas=kept.areas, confident=kept.confident
                    )
        except AlreadyPublished:
            # Another process was quicker, and wrote the same.
            for _ in range(n_taken, len(samples)):
                self._take()
        else:
            self.samples += len(samples)
            self.scenes += 1

    def _take(self) -> _Sample:
        sample = self._queue.get()
        if sample is None:
            raise _Abandoned
        if self._abandoned:
            while self._queue.get() is not None:
                pass
            raise _Abandoned
        return sample
