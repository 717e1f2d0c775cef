"""The facts of a store survive JSON, and everything wrong with them is said at once."""

import json
import pickle
from dataclasses import dataclass, replace

import pytest
from store_cases import SMALL_ARRAYS, small_spec

from cache_schema.errors import SchemaTooNew, SpecInvalid
from cache_schema.spec import SCHEMA_VERSION, ArraySpec, StoreSpec, read_spec


@pytest.mark.parametrize("array", SMALL_ARRAYS, ids=lambda array: array.name)
def test_array_spec_round_trip(array):
    assert ArraySpec.from_dict(json.loads(json.dumps(array.to_dict()))) == array


def test_store_spec_round_trip():
    spec = small_spec()
    assert StoreSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_lists_become_tuples():
    array = ArraySpec(
        name="a", role="dense_head", dtype="int8", shape=[2, 3], dimension_names=["y", "x"], compressed=False
    )
    assert array.shape == (2, 3)
    assert array.bytes_per_sample == 6


@dataclass(frozen=True)
class Bad:
    id: str
    path: tuple
    value: object
    says: tuple[str, ...]


GONE = object()
BAD_FIELDS = [
    Bad("unknown profile", ("profile",), "tiny", ("profile", "one of exact, compact, focal", "'tiny'")),
    Bad("no arrays", ("arrays",), [], ("arrays", "at least 1")),
    Bad("array name", ("arrays", 0, "name"), "../x", ("arrays[0].name", "letters", "'../x'")),
    Bad("dtype", ("arrays", 1, "dtype"), "f8", ("arrays[1].dtype", "float64", "'f8'")),
    Bad("shape", ("arrays", 0, "shape"), [4, 0, 5], ("arrays[0].shape[1]", "at least 1", "0")),
    Bad("rank", ("arrays", 0, "shape"), [4, 5], ("arrays[0].dimension_names", "2 names")),
    Bad("sample dim", ("arrays", 2, "dimension_names"), ["sample"], ("arrays[2].dimension_names", "sample")),
    Bad("compressed", ("arrays", 0, "compressed"), 1, ("arrays[0].compressed", "true or false")),
    Bad("blank detector", ("teacher", "detector"), " ", ("teacher.detector", "not blank")),
    Bad("sha", ("teacher", "checkpoint_sha256"), "abc", ("teacher.checkpoint_sha256", "64", "'abc'")),
    Bad("no sha", ("teacher", "checkpoint_sha256"), None, ("teacher.checkpoint_sha256", "trained is true")),
    Bad("sha too many", ("teacher", "trained"), False, ("teacher.checkpoint_sha256", "trained is false")),
    Bad("config", ("teacher", "config"), {"a": float("nan")}, ("teacher.config", "finite")),
    Bad("config key", ("teacher", "config"), {1: 2}, ("teacher.config", "keys")),
    Bad("classes", ("outputs", "class_names"), ["car", "car"], ("outputs.class_names", "all different")),
    Bad("image", ("inputs", "image_shape"), [64], ("inputs.image_shape", "at least 2")),
    Bad("tf32", ("numerics", "tf32"), "no", ("numerics.tf32", "true or false", "'no'")),
    Bad("threads", ("numerics", "threads"), True, ("numerics.threads", "integer")),
    Bad("missing part", ("dataset",), GONE, ("dataset", "a value", "nothing")),
    Bad("missing field", ("dataset", "split"), GONE, ("dataset.split", "a value", "nothing")),
    Bad("unknown field", ("dataset", "host"), "me", ("dataset.host", "no such field", "'me'")),
    Bad("not an object", ("numerics",), 3, ("numerics", "an object", "3")),
]


@pytest.mark.parametrize("bad", BAD_FIELDS, ids=lambda bad: bad.id)
def test_bad_field_is_named(bad):
    raw = small_spec().to_dict()
    *parents, last = bad.path
    place = raw
    for key in parents:
        place = place[key]
    if bad.value is GONE:
        del place[last]
    else:
        place[last] = bad.value
    with pytest.raises(SpecInvalid) as caught:
        StoreSpec.from_dict(raw)
    assert len(caught.value.problems) == 1
    for words in bad.says:
        assert words in str(caught.value)


def test_all_bad_fields_are_reported_together():
    raw = small_spec().to_dict()
    raw["profile"] = "tiny"
    raw["arrays"][0]["dtype"] = "complex64"
    raw["arrays"][2]["name"] = ""
    del raw["teacher"]["regime"]
    with pytest.raises(SpecInvalid) as caught:
        StoreSpec.from_dict(raw)
    places = {problem.where for problem in caught.value.problems}
    assert places == {"profile", "arrays[0].dtype", "arrays[2].name", "teacher.regime"}
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_dimension_must_have_one_length():
    other = replace(SMALL_ARRAYS[0], name="other", shape=(4, 7, 5))
    with pytest.raises(SpecInvalid, match=r"dimension bev_y .* 6 in bev_feats, 7 in other"):
        small_spec([*SMALL_ARRAYS, other])


def test_dimension_must_not_be_an_array():
    clash = ArraySpec(
        name="query", role="dense_head", dtype="int8", shape=(3,), dimension_names=("n",), compressed=False
    )
    with pytest.raises(SpecInvalid, match="dimension query "):
        small_spec([*SMALL_ARRAYS, clash])


def test_array_names_are_unique():
    with pytest.raises(SpecInvalid, match="'can_bus' more than once"):
        small_spec([*SMALL_ARRAYS, SMALL_ARRAYS[2]])


@pytest.mark.parametrize(
    ("writer", "who"), [({"written_by": "focalcache 7.1"}, "'focalcache 7.1'"), ({}, "unknown release")]
)
def test_newer_schema_is_refused_whatever_else_it_says(writer, who):
    says = rf"by .*{who}.* with schema_version {SCHEMA_VERSION + 1}; .* reads {SCHEMA_VERSION}\."
    with pytest.raises(SchemaTooNew, match=says):
        read_spec({"schema_version": SCHEMA_VERSION + 1, "new": "field", **writer}, "teacher.zarr")
