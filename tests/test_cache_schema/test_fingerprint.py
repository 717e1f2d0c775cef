"""Every fact that changes a stored number is a part of the fingerprint, and differences are said by name."""

import pickle
from dataclasses import replace

import pytest
from store_cases import SMALL_ARRAYS, small_spec

from cache_schema.errors import FingerprintMismatch, SpecInvalid
from cache_schema.fingerprint import NOT_COMPARED, PARTS, difference, digest, fingerprint
from cache_schema.spec import FocalFacts, LayerFacts, StoreSpec

SPEC = replace(small_spec(), layer=LayerFacts(store_digest="ab" * 32, reads="bev_feats"))
OTHER_FACTS = {
    "checkpoint": {"teacher": {"checkpoint_sha256": "9a" * 32}},
    "trained": {"teacher": {"trained": False, "checkpoint_sha256": None, "random_seed": 3}},
    "random seed": {"teacher": {"random_seed": 4}},
    "detector config": {"teacher": {"config": {"type": "Toy", "depth": 3, "norm": {"eps": 1e-5}}}},
    "teacher regime": {"teacher": {"regime": "queue of four"}},
    "camera order": {"inputs": {"camera_order": ["CAM_BACK", "CAM_FRONT"]}},
    "image shape": {"inputs": {"image_shape": [64, 128]}},
    "input pipeline": {"inputs": {"pipeline": {"scale": 0.5}}},
    "inputs present": {"inputs": {"present": {"can_bus": False}}},
    "class order": {"outputs": {"class_names": ["truck", "car"]}},
    "box convention": {"outputs": {"box_convention": "cx, cy, log l, …"}},
    "query box encoding": {"outputs": {"query_box_encoding": None}},
    "outputs not stored": {"outputs": {"not_stored": [SMALL_ARRAYS[0].to_dict()]}},
    "dataset": {"dataset": {"name": "waymo"}},
    "dataset version": {"dataset": {"version": "v1.0-trainval"}},
    "split": {"dataset": {"split": "mini_val"}},
    "numerics version": {"numerics": {"version": 2}},
    "op backend": {"numerics": {"op_backend": "mmcv"}},
    "device": {"numerics": {"device": "cuda"}},
    "compute dtype": {"numerics": {"compute_dtype": "bfloat16"}},
    "TF32": {"numerics": {"tf32": True}},
    "determinism": {"numerics": {"deterministic": False}},
    "threads": {"numerics": {"threads": 2}},
    "profile": {"profile": "compact"},
    "focal": {"profile": "focal", "focal": {"min_score": 0.2, "background_block": 4, "areas": {}}},
    "arrays": {"arrays": [array.to_dict() for array in SMALL_ARRAYS[:2]]},
    "layer of": {"layer": {"store_digest": "cd" * 32}},
    "layer reads": {"layer": {"reads": "bev_lifted"}},
    "schema version": {"schema_version": 1},
}


def changed(changes):
    """SMALL spec with some facts replaced, by section."""
    raw = SPEC.to_dict()
    for name, value in changes.items():
        raw[name] = raw[name] | value if isinstance(raw[name], dict) else value
    return StoreSpec.from_dict(raw)


@pytest.mark.parametrize("part", PARTS)
def test_each_part_counts_and_is_named(part):
    other = changed(OTHER_FACTS[part])
    ours, theirs = fingerprint(SPEC), fingerprint(other)
    assert part in {name for name in PARTS if ours[name] != theirs[name]}
    assert digest(SPEC) != digest(other)
    named = {problem.where for problem in difference(SPEC, other)}
    assert any(where == part or where.startswith(f"{part} ") for where in named)
    assert difference(other, other) == []


def test_every_fact_is_a_part_or_says_why_not():
    facts = set()
    for name, value in SPEC.to_dict().items():
        nested = isinstance(value, dict)
        facts |= {(name, field) for field in value} if nested else {(name,)}
    assert facts == set(PARTS.values()) | NOT_COMPARED


