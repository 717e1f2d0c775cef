"""Adds scenes to a store. Several processes may do so at once, as long as each scene has one of them."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from cache_schema import names
from cache_schema.errors import AlreadyPublished
from cache_schema.files import published_folder
from cache_schema.manifest import HeadManifest, read_manifest
from cache_schema.scene_writer import SceneWriter, require_samples
from cache_schema.spec import StoreSpec
from cache_schema.store_root import SCENES_GROUP, create_root, published_scenes, read_root
from cache_schema.teacher_head import HEAD_GROUP, head_manifest, write_head


class StoreWriter:
    """A store that is open for writing; get one from `create` or `open`."""

    def __init__(self, path: Path, spec: StoreSpec) -> None:
        self.path = path
        self.spec = spec

    @classmethod
    def create(cls, path: str | Path, spec: StoreSpec) -> Self:
        """Make a new, empty store. Raises AlreadyPublished when the path holds a store or anything else."""
        path = Path(path)
        create_root(path, spec)
        return cls(path, spec)

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open a store to add to it. Raises StoreNotFound, SchemaTooNew, Corrupt."""
        path = Path(path)
        return cls(path, read_root(path))

    def published_scenes(self) -> list[str]:
        """Names of the scenes that are finished, whoever wrote them; sorted."""
        return published_scenes(self.path)

    def write_teacher_head(self, parameters: Mapping[str, np.ndarray]) -> None:
        """Store the weights of the teacher's decoder and head, float32 by dotted name.

        Every process of a parallel dump may call this: the first one writes, the others compare.

        Raises:
            SpecInvalid: a name, dtype or shape that cannot be stored, all of them listed.
            NotFinite: a NaN or infinity.
            AlreadyPublished: the store has a head with other weights.
        """
        manifest = head_manifest(parameters)
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
            AlreadyPublished: the scene is in the store already.
            SampleMissing: the block ended before every sample was appended.
        """
        names.require(names.scene_name, scene_name, "scene_name")
        names.require(names.token, scene_token, "scene_token")
        require_samples(scene_name, samples)
        target = self.path / SCENES_GROUP / scene_name
        with published_folder(self.path, target) as folder:
            scene = SceneWriter(
                folder, self.spec.arrays, scene_name=scene_name, scene_token=scene_token, samples=samples
            )
            with contextlib.closing(scene):
                yield scene
                scene.finish()
