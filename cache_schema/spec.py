"""What a store says about itself: its arrays, and the teacher, inputs and dataset they came from.

Kept in small facts, because a store is later compared part by part with what a training expects.
No clock time, host name or path belongs into any of them: the same dump writes the same bytes anywhere.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any

from cache_schema import __version__, names
from cache_schema.array_spec import COORDINATES, ArraySpec
from cache_schema.errors import Problem, SchemaTooNew, SchemaTooOld, shown
from cache_schema.fields import (
    Fact,
    each,
    fact,
    flag,
    flags,
    integer,
    json_object,
    number,
    one_of,
    optional,
    text,
)
from cache_schema.profiles import PROFILES, layout_problems, stored_arrays

SCHEMA_VERSION = 2

sha256 = text(r"[0-9a-f]{64}", "a sha256 as 64 small hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class TeacherFacts(Fact):
    """Which teacher, and how it was run."""

    detector: Annotated[str, text()]  # for people: the name of its config
    config: Annotated[Mapping[str, Any], json_object]  # the resolved detector config
    regime: Annotated[str, text()]  # "streaming": each frame given its predecessor's BEV, scene by scene
    trained: Annotated[bool, flag]
    checkpoint_sha256: Annotated[str | None, optional(sha256)]  # of the checkpoint file; None when untrained
    random_seed: Annotated[int | None, optional(integer(0))] = None  # of an untrained teacher

    def contradictions(self) -> list[Problem]:
        if self.trained and self.checkpoint_sha256 is None:
            return [Problem("checkpoint_sha256", "the checkpoint's sha256, as trained is true", "null")]
        if not self.trained and self.checkpoint_sha256 is not None:
            return [Problem("checkpoint_sha256", "null, as trained is false", self.checkpoint_sha256)]
        return []


@dataclass(frozen=True, kw_only=True)
class InputFacts(Fact):
    """What the teacher was shown."""

    camera_order: Annotated[tuple[str, ...], each(text(), minimum=1, unique=True)]
    image_shape: Annotated[tuple[int, ...], each(integer(1), minimum=2)]  # height, width in pixels, padded
    pipeline: Annotated[Mapping[str, Any], json_object]  # scaling, padding, normalisation, colour order
    present: Annotated[Mapping[str, bool], flags]  # of what it reads and a dataset may lack: "can_bus"


@dataclass(frozen=True, kw_only=True)
class OutputFacts(Fact):
    """How the teacher's outputs are to be read."""

    class_names: Annotated[tuple[str, ...], each(text(), minimum=1, unique=True)]  # order of the labels
    box_convention: Annotated[str, text()]  # of detections: axes, units and the sign and zero of yaw
    query_box_encoding: Annotated[str | None, optional(text())]  # of `query_boxes`; None without them
    not_stored: Annotated[tuple[ArraySpec, ...], each(fact(ArraySpec))]  # what else the teacher gives


@dataclass(frozen=True, kw_only=True)
class DatasetFacts(Fact):
    """Which samples were dumped."""

    name: Annotated[str, text()]  # "nuscenes"
    version: Annotated[str, text()]  # "v1.0-trainval"
    split: Annotated[str, text()]  # "train"


@dataclass(frozen=True, kw_only=True)
class NumericsFacts(Fact):
    """What, besides weights and inputs, decides the last bits of a number."""

    version: Annotated[int, integer(1)]  # of the detector code; goes up when its golden outputs change
    op_backend: Annotated[str, text()]  # implementation of the attention and convolution ops
    device: Annotated[str, one_of("cpu", "cuda")]
    compute_dtype: Annotated[str, text()]  # "float32"; what is stored is each array's own dtype
    tf32: Annotated[bool, flag]
    deterministic: Annotated[bool, flag]
    threads: Annotated[int, integer(1)]  # of one process; sums on a CPU depend on it


@dataclass(frozen=True, kw_only=True)
class FocalFacts(Fact):
    """What profile `focal` keeps."""

    min_score: Annotated[float, number(0, 1)]  # of a detection that makes areas, and of a query that is kept
    background_block: Annotated[int, integer(1)]  # side in map cells of a block that is averaged
    areas: Annotated[Mapping[str, Any], json_object]  # how the areas were drawn: from what, which margins


@dataclass(frozen=True, kw_only=True)
class LayerFacts(Fact):
    """What a layer was made of: more arrays of the store's teacher, or what a head reads from one of its own.

    Then `teacher` of the layer tells of the head.
    """

    store_digest: Annotated[str, sha256]  # of the store that it is a layer of
    reads: Annotated[str | None, optional(names.array_name)] = None  # what a head read


