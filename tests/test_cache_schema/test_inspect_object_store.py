"""The commands of inspect_cache.py on stores in a bucket."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from corruption_cases import profile_store
from faulty_proxy import FaultyProxy, seeded_faults
from object_store import HEAD, SCENES, objects, write
from page_cases import facts_of
from store_cases import small_spec, write_scene

from cache_schema.inspect_cache import main
from cache_schema.storage import S3Path
from cache_schema.writer import StoreWriter


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """`run("info", store, …)`: the exit code, and what was printed on stdout (on stderr when it is 2)."""

    def run(*arguments: object) -> tuple[int, str]:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        return code, printed.err if code == 2 else printed.out

    return run


def test_same_words_as_for_a_local_store_although_requests_fail(
    proxy: FaultyProxy, url: str, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    local = tmp_path / "local.zarr"
    for place in (url, local):
        profile_store(place, "exact", {"scene-0001": 2})
    proxy.fault = seeded_faults(4)
    for command in (
        ("info", "STORE"),
        ("info", "STORE", "--json"),
        ("verify", "STORE"),
        ("tokens", "STORE"),
        ("show", "STORE", "scene-0001-token1"),
        ("diff", local, "STORE"),
    ):
        code, text = run(*(url if word == "STORE" else word for word in command))
        assert (code, text.replace(url, str(local))) == run(
            *(local if word == "STORE" else word for word in command)
        )
        assert code == 0
    assert min(proxy.counts[fault] for fault in ("500", "slow", "cut")) > 0


def test_a_page_of_a_store_in_a_bucket(url: str, tmp_path: Path, run: Callable[..., tuple[int, str]]) -> None:
    profile_store(url, "compact", {"scene-0001": 2})
    code, text = run("report", url, "--out", tmp_path / "r.html")
    assert (code, str(tmp_path / "r.html") in text) == (0, True)
    assert len(facts_of((tmp_path / "r.html").read_text())["frames"]) == 2


def flip(place: S3Path) -> None:
    content = bytearray(place.read_bytes())
    content[5] ^= 1
    place.upload(io.BytesIO(content))


def put(place: S3Path) -> None:
    place.upload(io.BytesIO(b"mine"))


DAMAGES = {
    "scenes/scene-0001/bev_feats/c.0.0.0.0": (flip, "row 0: its bytes do not match their CRC-32C"),
    "scenes/scene-0001/can_bus/c.0.0": (S3Path.unlink, "is gone"),
    "scenes/scene-0001/can_bus/zarr.json": (flip, "does not match its checksum"),
    "scenes/scene-0001/query_boxes/c.0.0.0.0": (put, "has 4 bytes"),
    "scenes/scene-0002/manifest.json": (S3Path.unlink, "is gone"),
    "teacher_head/decoder.weight/c.0.0": (flip, "does not match the checksum of parameter"),
}
STRANGERS = ("notes.txt", "scenes/notes.txt", "scenes/scene-0003/bev_feats/c.9")


def test_damage_is_found_and_repaired(
    proxy: FaultyProxy, url: str, tmp_path: Path, run: Callable[..., tuple[int, str]]
) -> None:
    write(url)
    write(tmp_path / "local.zarr")
    root = S3Path.from_url(url)
    for path, (damage, _) in DAMAGES.items():
        damage(root / path)
    for path in STRANGERS:
        put(root / path)
    code, text = run("verify", "--repair", url)
    assert code == 1
    said = dict(line.split(maxsplit=1) for line in text.splitlines() if line.startswith("  "))
    for path, (_, words) in DAMAGES.items():
        assert words in said[path]
    assert said["notes.txt"] == said["scenes/notes.txt"] == "does not belong there"
    assert said["scenes/scene-0003"] == "is not a scene of the store's plan"
    parts = ("scenes/scene-0001", "scenes/scene-0002", "teacher_head")
    assert f"taken out: sealed.json, {', '.join(parts)}\n" in text
    assert not any((root / part).is_dir() for part in parts)
    for path in STRANGERS:
        assert (root / path).exists()
        (root / path).unlink()
    writer = StoreWriter.open(url)
    assert writer.missing_scenes() == list(SCENES)
    writer.write_teacher_head(HEAD)
    for scene, n_samples in SCENES.items():
        write_scene(writer, scene, n_samples)
    assert writer.seal()
    assert run("verify", "--jobs", 2, url)[0] == 0
    local = tmp_path / "local.zarr"
    files = {p.relative_to(local).as_posix(): p.read_bytes() for p in local.rglob("*") if p.is_file()}
    assert objects(root) == files


def test_scene_that_is_being_uploaded_is_no_fault_and_a_server_that_fails_is_no_answer(
    proxy: FaultyProxy, url: str, run: Callable[..., tuple[int, str]]
) -> None:
    writer = StoreWriter.create(url, small_spec(), planned={"scene-0001": 1, "scene-0002": 1})
    write_scene(writer, "scene-0001", 1)
    put(S3Path.from_url(url) / "scenes" / "scene-0002" / "can_bus" / "c.0.0")
    put(S3Path.from_url(url) / "teacher_head" / "decoder.weight" / "c.0.0")
    code, text = run("verify", url)
    assert code == 1
    assert "faults" not in text
    assert "unfinished, 1 planned scene not there yet" in text
    assert "2 parts of dumps that still run, or were killed" in text
    assert "2 unpublished parts" in run("info", url)[1]
    proxy.fault = lambda method, path: "500" if "bev_feats/c.0" in path else "pass"
    code, text = run("verify", url)
    assert code == 2
    assert "StorageUnavailable" in text
    assert "bev_feats/c.0.0.0.0" in text


def test_nothing_there(url: str, run: Callable[..., tuple[int, str]]) -> None:
    for command in (("info", url), ("verify", url), ("show", url, "a"), ("diff", url, url)):
        code, text = run(*command)
        assert (code, f"no store at {url}" in text) == (2, True)
