"""Requests to an object store that speaks S3: boto3's, repeated when they fail in passing, and never endless.

Endpoint, credentials and addresses are found as every AWS tool finds them: environment, `~/.aws`, roles, SSO.
There is one client a process. A child that is forked makes its own, as connections cannot be shared.
"""

import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from cache_schema.bounded_answers import AnswerRefused, AnswerTooLong, bound_answers
from cache_schema.errors import Corrupt, StorageUnavailable

PATIENCE_S = 180.0  # from the first failure on
TIMEOUT_S = 30.0  # without a byte from the server
CONNECTIONS = 64  # of a process: as many requests as are on their way at once
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 20.0
_WARN_AFTER_S = 3.0
_RETRIED = (408, 429, 500, 502, 503, 504)
_RACED = 409  # another conditional upload of this key runs, and may yet fail
_EXISTS = 412
_NOT_IMPLEMENTED = 501
_EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
_WAY_OUT = (
    "Look at the endpoint (AWS_ENDPOINT_URL), the region (AWS_REGION) and the credentials (AWS_PROFILE,\n"
    "AWS_ACCESS_KEY_ID, ~/.aws, the role of this machine): `aws s3 ls` finds them in the same places."
)

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


class ObjectExists(Exception):
    """An object is where one was to be made.

    Attributes:
        perhaps_ours: whether an earlier attempt got no proper answer, and may have made it all the same.
    """

    def __init__(self, url: str, *, perhaps_ours: bool) -> None:
        super().__init__(f"{url} exists already")
        self.perhaps_ours = perhaps_ours


