"""The index that is kept on disk: nothing is lost, what is damaged is refused, what is stale rebuilt."""

from __future__ import annotations

import io
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from index_cases import assert_same
from nuscenes_tables import edit_table

from camera3d.data import NuScenesIndex, build_index, load_or_build_index
from camera3d.data.index import COLUMNS
from camera3d.data.index_file import ENTRIES
from camera3d.data.split_index import SceneRows, text_column
from camera3d.errors import ConfigInvalid

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")
MUCH_BYTES = 10_000_000


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(scenes={"scene-0061": 4, "scene-0553": 3})


@pytest.fixture(scope="module")
def index(dataroot):
    return build_index(dataroot, "v1.0-mini", "mini_train")


@pytest.fixture
def saved(index, tmp_path) -> Path:
    path = tmp_path / "index.npz"
    index.save(path)
    return path


def test_a_round_trip_is_exact_and_leaves_one_file(index, tmp_path):
    path = tmp_path / "deep" / "index.npz"
    index.save(path)
    assert_same(NuScenesIndex.load(path), index)
    assert [p.name for p in path.parent.iterdir()] == ["index.npz"]


def test_numpy_opens_it_without_pickle(index, saved):
    with np.load(saved, allow_pickle=False) as file:
        assert set(file) == set(ENTRIES)
        np.testing.assert_array_equal(file["gt_boxes"], index.columns["gt_boxes"])


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_round_trip_of_any_numbers_is_exact(data, tmp_path_factory):
    counts = data.draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    annotations = sum(counts)
    columns = {}
    for name, column in COLUMNS.items():
        shape = (annotations if column.of_annotations else len(counts), *column.row_shape)
        size = int(np.prod(shape))
        if column.dtype == "S":
            texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5)
            columns[name] = text_column(data.draw(st.lists(texts, min_size=size, max_size=size))).reshape(
                shape
            )
        else:
            rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
            bits = rng.integers(-(2**62), 2**62, size)
            values = bits.view(np.float64) if column.dtype == "float64" else bits
            columns[name] = (
                (values % 2 if column.dtype == "bool" else values).astype(column.dtype).reshape(shape)
            )
    columns["annotation_count"] = np.array(counts, dtype=np.int64)
    rows = (SceneRows(name="scene-0001", token="ab", first=0, stop=len(counts)),)
    index = NuScenesIndex(version="v", split="s", scene_rows=rows, columns=columns, notes=("one",))
    path = tmp_path_factory.mktemp("round") / "index.npz"
    index.save(path)
    assert_same(NuScenesIndex.load(path), index)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda whole: whole[: len(whole) // 2], "is damaged"),
        (lambda whole: b"", "is damaged"),
        (lambda whole: b'{"format": "camera3d.nuscenes_index"}', "is damaged"),
        (lambda whole: whole.replace(b"scene-0553", b"scene-0554"), "CRC"),
    ],
    ids=["half a file", "no byte", "JSON", "other bytes"],
)
def test_a_damaged_index_file_is_refused(saved, damage, says):
    saved.write_bytes(damage(saved.read_bytes()))
    with pytest.raises(ConfigInvalid, match=rf"index\.npz.*{says}[\s\S]*Delete the file"):
        NuScenesIndex.load(saved)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda e: e.clear(), "is not an index"),
        (lambda e: e.update(format=np.array(b"another")), "is not an index"),
        (lambda e: e.update(schema_version=np.array(99)), "schema_version 99, this code reads 3"),
        (lambda e: e.update(schema_version=np.array(2.0)), "expected int64"),
        (lambda e: e.pop("timestamp_us"), "timestamp_us: missing"),
        (lambda e: e.update(extra=np.zeros(1)), "extra: unknown entry"),
        (
            lambda e: e.update(image_hw=e["image_hw"].astype(np.float64)),
            "image_hw: expected int64 .* float64",
        ),
        (lambda e: e.update(gt_boxes=e["gt_boxes"].astype(np.float32)), "gt_boxes: expected float64"),
        (
            lambda e: e.update(gt_boxes=e["gt_boxes"][:, :7]),
            r"shape \(any, 9\), got float64 .* 7\)",
        ),
        (lambda e: e.update(split=np.array("ümlaut")), "split: expected S"),
        (lambda e: e.update(split=np.array(b"\xff")), "UnicodeDecodeError"),
        (lambda e: e.update(notes=np.array(["a"], dtype=object)), "notes: expected S .*got object"),
        (lambda e: e.update(scene_token=e["scene_token"][:1]), "is damaged"),
        (lambda e: e.update(scene_rows=e["scene_rows"] + 1), "scenes do not follow each other"),
        (lambda e: e.update(gt_labels=e["gt_labels"][:-1]), "gt_labels: expected shape"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_an_index_file_of_other_entries_is_refused(saved, change: Callable[[dict], object], says):
    with np.load(saved) as file:
        entries = dict(file)
    change(entries)
    np.savez(saved, **entries)
    with pytest.raises(ConfigInvalid, match=says):
        NuScenesIndex.load(saved)


def test_all_that_is_wrong_is_said_together(saved):
    with np.load(saved) as file:
        entries = dict(file) | {"valid": np.zeros(3)}
    del entries["gt_labels"]
    np.savez(saved, **entries)
    with pytest.raises(ConfigInvalid, match=r"gt_labels: missing\n.*valid: expected bool"):
        NuScenesIndex.load(saved)


def claims_rows(entries: dict[str, bytes]) -> None:
    """A header that tells of a million times the rows that follow it."""
    header = io.BytesIO()
    claim = {"descr": "<i8", "fortran_order": False, "shape": (7_000_000,)}
    np.lib.format.write_array_header_1_0(header, claim)
    entries["timestamp_us.npy"] = header.getvalue() + bytes(7 * 8)


def claims_rows_of_nothing(entries: dict[str, bytes]) -> None:
    """Any number of texts without a byte takes no byte in the file."""
    header = io.BytesIO()
    claim = {"descr": "|S0", "fortran_order": False, "shape": (7_000_000,)}
    np.lib.format.write_array_header_1_0(header, claim)
    entries["notes.npy"] = header.getvalue()


def grows(entries: dict[str, bytes]) -> None:
    """Zeros, which take next to nothing when they are compressed."""
    entries["timestamp_us.npy"] += bytes(2 * MUCH_BYTES)


@pytest.mark.parametrize(
    ("change", "compression", "says"),
    [
        (claims_rows, zipfile.ZIP_STORED, "timestamp_us: .*does not take the 56 bytes that are there"),
        (claims_rows_of_nothing, zipfile.ZIP_STORED, "notes: expected S"),
        (grows, zipfile.ZIP_DEFLATED, r"claims [\d,]+ bytes and has"),
        (dict, zipfile.ZIP_DEFLATED, "timestamp_us: compressed"),
    ],
    ids=["more rows than bytes", "rows without bytes", "a small file that grows", "compressed"],
)
def test_no_memory_is_taken_for_what_a_file_only_claims(saved, change, compression, says):
    with zipfile.ZipFile(saved) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(saved, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data, compression if name == "timestamp_us.npy" else None)
    del entries
    tracemalloc.start()
    try:
        with pytest.raises(ConfigInvalid, match=says):
            NuScenesIndex.load(saved)
        assert tracemalloc.get_traced_memory()[1] < MUCH_BYTES
    finally:
        tracemalloc.stop()


def test_no_flipped_bit_goes_unnoticed(index, saved):
    """Every file is refused or says the same: dates and the like are nothing that an index is made of."""
    whole, rng = saved.read_bytes(), np.random.default_rng(0)
    for place in rng.choice(len(whole), 300, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << int(rng.integers(8))
        saved.write_bytes(flipped)
        try:
            found = NuScenesIndex.load(saved)
        except ConfigInvalid:
            continue
        assert_same(found, index)


def test_a_file_that_cannot_be_written_whole_is_not_there(index, saved, monkeypatch):
    whole = saved.read_bytes()

    def full_disk(file, **entries):
        file.write(whole[:1000])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("camera3d.data.index_file.np.savez", full_disk)
    with pytest.raises(OSError, match="No space left"):
        index.save(saved)
    assert saved.read_bytes() == whole
    assert list(saved.parent.iterdir()) == [saved]


def test_the_second_run_does_not_load_the_devkit(dataroot, index, monkeypatch):
    first = load_or_build_index(dataroot, "v1.0-mini", "mini_train")
    monkeypatch.setattr(
        "camera3d.data.nuscenes_reader.open_nuscenes", lambda *_: pytest.fail("devkit loaded")
    )
    with pytest.warns(UserWarning, match="CAN bus expansion"):  # said again, though nothing was built
        second = load_or_build_index(dataroot, "v1.0-mini", "mini_train")
    assert_same(first, index)
    assert_same(second, index)


def test_changed_tables_are_read_again(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2})
    assert load_or_build_index(root, "v1.0-mini", "mini_train")[0].num_lidar_pts[0] == 5

    def recount(records):
        records[0]["num_lidar_pts"] = 77

    edit_table(root, "sample_annotation", recount)
    assert load_or_build_index(root, "v1.0-mini", "mini_train")[0].num_lidar_pts[0] == 77


def test_a_damaged_kept_index_is_replaced(dataroot, index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_or_build_index(dataroot, "v1.0-mini", "mini_train")
    (kept,) = (tmp_path / "focalcache" / "index").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[:100])
    with pytest.warns(UserWarning, match="building the index again"):
        assert_same(load_or_build_index(dataroot, "v1.0-mini", "mini_train"), index)
    assert kept.read_bytes() == whole


def test_an_unwritable_home_costs_only_a_warning(dataroot, index, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="not kept for the next run"):
        assert_same(load_or_build_index(dataroot, "v1.0-mini", "mini_train"), index)


def test_a_kept_index_of_another_schema_is_replaced(dataroot, index, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load_or_build_index(dataroot, "v1.0-mini", "mini_train")
    (kept,) = (tmp_path / "focalcache" / "index").iterdir()
    whole = kept.read_bytes()
    with np.load(kept) as file:
        np.savez(kept, **dict(file) | {"schema_version": np.array(1)})
    with pytest.warns(UserWarning, match="building the index again: .*schema_version 1"):
        assert_same(load_or_build_index(dataroot, "v1.0-mini", "mini_train"), index)
    assert kept.read_bytes() == whole
