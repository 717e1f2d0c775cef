"""How a bucket is reached: like other AWS tools do, again and again for minutes, by one client a process."""

import datetime
import io
import multiprocessing
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from faulty_proxy import FaultyProxy
from object_store import write
from raw_server import RawServer

from cache_schema import s3_client, s3_upload
from cache_schema.errors import Corrupt, StorageUnavailable
from cache_schema.reader import TargetReader
from cache_schema.storage import S3Path

OBJECT = S3Path("cache", "teacher.zarr")


def ok(body: bytes = b"x", **headers: str):
    return lambda method, path, _: (200, {"Content-Length": str(len(body)), **headers}, [body])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """A machine on which nobody has said anything about AWS."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setattr(s3_client, "PATIENCE_S", 0.3)
    s3_client.forget_client()
    yield tmp_path
    s3_client.forget_client()


def serve(answer, **kwargs):
    server = RawServer(answer, **kwargs)
    return server, server.seen


def test_credentials_region_and_endpoint_of_a_profile(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, seen = serve(ok())
    (bare / "credentials").write_text("[lab]\naws_access_key_id = LABKEY\naws_secret_access_key = s\n")
    (bare / "config").write_text(f"[profile lab]\nregion = eu-north-1\nendpoint_url = {server.url()}\n")
    monkeypatch.setenv("AWS_PROFILE", "lab")
    assert OBJECT.read_bytes() == b"x"
    ((_, path, headers),) = seen
    assert path == "/cache/teacher.zarr"
    assert "Credential=LABKEY/" in headers["authorization"]
    assert "/eu-north-1/s3/" in headers["authorization"]


def test_a_profile_that_is_not_there_is_told_with_the_way_out(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    with pytest.raises(StorageUnavailable, match=r"s3://cache/teacher\.zarr: .*nobody(.|\n)*AWS_PROFILE"):
        OBJECT.read_bytes()


def test_credentials_of_a_process_are_renewed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that calls the first key expired gets the second one, without a word."""

    def answer(method, path, headers):
        if "Credential=FIRST/" in headers["authorization"]:
            body = b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
            (bare / "credentials").write_text(
                "[default]\naws_access_key_id = SECOND\naws_secret_access_key = s\n"
            )
            return 400, {"Content-Length": str(len(body))}, [body]
        return ok()(method, path, headers)

    server, seen = serve(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url())
    (bare / "credentials").write_text("[default]\naws_access_key_id = FIRST\naws_secret_access_key = s\n")
    assert OBJECT.read_bytes() == b"x"
    assert len(seen) == 2


def test_without_credentials_nothing_is_signed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, seen = serve(ok())
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url())
    assert OBJECT.read_bytes() == b"x"
    assert "authorization" not in seen[0][2]


def test_the_bucket_in_the_host_name(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server, seen = serve(ok())
    known = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *args, **kw: known("127.0.0.1" if host == "cache.storage.test" else host, *args, **kw),
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url("storage.test"))
    (bare / "config").write_text("[default]\ns3 =\n    addressing_style = virtual\n")
    assert OBJECT.read_bytes() == b"x"
    assert seen[0][1] == "/teacher.zarr"
    assert seen[0][2]["host"].startswith("cache.storage.test")


def test_a_bucket_of_another_region_is_followed(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(method, path, headers):
        if "/eu-central-1/s3/" in headers["authorization"]:
            return ok()(method, path, headers)
        body = b"<Error><Code>PermanentRedirect</Code><Message>elsewhere</Message></Error>"
        return 301, {"Content-Length": str(len(body)), "x-amz-bucket-region": "eu-central-1"}, [body]

    server, seen = serve(answer)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url())
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    assert OBJECT.read_bytes() == b"x"
    assert OBJECT.read_bytes() == b"x"
    assert len([1 for _, _, headers in seen if "/us-east-1/" in headers["authorization"]]) <= 2


@pytest.fixture
def certificate(tmp_path: Path) -> str:
    """A certificate for 127.0.0.1 that its own key has signed, and the key."""
    x509 = pytest.importorskip("cryptography.x509")
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "lab")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "lab.pem"
    pem = serialization.Encoding.PEM
    plain, none = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    path.write_bytes(signed.public_bytes(pem) + key.private_bytes(pem, plain, none))
    return str(path)


def test_an_authority_of_ones_own(bare: Path, certificate: str, monkeypatch: pytest.MonkeyPatch) -> None:
    server, _ = serve(ok(), certificate=certificate)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url())
    with pytest.raises(StorageUnavailable, match=r"(?s)CERTIFICATE_VERIFY_FAILED.*AWS_CA_BUNDLE"):
        OBJECT.read_bytes()
    monkeypatch.setenv("AWS_CA_BUNDLE", certificate)
    s3_client.forget_client()
    assert OBJECT.read_bytes() == b"x"


