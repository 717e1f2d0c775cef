"""An object store on this machine, and stores in it: fixtures, which a conftest imports, and helpers."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from faulty_proxy import FaultyProxy
from store_cases import small_spec, write_scene

from cache_schema import s3_client
from cache_schema.storage import S3Path
from cache_schema.writer import StoreWriter

SCENES = {"scene-0001": 3, "scene-0002": 2}
HEAD = {"decoder.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}


@pytest.fixture(scope="session")
def server_port() -> Iterator[int]:
    # A command, not a library: moto and botocore want other versions of what the trainer stands on.
    # Beside this Python: an environment that was not activated is not on the PATH.
    places = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    command = os.environ.get("MOTO_SERVER") or shutil.which("moto_server", path=places)
    if command is None:
        pytest.skip("moto_server is not installed (pip install 'moto[s3,server]'; or MOTO_SERVER=its path)")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [command, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/", timeout=5).close()
                break
            except OSError:
                assert process.poll() is None, "moto_server ended at its start"
                assert time.monotonic() < deadline, "moto_server did not start"
                time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture
def proxy(server_port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    proxy = FaultyProxy(server_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setattr(s3_client, "_FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(s3_client, "PATIENCE_S", 1.0)
    s3_client.forget_client()
    yield proxy
    s3_client.forget_client()
    proxy.shutdown()
    proxy.server_close()


@pytest.fixture
def url(proxy: FaultyProxy, tmp_path: Path) -> str:
    s3_client.request("create_bucket", "cache", "")
    return f"s3://cache/{tmp_path.name}/teacher.zarr"


def write(place: object) -> None:
    writer = StoreWriter.create(place, small_spec(), planned=SCENES)
    writer.write_teacher_head(HEAD)
    for scene, n_samples in SCENES.items():
        write_scene(writer, scene, n_samples)
    assert writer.seal()


def objects(prefix: S3Path) -> dict[str, bytes]:
    """Contents of every object below a prefix, by relative key."""
    return {name: (prefix / name).read_bytes() for name in prefix.all_names()}
