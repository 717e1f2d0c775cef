"""The files of one published part, a scene or the teacher head, against its manifest."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cache_schema.codec import crc32c, raw_bytes
from cache_schema.errors import Corrupt
from cache_schema.inspection.faults import Fault, Findings
from cache_schema.manifest import MANIFEST_NAME, ArrayRecord, FileRecord, HeadManifest, SceneManifest
from cache_schema.shard_reader import ShardReader
from cache_schema.storage import StorePath, names_below
from cache_schema.zarr_metadata import METADATA_NAME, parameter_key, shard_key

_BLOCK_NBYTES = 1 << 24


@dataclass(frozen=True)
class Shard:
    """A shard file that is to be read: number `number` of an array of the scene in folder `part`."""

    part: str
    record: ArrayRecord
    number: int

    @property
    def path(self) -> str:
        """Relative to the store."""
        return f"{self.part}/{self.record.array.name}/{shard_key(self.record.array, self.number)}"

    @property
    def nbytes(self) -> int:
        """As recorded."""
        return self.record.shard_nbytes[self.number]


def shards_of(part: str, manifest: SceneManifest) -> list[Shard]:
    """Every shard of a scene."""
    return [
        Shard(part, record, number)
        for record in manifest.arrays
        for number in range(len(record.shard_nbytes))
    ]


def check_scene_files(store: StorePath, part: str, manifest: SceneManifest, findings: Findings) -> None:
    """All of a scene but the bytes of its shards."""
    metadata = {f"{record.array.name}/{METADATA_NAME}" for record in manifest.arrays} | {METADATA_NAME}
    recorded = {record.path for record in manifest.metadata_files}
    if recorded != metadata:
        findings.add(part, f"{part}/{MANIFEST_NAME}", "it does not record the metadata file of every array")
    for record in manifest.metadata_files:
        check_file(store, part, record, findings)
    shards = {shard.path.removeprefix(f"{part}/") for shard in shards_of(part, manifest)}
    check_names(store, part, recorded | shards, findings)


def check_head_files(store: StorePath, part: str, manifest: HeadManifest, findings: Findings) -> int:
    """All of the teacher head; returns the bytes of its parameters."""
    parameters = [
        FileRecord(
            path=f"{record.name}/{parameter_key(record.shape)}",
            nbytes=4 * math.prod(record.shape),
            crc32c=record.crc32c,
        )
        for record in manifest.parameters
    ]
    for record in (*manifest.metadata_files, *parameters):
        check_file(store, part, record, findings)
    check_names(store, part, {r.path for r in (*manifest.metadata_files, *parameters)}, findings)
    return sum(record.nbytes for record in parameters)


def check_file(store: StorePath, part: str, record: FileRecord, findings: Findings) -> None:
    """One small file against its size and checksum."""
    path = f"{part}/{record.path}"
    try:
        data = (store / path).read_bytes()
    except OSError as error:
        findings.faults.append(unreadable(part, path, error))
        return
    if len(data) != record.nbytes:
        findings.add(part, path, f"has {len(data)} bytes, {record.nbytes} were written")
    elif crc32c(data) != record.crc32c:
        findings.add(part, path, "does not match its checksum")


def check_names(store: StorePath, part: str, expected: Iterable[str], findings: Findings) -> None:
    """Files that no record speaks of. Those that are missing are found when they are read."""
    known = {MANIFEST_NAME, *expected}
    known_folders = {str(PurePosixPath(path).parent) for path in known}
    files, folders = names_below(store / part)
    for path in sorted({*files, *folders} - known - known_folders):
        findings.add(part, f"{part}/{path}", "does not belong there", damage=False)


def check_shard(store: StorePath, shard: Shard) -> list[Fault]:
    """Read every sample of a shard; all faults but those of a shard that cannot be read at all."""
    first = shard.number * shard.record.samples_per_shard
    checksums = shard.record.crc32c[first : first + shard.record.samples_per_shard]
    try:
        if isinstance(store, Path):
            _read_through(store / shard.path)
        reader = ShardReader(
            store / shard.path,
            shard.record.array,
            slots=shard.record.samples_per_shard,
            nbytes=shard.nbytes,
            rows=shard.record.rows_in_shard(shard.number),
        )
    except Corrupt as error:
        return [Fault(shard.part, shard.path, _without_path(error, store / shard.path))]
    except OSError as error:
        return [unreadable(shard.part, shard.path, error)]
    faults = []
    for slot, checksum in enumerate(checksums):
        try:
            if crc32c(raw_bytes(reader.read(slot))) != checksum:
                raise Corrupt("its values do not match their checksum")
        except Corrupt as error:
            what = f"row {first + slot}: {_without_path(error, store / shard.path)}"
            faults.append(Fault(shard.part, shard.path, what))
    return faults


def unreadable(part: str, path: str, error: OSError) -> Fault:
    """A file that the system does not hand out. One that is merely forbidden is no reason for a repair."""
    if isinstance(error, FileNotFoundError):
        return Fault(part, path, "is gone")
    return Fault(part, path, f"cannot be read: {error.strerror}", not isinstance(error, PermissionError))


def _read_through(path: Path) -> None:
    # A bad sector under a memory map kills the process; under a plain read it is an error that can be told.
    buffer = bytearray(_BLOCK_NBYTES)
    with path.open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _without_path(error: Corrupt, path: StorePath) -> str:
    return str(error).removeprefix(str(path)).lstrip(":, ")
