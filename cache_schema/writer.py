"""Adds scenes to a store. Several processes may do so at once, as long as each scene has one of them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from cache_schema import fingerprint, names
from cache_schema.documents import is_there
from cache_schema.errors import AlreadyPublished, Corrupt, FingerprintMismatch, SampleMissing
from cache_schema.files import published_folder, remove_abandoned
from cache_schema.folders import inside
from cache_schema.manifest import MANIFEST_NAME, HeadManifest, read_manifest
from cache_schema.scene_writer import SceneWriter, require_samples
from cache_schema.seal import SEAL_NAME, make_index, make_seal, write_seal
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath, store_path
from cache_schema.store_plan import StorePlan, some
from cache_schema.store_root import SCENES_GROUP, create_root, published_scenes, read_plan, read_root
from cache_schema.teacher_head import HEAD_GROUP, head_manifest, write_head
from cache_schema.wording import counted


class StoreWriter:
    """A store that is open for writing; get one from `create` or `open`."""

    def __init__(self, path: StorePath, spec: StoreSpec, plan: StorePlan | None) -> None:
        self.path = path
        self.spec = spec
        self.plan = plan

    @classmethod
    def create(
        cls, path: str | StorePath, spec: StoreSpec, *, planned: Mapping[str, int] | None = None
    ) -> Self:
        """Make a new, empty store.

        Args:
            planned: samples of every scene that the finished store is to hold, by scene name. Without it any
                scene may be written, and the store can never be sealed.

        Raises:
            AlreadyPublished: the path holds a store or anything else.
            SpecInvalid: a planned scene that cannot be.
        """
        path = store_path(path)
        plan = None if planned is None else StorePlan.of(planned)
        create_root(path, spec, plan)
        return cls(path, spec, plan)

    @classmethod
    def open(cls, path: str | StorePath) -> Self:
        """Open a store to add to it.

        Raises StoreNotFound, SchemaTooNew, Corrupt, and NotOurs when its folder of scenes is a link.
        """
        path = store_path(path)
        spec, plan = read_root(path), read_plan(path)
        if isinstance(path, Path):
            try:
                with inside(path, SCENES_GROUP):
                    pass
            except FileNotFoundError:
                raise Corrupt(f"{path / SCENES_GROUP} is gone: dump into a new store") from None
        return cls(path, spec, plan)

    def published_scenes(self) -> list[str]:
        """Names of the scenes that are finished, whoever wrote them; sorted."""
        return published_scenes(self.path, self.plan)

    def is_published(self, scene_name: str) -> bool:
        """Whether a scene is finished, whoever wrote it."""
        return is_there(self.path / SCENES_GROUP / scene_name / MANIFEST_NAME)

    def missing_scenes(self) -> list[str]:
        """Planned scenes that are not published; sorted. Empty without a plan."""
        planned = () if self.plan is None else self.plan.n_samples
        published = set(self.published_scenes()) if planned else ()
        return [name for name in planned if name not in published]

    @property
    def sealed(self) -> bool:
        """Whether the store bears the mark of being complete."""
        return is_there(self.path / SEAL_NAME)

    def seal(self) -> bool:
        """Mark a complete store as complete; returns whether this call did it, and no other process before.

        Afterwards the store holds nothing that depends on how it was written: what killed processes, on this
        machine or another, left behind is removed.

        Raises:
            SampleMissing: planned scenes are not published, or there is no plan.
            Corrupt: a manifest is damaged, or the store bears the seal of other contents.
            FingerprintMismatch: another dump wrote one of the scenes.
        """
        missing = self.missing_scenes()
        if self.plan is None or missing:
            raise SampleMissing(
                f"{self.path} cannot be sealed: "
                + (
                    f"{counted(len(missing), 'scene')} missing: {some(missing)}"
                    if missing
                    else "it has no plan"
                )
            )
        index = make_index(self.path, self.plan)
        written = write_seal(self.path, make_seal(self.path, index), index)
        remove_abandoned(self.path, of_other_machines=True)
        return written

    def remove_abandoned(self) -> list[str]:
        """Remove what killed processes of this machine left behind; returns the names of these folders."""
        return remove_abandoned(self.path)

    def write_teacher_head(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Store the weights of the teacher's head, float32 by dotted name.

        Every process of a parallel dump may call this: the first one writes, the others compare.

        Raises:
            SpecInvalid: a name, dtype or shape that cannot be stored, all of them listed.
            NotFinite: a NaN or infinity.
            AlreadyPublished: the store has a head with other weights.
        """
        manifest = head_manifest(parameters, fingerprint.digest(self.spec))
        target = self.path / HEAD_GROUP
        try:
            with published_folder(self.path, target) as folder:
                write_head(folder, parameters, manifest)
        except AlreadyPublished:
            if read_manifest(target, HeadManifest) != manifest:
                raise AlreadyPublished(
                    f"{target} holds the head of another teacher; dump into a new store"
                ) from None

    @contextlib.contextmanager
    def scene(
        self, scene_name: str, scene_token: str, samples: Sequence[tuple[str, int]]
    ) -> Iterator[SceneWriter]:
        """Write a scene: append every sample inside the block; it is published when the block ends.

        An exception in the block, its own or the caller's, discards the scene.

        Args:
            scene_name, scene_token: as the dataset calls the scene; the name becomes the group's name.
            samples: (sample_token, timestamp_us) of all its samples, in time order.

        Raises:
            SpecInvalid: a name, token or time that cannot be, all samples listed; no sample at all.
            FingerprintMismatch: the store is planned, and not with this scene, or with more or fewer samples.
            AlreadyPublished: the scene is in the store already.
            SampleMissing: the block ended before every sample was appended.
        """
        names.require(names.scene_name, scene_name, "scene_name")
        names.require(names.token, scene_token, "scene_token")
        require_samples(scene_name, samples)
        if self.plan is not None:
            self.plan.require({scene_name: len(samples)}, self.path)
        target = self.path / SCENES_GROUP / scene_name
        with published_folder(self.path, target) as folder:
            scene = SceneWriter(
                folder, self.spec, scene_name=scene_name, scene_token=scene_token, samples=samples
            )
            with contextlib.closing(scene):
                yield scene
                scene.finish()


def open_begun(
    path: StorePath, spec: StoreSpec, planned: Mapping[str, int], *, fault: str, way_out: str
) -> StoreWriter:
    """The store at that path, which the same work began.

    Raises:
        StoreNotFound: there is none.
        FingerprintMismatch: other work began it; with `fault`, what differs, and `way_out`.
    """
    writer = StoreWriter.open(path)
    problems = fingerprint.difference(spec, writer.spec)
    if problems:
        raise FingerprintMismatch(fault, problems, way_out)
    (writer.plan or StorePlan.of({})).require(planned, path)
    return writer
