"""More arrays of a teacher for a store that is finished: a dump that fills a layer of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from cache_schema.contents import StoreContents
from cache_schema.errors import SampleMissing
from cache_schema.fingerprint import require
from cache_schema.spec import LayerFacts, StoreSpec
from cache_schema.storage import StorePath
from camera3d.errors import ConfigInvalid


def layer_spec(store: StorePath, spec: StoreSpec, planned: Mapping[str, int]) -> StoreSpec:
    """What a layer with the arrays that a store lacks will say about itself.

    Args:
        spec: of the dump, as if it made a store of its own.
        planned: samples of its scenes, by name.

    Raises:
        SampleMissing: the store is not finished.
        FingerprintMismatch: another teacher made it, or of other inputs, scenes, or in another profile.
        ConfigInvalid: it has all these arrays.
    """
    contents = StoreContents(store)
    if contents.digest is None or contents.plan is None:
        raise SampleMissing(
            f"{store} is not sealed, and only a finished store gets layers: run its dump to the end first"
        )
    facts = {name: value for name, value in spec.to_dict().items() if name != "arrays"}
    facts["outputs"] = {name: value for name, value in facts["outputs"].items() if name != "not_stored"}
    require(facts, contents.spec, store)
    contents.plan.require(planned, store)
    lacking = sorted(set(contents.plan.n_samples) - set(planned))
    if lacking:
        raise ConfigInvalid(
            f"--layer adds arrays of all scenes that {store} has, and this dump leaves out {len(lacking)} of"
            f" them, such as {lacking[0]}: give the scenes that it was dumped with"
        )
    held = {array.name for array in contents.spec.arrays}
    arrays = tuple(array for array in spec.arrays if array.name not in held)
    if not arrays:
        raise ConfigInvalid(f"{store} has all that these --arrays name: there is nothing for a layer")
    added = {array.name for array in arrays}
    left = tuple(array for array in contents.spec.outputs.not_stored if array.name not in added)
    return replace(
        spec,
        arrays=arrays,
        outputs=replace(spec.outputs, not_stored=left),
        layer=LayerFacts(store_digest=contents.digest),
    )
