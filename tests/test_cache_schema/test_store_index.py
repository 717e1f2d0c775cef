"""The index of a sealed store: all samples are found by it, opening takes no more reads of more scenes."""

import os
import pickle
import random
import shutil
import struct
import subprocess
import sys

import pytest
from corruption_cases import HEAD, sealed_store
from object_store import HEAD as BUCKET_HEAD
from store_cases import small_spec, write_scene

from cache_schema import inspect_cache, seal
from cache_schema.codec import crc32c
from cache_schema.errors import Corrupt, SampleMissing
from cache_schema.fields import canonical_json
from cache_schema.inspection.verify import verify
from cache_schema.manifest import pack_manifest
from cache_schema.reader import TargetReader
from cache_schema.seal import read_seal, remove_seal, sealed_index
from cache_schema.store_index import INDEX_NAME, IndexedScene, StoreIndex
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 2, "scene-0002": 1}


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", SCENES)


def scenes_of(tokens, per_scene=7):
    return [
        IndexedScene(f"scene-{start:06}", f"{start:064x}", tokens[start : start + per_scene])
        for start in range(0, len(tokens), per_scene)
    ]


@pytest.mark.parametrize("n_samples", [0, 1, 7, 8, 500])
def test_every_sample_is_found_where_it_is(n_samples):
    rng = random.Random(n_samples)
    signs = [chr(code) for code in range(ord("!"), ord("~") + 1)]
    tokens = list({"".join(rng.choices(signs, k=rng.choice((1, 2, 32, 256)))) for _ in range(n_samples)})
    scenes = scenes_of(tokens)
    built = StoreIndex.of(scenes)
    index = StoreIndex(bytes(built.data))
    assert (index.n_scenes, index.n_samples) == (len(scenes), len(tokens))
    assert index.sample_tokens() == tuple(tokens)
    assert index.scene_names() == [scene.name for scene in scenes]
    for number, token in enumerate(tokens):
        assert index.find(token) == number
        place = index.place(number)
        assert scenes[number // 7].name == place.scene_name
        assert (place.row, place.number) == (number % 7, number)
    for scene_number, scene in enumerate(scenes):
        assert index.tokens_of(scene_number) == tuple(scene.sample_tokens)
        assert index.manifest_sha256(scene.name) == scene.manifest_sha256
    for stranger in ("", "é", "a\0", "a b", "x" * 300, None, 3, b"a"):
        assert index.find(stranger) is None
    assert index.manifest_sha256("scene-9") is None
    assert index.unsorted_token() is None


def test_tokens_are_a_sequence_that_pickles_and_compares_like_a_tuple():
    tokens = StoreIndex.of(scenes_of(["b", "a", "c"])).sample_tokens()
    assert tokens[1] == tokens[-2] == "a"
    assert tokens[::2] == ("b", "c")
    assert list(tokens) == ["b", "a", "c"]
    assert "c" in tokens
    assert "d" not in tokens
    assert tokens != ("b", "a")
    assert repr(tokens) == "('b', 'a', 'c')"
    assert pickle.loads(pickle.dumps(tokens)) == ("b", "a", "c")


def test_a_sample_that_is_in_two_scenes_is_refused():
    with pytest.raises(Corrupt, match="sample a is in scenes scene-000000 and scene-000007"):
        StoreIndex.of(scenes_of(["a", *"bcdefg", "a"]))


HEADER = struct.Struct("<8s4Q")


def changed(data, **fields):
    names = ("magic", "n_scenes", "n_samples", "name_nbytes", "token_nbytes")
    values = dict(zip(names, HEADER.unpack_from(data), strict=True)) | fields
    return HEADER.pack(*values.values()) + data[HEADER.size :]


def with_number(data, offset, number, form):
    return data[:offset] + struct.pack(form, number) + data[offset + struct.calcsize(form) :]


LIES = {
    "nothing": lambda data: b"",
    "another file": lambda data: b"{" * len(data),
    "cut": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "more samples than bytes": lambda data: changed(data, n_samples=1 << 62),
    "more scenes than bytes": lambda data: changed(data, n_scenes=(1 << 64) - 1),
    "tokens of no bytes": lambda data: changed(data, token_nbytes=0),
    "tokens of a gigabyte": lambda data: changed(data, token_nbytes=1 << 30),
    "scenes that end before they begin": lambda data: with_number(data, HEADER.size, 9, "<Q"),
    "samples beyond the last": lambda data: with_number(data, HEADER.size + 8 * 2, 9, "<I"),
}


def reseal(store, data):
    """Sign an index by a seal of one's own."""
    (store / INDEX_NAME).write_bytes(data)
    digest = seal.hashlib.sha256(data).hexdigest()
    before = read_seal(store)
    facts = before.to_dict() | {"index_nbytes": max(1, len(data)), "index_sha256": digest}
    (store / "sealed.json").write_bytes(pack_manifest(seal.Seal.from_dict(facts)))


@pytest.mark.parametrize("lie", LIES)
def test_a_signed_index_that_lies(store, lie):
    reseal(store, LIES[lie]((store / INDEX_NAME).read_bytes()))
    with pytest.raises(Corrupt, match=r"index\.bin"):
        TargetReader(store)["scene-0001-token0"]
    assert INDEX_NAME in [fault.path for fault in verify(store).faults]


def test_a_signed_index_that_leads_to_another_sample(store):
    """The manifest has the last word on which sample is in a row."""
    data = (store / INDEX_NAME).read_bytes()
    reseal(store, data.replace(b"scene-0001-token0", b"scene-0001-token/", 1))
    with pytest.raises(Corrupt, match=r"index\.bin puts sample scene-0001-token/ where another one is"):
        TargetReader(store)["scene-0001-token/"]
    faults = [fault.what for fault in verify(store).faults if fault.path == INDEX_NAME]
    assert "has other samples of scene scene-0001 than its manifest" in faults


def test_a_signed_index_in_the_wrong_order(store):
    data = (store / INDEX_NAME).read_bytes()
    start = HEADER.size + 8 * 2
    reseal(store, data[:start] + data[start + 4 : start + 8] + data[start : start + 4] + data[start + 8 :])
    with pytest.raises((SampleMissing, Corrupt)):
        [TargetReader(store)[token] for token in TargetReader(store).sample_tokens]
    assert any("does not find sample" in fault.what for fault in verify(store).faults)


@pytest.mark.parametrize("damage", ["flipped", "gone", "longer", "of another store"])
def test_a_damaged_index_is_noticed_and_the_same_dump_mends_it(store, tmp_path, damage, capsys):
    path = store / INDEX_NAME
    whole = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    elif damage == "longer":
        path.write_bytes(whole + b"\0")
    elif damage == "gone":
        path.unlink()
    else:
        shutil.copy(sealed_store(tmp_path / "other.zarr", {"scene-0001": 2}) / INDEX_NAME, path)
    with pytest.raises(Corrupt, match=r"index\.bin(.|\n)*Run the same dump again"):
        len(TargetReader(store))
    assert [fault.path for fault in verify(store).faults] == [INDEX_NAME]
    assert inspect_cache.main(["verify", str(store)]) == 1
    assert StoreWriter.open(store).seal() is False
    assert path.read_bytes() == whole
    assert verify(store).faults == []
    capsys.readouterr()


def test_repair_takes_the_index_off_with_the_seal(store, capsys):
    (store / INDEX_NAME).write_bytes(b"nonsense")
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert not (store / INDEX_NAME).exists()
    assert not (store / "sealed.json").exists()
    assert StoreWriter.open(store).seal() is True
    assert inspect_cache.main(["verify", str(store)]) == 0
    capsys.readouterr()


def test_a_seal_without_an_index_is_told_with_the_way_out_that_helps(store, capsys):
    """Seals once listed the scenes themselves."""
    path = store / "sealed.json"
    before = read_seal(store)
    old = {key: value for key, value in before.to_dict().items() if "index" not in key and key != "n_scenes"}
    body = canonical_json(old | {"scenes": []})
    path.write_bytes(b'{"crc32c":"%s","manifest":%s}\n' % (crc32c(body).encode(), body))
    with pytest.raises(Corrupt, match=r"(?s)sealed\.json.*index_sha256.*--repair takes such a seal off"):
        TargetReader(store)
    assert inspect_cache.main(["verify", str(store), "--repair"]) == 1
    assert StoreWriter.open(store).seal() is True
    assert read_seal(store) == before
    capsys.readouterr()


def test_the_index_of_a_sealer_that_was_killed_is_written_over(store):
    whole = (store / INDEX_NAME).read_bytes()
    remove_seal(store)
    (store / INDEX_NAME).write_bytes(b"of a dump before the repair")
    assert len(TargetReader(store)) == 3
    assert StoreWriter.open(store).seal() is True
    assert (store / INDEX_NAME).read_bytes() == whole


def test_an_index_that_is_a_link_is_not_followed_when_it_is_written(store, tmp_path):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine")
    remove_seal(store)
    (store / INDEX_NAME).symlink_to(mine)
    StoreWriter.open(store).seal()
    assert mine.read_bytes() == b"mine"
    assert not (store / INDEX_NAME).is_symlink()


def test_equal_stores_have_equal_indices(store, tmp_path):
    writer = StoreWriter.create(tmp_path / "again.zarr", small_spec(), planned=SCENES)
    writer.write_teacher_head(HEAD)
    for name in reversed(SCENES):
        write_scene(writer, name, SCENES[name])
    writer.seal()
    assert (writer.path / INDEX_NAME).read_bytes() == (store / INDEX_NAME).read_bytes()
    assert sealed_index(store, read_seal(store)).n_samples == 3


CUT = """
import os, sys
from cache_schema.errors import Corrupt
from cache_schema.reader import TargetReader
reader = TargetReader(sys.argv[1])
reader.sample_tokens[0]
os.truncate(os.path.join(sys.argv[1], "index.bin"), 0)
for read in (lambda: reader["scene-0001-token1"], lambda: list(reader.sample_tokens)):
    try:
        read()
    except Corrupt as error:
        print(error)
"""


def test_an_index_that_is_cut_while_it_is_mapped(store):
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(store)],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("index.bin has 0 bytes") == 2


def test_opening_takes_as_many_requests_of_many_scenes_as_of_few(proxy, url):
    asked = []
    counts = []
    for n_scenes in (1, 6):
        place = f"{url}-{n_scenes}"
        names = [f"scene-{number:04}" for number in range(n_scenes)]
        writer = StoreWriter.create(place, small_spec(), planned=dict.fromkeys(names, 1))
        writer.write_teacher_head(BUCKET_HEAD)
        for name in names:
            write_scene(writer, name, 1)
        writer.seal()
        asked.clear()
        proxy.fault = lambda method, path: asked.append(path) or "pass"
        assert len(TargetReader(place)) == n_scenes
        assert TargetReader(place).sample_tokens[-1] == f"{names[-1]}-token0"
        counts.append(len(asked))
        proxy.fault = lambda method, path: "pass"
    assert counts == [6, 6]