def test_a_server_that_was_away_for_a_while(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = S3Path.from_url(url)
    target.upload(io.BytesIO(b"here"))
    monkeypatch.setattr(s3_client, "_LONGEST_WAIT_S", 0.01)
    monkeypatch.setattr(s3_client, "PATIENCE_S", 60.0)
    left = ["500", "503", "cut"] * 8
    proxy.fault = lambda method, path: left.pop() if left else "pass"
    assert target.read_bytes() == b"here"
    assert not left


def test_waits_grow_and_differ_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now, waits = [0.0], []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(s3_client.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(s3_client.time, "sleep", sleep)
    attempts = s3_client._Attempts("get_object", "s3://cache/a")

    def fail_for_ever() -> None:
        while True:
            attempts.wait(OSError("no"))

    with pytest.warns(UserWarning, match="tried again for 180 s") as warned:  # noqa: SIM117
        with pytest.raises(StorageUnavailable, match=r"s3://cache/a: OSError: no, \d+ times in 180 s"):
            fail_for_ever()
    assert len(warned) == 1
    assert len(set(waits)) == len(waits) > 10
    assert max(waits) <= 20
    assert waits[0] < 0.2


def test_a_body_that_fails_its_checksum_is_fetched_again(proxy: FaultyProxy, url: str) -> None:
    """Each object's first whole answer has a flipped bit; what lies in the bucket is sound."""
    write(url)
    proxy.fault = lambda method, path: "pass"
    expected = {token: TargetReader(url)[token] for token in TargetReader(url).sample_tokens}
    head = TargetReader(url).read_teacher_head()
    flipped = set()

    def fault(method: str, path: str) -> str:
        if method == "GET" and path not in flipped:
            flipped.add(path)
            return "flip"
        return "pass"

    proxy.fault = fault
    reader = TargetReader(url)
    for token, arrays in expected.items():
        found = reader[token]
        assert all(found[name].tobytes() == values.tobytes() for name, values in arrays.items())
    assert reader.read_teacher_head()["decoder.weight"].tobytes() == head["decoder.weight"].tobytes()
    assert proxy.counts["flip"] == len(flipped) > 10
    proxy.fault = lambda method, path: "flip" if "bev_feats" in path else "pass"
    with pytest.raises(Corrupt, match="sample scene-0001-token0"):
        reader["scene-0001-token0"]


@pytest.mark.parametrize("fault", ["pass", "lost"])
def test_long_objects_go_in_parts(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """`lost`: the server does what it was asked for, and the answer to each request is lost once."""
    monkeypatch.setattr(s3_upload, "MULTIPART_NBYTES", 6 << 20)
    monkeypatch.setattr(s3_upload, "_PART_NBYTES", 5 << 20)
    content = os.urandom((12 << 20) + 1)
    methods, lost = [], set()

    def faults(method: str, path: str) -> str:
        methods.append(method)
        once = (method, path.partition("?uploads")[1] or path)
        if fault == "pass" or once in lost or method == "GET":
            return "pass"
        lost.add(once)
        return fault

    proxy.fault = faults
    target = S3Path.from_url(url) / "long"
    target.upload(io.BytesIO(content))
    assert target.read_bytes() == content
    assert methods.count("PUT") == (3 if fault == "pass" else 6)


def test_an_upload_in_parts_that_fails_leaves_nothing(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_upload, "MULTIPART_NBYTES", 6 << 20)
    monkeypatch.setattr(s3_upload, "_PART_NBYTES", 5 << 20)
    proxy.fault = lambda method, path: "500" if "partNumber=2" in path else "pass"
    target = S3Path.from_url(url) / "long"
    with pytest.raises(StorageUnavailable, match="long: HTTP 500"):
        target.upload(io.BytesIO(bytes(12 << 20)))
    assert not target.exists()
    uploads = s3_client.request("list_multipart_uploads", target.bucket, "").get("Uploads", ())
    assert target.key not in [upload["Key"] for upload in uploads]


def test_long_ranges_are_fetched_in_pieces(
    proxy: FaultyProxy, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(url)
    expected = TargetReader(url)["scene-0001-token1"]
    monkeypatch.setattr("cache_schema.storage.PIECE_NBYTES", 100)
    found = TargetReader(url)["scene-0001-token1"]
    assert all(found[name].tobytes() == values.tobytes() for name, values in expected.items())


def client_of_a_child(parents: int) -> tuple[bool, bool]:
    fresh = s3_client._process._client is None
    return fresh, id(s3_client._process) != parents and OBJECT.exists() is False


def test_one_client_a_process_made_after_the_fork(proxy: FaultyProxy, url: str) -> None:
    S3Path.from_url(url).exists()
    client = s3_client._process.client
    S3Path.from_url(url).exists()
    assert s3_client._process.client is client
    with multiprocessing.get_context("fork").Pool(1) as pool:
        result = pool.apply_async(client_of_a_child, (id(s3_client._process),))
        assert result.get(timeout=60) == (True, True)


WITHOUT = """
import sys
sys.modules["boto3"] = sys.modules["botocore"] = sys.modules["torch"] = None
import cache_schema.reader, cache_schema.writer, cache_schema.inspect_cache
from cache_schema.errors import StorageUnavailable
try:
    cache_schema.reader.TargetReader("s3://cache/teacher.zarr")
except StorageUnavailable as error:
    print(error)
"""


def test_stores_in_folders_need_no_boto3() -> None:
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert done.returncode == 0, done.stderr
    assert "pip install 'focalcache[s3]'" in done.stdout


def test_a_sealed_store_is_never_listed(proxy: FaultyProxy, url: str) -> None:
    write(url)
    asked = []
    proxy.fault = lambda method, path: asked.append(f"{method} {path}") or "pass"
    reader = TargetReader(url)
    for token in reader.sample_tokens:
        reader[token]
    reader.read_teacher_head()
    assert asked
    assert not [line for line in asked if "list-type" in line or line.startswith("HEAD")]
