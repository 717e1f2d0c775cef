"""Writes one scene: samples come in time order, each goes to disk at once, the manifest comes last."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from cache_schema import fingerprint, names
from cache_schema.array_attributes import array_attributes
from cache_schema.array_spec import COORDINATES
from cache_schema.codec import encode
from cache_schema.coordinates import COORDINATES_ATTRIBUTE, coordinate_files
from cache_schema.errors import CacheError, NotFinite, Problem, SampleMissing, SpecInvalid, shown
from cache_schema.fields import Unfit, integer
from cache_schema.files import write_new
from cache_schema.finite import all_finite, describe_not_finite
from cache_schema.manifest import MANIFEST_NAME, ArrayRecord, SceneManifest, file_records, pack_manifest
from cache_schema.profiles import encoder
from cache_schema.shard_writer import ShardWriter
from cache_schema.spec import ArraySpec, StoreSpec
from cache_schema.zarr_metadata import (
    METADATA_NAME,
    array_document,
    group_document,
    samples_per_shard,
    shard_key,
)


class ArrayWriter:
    """One array of a scene in its folder; memory use does not grow with the scene."""

    def __init__(self, folder: Path, array: ArraySpec, n_samples: int) -> None:
        folder.mkdir()
        self.array = array
        self._folder = folder
        self._per_shard = samples_per_shard(array, n_samples)
        self._shard: ShardWriter | None = None
        self._shard_nbytes: list[int] = []
        self._checksums: list[str] = []
        self._rows: list[int] = []

    def append(self, values: np.ndarray) -> None:
        """Write the next sample: C-ordered, in the array's dtype and shape, or fewer rows when ragged."""
        array = self.array
        if self._shard is None:
            path = self._folder / shard_key(array, len(self._shard_nbytes))
            self._shard = ShardWriter(path, self._per_shard * array.chunks_per_sample)
        encoded = encode(array, values)
        self._checksums.append(encoded.crc32c)
        n_chunks = 1
        if array.ragged:
            self._rows.append(len(values))
            n_chunks = array.n_chunks(len(values))
        self._shard.append(encoded.pieces, n_chunks=n_chunks, n_missing=array.chunks_per_sample - n_chunks)
        if self._shard.full:
            self._finish_shard()

    def finish(self) -> ArrayRecord:
        """Complete the last shard and say what was written."""
        if self._shard is not None:
            self._finish_shard()
        return ArrayRecord(
            array=self.array,
            samples_per_shard=self._per_shard,
            shard_nbytes=tuple(self._shard_nbytes),
            crc32c=tuple(self._checksums),
            rows=tuple(self._rows) if self.array.ragged else None,
        )

    def close(self) -> None:
        """Let go of the open shard, finished or not."""
        if self._shard is not None:
            self._shard.close()

    def _finish_shard(self) -> None:
        self._shard_nbytes.append(self._shard.finish())
        self._shard = None


