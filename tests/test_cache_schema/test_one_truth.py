"""Readers and `verify` go by the plan and the seal: what is missing, old or another store's has a name."""

import shutil
from dataclasses import replace

import pytest
from corruption_cases import HEAD, sealed_store
from object_store import write
from store_cases import sample_list, sample_values, small_spec, write_scene

from cache_schema import inspect_cache
from cache_schema.errors import CacheError, Corrupt, FingerprintMismatch
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.seal import remove_seal
from cache_schema.storage import S3Path
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 2, "scene-0002": 1}


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", SCENES)


@pytest.fixture
def older(tmp_path):
    """The same dump of other images: every record fits, but for the numbers."""
    writer = StoreWriter.create(tmp_path / "older.zarr", small_spec(), planned=SCENES)
    writer.write_teacher_head({name: values + 1 for name, values in HEAD.items()})
    for name, n_samples in SCENES.items():
        samples = sample_list(name, n_samples)
        with writer.scene(name, f"{name}-scene-token", samples) as scene:
            for token, _ in samples:
                scene.append(token, sample_values(f"older {token}"))
    writer.seal()
    return writer.path


def swap(store, other, part):
    shutil.rmtree(store / part)
    shutil.copytree(other / part, store / part)


def test_a_rolled_back_scene_is_an_error_by_name(store, older, capsys):
    swap(store, older, "scenes/scene-0002")
    with pytest.raises(Corrupt, match=r"scene scene-0002 of .* is not the one that was sealed"):
        TargetReader(store)["scene-0002-token0"]
    assert TargetReader(store)["scene-0001-token0"]
    assert [fault.path for fault in verify(store).faults] == ["scenes/scene-0002/manifest.json"]
    with pytest.raises(Corrupt, match="scenes scene-0002 differ"):
        StoreWriter.open(store).seal()
    assert inspect_cache.main(["info", str(store)]) == 2
    assert "scene-0002" in capsys.readouterr().err


def test_repair_does_not_bless_a_rolled_back_scene(store, older):
    before = TargetReader(store)["scene-0002-token0"]["bev_feats"]
    swap(store, older, "scenes/scene-0002")
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    writer = StoreWriter.open(store)
    assert writer.missing_scenes() == ["scene-0002"]
    write_scene(writer, "scene-0002", 1)
    writer.seal()
    assert (TargetReader(store)["scene-0002-token0"]["bev_feats"] == before).all()


def test_repair_keeps_a_whole_store_with_the_root_of_another(store, tmp_path, capsys):
    spec = small_spec()
    other = StoreWriter.create(
        tmp_path / "other.zarr", replace(spec, numerics=replace(spec.numerics, threads=2)), planned=SCENES
    )
    shutil.copy(other.path / "zarr.json", store / "zarr.json")
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert "is of another dump than everything else" in "".join(capsys.readouterr())
    assert {path: path.read_bytes() for path in store.rglob("*") if path.is_file()} == before


def test_a_head_of_another_dump_is_not_read(store, older):
    swap(store, older, "teacher_head")
    with pytest.raises(Corrupt, match="not the teacher head that was sealed"):
        TargetReader(store).read_teacher_head()
    assert [fault.path for fault in verify(store).faults] == ["teacher_head/manifest.json"]


def test_a_seal_of_another_store_is_refused(store, tmp_path):
    other = sealed_store(tmp_path / "other.zarr", {"scene-0001": 2})
    shutil.copy(other / "sealed.json", store / "sealed.json")
    with pytest.raises(Corrupt, match=r"sealed\.json was made for another store"):
        TargetReader(store)


def test_a_missing_scene_of_a_sealed_store_has_a_name(store):
    shutil.rmtree(store / "scenes/scene-0001")
    with pytest.raises(Corrupt, match=r"scene scene-0001 of .* is missing"):
        TargetReader(store)["scene-0001-token0"]


def test_a_scene_of_another_dump_is_never_sealed(tmp_path):
    spec = small_spec()
    store = StoreWriter.create(tmp_path / "a.zarr", spec, planned={"scene-0001": 1})
    other = StoreWriter.create(
        tmp_path / "b.zarr",
        replace(spec, numerics=replace(spec.numerics, threads=2)),
        planned={"scene-0001": 1},
    )
    write_scene(other, "scene-0001", 1)
    shutil.copytree(other.path / "scenes/scene-0001", store.path / "scenes/scene-0001")
    with pytest.raises(FingerprintMismatch, match=r"scene-0001 .* another dump"):
        store.seal()


def test_a_scene_of_another_length_than_planned(tmp_path):
    longer = StoreWriter.create(tmp_path / "b.zarr", small_spec(), planned={"scene-0001": 2})
    write_scene(longer, "scene-0001", 2)
    store = StoreWriter.create(tmp_path / "a.zarr", small_spec(), planned={"scene-0001": 1})
    shutil.copytree(longer.path / "scenes/scene-0001", store.path / "scenes/scene-0001")
    with pytest.raises(Corrupt, match="2 samples, 1 are planned"):
        len(TargetReader(store.path))
    assert "has 2 samples, 1 are planned" in [fault.what for fault in verify(store.path).faults]


def test_scenes_that_nobody_planned_are_not_read(store):
    shutil.copytree(store / "scenes/scene-0001", store / "scenes/scene-0009")
    assert list(TargetReader(store).scenes) == ["scene-0001", "scene-0002"]


def test_a_manifest_that_is_replaced_under_an_open_reader(store, older):
    reader = TargetReader(store)
    assert len(reader) == 3
    swap(store, older, "scenes/scene-0002")
    with pytest.raises(Corrupt, match=r"scene scene-0002 of .* is not the one that was sealed"):
        reader["scene-0002-token0"]


def test_a_manifest_that_is_replaced_under_a_reader_of_a_store_that_is_not_sealed(store, older):
    remove_seal(store)
    reader = TargetReader(store)
    assert len(reader) == 3
    swap(store, older, "scenes/scene-0002")
    with pytest.raises(Corrupt, match="was changed after this reader opened the store"):
        reader["scene-0002-token0"]


@pytest.fixture
def partial_listings(monkeypatch):
    """Every listing of a bucket lacks its first name."""
    names = S3Path.names
    monkeypatch.setattr(S3Path, "names", lambda self: names(self)[1:])


def test_a_partial_listing_hides_no_scene(proxy, url, partial_listings):
    write(url)
    assert list(TargetReader(url).scenes) == ["scene-0001", "scene-0002"]
    findings = verify(S3Path.from_url(url))
    assert (findings.scenes, findings.complete) == (2, True)
    (S3Path.from_url(url) / "scenes" / "scene-0001" / "manifest.json").unlink()
    assert [f.path for f in verify(S3Path.from_url(url)).faults] == ["scenes/scene-0001/manifest.json"]
    with pytest.raises(CacheError, match=r"scene-0001 .* is missing"):
        TargetReader(url)["scene-0001-token0"]
