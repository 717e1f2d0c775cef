"""Layers: what a finished store gets afterwards is as safe as the store, which does not change by it."""

import dataclasses
import os

import numpy as np
import pytest
from store_cases import SMALL_ARRAYS, sample_list, sample_values, small_spec, write_scene
from test_every_crash import contents, dies_at

from cache_schema import inspect_cache
from cache_schema.array_spec import ArraySpec
from cache_schema.errors import (
    AlreadyPublished,
    Corrupt,
    FingerprintMismatch,
    NotOurs,
    SpecInvalid,
    StoreNotFound,
)
from cache_schema.inspection.repair import repair
from cache_schema.inspection.verify import verify
from cache_schema.layers import begin_layer, layer_names, open_layer
from cache_schema.reader import TargetReader
from cache_schema.spec import FocalFacts, LayerFacts, StoreSpec
from cache_schema.storage import store_path
from cache_schema.writer import StoreWriter

PLANNED = {"scene-0001": 2, "scene-0002": 1}
QUERIES = tuple(
    ArraySpec(
        name=name,
        role="query",
        dtype="float32",
        shape=(1, 4, n),
        dimension_names=("layer", "query", d),
        compressed=False,
    )
    for name, n, d in (("query_logits", 2, "class"), ("query_boxes", 10, "box_code"))
)
KEPT = np.array([True, False, True, False])


def write_store(path):
    """A sealed store."""
    writer = StoreWriter.create(path, small_spec(), planned=PLANNED)
    for name, n_samples in PLANNED.items():
        write_scene(writer, name, n_samples)
    writer.seal()
    return path


@pytest.fixture
def store(tmp_path):
    return write_store(tmp_path / "teacher.zarr")


def layer_spec(store, head="head", digest=None) -> StoreSpec:
    spec = small_spec(QUERIES)
    return dataclasses.replace(
        spec,
        profile="focal",
        teacher=dataclasses.replace(spec.teacher, detector=head, config={"type": head}),
        focal=FocalFacts(min_score=0.1, background_block=1, areas={"at_most": 300}),
        layer=LayerFacts(store_digest=digest or TargetReader(store).digest, reads="bev_feats"),
    )


def write_layer(store, name="head", *, seal=True, scenes=tuple(PLANNED), **changes):
    """What adds a layer does, whatever is there already."""
    writer = begin_layer(store, name, layer_spec(store, **changes), PLANNED)
    writer.remove_abandoned()
    writer.write_teacher_head({"pts_bbox_head.scale": np.ones(3, np.float32)})
    for scene_name in (scene for scene in writer.missing_scenes() if scene in scenes):
        samples = sample_list(scene_name, PLANNED[scene_name])
        with writer.scene(scene_name, f"{scene_name}-token", samples) as scene:
            for token, _ in samples:
                scene.append(
                    token, sample_values(f"{changes.get('head', '')}{token}", QUERIES), confident=KEPT
                )
    if seal:
        writer.seal()
    return store / "layers" / name


def test_the_store_does_not_change(store):
    before = contents(store)
    write_layer(store)
    after = contents(store)
    assert {path: after[path] for path in before} == before
    assert all(path.startswith("layers/") for path in set(after) - set(before))
    assert layer_names(store) == ["head"]


def test_a_layer_is_read_by_its_name(store):
    for head in ("one", "two"):
        write_layer(store, head, head=head)
    reader = TargetReader(store)
    found = {name: open_layer(reader, name) for name in layer_names(store)}
    assert found["one"].spec.teacher.detector == "one"
    assert found["one"].digest != found["two"].digest
    token = reader.sample_tokens[0]
    for head, layer in found.items():
        wanted = sample_values(f"{head}{token}", QUERIES)["query_logits"][:, KEPT]
        np.testing.assert_array_equal(layer.read_focal(token).queries["query_logits"], wanted)
    assert not np.array_equal(*(layer[token]["query_logits"] for layer in found.values()))
    one, two = (str(store / "layers" / head) for head in found)
    assert [inspect_cache.main(["diff", one, other]) for other in (one, two)] == [0, 1]


def test_a_layer_of_another_store_is_refused(store, tmp_path, capsys):
    other = tmp_path / "other.zarr"
    writer = StoreWriter.create(other, small_spec(SMALL_ARRAYS[:1]), planned={"scene-0001": 2})
    write_scene(writer, "scene-0001", 2, SMALL_ARRAYS[:1])
    writer.seal()
    layer = write_layer(store)
    (other / "layers").mkdir()
    (other / "layers/zarr.json").write_bytes((store / "layers/zarr.json").read_bytes())
    os.rename(layer, other / "layers/head")
    with pytest.raises(
        FingerprintMismatch, match=f"{TargetReader(other).digest}.*{TargetReader(store).digest}"
    ):
        open_layer(TargetReader(other), "head")
    with pytest.raises(FingerprintMismatch, match="is no layer of this store"):
        begin_layer(other, "new", layer_spec(store), PLANNED)
    assert [fault.path for fault in verify(other).all_faults()] == ["layers/head/zarr.json"]
    assert inspect_cache.main(["info", str(other)]) == 0
    assert "A LAYER OF ANOTHER STORE" in capsys.readouterr().out


def test_a_store_is_no_layer(store):
    (store / "layers").mkdir()
    os.symlink(store, store / "layers/itself")
    os.rename(store / "layers", store.parent / "kept")
    (store / "layers").mkdir()
    StoreWriter.create(store / "layers/plain", small_spec())
    with pytest.raises(FingerprintMismatch, match="no layer: a store of its own"):
        open_layer(TargetReader(store), "plain")


