"""Samples from a slow bucket come in few round trips: counted, not timed, so a busy machine may run this."""

import os

import bucket_latency
import pytest
from delaying_server import BUCKET, DelayingServer, round_trips

from cache_schema import s3_client
from cache_schema.reader import TargetReader

# So long that all requests of a round are sent before the first is answered, on whatever machine.
DELAY_S = 1.0


@pytest.mark.parametrize("profile", bucket_latency.PROFILES)
def test_round_trips(tmp_path, monkeypatch, profile):
    pytest.importorskip("boto3")
    bucket_latency.write(tmp_path / profile, profile)
    local = TargetReader(tmp_path / profile)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    with DelayingServer(tmp_path, DELAY_S) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
        s3_client.forget_client()
        reader = TargetReader(f"s3://{BUCKET}/{profile}")
        assert len(reader) == len(local)
        found = {"open": round_trips(server.requests())}
        for step, token in (("first", "scene-0000-0"), ("next", "scene-0000-2"), ("other", "scene-0001-1")):
            sample = reader[token]
            found[step] = round_trips(server.requests())
            assert all(sample[name].tobytes() == values.tobytes() for name, values in local[token].items())
    s3_client.forget_client()
    assert found == {"open": 2, "first": 2, "next": 1, "other": 2}


def test_counting():
    assert round_trips([(0, 1), (0.5, 1.5), (1.1, 2), (1.6, 3)]) == 2
    assert round_trips([]) == 0
