"""What a store is said to hold: by its seal, else by its plan; only a store without both is listed.

A listing says what is there, never what is missing, and that of an object store may be stale or cut short.
"""

from collections.abc import Iterator

from cache_schema import fields
from cache_schema.errors import Corrupt, DigestMismatch, Problem, SpecInvalid, StoreNotFound, shown
from cache_schema.fingerprint import digest as fingerprint_of
from cache_schema.manifest import HeadManifest
from cache_schema.published import REDO, PublishedScene, read_scene
from cache_schema.seal import SEAL_NAME, Seal, read_seal
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import Root, open_root, published_scenes
from cache_schema.teacher_head import HEAD_GROUP, read_head_manifest

_digest_prefix = fields.text(r"[0-9a-f]{12,64}", "the first 12 to 64 small hexadecimal digits of a digest")


class StoreContents:
    """Spec, plan and seal of a store, and the scenes that they name.

    Attributes:
        seal: None when the store is not sealed.

    Raises StoreNotFound, SchemaTooNew, or Corrupt when root or seal are damaged, or the seal is another
    store's.
    """

    def __init__(self, path: StorePath) -> None:
        self.path = path
        root = open_root(path)
        self.spec: StoreSpec = root.spec
        self.fingerprint = fingerprint_of(root.spec)
        self.plan: StorePlan | None = root.plan
        try:
            self.seal: Seal | None = read_seal(path)
        except StoreNotFound:
            self.seal = None
        else:
            require_own_seal(self.seal, path, root)

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

    def head_manifest(self) -> HeadManifest:
        """What is recorded of the teacher's head.

        Raises as `read_head_manifest`; StoreNotFound also for a head that is not in the seal.
        """
        sealed = None if self.seal is None else self.seal.teacher_head_sha256
        if self.seal is not None and sealed is None:
            raise StoreNotFound(
                f"{self.path} was sealed without a teacher head.\nDump into a new store to have one."
            )
        return read_head_manifest(self.path / HEAD_GROUP, self.fingerprint, sealed)

    @property
    def digest(self) -> str | None:
        """The digest of the seal, and so of the store; None when it is not sealed."""
        return None if self.seal is None else self.seal.digest

    def require_digest(self, expected: str) -> None:
        """Raise unless the store's digest begins with these digits.

        Raises:
            SpecInvalid: they cannot begin a digest, or are fewer than 12.
            DigestMismatch: the store has another digest, or none as it is not sealed.
        """
        try:
            _digest_prefix(expected)
        except fields.Unfit as unfit:
            problem = Problem("expect_digest", str(unfit), shown(expected))
            raise SpecInvalid("no store can be found by this", [problem]) from None
        if self.digest is None:
            raise DigestMismatch(
                f"{self.path} is not sealed and has no digest, but {expected} is expected.\n"
                "Run its dump to the end: whoever publishes the last scene seals the store."
            )
        if not self.digest.startswith(expected):
            raise DigestMismatch(
                f"{self.path} is not the store that is expected\n"
                f"  expected digest  {expected}\n"
                f"  store has        {self.digest}\n"
                "Name the store with that digest (cache_schema/inspect_cache.py info prints it), or, when you"
                " trust this one, expect its digest."
            )


def require_own_seal(seal: Seal, path: StorePath, root: Root) -> None:
    """Raise Corrupt when a seal was made for another root, or for other scenes than the plan names."""
    sealed = {scene.scene_name: scene.n_samples for scene in seal.scenes}
    if seal.root_sha256 != root.sha256 or root.plan is None or root.plan.n_samples != sealed:
        raise Corrupt(
            f"{path / SEAL_NAME} was made for another store: its root or its plan is not this one's.\n"
            "Put the store's own seal back, or dump into a new store."
        )
