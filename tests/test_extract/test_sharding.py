"""Every scene belongs to exactly one process, and no process has much more to do than another."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from camera3d.errors import ConfigInvalid
from extract.sharding import Shard, process_shard, scenes_of

lengths = st.dictionaries(st.text("abc", min_size=1, max_size=4), st.integers(1, 40), max_size=30)


@given(n_samples=lengths, count=st.integers(1, 9))
def test_parts_are_a_partition_and_balanced(n_samples, count):
    parts = [scenes_of(Shard(number, count), n_samples) for number in range(count)]
    assert sorted(name for part in parts for name in part) == sorted(n_samples)
    loads = [sum(n_samples[name] for name in part) for part in parts]
    assert max(loads) - min(loads) <= max(n_samples.values(), default=0)
    assert parts[0] == scenes_of(Shard(0, count), dict(reversed(n_samples.items())))


def test_longest_first():
    n_samples = {"a": 5, "b": 4, "c": 3, "d": 3, "e": 3}
    assert [scenes_of(Shard(number, 2), n_samples) for number in (0, 1)] == [["a", "d"], ["b", "c", "e"]]


PROCESSES = {
    "alone": (None, {}, "1/1"),
    "option": ("2/4", {}, "2/4"),
    "torchrun": (None, {"RANK": "0", "WORLD_SIZE": "2"}, "1/2"),
    "torchrun within a part": ("2/2", {"RANK": "1", "WORLD_SIZE": "3"}, "5/6"),
}


@pytest.mark.parametrize("case", PROCESSES)
def test_part_of_a_process(case):
    option, environment, expected = PROCESSES[case]
    assert str(process_shard(option, environment)) == expected


@pytest.mark.parametrize("option", ["0/4", "5/4", "1", "a/b", "-1/2", "1/0", "1/2/3"])
def test_bad_option(option):
    with pytest.raises(ConfigInvalid, match="--shard"):
        process_shard(option, {})


@pytest.mark.parametrize("rank", ["2", "-1", "x"])
def test_bad_environment(rank):
    with pytest.raises(ConfigInvalid, match="WORLD_SIZE"):
        process_shard(None, {"RANK": rank, "WORLD_SIZE": "2"})
