"""Of several processes that begin or seal one store in a bucket at the same moment, one does it."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace

import pytest
from faulty_proxy import FaultyProxy
from object_store import HEAD, SCENES
from store_cases import small_spec, write_scene

from cache_schema.errors import AlreadyPublished, StorageUnavailable
from cache_schema.reader import TargetReader
from cache_schema.storage import S3Path, put_bytes
from cache_schema.writer import StoreWriter

OTHER_SPEC = replace(small_spec(), numerics=replace(small_spec().numerics, threads=2))


def at_once(proxy: FaultyProxy, ending: str, calls: list[Callable[[], object]]) -> list[object]:
    """Results or exceptions of calls that have all seen an object missing before any of them makes it.

    Args:
        ending: of the object's path.
    """
    asked, made, lock = threading.Barrier(len(calls)), threading.Event(), threading.Lock()
    uploads = []

    def fault(method: str, path: str) -> str:
        if path.endswith(ending) and method == "HEAD" and not made.is_set():
            asked.wait(30)
        if path.endswith(ending) and method == "PUT":
            with lock:
                uploads.append(path)
                first = len(uploads) == 1
            # The server of these tests is none: it looks and puts in two steps.
            assert first or made.wait(30)
        return "pass"

    proxy.fault = fault
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
        wait(running, return_when=FIRST_COMPLETED, timeout=60)
        made.set()
    assert len(uploads) == len(calls)
    return [future.exception() or future.result() for future in running]


@pytest.mark.parametrize("specs", [(small_spec(), small_spec()), (small_spec(), OTHER_SPEC)])
def test_two_dumps_begin_one_store(proxy: FaultyProxy, url: str, specs: tuple) -> None:
    root = f"{S3Path.from_url(url).key}/zarr.json"
    calls = [lambda spec=spec: StoreWriter.create(url, spec, planned=SCENES) for spec in specs]
    results = at_once(proxy, root, calls)
    refused = [result for result in results if isinstance(result, AlreadyPublished)]
    (writer,) = [result for result in results if isinstance(result, StoreWriter)]
    assert len(refused) == 1
    assert "is a store already" in str(refused[0])
    assert TargetReader(url).spec == writer.spec


def test_two_dumps_seal_one_store(proxy: FaultyProxy, url: str) -> None:
    writer = StoreWriter.create(url, small_spec(), planned=SCENES)
    for scene, n_samples in SCENES.items():
        write_scene(writer, scene, n_samples)
    results = at_once(proxy, "sealed.json", [writer.seal, StoreWriter.open(url).seal])
    assert sorted(results) == [False, True]
    assert TargetReader(url).digest is not None


def failing_once(ending: str, how: str) -> Callable[[str, str], str]:
    left = [how]
    return lambda method, path: left.pop() if method == "PUT" and path.endswith(ending) and left else "pass"


def test_whose_answer_was_lost_has_made_the_store_all_the_same(proxy: FaultyProxy, url: str) -> None:
    proxy.fault = failing_once("teacher.zarr/zarr.json", "lost")
    writer = StoreWriter.create(url, small_spec(), planned=SCENES)
    assert proxy.counts["lost"] == 1
    writer.write_teacher_head(HEAD)
    with pytest.raises(AlreadyPublished):
        StoreWriter.create(url, small_spec(), planned=SCENES)


def test_another_object_is_never_taken_for_ones_own(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = S3Path.from_url(url)
    assert put_bytes(target, b"theirs")
    monkeypatch.setattr(S3Path, "exists", lambda self: False)
    for how in ("500", "lost"):
        proxy.fault = failing_once("teacher.zarr", how)
        assert not put_bytes(target, b"ours!!")
    assert target.read_bytes() == b"theirs"


def test_a_server_that_cannot_gives_a_warning(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.fault = failing_once("teacher.zarr", "501")
    with pytest.warns(UserWarning, match=r"knows no conditional upload(.|\n)*one process begin"):
        assert put_bytes(S3Path.from_url(url), b"ours")
    assert S3Path.from_url(url).read_bytes() == b"ours"
    assert not put_bytes(S3Path.from_url(url), b"again")


def test_an_upload_that_is_refused_otherwise_is_an_error(proxy: FaultyProxy) -> None:
    with pytest.raises(StorageUnavailable, match="no-such-bucket"):
        put_bytes(S3Path("no-such-bucket", "teacher.zarr"), b"ours")
