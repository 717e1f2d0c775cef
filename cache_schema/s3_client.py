"""HTTP requests to an object store that speaks S3, signed, and repeated when they fail in passing.

Only the standard library: TensorStore's client aborts a forked data worker once its parent has used it, and
connections here belong to one thread of one process. Endpoint and credentials come from AWS_ENDPOINT_URL,
AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; without a key nothing is signed.

Source of the signature: Amazon S3 API reference, "Authenticating Requests (AWS Signature Version 4)".
"""

import datetime
import hashlib
import hmac
import http.client
import os
import random
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO
from urllib.parse import quote, urlsplit

from cache_schema.errors import Corrupt, StorageUnavailable

ATTEMPTS = 7
TIMEOUT_S = 30.0  # without a byte from the server
_FIRST_WAIT_S = 0.1  # doubles with every attempt
_RETRIED = (408, 429, 500, 502, 503, 504)
_RACED = 409  # another conditional upload of this key runs, and may yet fail
_EXISTS = 412
_NOT_IMPLEMENTED = 501
_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
_BLOCK_NBYTES = 1 << 20
_ANSWER_NBYTES = 1 << 24  # of an answer whose length nobody can know before

_local = threading.local()


class ObjectExists(Exception):
    """An object is where one was to be made.

    Attributes:
        perhaps_ours: whether an earlier attempt got no proper answer, and may have made it all the same.
    """

    def __init__(self, url: str, *, perhaps_ours: bool) -> None:
        super().__init__(f"{url} exists already")
        self.perhaps_ours = perhaps_ours


@dataclass(frozen=True)
class Response:
    """What the server said; `headers` by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(
    method: str,
    bucket: str,
    key: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: BinaryIO | None = None,
    limit: int | None = None,
    unless_there: bool = False,
) -> Response:
    """One request, repeated while the server or the network fails in a way that may pass.

    Args:
        key: of the object; empty for the bucket itself.
        body: what to upload, from its beginning.
        limit: most bytes that the answer may have; no more are taken.
        unless_there: upload only where no object is.

    Raises:
        FileNotFoundError: no such object or bucket.
        ObjectExists: with `unless_there`, when there is one.
        NotImplementedError: the server cannot make an upload depend on that.
        Corrupt: the answer is longer than `limit`.
        StorageUnavailable: refused, or still failing after ATTEMPTS; names the object.
    """
    url = f"s3://{bucket}/{key}"
    limit = _ANSWER_NBYTES if limit is None else limit
    headers = dict(headers or {}) | ({"if-none-match": "*"} if unless_there else {})
    payload = _EMPTY_SHA256 if body is None else _sha256(body)
    trouble = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            # At random, lest workers that failed together come back together.
            time.sleep(_FIRST_WAIT_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
        try:
            response = _once(method, bucket, key, query or {}, dict(headers), body, payload, limit)
        except (OSError, http.client.HTTPException) as error:
            _forget_connection()
            trouble = f"{type(error).__name__}: {error}"
            continue
        if response.status < 300:
            if len(response.body) > limit:
                raise Corrupt(f"{url} has more than {limit:,} bytes, which cannot be right")
            return response
        if response.status == 404:
            raise FileNotFoundError(2, "no such object", url)
        if unless_there and response.status == _EXISTS:
            raise ObjectExists(url, perhaps_ours=attempt > 0)
        if unless_there and response.status == _NOT_IMPLEMENTED:
            raise NotImplementedError(f"{url}: the server knows no If-None-Match")
        trouble = f"HTTP {response.status}"
        if response.status not in _RETRIED and not (unless_there and response.status == _RACED):
            raise StorageUnavailable(
                f"{method} {url}: {trouble}: {response.body[:300].decode(errors='replace')}\n"
                "Look at AWS_ENDPOINT_URL, AWS_REGION, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
    raise StorageUnavailable(
        f"{method} {url}: {trouble}, {ATTEMPTS} times.\nRun the same command again when the server is well."
    )


def authorization(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    *,
    payload_sha256: str,
    region: str,
    key_id: str,
    secret: str,
) -> str:
    """The header that signs a request: `path` and `query` as they are sent, `headers` by lower-case name.

    `headers` holds at least `host` and `x-amz-date`; all of them are signed.
    """
    names = ";".join(sorted(headers))
    lines = [f"{name}:{headers[name].strip()}" for name in sorted(headers)]
    canonical = "\n".join([method, path, query, *lines, "", names, payload_sha256])
    moment = headers["x-amz-date"]
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signing_key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), to_sign):
        signing_key = hmac.digest(signing_key, part.encode(), "sha256")
    return f"AWS4-HMAC-SHA256 Credential={key_id}/{scope},SignedHeaders={names},Signature={signing_key.hex()}"


def _once(
    method: str,
    bucket: str,
    key: str,
    query: Mapping[str, str],
    headers: dict[str, str],
    body: BinaryIO | None,
    payload_sha256: str,
    limit: int,
) -> Response:
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    address = urlsplit(endpoint)
    path = quote(f"{address.path.rstrip('/')}/{bucket}/{key}", safe="/-_.~")
    query_text = "&".join(f"{quote(k, safe='-_.~')}={quote(query[k], safe='-_.~')}" for k in sorted(query))
    moment = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%SZ")
    headers |= {"host": address.netloc, "x-amz-date": moment, "x-amz-content-sha256": payload_sha256}
    if os.environ.get("AWS_SESSION_TOKEN"):
        headers["x-amz-security-token"] = os.environ["AWS_SESSION_TOKEN"]
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        headers["authorization"] = authorization(
            method,
            path,
            query_text,
            headers,
            payload_sha256=payload_sha256,
            region=region,
            key_id=os.environ["AWS_ACCESS_KEY_ID"],
            secret=os.environ.get("AWS_SECRET_ACCESS_KEY", ""),
        )
    if body is not None:
        headers["content-length"] = str(body.seek(0, os.SEEK_END))
        body.seek(0)
    connection = _connection(address.scheme, address.netloc)
    connection.request(method, f"{path}?{query_text}" if query_text else path, body, headers)
    answer = connection.getresponse()
    content = answer.read(limit + 1)
    if len(content) <= limit and answer.length:
        raise http.client.IncompleteRead(content, answer.length)
    if answer.will_close or len(content) > limit:
        _forget_connection()
    return Response(answer.status, {name.lower(): value for name, value in answer.getheaders()}, content)


def _connection(scheme: str, netloc: str) -> http.client.HTTPConnection:
    """This thread's connection. One that a parent process opened is left to it."""
    owner = (os.getpid(), scheme, netloc)
    if getattr(_local, "owner", None) != owner:
        kind = http.client.HTTPSConnection if scheme == "https" else http.client.HTTPConnection
        _local.connection, _local.owner = kind(netloc, timeout=TIMEOUT_S), owner
    return _local.connection


def _forget_connection() -> None:
    if getattr(_local, "owner", None) is not None:
        _local.connection.close()
        _local.owner = None


def _sha256(body: BinaryIO) -> str:
    body.seek(0)
    digest = hashlib.sha256()
    while block := body.read(_BLOCK_NBYTES):
        digest.update(block)
    return digest.hexdigest()
