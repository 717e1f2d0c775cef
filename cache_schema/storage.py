"""Where a store lies: a local folder (`pathlib.Path`) or a prefix in an object store (`S3Path`).

`S3Path` has the few methods of `Path` that reading and publishing need, so that both are used alike.
"""

import contextlib
import errno
import io
import os
import re
import shutil
import tempfile
import warnings
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

from cache_schema.errors import Corrupt, StorageUnavailable, StoreNotFound, Unreadable
from cache_schema.s3_client import ObjectExists, request

_SCHEME = "s3://"
_ENDPOINT = "AWS_ENDPOINT_URL"
_MAX_PAGES = 10_000  # of a thousand names each
_PAGE_NBYTES = 1 << 24


@dataclass(frozen=True)
class S3Path:
    """An object, or the prefix of objects, in a bucket; cheap to pickle, holds no connection.

    Every method raises StorageUnavailable when the server keeps failing or refuses.
    """

    bucket: str
    key: str

    @classmethod
    def from_url(cls, url: str) -> Self:
        """From `s3://bucket/prefix`. Raises StoreNotFound when it is not of that form."""
        bucket, _, key = url.removeprefix(_SCHEME).partition("/")
        key = key.strip("/")
        if not bucket or not key:
            raise StoreNotFound(f"{url}: give a bucket and a prefix, s3://bucket/teacher.zarr")
        return cls(bucket, key)

    def __truediv__(self, name: str) -> "S3Path":
        return S3Path(self.bucket, f"{self.key}/{name}")

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"

    def read_bytes(self, limit: int | None = None) -> bytes:
        """The whole object. Raises FileNotFoundError, and Corrupt when it has more than `limit` bytes."""
        return request("GET", self.bucket, self.key, limit=limit).body

    def read_range(self, start: int, stop: int) -> bytes:
        """Bytes start…stop of the object, stop > start.

        Raises FileNotFoundError, and Corrupt when the server gives other bytes than these.
        """
        headers = {"range": f"bytes={start}-{stop - 1}"}
        answer = request("GET", self.bucket, self.key, headers=headers, limit=stop - start)
        place = answer.headers.get("content-range", "")
        if answer.status != 206 or not place.startswith(f"bytes {start}-{stop - 1}/"):
            raise Corrupt(f"{self}: bytes {start} to {stop} asked for, got {place or 'another answer'}")
        if len(answer.body) != stop - start:
            raise Corrupt(f"{self}: {len(answer.body)} bytes where {stop - start} belong")
        return answer.body

    def size(self) -> int:
        """Bytes of the object. Raises FileNotFoundError."""
        found = request("HEAD", self.bucket, self.key).headers.get("content-length", "")
        if not found.isdecimal():
            raise StorageUnavailable(
                f"{self}: the server does not say how long it is. Is {_ENDPOINT} one of S3?"
            )
        return int(found)

    def exists(self) -> bool:
        """Whether there is an object of this very key."""
        try:
            request("HEAD", self.bucket, self.key)
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def upload(self, body: BinaryIO, *, unless_there: bool = False) -> None:
        """Put an object here, whole or not at all, over any that was there.

        Raises ObjectExists and NotImplementedError, as `request` does, with `unless_there`.
        """
        try:
            request("PUT", self.bucket, self.key, body=body, unless_there=unless_there)
        except FileNotFoundError:
            raise StorageUnavailable(f"{self}: there is no bucket {self.bucket}; make it first") from None

    def names(self) -> list[str]:
        """Names one level below this prefix, of objects and of further prefixes. Raises FileNotFoundError."""
        return [name.rstrip("/") for name in self._listed({"delimiter": "/"})]

    def all_names(self) -> list[str]:
        """Names of all objects below this prefix, with "/" between their parts. Raises FileNotFoundError."""
        return list(self._listed({}))

    def is_dir(self) -> bool:
        """Whether objects lie below this prefix."""
        return next(self._listed({"max-keys": "1"}), None) is not None

    def unlink(self) -> None:
        """Remove the object; no error when there is none."""
        with contextlib.suppress(FileNotFoundError):
            request("DELETE", self.bucket, self.key)

    def _listed(self, options: Mapping[str, str]) -> Iterator[str]:
        query = {"list-type": "2", "prefix": f"{self.key}/", **options}
        for _ in range(_MAX_PAGES):
            page = self._page(request("GET", self.bucket, "", query=query, limit=_PAGE_NBYTES).body)
            keys = page.iterfind("{*}Contents/{*}Key"), page.iterfind("{*}CommonPrefixes/{*}Prefix")
            yield from (str(key.text)[len(self.key) + 1 :] for kind in keys for key in kind)
            following = page.findtext("{*}NextContinuationToken")
            if not following:
                return
            query["continuation-token"] = following
        raise StorageUnavailable(f"{self}: its listing does not end. Is {_ENDPOINT} the right server?")

    def _page(self, body: bytes) -> ElementTree.Element:
        try:
            if b"<!" in body:  # a document type, which S3 never sends, may grow without end
                raise ElementTree.ParseError("a document type")
            return ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            raise StorageUnavailable(f"{self}: no listing: {error}. Is {_ENDPOINT} one of S3?") from None


