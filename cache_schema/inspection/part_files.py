"""The files of one published part, a scene or the teacher head, against its manifest."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from cache_schema.codec import crc32c
from cache_schema.coordinates import COORDINATE_FILES
from cache_schema.documents import MAX_NBYTES, read_document
from cache_schema.errors import Corrupt, Unreadable
from cache_schema.inspection.faults import Fault, Findings
from cache_schema.manifest import MANIFEST_NAME, ArrayRecord, FileRecord, HeadManifest, SceneManifest
from cache_schema.shard_reader import ShardReader
from cache_schema.storage import StorePath, names_below
from cache_schema.teacher_head import parameter_nbytes, read_parameter
from cache_schema.zarr_metadata import METADATA_NAME, parameter_key, shard_key


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
    if any(record.path in COORDINATE_FILES for record in manifest.metadata_files):  # an older store has none
        metadata |= COORDINATE_FILES
    _check_metadata(store, part, manifest, metadata, findings)
    shards = {shard.path.removeprefix(f"{part}/") for shard in shards_of(part, manifest)}
    check_names(store, part, metadata | shards, findings)


def check_head_files(store: StorePath, part: str, manifest: HeadManifest, findings: Findings) -> int:
    """All of the teacher head; returns the bytes of its parameters."""
    metadata = _head_metadata(manifest)
    _check_metadata(store, part, manifest, metadata, findings)
    parameters = {}
    for record in manifest.parameters:
        path = f"{record.name}/{parameter_key(record.shape)}"
        parameters[path] = parameter_nbytes(record)
        try:
            read_parameter(store / part, record)
        except (FileNotFoundError, Corrupt, Unreadable) as error:
            findings.faults.append(unread(part, f"{part}/{path}", store, error))
    check_names(store, part, {*parameters, *metadata}, findings)
    return sum(parameters.values())


def _head_metadata(manifest: HeadManifest) -> set[str]:
    """Metadata files of the head: its own, and one of each parameter."""
    return {METADATA_NAME} | {f"{record.name}/{METADATA_NAME}" for record in manifest.parameters}


def _check_metadata(
    store: StorePath,
    part: str,
    manifest: SceneManifest | HeadManifest,
    expected: set[str],
    findings: Findings,
) -> None:
    """The metadata files of a part. Where a manifest names others, these are not even looked for."""
    if {record.path for record in manifest.metadata_files} != expected:
        findings.add(part, f"{part}/{MANIFEST_NAME}", "it does not record the metadata file of every array")
    for record in manifest.metadata_files:
        if record.path in expected:
            check_file(store, part, record, findings)


def check_file(store: StorePath, part: str, record: FileRecord, findings: Findings) -> None:
    """One small file against its size and checksum."""
    path = f"{part}/{record.path}"
    data = read_part(store, part, path, max(record.nbytes, MAX_NBYTES), findings)
    if data is None:
        return
    if len(data) != record.nbytes:
        findings.add(part, path, f"has {len(data)} bytes, {record.nbytes} were written")
    elif crc32c(data) != record.crc32c:
        findings.add(part, path, "does not match its checksum")


def read_part(store: StorePath, part: str, path: str, limit: int, findings: Findings) -> bytes | None:
    """A file of a part that has at most `limit` bytes; None, and a fault, when it cannot be read."""
    try:
        return read_document(store / path, limit)
    except (FileNotFoundError, Corrupt, Unreadable) as error:
        findings.faults.append(unread(part, path, store, error))
        return None


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
    checksums = shard.record.checksums_in_shard(shard.number)
    try:
        reader = ShardReader(
            store / shard.path,
            shard.record.array,
            slots=shard.record.samples_per_shard,
            nbytes=shard.nbytes,
            checksums=checksums,
            rows=shard.record.rows_in_shard(shard.number),
            mapped=False,  # a bad sector, or a file that is cut meanwhile, would kill the process
        )
    except (Corrupt, Unreadable) as error:
        return [unread(shard.part, shard.path, store, error)]
    faults = []
    for slot in range(len(checksums)):
        try:
            reader.read(slot, test=True)
        except Corrupt as error:
            reason = without_path(error, store / shard.path).removeprefix(f"slot {slot}: ")
            what = f"row {first + slot}: {reason}"
            faults.append(Fault(shard.part, shard.path, what))
    return faults


def unread(part: str, path: str, store: StorePath, error: Exception) -> Fault:
    """A file that could not be read. One that is merely not handed out is no reason for a repair."""
    if isinstance(error, FileNotFoundError):
        return Fault(part, path, "is gone")
    return Fault(part, path, without_path(error, store / path), not isinstance(error, Unreadable))


def without_path(error: Exception, path: StorePath) -> str:
    """What an error says, on one line, when the path is told anyway."""
    lines = str(error).removeprefix(str(path)).lstrip(":, ").splitlines()
    return "; ".join(line.strip() for line in lines)
