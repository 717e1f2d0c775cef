"""Writes one scene: samples come in time order, each goes to disk at once, the manifest comes last."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from cache_schema import names
from cache_schema.codec import crc32c, disk_dtype, encode, raw_bytes
from cache_schema.errors import CacheError, NotFinite, Problem, SampleMissing, SpecInvalid, shown
from cache_schema.fields import Unfit, integer
from cache_schema.files import write_new
from cache_schema.finite import all_finite, describe_not_finite
from cache_schema.manifest import MANIFEST_NAME, ArrayRecord, SceneManifest, file_records, pack_manifest
from cache_schema.shard_writer import ShardWriter
from cache_schema.spec import ArraySpec
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

    def append(self, values: np.ndarray) -> None:
        """Write the next sample: C-ordered, in the array's shape and dtype."""
        if self._shard is None:
            path = self._folder / shard_key(self.array, len(self._shard_nbytes))
            self._shard = ShardWriter(path, self._per_shard)
        self._checksums.append(crc32c(raw_bytes(values)))
        self._shard.append(encode(self.array, values))
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
        arrays: what every sample has.
        scene_name, scene_token: the scene's names in its dataset.
        samples: (sample_token, timestamp_us) of all its samples, in time order.
    """

    def __init__(
        self,
        folder: Path,
        arrays: Sequence[ArraySpec],
        *,
        scene_name: str,
        scene_token: str,
        samples: Sequence[tuple[str, int]],
    ) -> None:
        self.scene_name = scene_name
        self.scene_token = scene_token
        self._folder = folder
        self._samples = list(samples)
        self._n_done = 0
        self._broken = False
        with ExitStack() as open_files:
            self._writers = {}
            for array in arrays:
                writer = ArrayWriter(folder / array.name, array, len(self._samples))
                open_files.callback(writer.close)
                self._writers[array.name] = writer
            self._open_files = open_files.pop_all()

    def append(self, sample_token: str, values: Mapping[str, np.ndarray]) -> None:
        """Write all arrays of the next sample.

        Raises:
            SpecInvalid: wrong sample, or arrays that are missing, unknown or of another dtype or shape,
                all of them listed; nothing was written and the right call may follow.
            NotFinite: a NaN or infinity; nothing was written.
            OSError: the disk refused; the scene can no longer be finished.
        """
        if self._broken:
            raise CacheError(f"scene {self.scene_name} failed while it was written and takes no more samples")
        where = f"scene {self.scene_name}, sample {sample_token}"
        problems = self._order_problems(sample_token) + self._array_problems(values)
        if problems:
            raise SpecInvalid(f"{where} does not fit", problems)
        ordered = {name: np.asarray(values[name], order="C") for name in self._writers}
        for name, array in ordered.items():
            if not all_finite(array):
                hint = ", or beyond ±65504, the largest float16" if array.dtype == np.float16 else ""
                raise NotFinite(
                    f"{where}, array {name}: {describe_not_finite(array)}.\n"
                    f"Nothing of this sample was stored. Look for values that are not finite{hint}."
                )
        self._broken = True  # until every array has its sample
        for name, array in ordered.items():
            self._writers[name].append(array)
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
        documents = {record.array.name: array_document(record.array, len(tokens)) for record in records}
        attributes = {
            "scene_name": self.scene_name,
            "scene_token": self.scene_token,
            "sample_tokens": tokens,
            "timestamps_us": timestamps_us,
        }
        files = {f"{name}/{METADATA_NAME}": document for name, document in documents.items()}
        files[METADATA_NAME] = group_document(attributes, documents)
        for path, data in files.items():
            write_new(self._folder / path, data)
        manifest = SceneManifest(
            scene_name=self.scene_name,
            scene_token=self.scene_token,
            sample_tokens=tokens,
            timestamps_us=timestamps_us,
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

    def _array_problems(self, values: Mapping[str, np.ndarray]) -> list[Problem]:
        problems = [
            Problem(str(name), f"no such array (the store has {', '.join(self._writers)})", "one")
            for name in values
            if name not in self._writers
        ]
        for name, writer in self._writers.items():
            expected = f"{writer.array.dtype} {writer.array.shape}"
            if name not in values:
                problems.append(Problem(name, expected, "nothing"))
            elif not isinstance(values[name], np.ndarray):
                problems.append(Problem(name, f"a numpy array, {expected}", type(values[name]).__name__))
            elif (values[name].dtype, values[name].shape) != (disk_dtype(writer.array), writer.array.shape):
                problems.append(Problem(name, expected, f"{values[name].dtype} {values[name].shape}"))
        return problems


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
            problems.append(Problem(where, "a token that no sample before has", shown(token)))
        if timestamp_us <= before_us:
            problems.append(Problem(where, f"a timestamp_us after {before_us}", str(timestamp_us)))
        seen.add(token)
        before_us = timestamp_us
    if problems:
        raise SpecInvalid(f"samples of scene {scene_name} are not valid", problems)
