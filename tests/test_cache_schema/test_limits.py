"""Hostile bytes: every file that a store may hold is refused in little time and memory, in words."""

import itertools
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corruption_cases import sealed_store
from raw_server import RawServer
from store_cases import small_spec, small_store, write_scene

from cache_schema import inspect_cache, s3_client
from cache_schema.codec import crc32c
from cache_schema.errors import CacheError, Corrupt, SpecInvalid, StorageUnavailable, StoreNotFound
from cache_schema.fields import canonical_json
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.spec import ArraySpec
from cache_schema.storage import S3Path, store_path
from cache_schema.writer import StoreWriter

MANIFEST = "scenes/scene-0001/manifest.json"
SHARD = "scenes/scene-0001/bev_feats/c.0.0.0.0"
HEAD = "teacher_head/decoder.weight/c.0.0"
FILES = ("zarr.json", "sealed.json", "index.bin", MANIFEST, SHARD, HEAD)


@pytest.fixture
def store(tmp_path):
    return sealed_store(tmp_path / "teacher.zarr", {"scene-0001": 2})


def pipe(path):
    os.mkfifo(path)


def endless(path):
    path.symlink_to("/dev/zero")


def sparse(path):
    with path.open("wb") as file:
        file.truncate(1 << 42)


def folder(path):
    path.mkdir()


def loop(path):
    path.symlink_to(path)


def deep(path):
    path.write_bytes(b"[" * 5_000_000)


def wide(path):
    path.write_bytes(b"[" + b"[]," * 4_000_000 + b"[]]")


def long_number(path):
    path.write_bytes(b'{"attributes":' + b"1" * 100_000 + b"}")


def no_object(path):
    path.write_bytes(b"[1, 2]\n")


def reads_of(store):
    """Read a store in every way: how many of them were refused, in how many seconds and megabytes."""
    begun, before_kb = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    n_refused = 0
    for read in (
        lambda: [TargetReader(store)[token] for token in TargetReader(store).sample_tokens],
        lambda: TargetReader(store).read_teacher_head(),
        lambda: require_no_faults(store),
    ):
        try:
            read()
        except CacheError as error:
            n_refused += str(store) in str(error)
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return n_refused, time.monotonic() - begun, (peak_kb - before_kb) / 1e3


def require_no_faults(store):
    """`verify` refuses a store, or finds faults in it."""
    if verify(store).faults:
        raise Corrupt(f"{store} has faults")


@pytest.mark.parametrize("make", [pipe, endless, sparse, folder, loop, deep, wide, long_number, no_object])
@pytest.mark.parametrize("file", FILES)
def test_hostile_file(store, file, make):
    (store / file).unlink()
    make(store / file)
    # In a process of its own: what hangs is killed, and the memory is its own.
    with multiprocessing.get_context("fork").Pool(1) as pool:
        n_refused, seconds, megabytes = pool.apply_async(reads_of, (store,)).get(timeout=60)
    assert n_refused >= 2
    assert seconds < 20
    assert megabytes < 200


def signed(record):
    """A manifest file whose checksum fits."""
    body = canonical_json(record)
    return b'{"crc32c":"%s","manifest":%s}\n' % (crc32c(body).encode(), body)


def record(path):
    return json.loads(path.read_bytes())["manifest"]


@pytest.mark.parametrize("part", ["scenes/scene-0001", "teacher_head"])
@pytest.mark.parametrize("path", ["\ud800", "a\0b", "../../../etc/passwd", "/etc/passwd"])
def test_a_manifest_that_names_other_files(store, part, path, monkeypatch):
    manifest = store / part / "manifest.json"
    told = record(manifest)
    told["metadata_files"][0]["path"] = path
    manifest.write_bytes(signed(told))
    looked_for = []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **more: looked_for.append(str(self)) or stat(self, **more))
    assert "it does not record the metadata file of every array" in [f.what for f in verify(store).faults]
    assert not [name for name in looked_for if path in name]