class SceneWriter:
    """A scene on its way to disk; made by `StoreWriter.scene`.

    Args:
        folder: empty folder under a temporary name.
        spec: of the store.
        scene_name, scene_token: the scene's names in its dataset.
        samples: (sample_token, timestamp_us) of all its samples, in time order.
    """

    def __init__(
        self,
        folder: Path,
        spec: StoreSpec,
        *,
        scene_name: str,
        scene_token: str,
        samples: Sequence[tuple[str, int]],
    ) -> None:
        self.scene_name = scene_name
        self.scene_token = scene_token
        self._folder = folder
        self._samples = list(samples)
        self._spec = spec
        self._encoder = encoder(spec.profile, spec.arrays, spec.background_block)
        self._fingerprint = fingerprint.digest(spec)
        self._n_done = 0
        self._broken = False
        with ExitStack() as open_files:
            self._writers = {}
            for array in spec.stored_arrays:
                writer = ArrayWriter(folder / array.name, array, len(self._samples))
                open_files.callback(writer.close)
                self._writers[array.name] = writer
            self._open_files = open_files.pop_all()

    def append(
        self,
        sample_token: str,
        values: Mapping[str, np.ndarray],
        *,
        areas: Mapping[str, np.ndarray] | None = None,
        confident: np.ndarray | None = None,
    ) -> None:
        """Write the next sample, the way the store's profile keeps it.

        Args:
            sample_token: as the dataset calls it.
            values: the arrays of the spec by name. Profile `compact` also takes a map as int8 when its scales
                come beside it as `<map>_scale`, see `cache_schema.profiles.compact`.
            areas: for profile `focal`, the cells to keep of every map by name: (H, W) or (camera, H, W) bool.
            confident: for profile `focal`, the queries to keep: (query,) bool.

        Raises:
            SpecInvalid: wrong sample, or arrays that are missing, unknown or of another dtype or shape,
                all of them listed; nothing was written and the right call may follow.
            NotFinite: a NaN or infinity; nothing was written.
            OSError: the disk refused; the scene can no longer be finished.
        """
        if self._broken:
            raise CacheError(f"scene {self.scene_name} failed while it was written and takes no more samples")
        where = f"scene {self.scene_name}, sample {sample_token}"
        problems = self._order_problems(sample_token) + self._encoder.problems(values, areas, confident)
        if problems:
            raise SpecInvalid(f"{where} does not fit", problems)
        for name, array in values.items():
            if not all_finite(np.asarray(array, order="C")):
                hint = ", or beyond ±65504, the largest float16" if array.dtype == np.float16 else ""
                raise NotFinite(
                    f"{where}, array {name}: {describe_not_finite(array)}.\n"
                    f"Nothing of this sample was stored. Look for values that are not finite{hint}."
                )
        stored = self._encoder.encode(values, areas, confident)
        self._broken = True  # until every array has its sample
        for name, writer in self._writers.items():
            writer.append(stored[name])
        self._n_done += 1
        self._broken = False

    def finish(self) -> None:
        """Complete all files, the manifest last. Raises SampleMissing when samples were not appended."""
        missing = [token for token, _ in self._samples[self._n_done :]]
        if missing or self._broken:
            raise SampleMissing(
                f"scene {self.scene_name} has {self._n_done} of {len(self._samples)} samples "
                f"and is not published; the next one is {missing[0] if missing else 'none'}"
            )
        records = tuple(writer.finish() for writer in self._writers.values())
        tokens = [token for token, _ in self._samples]
        timestamps_us = [timestamp_us for _, timestamp_us in self._samples]
        coordinates = coordinate_files(tokens, timestamps_us)
        documents = {
            record.array.name: array_document(
                record.array, len(tokens), array_attributes(record.array, self._spec)
            )
            for record in records
        }
        attributes = {
            "scene_name": self.scene_name,
            "scene_token": self.scene_token,
            "sample_tokens": tokens,
            "timestamps_us": timestamps_us,
            **COORDINATES_ATTRIBUTE,
        }
        files = {f"{name}/{METADATA_NAME}": document for name, document in documents.items()}
        files |= coordinates
        members = {path: data for path, data in files.items() if path.endswith(METADATA_NAME)}
        files[METADATA_NAME] = group_document(
            attributes, {path.removesuffix(f"/{METADATA_NAME}"): data for path, data in members.items()}
        )
        for name in COORDINATES:
            (self._folder / name).mkdir()
        for path, data in files.items():
            write_new(self._folder / path, data)
        manifest = SceneManifest(
            scene_name=self.scene_name,
            scene_token=self.scene_token,
            sample_tokens=tokens,
            timestamps_us=timestamps_us,
            fingerprint=self._fingerprint,
            arrays=records,
            metadata_files=file_records(files),
        )
        write_new(self._folder / MANIFEST_NAME, pack_manifest(manifest))

    def close(self) -> None:
        """Let go of all files."""
        self._open_files.close()

    def _order_problems(self, sample_token: str) -> list[Problem]:
        if self._n_done == len(self._samples):
            return [Problem("sample", f"no more than {self._n_done} samples", shown(sample_token))]
        expected = self._samples[self._n_done][0]
        if sample_token != expected:
            return [
                Problem("sample", f"{expected!r}, the next in time (row {self._n_done})", shown(sample_token))
            ]
        return []


def require_samples(scene_name: str, samples: Sequence[tuple[str, int]]) -> None:
    """Raises SpecInvalid listing what is wrong with a scene's samples: none, repeated, out of order."""
    problems = []
    if not samples:
        problems.append(Problem("samples", "at least one (leave an empty scene out)", "none"))
    seen: set[str] = set()
    before_us = -1
    for row, (token, timestamp_us) in enumerate(samples):
        where = f"samples[{row}]"
        try:
            names.token(token)
            integer(0)(timestamp_us)
        except Unfit as unfit:
            problems.append(Problem(where, str(unfit), shown((token, timestamp_us))))
            continue
        if token in seen:
            problems.append(Problem(where, "a token that no earlier sample has", shown(token)))
        if timestamp_us <= before_us:
            problems.append(Problem(where, f"a timestamp_us after {before_us}", str(timestamp_us)))
        seen.add(token)
        before_us = timestamp_us
    if problems:
        raise SpecInvalid(f"samples of scene {scene_name} are not valid", problems)
