"""The `zarr.json` documents of a store, made by zarr-python, and the shape of its chunks and shards.

Only codecs and keys of the Zarr v3 core are used, but for `consolidated_metadata` in the scene groups, which
the core allows (`must_understand` is false): with it xarray opens a scene without listing its folder.
"""

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import zarr
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.core.sync import sync
from zarr.storage import MemoryStore

from cache_schema.codec import BLOSC_CNAME, BLOSC_LEVEL, blosc_shuffle
from cache_schema.spec import ArraySpec

METADATA_NAME = "zarr.json"
MAX_SHARD_NBYTES = 1 << 30
_FLAT_KEYS = {"name": "default", "separator": "."}  # "c.0.0.0": a shard is a file, not a tower of folders


def samples_per_shard(array: ArraySpec, n_samples: int) -> int:
    """Samples that share a shard file: all of them, or equal parts of at most 1 GiB before compression."""
    fits = max(1, MAX_SHARD_NBYTES // array.bytes_per_sample)
    n_shards = -(-n_samples // fits)
    return -(-n_samples // n_shards)


def shard_key(array: ArraySpec, index: int) -> str:
    """File name of an array's shard number `index`: samples are split, nothing else is."""
    return "c." + ".".join([str(index), *("0" for _ in array.shape)])


def parameter_key(shape: tuple[int, ...]) -> str:
    """File name of the only chunk of a head parameter."""
    return ".".join(["c", *("0" for _ in shape)])


def array_document(array: ArraySpec, n_samples: int, attributes: Mapping[str, Any]) -> bytes:
    """`zarr.json` of one array of a scene; a sample is one chunk, or several when the array is ragged.

    Every chunk ends in its CRC-32C.
    """
    return _json_bytes(array_metadata(array, n_samples) | {"attributes": dict(attributes)})


@lru_cache(maxsize=256)
def array_metadata(array: ArraySpec, n_samples: int) -> dict[str, Any]:
    """What that document holds besides attributes; shared by all who ask, so not to be changed."""
    blosc = BloscCodec(
        typesize=np.dtype(array.dtype).itemsize,
        cname=BLOSC_CNAME,
        clevel=BLOSC_LEVEL,
        shuffle=blosc_shuffle(array),
        blocksize=0,
    )
    per_sample = array.shape
    if array.ragged:
        # A shard is a whole number of chunks, so its last rows may lie beyond the array.
        per_sample = (array.chunks_per_sample * array.rows_per_chunk, *array.shape[1:])
    return _array_metadata(
        shape=(n_samples, *array.shape),
        chunks=(1, *array.chunk_shape),
        shards=(samples_per_shard(array, n_samples), *per_sample),
        dtype=array.dtype,
        fill_value=array.fill_value,
        dimension_names=("sample", *array.dimension_names),
        compressors=(blosc, Crc32cCodec()) if array.compressed else (Crc32cCodec(),),
    )


def coordinate_document(dtype: str, n_samples: int, attributes: Mapping[str, Any]) -> bytes:
    """`zarr.json` of an array with one value a sample, all of them in one chunk that ends in its CRC-32C."""
    metadata = _array_metadata(
        shape=(n_samples,),
        chunks=(n_samples,),
        dtype=dtype,
        dimension_names=("sample",),
        compressors=(Crc32cCodec(),),
    )
    return _json_bytes(metadata | {"attributes": dict(attributes)})


@lru_cache(maxsize=1024)
def parameter_document(name: str, shape: tuple[int, ...]) -> bytes:
    """`zarr.json` of one float32 parameter of the teacher's head: one chunk and its checksum."""
    metadata = _array_metadata(
        shape=shape,
        chunks=shape,
        dtype="float32",
        fill_value=np.nan,
        dimension_names=[f"{name}:{axis}" for axis in range(len(shape))],
        compressors=(Crc32cCodec(),),
    )
    return _json_bytes(metadata)


def group_document(attributes: Mapping[str, Any], members: Mapping[str, bytes] | None = None) -> bytes:
    """`zarr.json` of a group; `members` are the documents of its arrays, repeated in it for quick opening."""
    store = MemoryStore()
    zarr.create_group(store, zarr_format=3, attributes=dict(attributes))
    document = _stored_document(store)
    if members is not None:
        document["consolidated_metadata"] = {
            "kind": "inline",
            "must_understand": False,
            "metadata": {name: json.loads(member) for name, member in members.items()},
        }
    return _json_bytes(document)


def _array_metadata(**kwargs: Any) -> dict[str, Any]:
    store = MemoryStore()
    zarr.create_array(store, chunk_key_encoding=_FLAT_KEYS, filters=None, **kwargs)
    return _stored_document(store)


def _stored_document(store: MemoryStore) -> dict[str, Any]:
    buffer = sync(store.get(METADATA_NAME, zarr.core.buffer.default_buffer_prototype()))
    return json.loads(buffer.to_bytes())


def _json_bytes(document: Mapping[str, Any]) -> bytes:
    # Spelled here, because zarr's own spelling depends on its user-level configuration.
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
