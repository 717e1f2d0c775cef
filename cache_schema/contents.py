"""What a store is said to hold: by its seal, else by its plan; only a store without both is listed.

A listing says what is there, never what is missing, and that of an object store may be stale or cut short.
"""

from collections.abc import Iterator
from functools import cached_property

from cache_schema import fields
from cache_schema.errors import Corrupt, DigestMismatch, Problem, SpecInvalid, StoreNotFound, shown
from cache_schema.fingerprint import digest as fingerprint_of
from cache_schema.manifest import HeadManifest
from cache_schema.published import PublishedScene, read_scene
from cache_schema.seal import SEAL_NAME, Seal, read_seal, sealed_index
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath, each_read
from cache_schema.store_index import IndexedScene, StoreIndex
from cache_schema.store_plan import StorePlan
from cache_schema.store_root import Root, open_root, published_scenes
from cache_schema.teacher_head import HEAD_GROUP, read_head_manifest

_SCENES_AT_ONCE = 64  # manifests of a bucket in memory
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
        self._root, self.seal = each_read(path, lambda read: read(path), (open_root, _seal_or_none))
        self.spec: StoreSpec = self._root.spec
        self.fingerprint = fingerprint_of(self.spec)
        if self.seal is None:
            _ = self.plan  # damaged, it is found now
        else:
            require_own_seal(self.seal, path, self._root)

    @property
    def plan(self) -> StorePlan | None:
        """Which scenes the store is to hold; None when it was made without saying so."""
        return self._root.plan

    @cached_property
    def index(self) -> StoreIndex:
        """Scenes and samples that are published: a sealed store's own index, or one made from manifests.

        Raises as `sealed_index` and `read_scene`.
        """
        if self.seal is not None:
            return sealed_index(self.path, self.seal)
        return StoreIndex.of(
            IndexedScene(scene.name, scene.manifest_sha256, scene.sample_tokens) for scene in self.scenes()
        )

    def scene_names(self) -> list[str]:
        """The scenes that are published, sorted; of a sealed store all those it must have."""
        return published_scenes(self.path, self.plan) if self.seal is None else self.index.scene_names()

    def scene(self, name: str) -> PublishedScene:
        """A scene's manifest.

        Raises as `read_scene`, and Corrupt when the manifest is not the one that was sealed.
        """
        if self.seal is None:
            return read_scene(self.path, name, self.fingerprint, self.plan)
        return read_scene(self.path, name, self.fingerprint, None, self.index.manifest_sha256(name))

    def scenes(self) -> Iterator[PublishedScene]:
        """The manifests of all scenes. Raises as `scene`."""
        names = self.scene_names()
        for start in range(0, len(names), _SCENES_AT_ONCE):
            yield from each_read(self.path, self.scene, names[start : start + _SCENES_AT_ONCE])

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
            raise SpecInvalid("this cannot be a digest", [problem]) from None
        if self.digest is None:
            raise DigestMismatch(
                f"{self.path} is not sealed and has no digest, but {expected} is expected.\n"
                "Run its dump to the end: the process that publishes the last scene seals the store."
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
    """Raise Corrupt when a seal was made for another root, and so for another spec or plan."""
    if seal.root_sha256 != root.sha256:
        raise Corrupt(
            f"{path / SEAL_NAME} was made for another store: its root or its plan is not this one's.\n"
            "Put the store's own seal back, or dump into a new store."
        )


def _seal_or_none(path: StorePath) -> Seal | None:
    try:
        return read_seal(path)
    except StoreNotFound:
        return None
