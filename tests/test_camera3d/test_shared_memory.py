"""Batches that shared memory cannot hold are refused in a sentence, before a worker is killed over them."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from camera3d.data import shared_memory
from camera3d.data.shared_memory import RoomForBatches, fitting, nbytes_of
from camera3d.data.worker_errors import TellingLoader
from camera3d.errors import SharedMemoryShort

Pair = namedtuple("Pair", "left right")
Usage = namedtuple("Usage", "free")


class Ones(Dataset):
    def __len__(self) -> int:
        return 4

    def __getitem__(self, row: int) -> torch.Tensor:
        return torch.ones(250)


def collate(items: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"ones": torch.stack(items)}


@pytest.fixture
def free(monkeypatch, tmp_path):
    """Says how much is free."""
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path)
    return lambda nbytes: monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: Usage(nbytes))


def loaded(workers: int) -> list[object]:
    loader: DataLoader = TellingLoader(
        Ones(), batch_size=2, num_workers=workers, collate_fn=RoomForBatches(collate)
    )
    return list(loader)


def test_all_tensors_are_counted():
    half = torch.zeros(3, dtype=torch.float16)
    assert nbytes_of({"a": [half, Pair(half, None)], "b": (torch.zeros(2, 2), "text", 7), "c": {}}) == 28


def test_a_worker_without_room_says_so(free):
    free(4_500)
    with pytest.raises(
        SharedMemoryShort, match=r"2 workers × 2 batches × 0.0 MB = 0 MB.*--workers.*shm-size"
    ):
        loaded(2)


def test_what_fits_is_handed_on(free):
    free(6_000)
    assert [len(batch["ones"]) for batch in loaded(2)] == [2, 2]


def test_nothing_is_asked_without_workers(free):
    free(0)
    assert len(loaded(0)) == 2


def test_systems_without_such_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "SHARED_MEMORY", tmp_path / "none")
    batch = {"ones": torch.ones(3)}
    assert fitting(batch, 8) is batch
