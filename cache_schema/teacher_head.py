"""The weights of the teacher's head, once a store: who distils needs no checkpoint."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from cache_schema import names
from cache_schema.codec import CRC_NBYTES, crc32c, packed_crc32c, raw_bytes, stored_crc32c
from cache_schema.documents import read_document
from cache_schema.errors import (
    Corrupt,
    FingerprintMismatch,
    NotFinite,
    Problem,
    SpecInvalid,
    StoreNotFound,
    shown,
)
from cache_schema.fields import Unfit
from cache_schema.files import write_new
from cache_schema.finite import all_finite, describe_not_finite
from cache_schema.manifest import (
    MANIFEST_NAME,
    HeadManifest,
    ParameterRecord,
    file_records,
    pack_manifest,
    unpack_manifest,
)
from cache_schema.published import REDO
from cache_schema.storage import StorePath, each_read, fetched_again
from cache_schema.zarr_metadata import METADATA_NAME, group_document, parameter_document, parameter_key

HEAD_GROUP = "teacher_head"


def head_manifest(parameters: Mapping[str, np.ndarray], fingerprint: str) -> HeadManifest:
    """The manifest that these parameters get in a store of that fingerprint.

    Raises:
        SpecInvalid: names, dtypes or shapes that cannot be stored, all of them listed.
        NotFinite: a NaN or infinity.
    """
    problems = [] if parameters else [Problem("parameters", "at least one", "none")]
    for name, values in parameters.items():
        try:
            names.parameter_name(name)
        except Unfit as unfit:
            problems.append(Problem("name", str(unfit), shown(name)))
        if not isinstance(values, np.ndarray) or values.dtype != np.float32 or values.size == 0:
            got = (
                f"{values.dtype} {values.shape}" if isinstance(values, np.ndarray) else type(values).__name__
            )
            problems.append(Problem(str(name), "a float32 array with at least one value", got))
    if problems:
        raise SpecInvalid("teacher head is not valid", problems)
    ordered = {name: np.asarray(parameters[name], order="C") for name in sorted(parameters)}
    for name, values in ordered.items():
        if not all_finite(values):
            raise NotFinite(f"teacher head, parameter {name}: {describe_not_finite(values)}")
    documents = head_documents({name: values.shape for name, values in ordered.items()})
    return HeadManifest(
        fingerprint=fingerprint,
        parameters=tuple(
            ParameterRecord(name=name, shape=values.shape, crc32c=crc32c(raw_bytes(values)))
            for name, values in ordered.items()
        ),
        metadata_files=file_records(documents),
    )


def head_documents(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, bytes]:
    """The Zarr metadata of the group by relative path."""
    members = {name: parameter_document(name, shape) for name, shape in shapes.items()}
    documents = {f"{name}/{METADATA_NAME}": document for name, document in members.items()}
    documents[METADATA_NAME] = group_document({}, members)
    return documents


def write_head(folder: Path, parameters: Mapping[str, np.ndarray], manifest: HeadManifest) -> None:
    """Fill an empty folder with the group that `manifest` describes."""
    for record in manifest.parameters:
        (folder / record.name).mkdir()
        values = np.asarray(parameters[record.name], order="C")
        data = raw_bytes(values).tobytes()
        write_new(folder / record.name / parameter_key(record.shape), data + packed_crc32c(data))
    for path, data in head_documents({record.name: record.shape for record in manifest.parameters}).items():
        write_new(folder / path, data)
    write_new(folder / MANIFEST_NAME, pack_manifest(manifest))


def read_head_manifest(folder: StorePath, fingerprint: str, sealed: str | None) -> HeadManifest:
    """The manifest of a head.

    Args:
        folder: the head's group.
        fingerprint: of the store.
        sealed: SHA-256 that its manifest must have; None when the store is not sealed.

    Raises StoreNotFound when no head was published here, FingerprintMismatch when it is that of another
    store, Corrupt when the manifest is damaged, or gone or another one although it was sealed.
    """
    path = folder / MANIFEST_NAME

    def read() -> HeadManifest:
        data = read_document(path)
        if sealed not in (None, hashlib.sha256(data).hexdigest()):
            raise Corrupt(f"{folder} is not the teacher head that was sealed.\n{REDO}")
        return unpack_manifest(data, path, HeadManifest)

    try:
        manifest = fetched_again(path, read)
    except FileNotFoundError:
        if sealed is not None:
            raise Corrupt(f"{folder} lacks the teacher head that was sealed.\n{REDO}") from None
        raise StoreNotFound(
            f"{folder} holds no teacher head.\n"
            "Run the dump again over the same store: it writes what is missing."
        ) from None
    if manifest.fingerprint != fingerprint:
        raise FingerprintMismatch(
            f"{folder} was written by another dump than the one that began the store.\n"
            "Remove the folder, and run the dump again over the store to make it anew."
        )
    return manifest


def read_head(folder: StorePath, manifest: HeadManifest) -> dict[str, np.ndarray]:
    """All parameters by dotted name, float32, each tested against its checksum. Raises Corrupt."""
    records = manifest.parameters
    try:
        values = each_read(folder, lambda record: read_parameter(folder, record), records)
        return {record.name: array for record, array in zip(records, values, strict=True)}
    except FileNotFoundError as error:
        raise Corrupt(f"{error.filename} is gone.\n{REDO}") from None


def read_parameter(folder: StorePath, record: ParameterRecord) -> np.ndarray:
    """One parameter of the group in a folder.

    Raises FileNotFoundError when it is gone, Corrupt when its file does not match the record, Unreadable.
    """
    return fetched_again(folder, lambda: _read_parameter(folder, record))


def _read_parameter(folder: StorePath, record: ParameterRecord) -> np.ndarray:
    path = folder / record.name / parameter_key(record.shape)
    nbytes = parameter_nbytes(record)
    stored = read_document(path, nbytes)
    if len(stored) != nbytes:
        raise Corrupt(f"{path} has {len(stored)} bytes, {nbytes} were written")
    data = stored[:-CRC_NBYTES]
    if not crc32c(data) == stored_crc32c(stored) == record.crc32c:
        raise Corrupt(f"{path} does not match the checksum of parameter {record.name}")
    return np.frombuffer(data, "<f4").reshape(record.shape).copy()


def parameter_nbytes(record: ParameterRecord) -> int:
    """Bytes of a parameter's file: its values, and their checksum."""
    return 4 * math.prod(record.shape) + CRC_NBYTES
