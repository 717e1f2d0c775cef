"""Stores in a bucket: written to and read from a server that fails on a schedule."""

import io
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy, seeded_faults
from object_store import HEAD, objects, write
from store_cases import small_spec, write_scene

from cache_schema import s3_client
from cache_schema.errors import AlreadyPublished, Corrupt, StorageUnavailable, StoreNotFound
from cache_schema.reader import TargetReader
from cache_schema.storage import S3Path
from cache_schema.writer import StoreWriter


def assert_equal_samples(place: str, local: Path) -> None:
    remote, expected = TargetReader(place), TargetReader(local)
    assert remote.sample_tokens == expected.sample_tokens
    for token in expected.sample_tokens:
        for name, values in expected[token].items():
            assert remote[token][name].tobytes() == values.tobytes()


def read_in_worker(reader: TargetReader) -> bytes:
    return b"".join(reader[token]["bev_feats"].tobytes() for token in reader.sample_tokens)


@pytest.mark.parametrize("seed", [1, 2])
def test_equals_a_local_store_although_requests_fail(
    proxy: FaultyProxy, url: str, tmp_path: Path, seed: int
) -> None:
    local = tmp_path / "local.zarr"
    write(local)
    proxy.fault = seeded_faults(seed)
    write(url)
    assert_equal_samples(url, local)
    assert np.array_equal(TargetReader(url).read_teacher_head()["decoder.weight"], HEAD["decoder.weight"])
    files = {p.relative_to(local).as_posix(): p.read_bytes() for p in local.rglob("*") if p.is_file()}
    assert objects(S3Path.from_url(url)) == files
    assert min(proxy.counts[fault] for fault in ("500", "slow", "cut")) > 0


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_read_what_their_parent_has_opened(proxy: FaultyProxy, url: str, method: str) -> None:
    write(url)
    reader = TargetReader(url)
    expected = read_in_worker(reader)
    proxy.fault = seeded_faults(3)
    with ProcessPoolExecutor(2, mp_context=get_context(method)) as pool:
        assert list(pool.map(read_in_worker, [reader] * 4)) == [expected] * 4


def test_upload_that_ends_before_the_manifest_shows_no_scene(
    proxy: FaultyProxy, url: str, tmp_path: Path
) -> None:
    proxy.fault = lambda method, path: (
        "500" if method == "PUT" and path.endswith("scene-0002/manifest.json") else "pass"
    )
    with pytest.raises(StorageUnavailable, match=r"scene-0002/manifest\.json: HTTP 500"):
        write(url)
    assert (S3Path.from_url(url) / "scenes" / "scene-0002" / "zarr.json").exists()
    assert list(TargetReader(url).scenes) == ["scene-0001"]
    proxy.fault = lambda method, path: "pass"
    writer = StoreWriter.open(url)
    assert writer.missing_scenes() == ["scene-0002"]
    assert not writer.sealed
    with pytest.raises(AlreadyPublished):
        write_scene(writer, "scene-0001", 3)
    write_scene(writer, "scene-0002", 2)
    assert writer.seal()
    assert writer.sealed
    write(tmp_path / "local.zarr")
    assert_equal_samples(url, tmp_path / "local.zarr")


def test_server_that_never_recovers_is_named_in_bounded_time(proxy: FaultyProxy, url: str) -> None:
    write(url)
    reader = TargetReader(url)
    token = reader.sample_tokens[0]
    proxy.fault = lambda method, path: "500" if "bev_feats/c.0" in path else "pass"
    start = time.monotonic()
    with pytest.raises(StorageUnavailable, match=r"s3://cache/.*bev_feats/c\.0\.0\.0\.0: HTTP 500"):
        reader[token]
    assert time.monotonic() - start < 10


def test_server_that_hangs_is_named_in_bounded_time(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url)
    monkeypatch.setattr(s3_client, "TIMEOUT_S", 0.05)
    s3_client.forget_client()
    proxy.fault = lambda method, path: "slow"
    with pytest.raises(StorageUnavailable, match=r"zarr\.json: .*Timeout"):
        TargetReader(url)
    s3_client.forget_client()


@pytest.mark.parametrize("damage", ["flipped byte", "too short", "gone"])
def test_damaged_object_is_an_error_with_the_token(proxy: FaultyProxy, url: str, damage: str) -> None:
    write(url)
    shard = S3Path.from_url(url) / "scenes" / "scene-0001" / "bev_feats" / "c.0.0.0.0"
    content = bytearray(shard.read_bytes())
    if damage == "gone":
        shard.unlink()
    else:
        content[5] ^= 1
        shard.upload(io.BytesIO(content[:-1] if damage == "too short" else content))
    reader = TargetReader(url)
    token = reader.sample_tokens[0]
    with pytest.raises(Corrupt, match=f"sample {token}"):
        reader[token]


def test_nothing_there_and_no_prefix(url: str) -> None:
    with pytest.raises(StoreNotFound, match="no store at s3://"):
        TargetReader(url)
    with pytest.raises(StoreNotFound, match="prefix"):
        TargetReader("s3://cache")


def test_bucket_that_is_not_there_is_named(proxy: FaultyProxy) -> None:
    with pytest.raises(StorageUnavailable, match="no-such-bucket"):
        StoreWriter.create("s3://no-such-bucket/teacher.zarr", small_spec())