@dataclass(frozen=True, kw_only=True)
class StoreSpec(Fact):
    """Everything that holds for the whole store."""

    profile: Annotated[str, one_of(*PROFILES)]
    arrays: Annotated[tuple[ArraySpec, ...], each(fact(ArraySpec), minimum=1)]  # as the teacher gives them
    teacher: Annotated[TeacherFacts, fact(TeacherFacts)]
    inputs: Annotated[InputFacts, fact(InputFacts)]
    outputs: Annotated[OutputFacts, fact(OutputFacts)]
    dataset: Annotated[DatasetFacts, fact(DatasetFacts)]
    numerics: Annotated[NumericsFacts, fact(NumericsFacts)]
    focal: Annotated[FocalFacts | None, optional(fact(FocalFacts))] = None  # of profile `focal` only
    layer: Annotated[LayerFacts | None, optional(fact(LayerFacts))] = None  # of a layer of another store only
    schema_version: Annotated[int, integer(1)] = SCHEMA_VERSION
    written_by: Annotated[str, text()] = f"focalcache {__version__}"  # the release that began the store

    def to_dict(self) -> dict[str, Any]:
        """See Fact. A store that is no layer says nothing of layers."""
        raw = super().to_dict()
        if self.layer is None:
            del raw["layer"]
        return raw

    @cached_property
    def stored_arrays(self) -> tuple[ArraySpec, ...]:
        """The arrays on disk: what the profile makes of `arrays`."""
        return stored_arrays(self.profile, self.arrays, self.background_block)

    @property
    def background_block(self) -> int:
        """Side in map cells of a block of the coarse background; 1 where there is none."""
        return self.focal.background_block if self.focal else 1

    @property
    def teacher_outputs(self) -> tuple[ArraySpec, ...]:
        """Every output of the teacher, stored or not."""
        return (*self.arrays, *self.outputs.not_stored)

    @property
    def bytes_per_sample(self) -> int:
        """Size of one stored sample before compression; ragged arrays count with the most they can be."""
        return sum(array.bytes_per_sample for array in self.stored_arrays)

    def array(self, name: str) -> ArraySpec:
        """The stored array of that name. Raises KeyError that lists the names there are."""
        for array in self.stored_arrays:
            if array.name == name:
                return array
        raise KeyError(f"no array {name!r}; the store has {', '.join(a.name for a in self.stored_arrays)}")

    def contradictions(self) -> list[Problem]:
        problems = layout_problems(self.profile, self.arrays)
        if (self.profile == "focal") != (self.focal is not None):
            expected = "facts" if self.profile == "focal" else "null"
            got = "null" if self.focal is None else "facts"
            problems.append(Problem("focal", f"{expected}, as the profile is {self.profile}", got))
        # What is stored can only be worked out, and then checked, when the rest is right.
        return problems or _array_problems(self.stored_arrays)


def _array_problems(arrays: tuple[ArraySpec, ...]) -> list[Problem]:
    problems = []
    array_names = [array.name for array in arrays]
    for taken, by in (("sample", "a dimension"), *((name, "a coordinate") for name in COORDINATES)):
        if taken in array_names:
            problems.append(Problem("arrays", f'no array "{taken}": it is the name of {by}', "one"))
    for name in sorted({name for name in array_names if array_names.count(name) > 1}):
        problems.append(Problem("arrays", "names that are all different", f"{name!r} more than once"))
    # A group opens as one xarray Dataset: there a dimension has one length, and no map bears its name.
    users: dict[str, dict[int, str]] = defaultdict(dict)
    for array in arrays:
        for dimension, length in zip(array.dimension_names, array.shape, strict=True):
            users[dimension].setdefault(length, array.name)
    for dimension, lengths in users.items():
        if len(lengths) > 1:
            found = ", ".join(f"{length} in {name}" for length, name in lengths.items())
            problems.append(Problem(f"dimension {dimension}", "one length in all arrays", found))
        if dimension in (*array_names, *COORDINATES):
            problems.append(Problem(f"dimension {dimension}", "a name that no array has", "an array"))
    return problems


def read_spec(raw: object, where: str) -> StoreSpec:
    """The spec of the store at `where`, from its attributes.

    Raises SchemaTooNew or SchemaTooOld before anything else is looked at, as other formats may say things
    differently, and SpecInvalid when a field is bad.
    """
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if isinstance(version, int) and version != SCHEMA_VERSION:
        writer = shown(raw.get("written_by", "an unknown release"))
        way_out = (
            f"Update focalcache to a release that knows schema_version {version}, or dump the store again."
            if version > SCHEMA_VERSION
            else "It has no detections and no roles, which cannot be made from what it holds: dump it again"
            " with this release, by the same command and into another --out."
        )
        kind = SchemaTooNew if version > SCHEMA_VERSION else SchemaTooOld
        raise kind(
            f"{where} was written by {writer} with schema_version {version}; "
            f"this is focalcache {__version__}, which reads {SCHEMA_VERSION}.\n{way_out}"
        )
    return StoreSpec.from_dict(raw)
