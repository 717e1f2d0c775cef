"""Gives the arrays of a sample back by its token."""

import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np

from cache_schema.contents import StoreContents
from cache_schema.errors import Corrupt, Problem, SampleMissing, SpecInvalid
from cache_schema.fingerprint import require
from cache_schema.manifest import ArrayRecord, SceneManifest
from cache_schema.profiles.focal import FocalSample
from cache_schema.remote_shards import RemoteShards
from cache_schema.shard_reader import ShardReader
from cache_schema.spec import StoreSpec
from cache_schema.storage import S3Path, StorePath, store_path
from cache_schema.store_index import INDEX_NAME, Place, SampleTokens, StoreIndex
from cache_schema.store_root import SCENES_GROUP
from cache_schema.teacher_head import HEAD_GROUP, read_head
from cache_schema.zarr_metadata import shard_key

# Open shards cost a file descriptor and a map each; a scene has about a dozen, of profile `focal` 35.
_OPEN_SHARDS = 256
_OPEN_SCENES = 16


@dataclass(frozen=True)
class _Scene:
    """A scene's manifest, and the records in it by array."""

    manifest: SceneManifest
    records: dict[str, ArrayRecord]


class TargetReader:
    """Random access to the published samples of a store.

    Safe to share between threads and to use in forked or spawned workers; pickles as its arguments. It sees
    the scenes that were published when a sample was first asked for, and no other manifests after that. Of a
    sealed store these are the ones that the seal names, and the head is the one that it names, in workers
    too; what it knows about samples is a map of the store's index, which processes share. Memory does not
    grow with what was read.

    Args:
        path: the store.
        expect: what the store must have been made of; any part of a spec, see `fingerprint.difference`.
        expect_digest: the store's digest, which its seal decides, or the first 12 digits of it or more.
        verify_checksums: whether arrays are tested against the checksums made when they were written: "first"
            when this reader first gives one out (from an object store: whenever it does), True always, False
            never. Workers that are forked from a process that knows the store's samples (has asked for
            `sample_tokens`, say) share what any of them tested; a pickled reader starts anew.

    Raises:
        StoreNotFound: nothing, or no store of ours, at `path`.
        SchemaTooNew: a later format wrote it.
        FingerprintMismatch: it was made of something else than expected; says which parts differ.
        DigestMismatch: it has another digest than expected, or none as it is not sealed.
        SpecInvalid: `expect` names a fact that no store has, `expect_digest` can be no digest, or
            `verify_checksums` is something else.
        Corrupt: what the store says about itself is damaged, or its seal is another store's. From the first
            use of a sample on also when a scene is not the one that was sealed or planned, or is missing.
        Unreadable: the system does not hand a file of it out.
    """

    def __init__(
        self,
        path: str | StorePath,
        *,
        expect: StoreSpec | Mapping[str, Any] | None = None,
        expect_digest: str | None = None,
        verify_checksums: bool | Literal["first"] = "first",
    ) -> None:
        if verify_checksums not in (True, False, "first"):
            problem = Problem("verify_checksums", 'True, False or "first"', repr(verify_checksums))
            raise SpecInvalid("TargetReader cannot be opened like this", [problem])
        self.path = store_path(path)
        self.expect = expect
        self.verify_checksums = verify_checksums
        # What comes over a network is another answer every time, and the checksum is quick beside it.
        remote = isinstance(self.path, S3Path)
        self._always_tested = verify_checksums is True or (verify_checksums == "first" and remote)
        self._tested_once = verify_checksums == "first"
        self._contents = StoreContents(self.path)
        self.spec: StoreSpec = self._contents.spec
        if expect is not None:
            require(expect, self.spec, self.path)
        if expect_digest is not None:
            self._contents.require_digest(expect_digest)
        self._remote = RemoteShards(self.path / SCENES_GROUP, self._record) if remote else None
        self._array_numbers = {array.name: number for number, array in enumerate(self.spec.stored_arrays)}
        self._scene = lru_cache(maxsize=_OPEN_SCENES)(self._open_scene)
        self._shard = lru_cache(maxsize=_OPEN_SHARDS)(self._open_shard)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "path": self.path,
            "expect": self.expect,
            "expect_digest": self.digest,  # a worker reads the store that was opened here, or none
            "verify_checksums": self.verify_checksums,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)

    @property
    def digest(self) -> str | None:
        """The digest of the store; None when it was not sealed when this reader opened it."""
        return self._contents.digest

    @cached_property
    def scenes(self) -> dict[str, SampleTokens]:
        """Sample tokens in time order, by scene name; scenes sorted by name."""
        index = self._index
        return {index.scene_name(number): index.tokens_of(number) for number in range(index.n_scenes)}

    @cached_property
    def sample_tokens(self) -> SampleTokens:
        """All samples, scene by scene and in time order within one."""
        return self._index.sample_tokens()

    @cached_property
    def _index(self) -> StoreIndex:
        index = self._contents.index
        # Made together with the index, so that workers forked later share it.
        self._verified = mmap.mmap(-1, max(1, index.n_samples * len(self._array_numbers)))
        return index

    def __len__(self) -> int:
        return self._index.n_samples

    def __contains__(self, sample_token: object) -> bool:
        return self._index.find(sample_token) is not None

    def __getitem__(self, sample_token: str) -> dict[str, np.ndarray]:
        """All arrays of a sample; see `read`."""
        return self.read(sample_token)

    def read(self, sample_token: str, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """Arrays of a sample as they are stored, by name, each of its own memory and writable.

        The maps of profile `compact` are int8 beside their scales: `quantise.float_maps` makes them floats.
        Ragged arrays of profile `focal` have as many rows as the sample filled: see `read_focal`.

        Args:
            sample_token: as the dataset calls the sample.
            names: only these of `spec.stored_arrays`; all of them when None.

        Raises:
            SampleMissing: the token is not in a published scene of this store.
            SpecInvalid: the store has no array of one of these names.
            Corrupt: bytes are missing or do not match their checksum.
        """
        wanted = self._wanted(names)
        place = self._place(sample_token)
        scene = self._scene(place.scene_name)
        tokens = scene.manifest.sample_tokens
        if place.row >= len(tokens) or tokens[place.row] != sample_token:
            raise Corrupt(f"{self.path / INDEX_NAME} puts sample {sample_token} where another one is")
        if self._remote is None:
            return {name: self._read_array(sample_token, place, scene.records[name]) for name in wanted}
        try:
            return self._remote.read(place.scene_name, place.row, wanted, test=self._always_tested)
        except Corrupt as error:
            raise Corrupt(f"sample {sample_token}, scene {place.scene_name}: {error}") from None

    def read_focal(self, sample_token: str) -> FocalSample:
        """A sample of profile `focal`. Raises as `read`, and SpecInvalid when the profile is another."""
        if self.spec.focal is None:
            raise SpecInvalid(f"{self.path} has profile {self.spec.profile}; read its arrays by name instead")
        return FocalSample.from_stored(self.spec.arrays, self.spec.background_block, self.read(sample_token))

    def scene_of(self, sample_token: str) -> str:
        """Name of the scene that holds a sample. Raises SampleMissing."""
        return self._place(sample_token).scene_name

    def timestamp_us(self, sample_token: str) -> int:
        """When a sample was taken, in microseconds. Raises SampleMissing."""
        place = self._place(sample_token)
        return self._scene(place.scene_name).manifest.timestamps_us[place.row]

    def read_teacher_head(self) -> dict[str, np.ndarray]:
        """Weights of the teacher's head, float32 by dotted name.

        Raises StoreNotFound when none were written or sealed, FingerprintMismatch when another dump wrote
        them, Corrupt when they are damaged or not those that were sealed.
        """
        return read_head(self.path / HEAD_GROUP, self._contents.head_manifest())

    def _wanted(self, names: Iterable[str] | None) -> list[str]:
        known = self._array_numbers
        wanted = list(known) if names is None else list(names)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise SpecInvalid(
                f"{self.path} does not hold what was asked for",
                [Problem(str(name), f"one of {', '.join(known)}", "no such array") for name in unknown],
            )
        return wanted

    def _place(self, sample_token: str) -> Place:
        number = self._index.find(sample_token)
        if number is None:
            dataset = self.spec.dataset
            raise SampleMissing(
                f"sample {sample_token} is not in {self.path}, which holds {self._index.n_samples} samples "
                f"of {self._index.n_scenes} published scenes ({dataset.version}, {dataset.split}).\n"
                "If its scene was not dumped yet, run the same dump again: it continues where it stopped. "
                "Otherwise leave the sample out: TargetReader.sample_tokens lists those that are there."
            )
        return self._index.place(number)

    def _read_array(self, sample_token: str, place: Place, record: ArrayRecord) -> np.ndarray:
        name = record.array.name
        try:
            shard_number, slot = divmod(place.row, record.samples_per_shard)
            position = place.number * len(self._array_numbers) + self._array_numbers[name]
            test = self._always_tested or (self._tested_once and not self._verified[position])
            values = self._shard(place.scene_name, name, shard_number).read(slot, test=test)
        except Corrupt as error:
            where = f"sample {sample_token}, scene {place.scene_name}, array {name}"
            raise Corrupt(f"{where}: {error}") from None
        if test:
            self._verified[position] = 1
        return values

    def _open_scene(self, scene_name: str) -> _Scene:
        scene = self._contents.scene(scene_name)
        if scene.manifest_sha256 != self._index.manifest_sha256(scene_name):
            raise Corrupt(f"{scene.path} was changed after this reader opened the store: open it again")
        manifest = scene.manifest()
        stored = tuple(record.array for record in manifest.arrays)
        if stored != self.spec.stored_arrays:
            raise Corrupt(f"scene {scene_name} of {self.path} holds other arrays than the store's spec says")
        return _Scene(manifest, {record.array.name: record for record in manifest.arrays})

    def _record(self, scene_name: str, array_name: str) -> ArrayRecord:
        return self._scene(scene_name).records[array_name]

    def _open_shard(self, scene_name: str, array_name: str, number: int) -> ShardReader:
        record = self._record(scene_name, array_name)
        path = self.path / SCENES_GROUP / scene_name / array_name / shard_key(record.array, number)
        return ShardReader(
            path,
            record.array,
            slots=record.samples_per_shard,
            nbytes=record.shard_nbytes[number],
            checksums=record.checksums_in_shard(number),
            rows=record.rows_in_shard(number),
        )
