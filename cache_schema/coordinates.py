"""Two small arrays beside those of the spec, for readers that know xarray: whose each row is, and of when.

They say again what the manifest says, which has the last word; our reader does not look at them. Stores that
were written before there were coordinates lack them and are read, verified and continued like all others.
"""

import struct
from collections.abc import Sequence

import numpy as np

from cache_schema.array_spec import COORDINATES
from cache_schema.codec import packed_crc32c
from cache_schema.zarr_metadata import METADATA_NAME, coordinate_document

SAMPLE_TOKEN, TIME = COORDINATES
_CHUNK = "c.0"
COORDINATE_FILES = frozenset(f"{name}/{file}" for name in COORDINATES for file in (METADATA_NAME, _CHUNK))
# As a group's attribute this makes them coordinates of all its arrays, by the CF conventions.
COORDINATES_ATTRIBUTE = {"coordinates": " ".join(COORDINATES)}


def coordinate_files(tokens: Sequence[str], timestamps_us: Sequence[int]) -> dict[str, bytes]:
    """The files of both arrays of a scene, by their path in its folder.

    Args:
        tokens: of the scene's samples, in time order.
        timestamps_us: when each was taken, in microseconds since 1970 (UTC).
    """
    n = len(tokens)
    time_attributes = {
        "long_name": "when the sample was taken",
        "units": "microseconds since 1970-01-01",
        "calendar": "proleptic_gregorian",
    }
    return {
        f"{SAMPLE_TOKEN}/{METADATA_NAME}": coordinate_document(
            "string", n, {"long_name": "the dataset's token of the sample"}
        ),
        f"{SAMPLE_TOKEN}/{_CHUNK}": _checked(_strings(tokens)),
        f"{TIME}/{METADATA_NAME}": coordinate_document("int64", n, time_attributes),
        f"{TIME}/{_CHUNK}": _checked(np.asarray(timestamps_us, "<i8").tobytes()),
    }


def _strings(texts: Sequence[str]) -> bytes:
    """Zarr's codec `vlen-utf8`: how many there are, then of each its bytes' number and the bytes."""
    encoded = [text.encode() for text in texts]
    return struct.pack("<I", len(encoded)) + b"".join(struct.pack("<I", len(e)) + e for e in encoded)


def _checked(chunk: bytes) -> bytes:
    return chunk + packed_crc32c(chunk)