class _Process:
    """What one process has: its client, and the threads that wait for answers."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None
        self._threads: ThreadPoolExecutor | None = None

    @property
    def client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = _new_client()
            return self._client

    @property
    def threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="focalcache-s3")
            return self._threads

    def forget_client(self) -> None:
        with self._lock:
            self._client = None


_process = _Process()


def _begin_anew() -> None:
    global _process
    _process = _Process()


os.register_at_fork(after_in_child=_begin_anew)


def forget_client() -> None:
    """Let the next request look up endpoint and credentials anew."""
    _process.forget_client()


def at_once(work: Callable[[ItemT], ResultT], items: list[ItemT]) -> list[ResultT]:
    """Results of `work` for each item, at up to CONNECTIONS of them at a time. Raises the first error.

    `work` makes requests, and never calls this.
    """
    if len(items) < 2:
        return [work(item) for item in items]
    futures = [_process.threads.submit(work, item) for item in items]
    try:
        return [future.result() for future in futures]
    finally:
        for future in futures:
            future.cancel()


def request(
    operation: str,
    bucket: str,
    key: str,
    *,
    use: Callable[[dict[str, Any]], ResultT] = lambda answer: answer,
    unless_there: bool = False,
    name: str | None = None,
    **parameters: Any,
) -> ResultT:
    """One operation of boto3's client, repeated while server or network fail in a way that may pass.

    Args:
        operation: as the client calls it: `get_object`.
        key: of the object; empty for an operation on the bucket.
        use: what becomes of the answer; it reads the body, if there is one, and so belongs to the attempt.
        unless_there: make an object only where none is.
        name: what errors call the place; the object when None.
        parameters: further ones of the operation. A file as `Body` is sent from its beginning each time.

    Raises:
        FileNotFoundError: no such object or bucket.
        ObjectExists: with `unless_there`, when there is one.
        NotImplementedError: the server cannot make an upload depend on that.
        Corrupt: the answer is longer than it can be.
        StorageUnavailable: refused, or failing for PATIENCE_S; names the object.
    """
    url = name or f"s3://{bucket}/{key}"
    parameters |= {"Bucket": bucket} | ({"Key": key} if key else {})
    parameters |= {"IfNoneMatch": "*"} if unless_there else {}
    attempts = _Attempts(operation, url)
    while True:
        client = _client(url)
        if hasattr(parameters.get("Body"), "seek"):
            parameters["Body"].seek(0)
        try:
            return use(getattr(client, operation)(**parameters))
        except AnswerTooLong as error:
            raise Corrupt(f"{url} {error}, which cannot be right") from None
        except Exception as error:
            _raise_final(error, attempts, unless_there)
            attempts.wait(error)


class _Attempts:
    """How long a request has failed, and when it is sent again."""

    def __init__(self, operation: str, url: str) -> None:
        self.url = url
        self.what = f"{operation} {url}"
        self._begun: float | None = None
        self._warned = self.expired = False
        self.count = 0

    def wait(self, error: Exception) -> None:
        """Until the next attempt. Raises StorageUnavailable when there was none that helped for too long."""
        now = time.monotonic()
        self._begun = now if self._begun is None else self._begun
        failing_s = now - self._begun
        self.count += 1
        if failing_s >= PATIENCE_S:
            raise StorageUnavailable(
                f"{self.what}: {_trouble(error)}, {self.count} times in {failing_s:.0f} s.\n"
                f"Run the same command again when the server is well. {_WAY_OUT}"
            ) from None
        if failing_s > _WARN_AFTER_S and not self._warned:
            self._warned = True
            warnings.warn(f"{self.what}: {_trouble(error)}; tried again for {PATIENCE_S:.0f} s", stacklevel=2)
        # At random, lest workers that failed together come back together.
        longest = min(_LONGEST_WAIT_S, _FIRST_WAIT_S * 2 ** min(self.count - 1, 20))
        time.sleep(min(longest * random.uniform(0.5, 1.0), PATIENCE_S - failing_s))


def _raise_final(error: Exception, attempts: _Attempts, unless_there: bool) -> None:
    """Raise what an error means, unless trying again may help."""
    from botocore import exceptions as known

    url = attempts.url
    if isinstance(error, known.ClientError):
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if status == 404:
            raise FileNotFoundError(2, "no such object", url) from None
        if unless_there and status == _EXISTS:
            raise ObjectExists(url, perhaps_ours=attempts.count > 0) from None
        if unless_there and status == _NOT_IMPLEMENTED:
            raise NotImplementedError(f"{url}: the server knows no If-None-Match") from None
        if error.response.get("Error", {}).get("Code") in _EXPIRED and not attempts.expired:
            attempts.expired = True
            forget_client()
            return
        if status in _RETRIED or (unless_there and status == _RACED):
            return
    elif isinstance(error, known.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        raise StorageUnavailable(
            f"{url}: {_trouble(error)}.\nName who signed the server's certificate: AWS_CA_BUNDLE, a file."
        ) from None
    elif isinstance(
        error,
        known.HTTPClientError
        | known.ConnectionError
        | known.CredentialRetrievalError
        | known.MetadataRetrievalError
        | known.IncompleteReadError
        | OSError,
    ):
        return
    elif not isinstance(error, known.BotoCoreError | AnswerRefused):
        raise error
    raise StorageUnavailable(f"{attempts.what}: {_trouble(error)}\n{_WAY_OUT}") from None


def _trouble(error: Exception) -> str:
    response = getattr(error, "response", None)
    if not response:
        return f"{type(error).__name__}: {error}"
    found = response.get("Error", {})
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    words = (f"HTTP {status}", found.get("Code"), found.get("Message"))
    return ": ".join(str(word)[:300] for word in words if word)


def _client(url: str) -> Any:
    try:
        return _process.client
    except ImportError:
        raise StorageUnavailable(f"{url}: boto3 is not installed: pip install 'focalcache[s3]'") from None
    except Exception as error:
        from botocore.exceptions import BotoCoreError

        if not isinstance(error, BotoCoreError | ValueError | OSError):
            raise
        raise StorageUnavailable(f"{url}: {_trouble(error)}\n{_WAY_OUT}") from None


def _new_client() -> Any:
    import boto3
    import botocore
    from botocore.config import Config

    session = boto3.session.Session()
    config = Config(
        # One attempt: what is repeated, and for how long, is decided here.
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=TIMEOUT_S,
        read_timeout=TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        parameter_validation=False,  # a sixth of what a request costs
        # The body is signed, which every server tests; the newer checksums are not known to all of them.
        s3={"payload_signing_enabled": True},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        **({} if session.get_credentials() else {"signature_version": botocore.UNSIGNED}),
    )
    region = os.environ.get("AWS_REGION") or session.region_name or "us-east-1"
    return bound_answers(session.client("s3", region_name=region, config=config))
