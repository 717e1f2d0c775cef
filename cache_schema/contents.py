"""What a store is said to hold: by its seal, else by its plan; only a store without both is listed.

A listing says what is there, never what is missing, and that of an object store may be stale or cut short.
"""

import hashlib
from collections.abc import Iterator

from cache_schema.documents import read_document
from cache_schema.errors import Corrupt, StoreNotFound
from cache_schema.fingerprint import digest
from cache_schema.published import REDO, PublishedScene, read_scene
from cache_schema.seal import SEAL_NAME, Seal, read_seal
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import published_scenes, read_plan, read_root
from cache_schema.zarr_metadata import METADATA_NAME


class StoreContents:
    """Spec, plan and seal of a store, and the scenes that they name.

    Attributes:
        seal: None when the store is not sealed.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when root or seal are damaged, or the seal is another
    store's.
    """

    def __init__(self, path: StorePath) -> None:
        self.path = path
        self.spec: StoreSpec = read_root(path)
        self.fingerprint = digest(self.spec)
        self.plan: StorePlan | None = read_plan(path)
        try:
            self.seal: Seal | None = read_seal(path)
        except StoreNotFound:
            self.seal = None
        else:
            require_own_seal(self.seal, path, self.plan)

    def scene_names(self) -> list[str]:
        """The scenes that are published, sorted; of a sealed store all those it must have."""
        if self.seal is not None:
            return [scene.scene_name for scene in self.seal.scenes]
        return published_scenes(self.path, self.plan)

    def scenes(self) -> Iterator[PublishedScene]:
        """These scenes' manifests.

        Raises as `read_scene`, and Corrupt when a manifest is not the one that was sealed.
        """
        sealed = {} if self.seal is None else self.seal.manifest_sha256
        for name in self.scene_names():
            scene = read_scene(self.path, name, self.fingerprint, self.plan)
            if sealed.get(name, scene.manifest_sha256) != scene.manifest_sha256:
                raise Corrupt(f"scene {name} of {self.path} is not the one that was sealed.\n{REDO}")
            yield scene


def require_own_seal(seal: Seal, path: StorePath, plan: StorePlan | None) -> None:
    """Raise Corrupt when a seal was made for another root, or for other scenes than the plan names."""
    root_sha256 = hashlib.sha256(read_document(path / METADATA_NAME)).hexdigest()
    sealed = {scene.scene_name: scene.n_samples for scene in seal.scenes}
    if seal.root_sha256 != root_sha256 or plan is None or plan.n_samples != sealed:
        raise Corrupt(
            f"{path / SEAL_NAME} was made for another store: its root or its plan is not this one's.\n"
            "Put the store's own seal back, or dump into a new store."
        )
