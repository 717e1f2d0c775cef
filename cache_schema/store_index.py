"""Which samples a store holds, in which scene and row each is, and the digest of every scene's manifest.

A sealed store carries it as one file, which a process maps as it is: nothing in it is unpacked, so that
opening takes as many reads of a hundred thousand scenes as of a hundred, and processes share its memory. The
index of a store that is still written is made from the manifests.

The file, numbers little-endian: a header of MAGIC and, as uint64, the number of scenes S and of samples N and
the bytes of a name and of a token; then `ends` S × uint64, `order` N × uint32, `digests` S × 32 bytes,
`names` and `tokens`, ASCII, filled up with zeros. Scenes are sorted by name, samples lie scene by scene in
time order.
"""

import bisect
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cache_schema import names
from cache_schema.errors import Corrupt
from cache_schema.fields import Unfit

INDEX_NAME = "index.bin"
MAX_INDEX_NBYTES = 1 << 31  # 50 million samples
MAGIC = b"focalix2"
_HEADER = struct.Struct("<8s4Q")
_MAX_NAME_NBYTES, _MAX_TOKEN_NBYTES = 128, 256
_SHA256_NBYTES = 32
_BLOCK = 1 << 16  # samples that are looked at together


@dataclass(frozen=True)
class Place:
    """Where a sample is: its scene, its row there, and its number among all samples of the store."""

    scene_name: str
    row: int
    number: int


@dataclass(frozen=True)
class IndexedScene:
    """What the index takes from a scene: the SHA-256 of its manifest, as digits, and its samples in order."""

    name: str
    manifest_sha256: str
    sample_tokens: Sequence[str]