def test_a_store_that_is_no_layer_says_nothing_of_layers():
    store = small_spec()
    assert "layer" not in store.to_dict()
    assert not {"layer of", "layer reads"} & set(fingerprint(store))
    assert {problem.where for problem in difference(SPEC, store)} == {"layer of", "layer reads"}


def test_what_changes_no_number_does_not_count():
    renamed = replace(SPEC, teacher=replace(SPEC.teacher, detector="My Toy"), written_by="focalcache 9.9.9")
    assert digest(renamed) == digest(SPEC)
    assert difference(renamed, SPEC) == []


def test_fingerprint_is_the_same_for_ever():
    spec = replace(SPEC, arrays=SMALL_ARRAYS[2:], layer=None)
    assert digest(spec) == "828a8eefe07034252b8895a4aabd17bc6de432081c3d2088ee1c2c0b8fb5e7a6"
    assert set(map(len, fingerprint(spec).values())) == {64}


def test_only_what_is_expected_is_compared():
    assert difference({}, SPEC) == []
    assert difference({"teacher": {"checkpoint_sha256": "5c" * 32, "detector": "any"}}, SPEC) == []
    assert (
        difference({"outputs": SPEC.outputs, "inputs": {"camera_order": ("CAM_FRONT", "CAM_BACK")}}, SPEC)
        == []
    )
    problems = difference({"outputs": {"class_names": ("truck", "car")}, "dataset": {"split": "val"}}, SPEC)
    assert problems == [("class order", "truck, car", "car, truck"), ("split", "val", "mini_train")]


def test_the_place_inside_a_config_is_named():
    config = {"type": "Toy", "norm": {"eps": 1e-3, "kind": "BN"}, "heads": [{"width": 8}]}
    assert difference({"teacher": {"config": config}}, SPEC) == [
        ("detector config norm.eps", "0.001", "1e-05"),
        ("detector config norm.kind", "BN", "nothing"),
        ("detector config heads[0].width", "8", "nothing"),
        ("detector config depth", "nothing", "2"),
    ]
    long = {"teacher": {"config": {f"option{number}": number for number in range(50)}}}
    problems = difference(long, SPEC)
    assert len(problems) == 5
    assert problems[-1].expected == "equal values in 49 more places"


def test_arrays_differ_by_name_and_in_order():
    other = replace(SPEC, arrays=(replace(SMALL_ARRAYS[0], dtype="float32"), *SMALL_ARRAYS[1:]))
    assert difference(other, SPEC) == [("arrays [bev_feats].dtype", "float32", "float16")]
    swapped = replace(SPEC, arrays=SMALL_ARRAYS[::-1])
    assert difference(swapped, SPEC) == [("arrays", "the same in another order", "this one")]
    focal = FocalFacts(min_score=0.5, background_block=2, areas={"margin_m": 1.0})
    ours = replace(SPEC, profile="focal", focal=focal)
    theirs = replace(ours, focal=replace(focal, areas={"margin_m": 2.0}))
    assert difference(ours, theirs) == [("focal areas.margin_m", "1.0", "2.0")]


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        ({"checkpoint": "5c"}, r"checkpoint +expected no such fact \(known: arrays, focal,"),
        (
            {"teacher": {"weights": 1}},
            r"teacher\.weights +expected no such fact \(known: teacher\.checkpoint_sha256",
        ),
        ({"teacher": "BEVFormer"}, r"teacher +expected an object; got 'BEVFormer'"),
        ({"numerics": {"threads": object()}}, "only texts"),
        ([("profile", "exact")], r"an object"),
    ],
)
def test_unknown_expectations_are_refused(expected, says):
    with pytest.raises(SpecInvalid, match=says):
        difference(expected, SPEC)


def test_message_has_a_line_a_part_and_the_way_out():
    problems = difference({"teacher": {"checkpoint_sha256": "9a" * 32}, "numerics": {"threads": 4}}, SPEC)
    error = FingerprintMismatch("teacher.zarr is another's", problems, "Dump again.")
    assert str(error).splitlines() == [
        "teacher.zarr is another's",
        f"  checkpoint  expected {'9a' * 32}; store has {'5c' * 32}",
        "  threads     expected 4; store has 1",
        "Dump again.",
    ]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
