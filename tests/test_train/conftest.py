"""A teacher, its dataset and stores, made once for all tests of training; one thread for each."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """See train_cases.Workshop."""
    from train_cases import make_workshop

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        made = make_workshop(tmp_path_factory.mktemp("workshop"))
        for profile in ("exact", "compact", "focal"):
            made.store(profile)
    finally:
        torch.set_num_threads(before)
    return made


@pytest.fixture(scope="module")
def one_thread():
    """Equal sums in equal order, and no fight for the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