def test_a_layer_in_a_bucket(url, capsys):
    store = write_store(store_path(url))
    digest = TargetReader(store).digest
    write_layer(store, scenes=("scene-0001",), seal=False)
    assert inspect_cache.main(["verify", url]) == 1
    write_layer(store)
    reader = TargetReader(store)
    assert reader.digest == digest
    assert layer_names(store) == ["head"]
    token = reader.sample_tokens[-1]
    np.testing.assert_array_equal(open_layer(reader, "head")[token]["query_confident"], KEPT)
    capsys.readouterr()
    assert inspect_cache.main(["verify", url]) == 0
    assert inspect_cache.main(["info", url]) == 0
    assert "layer head" in capsys.readouterr().out


def test_an_unfinished_store_gets_no_layer(tmp_path):
    path = tmp_path / "begun.zarr"
    writer = StoreWriter.create(path, small_spec(), planned=PLANNED)
    write_scene(writer, "scene-0001", 2)
    with pytest.raises(FingerprintMismatch, match="a store that is sealed"):
        begin_layer(path, "head", layer_spec(path, digest="0" * 64), PLANNED)


def test_an_unfinished_layer_is_not_read(store, capsys):
    write_layer(store, scenes=("scene-0001",), seal=False)
    with pytest.raises(StoreNotFound, match="is not finished"):
        open_layer(TargetReader(store), "head")
    assert inspect_cache.main(["verify", str(store)]) == 1
    assert "missing: head/scene-0002" in capsys.readouterr().out
    assert inspect_cache.main(["info", str(store)]) == 0
    assert "2 samples" in (said := capsys.readouterr().out)
    assert "not finished" in said
    write_layer(store)
    assert inspect_cache.main(["verify", str(store)]) == 0


def test_another_head_does_not_go_on_with_a_layer(store):
    write_layer(store, scenes=("scene-0001",), seal=False)
    with pytest.raises(FingerprintMismatch, match=r"begun with something else\n  detector config type"):
        begin_layer(store, "head", layer_spec(store, head="other"), PLANNED)


@pytest.mark.parametrize("name", ["", ".", "..", "../scenes", "a/b", ".writing-x", "head\n", "ü", "x" * 129])
def test_names_are_checked(store, name):
    for use in (
        lambda: open_layer(TargetReader(store), name),
        lambda: begin_layer(store, name, layer_spec(store), PLANNED),
    ):
        with pytest.raises(SpecInvalid, match="layer is not valid"):
            use()


def test_a_missing_layer_names_those_there_are(store):
    with pytest.raises(StoreNotFound, match="has no layer head; its layers: none"):
        open_layer(TargetReader(store), "head")
    write_layer(store, "one")
    with pytest.raises(StoreNotFound, match="has no layer two; its layers: one"):
        open_layer(TargetReader(store), "two")


@pytest.mark.parametrize("linked", ["layers", "layers/head"])
def test_links_are_not_followed(store, tmp_path, linked, capsys):
    layer = write_layer(store)
    elsewhere = tmp_path / "elsewhere"
    os.rename(store / linked, elsewhere)
    os.symlink(elsewhere, store / linked)
    before = contents(elsewhere)
    for use in (
        lambda: open_layer(TargetReader(store), "head"),
        lambda: begin_layer(store, "head", layer_spec(store), PLANNED),
    ):
        with pytest.raises(NotOurs, match="is a link"):
            use()
    assert contents(elsewhere) == before
    faults = verify(store).all_faults()
    assert [fault.path for fault in faults] == [linked]
    assert not faults[0].damage
    assert inspect_cache.main(["info", str(store)]) == 0
    assert "is a link" in capsys.readouterr().out
    assert layer.is_dir()


def test_a_flipped_byte_is_found_and_the_layer_alone_repaired(store, capsys):
    write_layer(store, "other", head="other")
    layer = write_layer(store)
    peace = contents(store)
    shard = layer / "scenes/scene-0001/query_boxes/c.0.0.0.0"
    damaged = bytearray(shard.read_bytes())
    damaged[5] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(Corrupt, match="query_boxes"):
        open_layer(TargetReader(store), "head")["scene-0001-token0"]
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    said = capsys.readouterr().out
    assert "layers/head/scenes/scene-0001/query_boxes/c.0.0.0.0" in said
    assert "Run what writes layer head again" in said
    left = contents(store)
    gone = "layers/head/scenes/scene-0001/", "layers/head/sealed.json", "layers/head/index.bin"
    assert left == {path: data for path, data in peace.items() if not path.startswith(gone)}
    write_layer(store)
    assert contents(store) == peace
    assert inspect_cache.main(["verify", str(store)]) == 0


def test_repair_leaves_what_is_not_planned(store):
    layer = write_layer(store)
    (layer / "scenes/mine").mkdir()
    (layer / "scenes/mine/notes.txt").write_text("keep")
    (store / "layers/mine").mkdir()
    findings = verify(store)
    assert [fault.path for fault in findings.all_faults()] == ["layers/mine", "layers/head/scenes/mine"]
    repair(store, findings)
    repair(layer, findings.layers["head"])
    assert (layer / "scenes/mine/notes.txt").read_text() == "keep"
    assert TargetReader(layer).digest


def test_every_crash(store):
    """A few of the steps at which a writer may die; the store is whole all the while."""
    base = contents(store)
    write_layer(store, "peace")
    peace = contents(store / "layers/peace")
    step, died = 1, True
    while died:
        name = f"killed-{step}"
        died = dies_at(store, step, lambda path, name=name: write_layer(path, name))
        write_layer(store, name)
        assert contents(store / "layers" / name) == peace, step
        step += 7
    assert step > 40
    assert verify(store).complete
    assert {path: (store / path).read_bytes() for path in base} == base
    with pytest.raises(AlreadyPublished):
        StoreWriter.create(store / "layers/peace", layer_spec(store))
