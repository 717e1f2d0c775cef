"""The order of a stream's frames: each slot in time, every frame once an epoch, histories that end."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
from detr3d_cases import shrunk_detector as without_state
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from camera3d.data import SegmentFrame
from camera3d.errors import ConfigInvalid
from train.engine.segments import SegmentOptions, SegmentSampler, history_of

KEYFRAME_US = 500_000


def index_of(lengths: Sequence[int], gaps_after: Sequence[int] = ()) -> SimpleNamespace:
    """As much of an index as a sampler looks at; after these rows three seconds pass."""

    class Index(SimpleNamespace):
        def __len__(self) -> int:
            return sum(lengths)

    ends = np.cumsum(lengths)
    steps = np.full(ends[-1], KEYFRAME_US)
    steps[[row + 1 for row in gaps_after]] = 3_000_000
    scenes = [
        SimpleNamespace(first=int(end) - n, stop=int(end)) for n, end in zip(lengths, ends, strict=True)
    ]
    return Index(columns={"timestamp_us": np.cumsum(steps)}, scene_rows=scenes)


def scene_of(lengths: Sequence[int], row: int) -> int:
    return int(np.searchsorted(np.cumsum(lengths), row, side="right"))


def walk(
    lengths: Sequence[int],
    *,
    slots: int = 1,
    world: int = 1,
    rank: int = 0,
    epoch: int = 0,
    seed: int = 0,
    start: int = 0,
    gaps_after: Sequence[int] = (),
    length: int = 5,
    single: int = 0,
) -> tuple[SegmentSampler, list[list[SegmentFrame]]]:
    """The sampler, and the steps of an epoch with the frames of a rank's slots."""
    sampler = SegmentSampler(
        index_of(lengths, gaps_after),
        SegmentOptions(length=length, single_frame_steps=single),
        batch_size=slots,
        seed=seed,
        rank=rank,
        world=world,
    )
    sampler.set_epoch(epoch, start)
    frames = list(sampler)
    return sampler, [frames[at : at + slots] for at in range(0, len(frames), slots)]


PLACES = {
    "lengths": st.lists(st.integers(1, 12), min_size=1, max_size=8),
    "slots": st.integers(1, 3),
    "seed": st.integers(0, 2**31),
    "epoch": st.integers(0, 50),
    "length": st.integers(2, 9),
}


@given(world=st.integers(1, 3), **PLACES)
def test_every_frame_once_and_little_twice(world, lengths, **place):
    ranks = [walk(lengths, rank=rank, world=world, **place) for rank in range(world)]
    assert len({len(steps) for _, steps in ranks}) == 1, "ranks would wait for each other"
    sampler = ranks[0][0]
    assert sampler.length <= place["length"]
    assert len(sampler) == sum(map(len, ranks[0][1]))
    rows = [frame.row for _, steps in ranks for frames in steps for frame in frames]
    assert set(rows) == set(range(sum(lengths)))
    # Less than a frame a segment is seen twice.
    assert 0 <= len(rows) - sum(lengths) < len(rows) / sampler.length
    assert max(map(rows.count, rows)) <= 1 + -(-(len(rows) - sum(lengths)) // sum(lengths))


@given(**PLACES)
def test_every_slot_walks_in_time_and_its_history_ends_with_scene_and_segment(lengths, slots, **place):
    sampler, steps = walk(lengths, slots=slots, **place)
    for slot in range(slots):
        frames = [step[slot] for step in steps]
        for at, frame in enumerate(frames):
            begins = at % sampler.length == 0
            before = None if begins else frames[at - 1]
            if (
                before is None
                or frame.row != before.row + 1
                or scene_of(lengths, frame.row) != scene_of(lengths, before.row)
            ):
                assert frame.first == frame.row
            else:
                assert frame.first == before.first < frame.row


@given(world=st.integers(1, 4), **PLACES)
def test_a_step_sees_the_same_whoever_has_its_slots(world, slots, **place):
    _, alone = walk(slots=slots * world, **place)
    ranks = [walk(slots=slots, world=world, rank=rank, **place)[1] for rank in range(world)]
    dealt = [
        [frame for row in zip(*parts, strict=True) for frame in row] for parts in zip(*ranks, strict=True)
    ]
    assert dealt == alone


@given(segments=st.integers(0, 4), **PLACES)
def test_a_later_start_leaves_out_exactly_what_was_seen(segments, slots, **place):
    sampler, whole = walk(slots=slots, **place)
    seen = min(segments, sampler.rounds) * sampler.resumable_steps
    assert walk(slots=slots, start=seen * slots, **place)[1] == whole[seen:]


def test_it_does_not_start_within_a_segment():
    with pytest.raises(ValueError, match="segments of 5 frames"):
        walk([10], start=3)


def test_epochs_and_seeds_differ_in_order_and_in_cuts():
    walks = [walk([8, 8, 8, 8], seed=seed, epoch=epoch)[1] for seed in range(4) for epoch in range(4)]
    assert len({str(steps) for steps in walks}) == len(walks)
    starts = {step[0].row % 8 for steps in walks for step in steps if step[0].row == step[0].first}
    assert starts == set(range(8)), "some frames always see a history"


def test_slots_start_anew_at_different_steps():
    begins = [
        [frame.row == frame.first for frame in step]
        for epoch in range(9)
        for step in walk([4, 2], slots=2, epoch=epoch)[1]
    ]
    assert begins[0] == [True, True]
    assert [True, False] in begins or [False, True] in begins


def test_a_gap_ends_a_history():
    for epoch in range(5):
        frames = [step[0] for step in walk([10], gaps_after=[5], epoch=epoch, length=10)[1]]
        (after,) = (frame for frame in frames if frame.row == 6)
        assert after.first == 6
        assert all(frame.first >= 6 for frame in frames if frame.row > 6)
    assert any(
        frame.first < 6 < frame.row
        for epoch in range(5)
        for (frame,) in walk([10], epoch=epoch, length=10)[1]
    )


def test_the_first_steps_see_single_frames():
    (_, first), (_, second) = (walk([10, 10], single=13, epoch=epoch) for epoch in (0, 1))
    plain = walk([10, 10])[1]
    assert [step[0].row for step in first] == [step[0].row for step in plain]
    assert all(step[0].first == step[0].row for step in first[:13])
    assert first[13][0].first == first[12][0].row, "what the last single frame left behind is used"
    assert first[15:] == plain[15:]
    assert second == walk([10, 10], epoch=1)[1]


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"history": "streaming"}, "history: expected one of queue, stream, got 'streaming'"),
        ({"history": "stream", "segment_length": 1}, "segment_length: expected a whole number, 2 or more"),
        ({"history": "stream", "segment_length": 2.5}, "segment_length: expected a whole number"),
        (
            {"history": "stream", "single_frame_steps": -1},
            "single_frame_steps: expected a whole number, 0 or",
        ),
        ({"history": "stream", "class_balanced": True}, "class_balanced: draws single frames"),
        ({"history": "stream"}, r"DETR3D has none: take history='queue', where queue_length=1"),
    ],
)
def test_what_cannot_be_is_refused(config, says):
    with pytest.raises(ConfigInvalid, match=says):
        history_of(Config(config), without_state())


def test_a_detector_without_state_trains_from_queues():
    detector = without_state()
    for config in ({}, {"history": "queue", "segment_length": 1}):
        assert type(history_of(Config(config), detector)) is type(detector.history)
