"""The dump command writes into a bucket what it writes into a folder."""

from __future__ import annotations

import itertools

from dump_cases import SCENES, contents
from object_store import objects

from cache_schema.reader import TargetReader
from cache_schema.storage import S3Path


def test_dump_into_a_bucket_equals_a_local_dump(run_dump, proxy, url, tmp_path, capsys):
    """Also when requests fail, and when it was stopped and goes on."""
    scenes = ("scene-0001", "scene-0004")
    options = ("--profile", "focal", "--focal-min-score", "0.018", "--scenes", *scenes)
    proxy.fault = lambda method, path: (
        "500" if method == "PUT" and path.endswith("scene-0004/manifest.json") else "pass"
    )
    assert run_dump(url, *options) == 2
    assert "scene-0004/manifest.json: HTTP 500" in capsys.readouterr().err
    assert list(TargetReader(url).scenes) == ["scene-0001"]

    turns = itertools.cycle(["pass"] * 10 + ["500"] + ["pass"] * 10 + ["cut"])
    uploads: list[str] = []

    def fault(method: str, path: str) -> str:
        uploads.extend([path] if method == "PUT" else [])
        return next(turns)

    proxy.fault = fault
    assert run_dump(url, *options) == 0
    assert uploads
    assert not [path for path in uploads if "scene-0001" in path or "teacher_head" in path]

    local = tmp_path / "teacher.zarr"
    assert run_dump(local, *options) == 0
    remote, expected = TargetReader(url), TargetReader(local)
    assert remote.sample_tokens == expected.sample_tokens
    assert len(expected) == sum(SCENES[scene] for scene in scenes)
    token = expected.sample_tokens[-1]
    found, wanted = remote[token], expected[token]
    assert list(found) == list(wanted)
    for name, values in wanted.items():
        assert found[name].tobytes() == values.tobytes()
    assert min(proxy.counts["500"], proxy.counts["cut"]) > 0

    proxy.fault = lambda method, path: "pass"
    assert objects(S3Path.from_url(url)) == contents(local)
