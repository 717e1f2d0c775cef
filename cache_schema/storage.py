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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self, TypeVar

from cache_schema.bounded_answers import ANSWER_NBYTES, AnswerCut, read_at_most
from cache_schema.errors import Corrupt, StorageUnavailable, StoreNotFound, Unreadable
from cache_schema.s3_client import ObjectExists, at_once, request
from cache_schema.s3_upload import upload

_SCHEME = "s3://"
_ENDPOINT = "AWS_ENDPOINT_URL"
_MAX_PAGES = 10_000  # of a thousand names each
PIECE_NBYTES = 1 << 23  # of a range, in one request
FETCHES = 3  # of bytes that do not match their checksum

ResultT = TypeVar("ResultT")
ItemT = TypeVar("ItemT")


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

    def read_bytes(self, limit: int = ANSWER_NBYTES) -> bytes:
        """The whole object. Raises FileNotFoundError, and Corrupt when it has more than `limit` bytes."""

        def body(answer: dict[str, Any]) -> bytes:
            content = read_at_most(answer["Body"], limit)
            if len(content) != answer.get("ContentLength", len(content)):
                raise AnswerCut(f"{len(content)} bytes of {answer['ContentLength']}")
            return content

        return request("get_object", self.bucket, self.key, use=body)

    def read_range(self, start: int, stop: int, nbytes: int) -> bytes:
        """Bytes start…stop of an object of `nbytes` bytes, 0 ≤ start < stop ≤ nbytes.

        Raises FileNotFoundError, and Corrupt when the object has another size, or the server gives other
        bytes than these.
        """

        def body(answer: dict[str, Any]) -> bytes:
            place = str(answer.get("ContentRange", ""))
            _, _, total = place.partition("/")
            if total.isdecimal() and int(total) != nbytes:
                raise Corrupt(f"{self} has {int(total)} bytes, {nbytes} were written")
            if place != f"bytes {start}-{stop - 1}/{nbytes}":
                raise Corrupt(f"{self}: bytes {start} to {stop} asked for, got {place or 'another answer'}")
            content = read_at_most(answer["Body"], stop - start)
            if len(content) != stop - start:
                raise AnswerCut(f"{len(content)} bytes where {stop - start} belong")
            return content

        try:
            return request("get_object", self.bucket, self.key, use=body, Range=f"bytes={start}-{stop - 1}")
        except StorageUnavailable as error:
            if "HTTP 416" in str(error):
                raise Corrupt(f"{self} has {self.size()} bytes, {nbytes} were written") from None
            raise

    def size(self) -> int:
        """Bytes of the object. Raises FileNotFoundError."""
        found = request("head_object", self.bucket, self.key).get("ContentLength")
        if found is None:
            raise StorageUnavailable(
                f"{self}: the server does not say how long it is. Is {_ENDPOINT} one of S3?"
            )
        return int(found)

    def exists(self) -> bool:
        """Whether there is an object of this very key."""
        try:
            request("head_object", self.bucket, self.key)
        except FileNotFoundError:
            return False
        return True

    is_file = exists

    def upload(self, body: BinaryIO, *, unless_there: bool = False) -> None:
        """Put an object here, whole or not at all, over any that was there; a long one in parts.

        Raises ObjectExists and NotImplementedError, as `request` does, with `unless_there`.
        """
        try:
            upload(self.bucket, self.key, body, unless_there=unless_there)
        except FileNotFoundError:
            raise StorageUnavailable(f"{self}: there is no bucket {self.bucket}; make it first") from None

    def names(self) -> list[str]:
        """Names one level below this prefix, of objects and of further prefixes. Raises FileNotFoundError."""
        return [name.rstrip("/") for name in self._listed(Delimiter="/")]

    def all_names(self) -> list[str]:
        """Names of all objects below this prefix, with "/" between their parts. Raises FileNotFoundError."""
        return list(self._listed())

    def is_dir(self) -> bool:
        """Whether objects lie below this prefix."""
        return next(self._listed(MaxKeys=1), None) is not None

    def unlink(self) -> None:
        """Remove the object; no error when there is none."""
        with contextlib.suppress(FileNotFoundError):
            request("delete_object", self.bucket, self.key)

    def _listed(self, **options: Any) -> Iterator[str]:
        for _ in range(_MAX_PAGES):
            page = request(
                "list_objects_v2", self.bucket, "", name=str(self), Prefix=f"{self.key}/", **options
            )
            keys = [entry.get("Key", "") for entry in page.get("Contents", ())]
            keys += [entry.get("Prefix", "") for entry in page.get("CommonPrefixes", ())]
            yield from (key[len(self.key) + 1 :] for key in keys)
            following = page.get("NextContinuationToken")
            if not following:
                return
            options["ContinuationToken"] = following
        raise StorageUnavailable(f"{self}: its listing does not end. Is {_ENDPOINT} the right server?")


StorePath = Path | S3Path


class RemoteBytes:
    """The bytes of an object of a known size, to be sliced like a memoryview: a slice is one range request.

    Slicing raises Corrupt when the object is gone or has another size.
    """

    def __init__(self, path: S3Path, nbytes: int) -> None:
        self._path = path
        self.nbytes = nbytes

    def __getitem__(self, place: slice) -> memoryview:
        start, stop, _ = place.indices(self.nbytes)
        return read_ranges([(self._path, start, stop, self.nbytes)])[0]


def read_ranges(
    places: Sequence[tuple[S3Path, int, int, int]], into: Sequence[memoryview] | None = None
) -> list[memoryview]:
    """Bytes of objects, all asked for at once: (object, start, stop, size of the object) of each.

    A long range is fetched in pieces, `into` memory of just that size when it is given. Raises Corrupt when
    an object is gone or has another size.
    """
    if into is None:
        into = [memoryview(bytearray(stop - start)) for _, start, stop, _ in places]
    pieces = [
        (number, begin, min(begin + PIECE_NBYTES, stop))
        for number, (_, start, stop, _) in enumerate(places)
        for begin in range(start, stop, PIECE_NBYTES)
    ]

    def fetch(piece: tuple[int, int, int]) -> None:
        number, begin, end = piece
        path, start, _, nbytes = places[number]
        try:
            into[number][begin - start : end - start] = path.read_range(begin, end, nbytes)
        except FileNotFoundError:
            raise Corrupt(f"{path} is gone") from None

    at_once(fetch, pieces)
    return list(into)


def fetched_again(path: StorePath, read: Callable[[], ResultT]) -> ResultT:
    """What `read` gives; when it finds Corrupt what came from a bucket, which a network may do, a few times.

    Raises as `read` the last time.
    """
    for _ in range(FETCHES - 1 if isinstance(path, S3Path) else 0):
        with contextlib.suppress(Corrupt):
            return read()
    return read()


def each_read(path: StorePath, read: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    """`read` of each item, from a bucket many at once. Raises the first error."""
    return at_once(read, list(items)) if isinstance(path, S3Path) else [read(item) for item in items]


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

        def put(path: Path) -> None:
            with path.open("rb") as body:
                (target / path.relative_to(folder).as_posix()).upload(body)

        # Long ones one by one: they fill the line, and their parts the memory.
        small = [path for path in files if path.stat().st_size <= PIECE_NBYTES]
        at_once(put, small)
        for path in [*(path for path in files if path not in small), folder / last]:
            put(path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
