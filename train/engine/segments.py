"""Which frames a streaming training sees in which order: every batch slot walks segments of scenes in time.

An epoch lays all scenes end to end in a drawn order, cuts this line into segments of equal length, and deals
the segments out to the slots. All slots start a segment in the same step, without history: nothing has to be
remembered of a training between two segments.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from mmengine.config import Config
from torch.utils.data import Sampler

from camera3d.data import NuScenesIndex, SegmentFrame
from camera3d.data.scene_chain import MAX_GAP_S
from camera3d.detectors import Detector
from camera3d.detectors.history import History, QueueHistory, StreamHistory
from camera3d.errors import ConfigInvalid, shown

HISTORIES = ("queue", "stream")


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """How a training streams.

    Attributes:
        length: of a segment in frames, at most.
        single_frame_steps: how many steps at the start of the training see frames without history.
    """

    length: int = 20
    single_frame_steps: int = 500

    @classmethod
    def from_config(cls, config: Config) -> SegmentOptions | None:
        """What `history`, `segment_length` and `single_frame_steps` say; None where samples are queues.

        Raises ConfigInvalid with every bad value.
        """
        history = config.get("history", "queue")
        if history not in HISTORIES:
            raise ConfigInvalid(f"history: expected one of {', '.join(HISTORIES)}, got {history!r}")
        if history == "queue":
            return None
        options = cls(
            length=config.get("segment_length", cls.length),
            single_frame_steps=config.get("single_frame_steps", cls.single_frame_steps),
        )
        faults = [
            f"{name}: expected a whole number, {least} or more, got {value!r}"
            for name, value, least in (
                ("segment_length", options.length, 2),
                ("single_frame_steps", options.single_frame_steps, 0),
            )
            if not isinstance(value, int) or value < least
        ]
        if config.get("class_balanced", False):
            faults.append(
                "class_balanced: draws single frames, and a stream takes scenes as they are; leave it out"
            )
        if faults:
            raise ConfigInvalid(f"history='stream' cannot be:\n{shown(faults)}")
        return options


def history_of(config: Config, detector: Detector) -> History:
    """How a config's training sees the frames before.

    Raises ConfigInvalid: see SegmentOptions, and where there is no state to be carried.
    """
    if SegmentOptions.from_config(config) is None:
        return QueueHistory()
    if not detector.has_state:
        raise ConfigInvalid(
            f"history='stream' hands a state from frame to frame, and {type(detector).__name__} has none:"
            " take history='queue', where queue_length=1 shows each frame by itself"
        )
    return StreamHistory()


class SegmentSampler(Sampler[SegmentFrame]):
    """An epoch of segments for one rank, from any segment on.

    Segments have `length` frames: at most as many as asked for, and such that little is left over. The epoch
    is filled up with its own beginning to as many segments as there are slots, or a multiple: every frame
    comes once, some of them twice. A history ends with its segment, with its scene, and where frames lie
    further apart than an index takes for granted.

    Order and cuts depend on seed and epoch alone. Slot s is walked by rank s modulo `world`, so that a step
    sees the same frames whether one process has two slots or two processes have one each.

    Args:
        batch_size: slots of a rank.

    Attributes:
        length: of a segment.
        resumable_steps: a training can be resumed after every multiple of this many steps.
    """

    def __init__(
        self,
        index: NuScenesIndex,
        options: SegmentOptions,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.options, self.batch_size, self.seed = options, batch_size, seed
        self.rank, self.world = rank, world
        self.epoch, self.start = 0, 0
        self._begins = history_begins(index)
        frames, slots = len(index), batch_size * world
        self.rounds = -(-frames // (slots * options.length))
        self.length = self.resumable_steps = -(-frames // (slots * self.rounds))

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """The next iteration is of this epoch and leaves out this rank's first `start` frames.

        Raises ValueError when these end within a segment: what its frames saw is not known any more.
        """
        if start % (self.length * self.batch_size):
            raise ValueError(
                f"{start} frames: not a multiple of {self.batch_size} segments of {self.length} frames"
            )
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        """Frames of a whole epoch for one rank."""
        return self.rounds * self.length * self.batch_size

    def __iter__(self) -> Iterator[SegmentFrame]:
        rows, firsts = self._epoch_of_slots()
        mine = slice(self.rank, None, self.world)
        # Step by step, each with the frames of all slots.
        pairs = zip(rows[:, mine].ravel().tolist(), firsts[:, mine].ravel().tolist(), strict=True)
        for number, pair in enumerate(pairs):
            if number >= self.start:
                yield SegmentFrame(*pair)

    def _epoch_of_slots(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the frames and of their histories' firsts: (steps, slots) each."""
        rng = np.random.default_rng([self.seed, self.epoch, 0x5E6])
        slots, steps = self.batch_size * self.world, self.rounds * self.length
        line = self._line(rng)
        line = np.resize(np.roll(line, -rng.integers(len(line))), slots * steps)
        segments = rng.permutation(line.reshape(-1, self.length))
        # (round, slot, frame of the segment) to (step, slot).
        rows = segments.reshape(self.rounds, slots, self.length).swapaxes(1, 2)
        follows = np.zeros(rows.shape, dtype=bool)
        follows[:, 1:] = (rows[:, 1:] == rows[:, :-1] + 1) & ~self._begins[rows[:, 1:]]
        rows, follows = rows.reshape(steps, slots), follows.reshape(steps, slots)
        follows[: max(0, self.options.single_frame_steps - self.epoch * steps)] = False
        begun = np.maximum.accumulate(np.where(follows, 0, np.arange(steps)[:, None]), axis=0)
        return rows, np.take_along_axis(rows, begun, axis=0)

    def _line(self, rng: np.random.Generator) -> np.ndarray:
        """All rows, their unbroken runs in a drawn order."""
        runs = np.split(np.arange(len(self._begins)), np.flatnonzero(self._begins)[1:])
        return np.concatenate([runs[number] for number in rng.permutation(len(runs))])


def history_begins(index: NuScenesIndex) -> np.ndarray:
    """(frames,) bool: where a scene starts, or goes on after a gap that was allowed on purpose."""
    times_us = index.columns["timestamp_us"]
    begins = np.diff(times_us, prepend=times_us[:1]) > MAX_GAP_S * 1e6
    begins[[scene.first for scene in index.scene_rows]] = True
    return begins
