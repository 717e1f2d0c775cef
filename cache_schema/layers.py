"""Layers: arrays that a finished store gets afterwards, in a folder of their own inside it.

A layer is a store in the same format, at `<store>/layers/<name>`: with a spec, plan, scenes, manifests, index
and seal of its own. Its spec names the store that it belongs to by that store's digest. The store itself is
not changed, and knows nothing of its layers; who wants one names it.
"""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from cache_schema import names
from cache_schema.contents import StoreContents
from cache_schema.documents import is_there
from cache_schema.errors import AlreadyPublished, FingerprintMismatch, Problem, StoreNotFound
from cache_schema.fields import Unfit
from cache_schema.files import publish_file, remove_abandoned
from cache_schema.folders import inside
from cache_schema.reader import TargetReader
from cache_schema.spec import StoreSpec
from cache_schema.storage import StorePath, names_in
from cache_schema.writer import StoreWriter, open_begun
from cache_schema.zarr_metadata import METADATA_NAME, group_document

LAYERS_GROUP = "layers"
MAKE_ONE = "Make one with train/train_distillation_head.py --cache {} --layer NAME."


def layer_path(store: StorePath, name: str) -> StorePath:
    """Where the layer of that name is, or would be. Raises SpecInvalid when no layer can be called so."""
    return store / LAYERS_GROUP / names.require(names.layer_name, name, "layer")


def layer_names(store: StorePath) -> list[str]:
    """The layers that were begun, finished or not; sorted. Raises NotOurs when their folder is a link."""
    found = []
    with contextlib.suppress(FileNotFoundError):
        require_real(store, LAYERS_GROUP)
        for name in names_in(store / LAYERS_GROUP):
            with contextlib.suppress(Unfit):
                if is_there(store / LAYERS_GROUP / names.layer_name(name) / METADATA_NAME):
                    found.append(name)
    return found


def open_layer(store: TargetReader, name: str) -> TargetReader:
    """The reader of a finished layer of a store.

    Raises:
        SpecInvalid: no layer can be called so.
        StoreNotFound: the store has no such layer, or it is not finished.
        NotOurs: the way to it leads through a link.
        FingerprintMismatch: it is a layer of another store.
        Corrupt: what it says about itself is damaged.
    """
    path = layer_path(store.path, name)
    try:
        require_real(store.path, LAYERS_GROUP, name)
        layer = TargetReader(path, verify_checksums=store.verify_checksums)
    except (FileNotFoundError, StoreNotFound):
        there = ", ".join(layer_names(store.path)) or "none"
        raise StoreNotFound(
            f"{store.path} has no layer {name}; its layers: {there}.\n{MAKE_ONE.format(store.path)}"
        ) from None
    require_parent(layer.spec, store.digest, path)
    if layer.digest is None:
        raise StoreNotFound(
            f"{path} is not finished: run the command that writes it again, with --resume, to its end."
        )
    return layer


def begin_layer(store: StorePath, name: str, spec: StoreSpec, planned: Mapping[str, int]) -> StoreWriter:
    """Open a layer for writing: a new one, or one that the same work began.

    Args:
        spec: of the layer; it names the store by its digest.
        planned: samples of every scene, by scene name.

    Raises:
        SpecInvalid: no layer can be called so.
        NotOurs: the way to it leads through a link.
        FingerprintMismatch: the spec is of a layer of another store; or a layer of this name holds something
            else, and the parts that differ are named.
        AlreadyPublished: other things lie in its place.
    """
    path = layer_path(store, name)
    require_parent(spec, StoreContents(store).digest, store)
    group = store / LAYERS_GROUP
    if isinstance(store, Path):
        with inside(store) as root, contextlib.suppress(FileExistsError):
            os.mkdir(LAYERS_GROUP, dir_fd=root)
        require_real(store, LAYERS_GROUP)
        with contextlib.suppress(FileNotFoundError):
            require_real(store, LAYERS_GROUP, name)
        remove_abandoned(group)
    publish_file(group, group / METADATA_NAME, group_document({}))
    try:
        return StoreWriter.create(path, spec, planned=planned)
    except AlreadyPublished as error:
        try:
            return open_begun(
                path,
                spec,
                planned,
                fault=f"{path} was begun with something else",
                way_out="Give this layer another name, or remove that one.",
            )
        except StoreNotFound:
            raise error from None


def require_parent(spec: StoreSpec, digest: str | None, path: StorePath) -> None:
    """Raise FingerprintMismatch unless a spec is of a layer of the store with that digest."""
    parent = None if spec.layer is None else spec.layer.store_digest
    if parent is not None and parent == digest:
        return
    raise FingerprintMismatch(
        f"{path} is no layer of this store",
        [Problem("layer of", digest or "a store that is sealed", parent or "no layer: a store of its own")],
        "Name a layer of this store (cache_schema/inspect_cache.py info lists them), or make one.",
    )


def require_real(store: StorePath, *below: str) -> None:
    """Raise NotOurs when one of these folders, each below the one before, is a link; FileNotFoundError."""
    if isinstance(store, Path):
        with inside(store, *below):
            pass
