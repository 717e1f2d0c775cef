"""Fixtures that tests of several packages share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

# Test modules are imported by path, so a helper module beside them is only found this way.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _own_cache_home(tmp_path_factory, monkeypatch) -> None:
    """Nothing that a test keeps between runs lands in the user's home."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("xdg")))


@pytest.fixture(scope="session")
def tiny_nuscenes(tmp_path_factory) -> Callable[..., Path]:
    """A factory: `tiny_nuscenes(scenes={"scene-0061": 4}, can_bus=True, ...)` writes a dataroot, returns it.

    The arguments are those of `write_nuscenes` in nuscenes_tables.py; every call makes a fresh folder.
    """
    from nuscenes_tables import write_nuscenes

    return lambda **options: write_nuscenes(tmp_path_factory.mktemp("nuscenes"), **options)
