"""The writer's thread: bounded, honest about its errors, and never in the way of the next frame."""

import threading
from types import SimpleNamespace

import pytest
from dump_cases import temporary
from store_cases import sample_list, sample_values, small_spec, write_scene

from cache_schema.errors import NotFinite
from cache_schema.reader import TargetReader
from cache_schema.writer import StoreWriter
from extract.background import DEPTH, BackgroundWriter

LIMIT_S = 30


@pytest.fixture
def store(tmp_path):
    return StoreWriter.create(tmp_path / "teacher.zarr", small_spec())


def scene(name, n_samples=3):
    """A scene as far as the writer looks at one."""
    frames = [
        SimpleNamespace(sample_token=token, timestamp_us=at) for token, at in sample_list(name, n_samples)
    ]
    return SimpleNamespace(name=name, token=f"{name}-scene-token", frames=frames)


def send(background, name, n_samples=3, arrays=sample_values):
    """Begin a scene and append all of it."""
    background.begin(scene(name, n_samples))
    for token, _ in sample_list(name, n_samples):
        background.append(token, lambda token=token: arrays(token))


def test_scenes_arrive(store):
    with BackgroundWriter(store) as background:
        send(background, "a", 1)
        send(background, "b", 4)
    assert (background.scenes, background.samples) == (2, 5)
    assert len(TargetReader(store.path)) == 5
    for token in TargetReader(store.path).sample_tokens:
        TargetReader(store.path).read(token)


def test_writing_does_not_hold_the_caller_up_and_the_queue_is_bounded(store):
    may_write = threading.Event()
    sent = []

    def slow_disk(token):
        assert may_write.wait(LIMIT_S)
        return sample_values(token)

    def produce():
        with BackgroundWriter(store) as background:
            background.begin(scene("a", 8))
            for token, _ in sample_list("a", 8):
                background.append(token, lambda token=token: slow_disk(token))
                sent.append(token)

    producer = threading.Thread(target=produce)
    producer.start()
    # One is in the thread's hands and DEPTH wait, before anything was written; the next one has to wait.
    in_flight = DEPTH + 1
    limit = threading.Event()
    for _ in range(LIMIT_S * 100):
        if len(sent) == in_flight or limit.wait(0.01):
            break
    assert len(sent) == in_flight
    assert not limit.wait(0.2)
    assert len(sent) == in_flight
    may_write.set()
    producer.join(LIMIT_S)
    assert len(sent) == 8
    assert store.published_scenes() == ["a"]


def test_error_of_the_thread_reaches_the_caller_and_discards_the_scene(store):
    def poisoned(token):
        values = sample_values(token)
        if token == "b-token1":
            values["bev_feats"][0] = float("nan")
        return values

    sent = []

    def produce(background):
        send(background, "a")
        background.begin(scene("b", 1000))
        for token, _ in sample_list("b", 1000):
            background.append(token, lambda token=token: poisoned(token))
            sent.append(token)

    with pytest.raises(NotFinite, match=r"scene b, sample b-token1, array bev_feats"):  # noqa: SIM117
        with BackgroundWriter(store) as background:
            produce(background)
    assert len(sent) < 1000
    assert store.published_scenes() == ["a"]
    assert temporary(store.path) == []


def test_error_after_the_last_sample(store, monkeypatch):
    def full(self):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cache_schema.scene_writer.SceneWriter.finish", full)
    with pytest.raises(OSError, match="No space"), BackgroundWriter(store) as background:
        send(background, "a")
    assert store.published_scenes() == temporary(store.path) == []


def test_leaving_with_an_exception_discards_the_scene_in_flight(store):
    def interrupted(background):
        send(background, "a")
        background.begin(scene("b"))
        background.append("b-token0", lambda: sample_values("b-token0"))
        background.append("b-token1", lambda: sample_values("b-token1"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), BackgroundWriter(store) as background:
        interrupted(background)
    assert "b" not in store.published_scenes()
    assert temporary(store.path) == []
    assert not any(thread.name == "store-writer" for thread in threading.enumerate())


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_scene_that_another_process_publishes_is_left_to_it(store, when):
    def overtaken(token):
        if when == "meanwhile" and token == "a-token1":
            write_scene(StoreWriter.open(store.path), "a", 3)
        return sample_values(token)

    if when == "before":
        write_scene(store, "a", 3)
    with BackgroundWriter(store) as background:
        send(background, "a", arrays=overtaken)
        send(background, "b")
    assert store.published_scenes() == ["a", "b"]
    assert (background.scenes, background.samples) == (1, 3)
    assert temporary(store.path) == []
