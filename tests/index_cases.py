"""What tests of the index share."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from camera3d.data import NuScenesIndex
from camera3d.data.index import COLUMNS, Frame


def assert_same(left: NuScenesIndex, right: NuScenesIndex) -> None:
    for name in ("version", "split", "scene_rows", "class_names", "camera_names", "notes"):
        assert getattr(left, name) == getattr(right, name)
    for name in COLUMNS:
        np.testing.assert_array_equal(left.columns[name], right.columns[name], err_msg=name)
        assert left.columns[name].dtype.kind == right.columns[name].dtype.kind
    assert {f.name for f in fields(Frame)} == set(vars(left[0]))