class StoreIndex:
    """The index over its file's bytes.

    Args:
        data: the file, which is never copied.
        whole: called before the bytes are looked at; raises when they are no longer all there.

    Raises Corrupt when these bytes are no index.
    """

    def __init__(self, data: bytes | memoryview, whole: Callable[[], None] = lambda: None) -> None:
        if len(data) < _HEADER.size:
            raise Corrupt("is shorter than its header")
        magic, n_scenes, n_samples, name_nbytes, token_nbytes = _HEADER.unpack_from(data)
        if magic != MAGIC:
            raise Corrupt("does not begin like an index")
        if not (0 < name_nbytes <= _MAX_NAME_NBYTES and 0 < token_nbytes <= _MAX_TOKEN_NBYTES):
            raise Corrupt(f"has names of {name_nbytes} and tokens of {token_nbytes} bytes")
        sections = (
            (np.dtype("<u8"), n_scenes),
            (np.dtype("<u4"), n_samples),
            (np.dtype((np.void, _SHA256_NBYTES)), n_scenes),
            (np.dtype((np.bytes_, name_nbytes)), n_scenes),
            (np.dtype((np.bytes_, token_nbytes)), n_samples),
        )
        expected = _HEADER.size + sum(dtype.itemsize * count for dtype, count in sections)
        if len(data) != expected:
            raise Corrupt(f"has {len(data)} bytes, and its header says {expected}")
        arrays, offset = [], _HEADER.size
        for dtype, count in sections:
            arrays.append(np.frombuffer(data, dtype, count, offset))
            offset += dtype.itemsize * count
        self.data = data
        self._require_whole = whole
        self._ends, self._order, self._digests, self._names, self._tokens = arrays
        self._require_sound(n_samples)

    def _require_sound(self, n_samples: int) -> None:
        ends = self._ends
        if (ends[-1] if len(ends) else 0) != n_samples or (ends[1:] <= ends[:-1]).any() or (ends == 0).any():
            raise Corrupt("does not have the samples that its scenes say")
        if n_samples and self._order.max() >= n_samples:
            raise Corrupt("names samples that it does not have")
        if (self._names[1:] <= self._names[:-1]).any():
            raise Corrupt("has scenes that are not sorted")

    @classmethod
    def of(cls, scenes: Iterable[IndexedScene]) -> "StoreIndex":
        """The index of scenes that are sorted by name. Raises Corrupt when two have the same sample."""
        scenes = list(scenes)
        tokens = [token.encode("ascii") for scene in scenes for token in scene.sample_tokens]
        return cls.of_arrays(
            np.array([scene.name.encode("ascii") for scene in scenes], np.bytes_),
            np.array([len(scene.sample_tokens) for scene in scenes], np.int64),
            np.frombuffer(bytes.fromhex("".join(scene.manifest_sha256 for scene in scenes)), np.uint8),
            np.array(tokens, np.bytes_),
        )

    @classmethod
    def of_arrays(
        cls, scene_names: np.ndarray, n_samples: np.ndarray, digests: np.ndarray, tokens: np.ndarray
    ) -> "StoreIndex":
        """The same from (S,) names, (S,) samples of each, S × 32 uint8 digests and (N,) tokens, as bytes."""
        order = np.argsort(tokens, kind="stable").astype("<u4")
        header = _HEADER.pack(
            MAGIC, len(scene_names), len(tokens), scene_names.dtype.itemsize, tokens.dtype.itemsize
        )
        ends = np.cumsum(n_samples).astype("<u8")
        index = cls(
            b"".join((header, *(part.tobytes() for part in (ends, order, digests, scene_names, tokens))))
        )
        repeated = index.unsorted_token()
        if repeated is not None:
            token, *places = repeated
            first, second = sorted(index.place(place).scene_name for place in places)
            raise Corrupt(f"sample {token} is in scenes {first} and {second}")
        return index

    @property
    def n_scenes(self) -> int:
        """Scenes of the store."""
        return len(self._names)

    @property
    def n_samples(self) -> int:
        """Samples of the store."""
        return len(self._tokens)

    def scene_name(self, number: int) -> str:
        """Name of a scene. Raises Corrupt when none can have it: names become paths."""
        try:
            return names.scene_name(self._names[number].decode("ascii"))
        except (Unfit, UnicodeDecodeError):
            raise Corrupt(f"has a scene that is called {self._names[number]!r}") from None

    def scene_names(self) -> list[str]:
        """All scenes, sorted."""
        return [self.scene_name(number) for number in range(self.n_scenes)]

    def scene_number(self, scene_name: str) -> int | None:
        """Number of the scene of that name; None when there is none."""
        wanted = scene_name.encode()
        number = bisect.bisect_left(self._names, wanted)
        return number if number < self.n_scenes and self._names[number] == wanted else None

    def manifest_sha256(self, scene_name: str) -> str | None:
        """Digest of a scene's manifest, as digits; None when there is no such scene."""
        number = self.scene_number(scene_name)
        return None if number is None else self._digests[number].tobytes().hex()

    def tokens_of(self, number: int) -> "SampleTokens":
        """Samples of a scene, in time order."""
        return SampleTokens(self, int(self._ends[number - 1]) if number else 0, int(self._ends[number]))

    def sample_tokens(self) -> "SampleTokens":
        """All samples."""
        return SampleTokens(self, 0, self.n_samples)

    def token(self, number: int) -> str:
        """Token of a sample."""
        self._require_whole()
        return self._tokens[number].decode("ascii", "replace")

    def find(self, token: object) -> int | None:
        """Number of the sample with that token; None when there is none."""
        if not isinstance(token, str) or not token.isascii() or "\0" in token:
            return None
        self._require_whole()
        wanted, tokens = token.encode("ascii"), self._tokens
        at = bisect.bisect_left(self._order, wanted, key=lambda number: tokens[number])
        if at == len(self._order):
            return None
        number = int(self._order[at])
        return number if tokens[number] == wanted else None

    def place(self, number: int) -> Place:
        """Where the sample of a number is."""
        scene = int(np.searchsorted(self._ends, number, "right"))
        start = int(self._ends[scene - 1]) if scene else 0
        return Place(self.scene_name(scene), number - start, number)

    def unsorted_token(self) -> tuple[str, int, int] | None:
        """A token, and the numbers of two samples, by which `find` may fail; None when all are found."""
        for start in range(0, max(0, self.n_samples - 1), _BLOCK):
            numbers = self._order[start : start + _BLOCK + 1]
            tokens = self._tokens[numbers]
            wrong = np.flatnonzero(tokens[1:] <= tokens[:-1])
            if wrong.size:
                at = int(wrong[0])
                return tokens[at].decode("ascii", "replace"), int(numbers[at]), int(numbers[at + 1])
        return None


class SampleTokens(Sequence):
    """Tokens of samples in a row, each text when it is asked for; compares and pickles like their tuple."""

    def __init__(self, index: StoreIndex, start: int, stop: int) -> None:
        self._index, self._numbers = index, range(start, stop)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, place: int | slice) -> "str | tuple[str, ...]":
        found = self._numbers[place]
        return self._index.token(found) if isinstance(found, int) else tuple(map(self._index.token, found))

    def __iter__(self) -> Iterator[str]:
        return map(self._index.token, self._numbers)

    def __contains__(self, token: object) -> bool:
        return self._index.find(token) in self._numbers

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SampleTokens | tuple | list):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None

    def __repr__(self) -> str:
        return repr(tuple(self))

    def __reduce__(self) -> tuple[type, tuple[tuple[str, ...]]]:
        return tuple, (tuple(self),)
