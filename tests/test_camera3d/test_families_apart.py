"""A detector family is a folder: no other folder of detectors knows it by name."""

from __future__ import annotations

from pathlib import Path

import pytest

DETECTORS = Path(__file__).parents[2] / "camera3d/detectors"
FAMILIES = ("bevdepth", "bevformer", "detr3d", "image2d")


@pytest.mark.parametrize("folder", [*FAMILIES, "query_based"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_folder_names_another_family(folder, family):
    files = sorted((DETECTORS / folder).rglob("*.py"))
    assert files
    if folder != family:
        naming = [file.name for file in files if family in file.read_text().lower()]
        assert naming == []
