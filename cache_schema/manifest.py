"""The record that is written last into a scene or teacher head, and without which nothing in it counts.

A manifest file is one JSON object `{"crc32c":"xxxxxxxx","manifest":…}` and a newline. The checksum covers the
bytes of the inner value as they stand, so a damaged manifest is never believed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from cache_schema import names
from cache_schema.codec import crc32c
from cache_schema.documents import parse_json, read_document
from cache_schema.errors import Corrupt, Problem, SpecInvalid, shown
from cache_schema.fields import Fact, canonical_json, each, fact, integer, optional, text
from cache_schema.spec import ArraySpec, sha256
from cache_schema.storage import StorePath
from cache_schema.zarr_metadata import samples_per_shard

MANIFEST_NAME = "manifest.json"
_HEAD = b'{"crc32c":"%s","manifest":'
_HEAD_NBYTES = len(_HEAD % b"00000000")
_TAIL = b"}\n"

ManifestT = TypeVar("ManifestT", bound=Fact)

crc_digits = text(r"[0-9a-f]{8}", "a CRC-32C as 8 small hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class FileRecord(Fact):
    """A small file, metadata or a coordinate, of the folder that the manifest stands in."""

    path: Annotated[str, text()]  # relative, "/" between the parts
    nbytes: Annotated[int, integer(0)]
    crc32c: Annotated[str, crc_digits]


@dataclass(frozen=True, kw_only=True)
class ArrayRecord(Fact):
    """One array of a scene: what it is, and a checksum of every sample.

    That is the CRC-32C at the end of its chunk, or, of a ragged array, the one of those at the ends of its
    chunks. Of a ragged array also how many rows each sample has.
    """

    array: Annotated[ArraySpec, fact(ArraySpec)]
    samples_per_shard: Annotated[int, integer(1)]
    shard_nbytes: Annotated[tuple[int, ...], each(integer(1), minimum=1)]
    crc32c: Annotated[tuple[str, ...], each(crc_digits, minimum=1)]
    rows: Annotated[tuple[int, ...] | None, optional(each(integer(0), minimum=1))] = None

    def rows_in_shard(self, number: int) -> tuple[int, ...] | None:
        """Rows of the samples in shard `number`, None when the array is not ragged."""
        start = number * self.samples_per_shard
        return None if self.rows is None else self.rows[start : start + self.samples_per_shard]

    def checksums_in_shard(self, number: int) -> tuple[str, ...]:
        """Checksums of the samples in shard `number`."""
        start = number * self.samples_per_shard
        return self.crc32c[start : start + self.samples_per_shard]

    def contradictions(self) -> list[Problem]:
        if (self.rows is not None) != self.array.ragged:
            return [Problem("rows", "numbers of a ragged array, null of another", shown(self.rows))]
        if self.rows is not None and max(self.rows) > self.array.shape[0]:
            return [Problem("rows", f"at most {self.array.shape[0]}", str(max(self.rows)))]
        return []


@dataclass(frozen=True, kw_only=True)
class SceneManifest(Fact):
    """A published scene. Row i of every array belongs to sample_tokens[i]."""

    scene_name: Annotated[str, names.scene_name]
    scene_token: Annotated[str, names.token]
    sample_tokens: Annotated[tuple[str, ...], each(names.token, minimum=1, unique=True)]
    timestamps_us: Annotated[tuple[int, ...], each(integer(0), minimum=1)]
    fingerprint: Annotated[str, sha256]  # of the spec that it was written under
    arrays: Annotated[tuple[ArrayRecord, ...], each(fact(ArrayRecord), minimum=1)]
    metadata_files: Annotated[tuple[FileRecord, ...], each(fact(FileRecord), minimum=1)]

    def contradictions(self) -> list[Problem]:
        n_samples = len(self.sample_tokens)
        lengths = {"timestamps_us": (len(self.timestamps_us), n_samples)}
        for record in self.arrays:
            lengths[f"{record.array.name}.crc32c"] = len(record.crc32c), n_samples
            if record.rows is not None:
                lengths[f"{record.array.name}.rows"] = len(record.rows), n_samples
            n_shards = -(-n_samples // record.samples_per_shard)
            lengths[f"{record.array.name}.shard_nbytes"] = len(record.shard_nbytes), n_shards
        shards = [
            Problem(
                f"{record.array.name}.samples_per_shard", f"at most {most}", str(record.samples_per_shard)
            )
            for record in self.arrays
            if record.samples_per_shard > (most := samples_per_shard(record.array, n_samples))
        ]
        return shards + [
            Problem(where, f"{expected} items", str(got))
            for where, (got, expected) in lengths.items()
            if got != expected
        ]


@dataclass(frozen=True, kw_only=True)
class ParameterRecord(Fact):
    """One float32 parameter of the teacher's decoder or head, and the CRC-32C at the end of its chunk."""

    name: Annotated[str, names.parameter_name]
    shape: Annotated[tuple[int, ...], each(integer(1))]
    crc32c: Annotated[str, crc_digits]


@dataclass(frozen=True, kw_only=True)
class HeadManifest(Fact):
    """The published weights of the teacher's head."""

    fingerprint: Annotated[str, sha256]  # of the spec that it was written under
    parameters: Annotated[tuple[ParameterRecord, ...], each(fact(ParameterRecord), minimum=1)]
    metadata_files: Annotated[tuple[FileRecord, ...], each(fact(FileRecord), minimum=1)]


def file_records(files: Mapping[str, bytes]) -> tuple[FileRecord, ...]:
    """Records of metadata files, given their contents by relative path."""
    return tuple(
        FileRecord(path=path, nbytes=len(data), crc32c=crc32c(data)) for path, data in sorted(files.items())
    )


def pack_manifest(manifest: Fact) -> bytes:
    """The bytes of a manifest file."""
    body = canonical_json(manifest.to_dict())
    return _HEAD % crc32c(body).encode() + body + _TAIL


def read_manifest(folder: StorePath, kind: type[ManifestT]) -> ManifestT:
    """The manifest of a folder. Raises FileNotFoundError when there is none, Corrupt when it is damaged."""
    path = folder / MANIFEST_NAME
    return unpack_manifest(read_document(path), path, kind)


def unpack_manifest(data: bytes, path: StorePath, kind: type[ManifestT]) -> ManifestT:
    """Inverse of `pack_manifest`. Raises Corrupt, naming `path`."""
    return tested(unpack_raw(data, path), path, kind)


def tested(raw: dict[str, Any], path: StorePath, kind: type[ManifestT]) -> ManifestT:
    """What a manifest file records. Raises Corrupt when a field does not fit, naming `path`."""
    try:
        return kind.from_dict(raw)
    except SpecInvalid as error:
        raise Corrupt(f"{path}: {error}") from None


def unpack_raw(data: bytes, path: StorePath) -> dict[str, Any]:
    """The record in a manifest file, its fields not tested. Raises Corrupt when its checksum does not fit."""
    body = data[_HEAD_NBYTES : -len(_TAIL)]
    if data != _HEAD % crc32c(body).encode() + body + _TAIL:
        raise Corrupt(f"{path} does not match its own checksum")
    raw = parse_json(body, path)
    if not isinstance(raw, dict):
        raise Corrupt(f"{path} is not a record, but {shown(raw)}")
    return raw