def test_scenes_that_are_a_link_to_themselves(store, capsys):
    shutil.rmtree(store / "scenes")
    (store / "scenes").symlink_to(store / "scenes")
    assert inspect_cache.main(["verify", str(store)]) == 1
    assert "is a link, which no dump makes" in capsys.readouterr().out
    reader = TargetReader(store)
    with pytest.raises(CacheError, match="scene-0001"):
        reader[reader.sample_tokens[0]]


CHANGES = {
    "a list": lambda r: [r],
    "no tokens": lambda r: r | {"sample_tokens": None},
    "tokens that a terminal obeys": lambda r: r | {"sample_tokens": ["\x1b[2J", "b"]},
    "no arrays": lambda r: {k: v for k, v in r.items() if k != "arrays"},
    "an array without a name": lambda r: r | {"arrays": [{"array": {}}]},
    "shards of terabytes": lambda r: r | {"arrays": [a | {"shard_nbytes": [1 << 42]} for a in r["arrays"]]},
    "a shard with room for everything": lambda r: (
        r | {"arrays": [a | {"samples_per_shard": 1 << 40} for a in r["arrays"]]}
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_signed_manifest_that_lies(tmp_path, change, capsys):
    store = small_store(tmp_path / "teacher.zarr", {"scene-0001": 2})
    (store / MANIFEST).write_bytes(signed(CHANGES[change](record(store / MANIFEST))))
    with pytest.raises(CacheError, match="scene-0001"):
        [TargetReader(store)[token] for token in TargetReader(store).sample_tokens]
    assert verify(store).faults
    for command in ("info", "verify"):
        assert inspect_cache.main([command, str(store)]) in (0, 1, 2)
    assert "\x1b" not in "".join(capsys.readouterr())


def test_arrays_beyond_all_memory():
    with pytest.raises(SpecInvalid, match=r"shape .* at most"):
        ArraySpec(
            name="a",
            role="dense_head",
            dtype="int8",
            shape=(1 << 40,),
            dimension_names=("x",),
            compressed=False,
        )


def test_a_compressed_chunk_is_measured_before_it_is_unpacked(store):
    path = store / "scenes/scene-0001/query_boxes/c.0.0.0.0"
    reader = TargetReader(store)
    reader.read("scene-0001-token0", ["query_boxes"])
    data = bytearray(path.read_bytes())
    data[4:8] = (1 << 31).to_bytes(4, "little")  # unpacked bytes, as the frame says
    path.write_bytes(data)
    with pytest.raises(Corrupt):
        TargetReader(store, verify_checksums=False).read("scene-0001-token0", ["query_boxes"])


CUT = """
import os, sys
from cache_schema.errors import Corrupt
from cache_schema.reader import TargetReader
reader = TargetReader(sys.argv[1])
reader["scene-0001-token1"]
os.truncate(sys.argv[2], 100)
try:
    reader["scene-0001-token1"]
except Corrupt as error:
    print(error)
"""


@pytest.mark.parametrize("array", ["bev_feats/c.0.0.0.0", "query_boxes/c.0.0.0.0"])
def test_a_file_that_is_cut_while_it_is_mapped(tmp_path, array):
    # Two pages and more: the last bytes of a cut page read as zero, those after it kill.
    wide = (
        ArraySpec(
            name="bev_feats",
            role="dense_head",
            dtype="float16",
            shape=(64, 99),
            dimension_names=("c", "x"),
            compressed=False,
        ),
        ArraySpec(
            name="query_boxes",
            role="dense_head",
            dtype="float32",
            shape=(64, 99),
            dimension_names=("c", "x"),
            compressed=True,
        ),
    )
    writer = StoreWriter.create(tmp_path / "teacher.zarr", small_spec(wide))
    write_scene(writer, "scene-0001", 2, wide)
    path = writer.path / "scenes/scene-0001" / array.replace(".0.0.0.0", ".0.0.0")
    done = subprocess.run(
        [sys.executable, "-c", CUT, str(writer.path), str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "has 100 bytes" in done.stdout


def test_too_many_open_files_is_an_error_in_words(store, monkeypatch):
    def no_more(*args, **kwargs):
        raise OSError(24, "Too many open files")

    reader = TargetReader(store)
    assert len(reader) == 2
    monkeypatch.setattr(os, "open", no_more)
    with pytest.raises(CacheError, match=r"Too many open files(.|\n)*ulimit"):
        reader["scene-0001-token0"]


def test_names_are_printed_escaped(store, capsys):
    (store / "scenes" / "\x1b[2Jgone\nfine").mkdir()
    (store / os.fsdecode(b"\xff")).mkdir()
    assert inspect_cache.main(["verify", str(store)]) == 1
    out = capsys.readouterr().out
    assert r"scenes/\x1b[2Jgone\nfine" in out
    assert r"\udcff" in out
    assert "\x1b" not in out


def test_errors_are_printed_escaped():
    assert str(Corrupt("a\x1b[2J\x9b\u202eb\nc × d")) == "a\\x1b[2J\\x9b\\u202eb\nc × d"


def test_info_into_a_closed_pipe_ends_quietly(store):
    command = f"{sys.executable} cache_schema/inspect_cache.py info {store} | true"
    root = Path(__file__).parents[2]
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=root, capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "url", ["gs://bucket/teacher.zarr", "https://example.org/a.zarr", "S3://b/c", "file:///a"]
)
def test_other_schemes_are_no_folders(url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StoreNotFound, match=re.escape(url)):
        store_path(url)
    with pytest.raises(CacheError):
        StoreWriter.create(url, small_spec())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def answer(monkeypatch):
    """`answer(pieces, status=200, **headers)`: from now on the endpoint answers everything with this body."""
    servers = []

    def answer(pieces, status=200, **headers):
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        servers.append(RawServer(lambda method, path, _: (status, named, pieces())))
        monkeypatch.setenv("AWS_ENDPOINT_URL", servers[-1].url())
        s3_client.forget_client()

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setattr(s3_client, "PATIENCE_S", 0.2)
    yield answer
    s3_client.forget_client()
    for server in servers:
        server.shutdown()
        server.server_close()


def blanks():
    return itertools.repeat(b" " * (1 << 16))


def test_an_answer_without_end(answer):
    answer(blanks)
    before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(Corrupt, match="more than 1,000 bytes"):
        S3Path("bucket", "teacher.zarr").read_bytes(1000)
    for read in (S3Path.read_bytes, S3Path.names):
        with pytest.raises(Corrupt, match=r"s3://bucket/key has more than 16,777,216 bytes"):
            read(S3Path("bucket", "key"))
    answer(blanks, status=403)
    with pytest.raises(CacheError, match="more than"):
        S3Path("bucket", "key").read_bytes(1000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 200_000


PAGE = "<R><Contents><Key>p/a</Key></Contents><NextContinuationToken>again</NextContinuationToken></R>"


@pytest.mark.parametrize(
    "body", [b"<a>", b"\xff", b'<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', PAGE.encode()]
)
def test_a_listing_that_is_none(answer, monkeypatch, body):
    answer(lambda: [body], Content_Length=str(len(body)))
    monkeypatch.setattr("cache_schema.storage._MAX_PAGES", 50)
    with pytest.raises(CacheError, match=r"list(.|\n)*s3://bucket/p|s3://bucket/p: .*listing"):
        S3Path("bucket", "p").names()


def test_the_page_of_a_proxy_is_told_by_its_status(answer):
    page = b"<!DOCTYPE html><html>" + b"a" * 10_000
    answer(lambda: [page], status=502, Content_Length=str(len(page)))
    with pytest.raises(StorageUnavailable, match=r"s3://bucket/key: HTTP 502.* times in"):
        S3Path("bucket", "key").read_bytes()


def test_an_object_without_length(answer):
    answer(lambda: [])
    with pytest.raises(CacheError, match="does not say how long"):
        S3Path("bucket", "key").size()


@pytest.mark.parametrize(
    "place", ["bytes 0-9/11", "bytes 1-10/10", "bytes 0-9/x", "nonsense", "bytes 0-9/99999999999999"]
)
def test_another_range_than_asked_for(answer, place):
    answer(lambda: [b"0123456789"], status=206, Content_Length="10", Content_Range=place)
    with pytest.raises(Corrupt, match="s3://bucket/key"):
        S3Path("bucket", "key").read_range(0, 10, 10)
