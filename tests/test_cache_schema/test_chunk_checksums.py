"""A flipped byte is noticed by everybody who reads, a sample in another's place by our reader."""

import json

import numpy as np
import pytest
import tensorstore
import xarray
import zarr
from corruption_cases import HEAD, profile_store

from cache_schema import codec
from cache_schema.array_spec import ArraySpec
from cache_schema.codec import ChunkRuns, crc32c, packed_crc32c
from cache_schema.errors import Corrupt
from cache_schema.inspection.verify import verify
from cache_schema.reader import TargetReader
from cache_schema.shard_index import index_nbytes, pack_index, unpack_index

SCENE = "scenes/scene-0001"
ARRAYS = {
    "plain": ("exact", f"{SCENE}/bev_feats", "c.0.0.0.0"),
    "plain and small": ("focal", f"{SCENE}/bev_feats_scale", "c.0.0"),
    "compressed": ("focal", f"{SCENE}/bev_feats_mask", "c.0.0.0"),
    "ragged": ("focal", f"{SCENE}/pv_feats_0_cells", "c.0.0.0"),
    "of the head": ("exact", "teacher_head/decoder.weight", "c.0.0"),
}

# TensorStore gives a frame to Blosc before it has come to the checksum behind it: the words are of both.
REFUSALS = (ValueError, NotImplementedError)


@pytest.fixture
def array(tmp_path, request):
    """Folder and data file of an array in a finished store of two samples."""
    profile, folder, file = ARRAYS[request.param]
    store = profile_store(tmp_path / "teacher.zarr", profile, {"scene-0001": 2})
    return store / folder, store / folder / file


def read_zarr(folder):
    return zarr.open_array(folder, mode="r")[...]


def read_xarray(folder):
    return xarray.open_zarr(folder.parent, chunks=None)[folder.name].values


def read_tensorstore(folder):
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    return tensorstore.open(spec, read=True).result().read().result()


def chunk_bytes(folder, file):
    """Positions in a data file that are no shard index."""
    return file.stat().st_size - (
        0 if folder.parent.name == "teacher_head" else index_nbytes(n_slots(folder))
    )


def n_slots(folder):
    """Chunks of which a shard has an index entry."""
    metadata = json.loads((folder / "zarr.json").read_text())
    shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
    return int(np.prod(shard)) // int(np.prod(metadata["codecs"][0]["configuration"]["chunk_shape"]))


@pytest.mark.parametrize("read", [read_zarr, read_xarray, read_tensorstore])
@pytest.mark.parametrize("array", ARRAYS, indirect=True)
def test_every_reader_notices_a_flipped_byte(array, read):
    folder, file = array
    whole = file.read_bytes()
    intact = read(folder)
    rng = np.random.default_rng(0)
    last = chunk_bytes(folder, file) - 1
    for position in (0, last, *rng.integers(last, size=20)):
        damaged = bytearray(whole)
        damaged[position] ^= rng.integers(1, 256)
        file.write_bytes(damaged)
        with pytest.raises(REFUSALS):
            read(folder)
    file.write_bytes(whole)
    np.testing.assert_array_equal(read(folder), intact)


@pytest.mark.parametrize("array", ["of the head"], indirect=True)
def test_every_byte_of_a_parameter_counts(array):
    folder, file = array
    store, whole = folder.parents[1], file.read_bytes()
    assert len(whole) == HEAD["decoder.weight"].nbytes + 4
    for position in range(len(whole)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(Corrupt, match=r"checksum of parameter decoder\.weight"):
            TargetReader(store).read_teacher_head()
        assert len(verify(store).faults) == 1


@pytest.mark.parametrize("array", ["plain", "plain and small", "compressed", "ragged"], indirect=True)
def test_samples_that_change_places_are_noticed(array):
    """Checksums of the chunks and of the index fit: only the manifest knows which sample was where."""
    folder, file = array
    store, whole = folder.parents[2], file.read_bytes()
    slots = n_slots(folder)
    index = unpack_index(memoryview(whole), slots)
    first, second = np.split(index, 2)
    swapped = pack_index([tuple(pair) for pair in np.concatenate([second, first]).tolist()], slots)
    file.write_bytes(whole[: -len(swapped)] + swapped)
    assert not np.array_equal(*read_zarr(folder))
    for token in ("scene-0001-token0", "scene-0001-token1"):
        for test in (True, "first", False):
            with pytest.raises(Corrupt, match=f"sample {token}.* the record says"):
                TargetReader(store, verify_checksums=test).read(token, [folder.name])
    assert len(verify(store).faults) == 2


@pytest.mark.parametrize(("n_chunks", "nbytes"), [(0, 5), (1, 4), (1, 20), (2, 7), (33, 104)])
def test_the_checksum_of_a_run_depends_on_its_size_alone(n_chunks, nbytes):
    rng = np.random.default_rng(n_chunks)
    chunks = [contents + packed_crc32c(contents) for contents in map(rng.bytes, [nbytes - 4] * n_chunks)]
    assert ChunkRuns(nbytes).crc32c(n_chunks) == crc32c(b"".join(chunks))


@pytest.mark.parametrize("rows", [0, 1, 3, 4])
def test_chunks_beyond_what_numpy_takes_as_an_item(monkeypatch, rows):
    monkeypatch.setattr(codec, "_MAX_ITEM_NBYTES", 10)
    array = ArraySpec(
        role="dense_head",
        name="a",
        dtype="int16",
        shape=(5, 3),
        dimension_names=("row", "x"),
        compressed=False,
        rows_per_chunk=3,
    )
    values = np.arange(3 * rows, dtype="<i2").reshape(rows, 3)
    encoded = codec.encode(array, values)
    chunks = codec.Chunks(codec.ChunkLayout(array), memoryview(encoded.pieces[0]), encoded.crc32c, rows)
    np.testing.assert_array_equal(chunks.values(test=True), values)