StorePath = Path | S3Path


class RemoteBytes:
    """The bytes of an object, to be sliced like a memoryview: a slice is one range request."""

    def __init__(self, path: S3Path) -> None:
        self._path = path
        self.nbytes = path.size()

    def __getitem__(self, place: slice) -> memoryview:
        start, stop, _ = place.indices(self.nbytes)
        try:
            return memoryview(self._path.read_range(start, stop) if stop > start else b"")
        except FileNotFoundError:
            raise Corrupt(f"{self._path} is gone") from None


def store_path(place: "str | StorePath") -> StorePath:
    """A store's place from what a user says. Raises StoreNotFound for an URL that is none of ours."""
    if isinstance(place, S3Path):
        return place
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", str(place))
    if scheme is None:
        return Path(place)
    if scheme[0] != _SCHEME:
        raise StoreNotFound(
            f"{place}: a store lies in a folder or at {_SCHEME}bucket/prefix, not at {scheme[0]}\n"
            "Copy it into a folder, or reach its bucket by S3 (AWS_ENDPOINT_URL)."
        )
    return S3Path.from_url(place)


def names_in(folder: StorePath) -> list[str]:
    """Names in a folder, sorted; none when there is no such folder. Raises Unreadable."""
    try:
        return sorted(folder.names() if isinstance(folder, S3Path) else os.listdir(folder))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            return []
        raise Unreadable(f"{folder} cannot be listed: {error.strerror}.\nLet this user read it.") from None


def names_below(folder: StorePath) -> tuple[list[str], list[str]]:
    """Relative paths of all files and of all folders below a folder; an object store has no folders."""
    if isinstance(folder, S3Path):
        return sorted(folder.all_names()), []
    files, folders = [], []
    for path in sorted(folder.rglob("*")):
        kind = folders if path.is_dir() and not path.is_symlink() else files
        kind.append(path.relative_to(folder).as_posix())
    return files, folders


def put_bytes(target: S3Path, data: bytes) -> bool:
    """Upload `data` unless something is there; returns whether this call did it.

    Of several that do so at once one gets True. One whose answer was lost counts equal bytes as its own.
    With a server that knows no conditional upload two may both succeed: there is a warning.
    """
    if target.exists():
        return False
    try:
        target.upload(io.BytesIO(data), unless_there=True)
    except ObjectExists as error:
        return error.perhaps_ours and target.size() == len(data) and target.read_bytes(len(data)) == data
    except NotImplementedError:
        warnings.warn(
            f"{target}: the server knows no conditional upload (If-None-Match).\n"
            "Let one process begin a store there before others join it.",
            stacklevel=2,
        )
        target.upload(io.BytesIO(data))
    return True


@contextlib.contextmanager
def uploaded_folder(target: S3Path, last: str) -> Iterator[Path]:
    """A local temporary folder whose files are uploaded to `target` when the block ends well.

    Args:
        last: name of the file that makes the others count; it goes when all of them are there.
    """
    folder = Path(tempfile.mkdtemp(prefix="focalcache-"))
    try:
        yield folder
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / last]
        for path in [*files, folder / last]:
            with path.open("rb") as body:
                (target / path.relative_to(folder).as_posix()).upload(body)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
