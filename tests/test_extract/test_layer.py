"""More arrays of the teacher for a finished store: what one dump would have stored, in two parts."""

from __future__ import annotations

import numpy as np
import pytest
from dump_cases import contents

from cache_schema.errors import StoreNotFound
from cache_schema.inspect_cache import main as inspect
from cache_schema.layers import open_layer
from cache_schema.reader import TargetReader

SCENES = ("scene-0001", "scene-0004")


@pytest.fixture(scope="module")
def queries(run_dump, tmp_path_factory):
    """A finished store of two scenes without maps."""
    store = tmp_path_factory.mktemp("queries") / "teacher.zarr"
    assert run_dump(store, "--arrays", "queries", "--scenes", *SCENES) == 0
    return store


def test_arrays_are_added_as_one_dump_would_have_stored_them(queries, peace, run_dump, capsys):
    before = contents(queries)
    assert run_dump(queries, "--arrays", "bev,pv,queries", "--layer", "maps", "--scenes", *SCENES) == 0
    assert "maps" in capsys.readouterr().out
    after = contents(queries)
    assert {path: after[path] for path in before} == before
    store, whole = TargetReader(queries), TargetReader(peace)
    layer = open_layer(store, "maps")
    assert layer.spec.layer.reads is None
    both = {array.name for reader in (store, layer) for array in reader.spec.arrays}
    assert both == {array.name for array in whole.spec.arrays}
    assert len(both) == len(store.spec.arrays) + len(layer.spec.arrays)
    for token in store.sample_tokens:
        wanted, got = whole[token], store[token] | layer[token]
        assert set(got) == set(wanted)
        for name, values in got.items():
            np.testing.assert_array_equal(values, wanted[name], name)
    assert inspect(["verify", str(queries)]) == 0
    assert inspect(["show", str(queries), store.sample_tokens[0], "--layer", "maps"]) == 0
    assert "bev_feats" in capsys.readouterr().out
    # Once more, there is nothing to do.
    assert run_dump(queries, "--arrays", "bev,pv", "--layer", "maps", "--scenes", *SCENES) == 0
    assert contents(queries) == after


REFUSED = {
    "nothing new": (("--arrays", "queries"), "there is nothing for a layer"),
    "another seed": (("--arrays", "bev", "--seed", "1"), "random seed"),
    "another profile": (("--arrays", "bev", "--profile", "compact"), "profile"),
    "a name that leads out": (("--arrays", "bev", "--layer", "../maps"), "layer is not valid"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_layer_of_the_store(case, queries, run_dump, capsys):
    options, says = REFUSED[case]
    before = contents(queries)
    assert run_dump(queries, "--layer", "other", "--scenes", *SCENES, *options) == 2
    assert says in capsys.readouterr().err
    assert contents(queries) == before


def test_fewer_scenes_are_no_layer(queries, run_dump, capsys):
    assert run_dump(queries, "--layer", "other", "--arrays", "bev", "--scenes", SCENES[0]) == 2
    assert "such as scene-0004" in capsys.readouterr().err


def test_a_layer_needs_a_finished_store(run_dump, tmp_path, capsys):
    store = tmp_path / "teacher.zarr"
    assert run_dump(store, "--layer", "maps", "--arrays", "bev", "--scenes", *SCENES) == 2
    assert StoreNotFound.__name__ in capsys.readouterr().err
