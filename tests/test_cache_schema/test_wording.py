"""Numbers in sentences."""

from __future__ import annotations

import pytest

from cache_schema.wording import counted


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 scenes"), (1, "1 scene"), (2, "2 scenes"), (28130, "28,130 scenes")]
)
def test_one_is_no_plural(number, text):
    assert counted(number, "scene") == text
