"""What a store says about itself: its arrays, and the teacher, inputs and dataset they came from.

Kept in small facts, because a store is later compared part by part with what a training expects.
No clock time, host name or path belongs into any of them: the same dump writes the same bytes anywhere.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np

from cache_schema import names
from cache_schema.errors import Problem, SchemaTooNew
from cache_schema.fields import Fact, each, fact, flag, integer, json_object, one_of, optional, text

SCHEMA_VERSION = 1
PROFILES = ("exact",)
DTYPES = ("float16", "float32", "float64", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")

sha256 = text(r"[0-9a-f]{64}", "a sha256 as 64 small hexadecimal digits")


@dataclass(frozen=True, kw_only=True)
class ArraySpec(Fact):
    """One array of a scene group. On disk the dimension "sample" comes before those named here."""

    name: Annotated[str, names.array_name]
    dtype: Annotated[str, one_of(*DTYPES)]
    shape: Annotated[tuple[int, ...], each(integer(1))]  # of one sample
    dimension_names: Annotated[tuple[str, ...], each(names.dimension_name, unique=True)]  # without "sample"
    compressed: Annotated[bool, flag]  # Blosc for small arrays; big maps gain nothing from it

    @property
    def bytes_per_sample(self) -> int:
        """Size of one sample before compression."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    def contradictions(self) -> list[Problem]:
        problems = []
        if len(self.shape) != len(self.dimension_names):
            expected = f"{len(self.shape)} names, one for each dimension of {self.shape}"
            problems.append(Problem("dimension_names", expected, str(self.dimension_names)))
        if "sample" in self.dimension_names:
            problems.append(Problem("dimension_names", 'no "sample": it is put in front on disk', "sample"))
        return problems


@dataclass(frozen=True, kw_only=True)
class TeacherFacts(Fact):
    """Which teacher, and how it was run."""

    detector: Annotated[str, text()]  # for people: "BEVFormer-Base"
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


@dataclass(frozen=True, kw_only=True)
class OutputFacts(Fact):
    """How the teacher's outputs are to be read."""

    class_names: Annotated[tuple[str, ...], each(text(), minimum=1, unique=True)]  # order of the logits
    box_convention: Annotated[str, text()]  # encoding, axes, units and the sign and zero of yaw
    pv_strides: Annotated[tuple[int, ...], each(integer(1))]  # input pixels a cell, by pv level


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
class StoreSpec(Fact):
    """Everything that holds for the whole store."""

    profile: Annotated[str, one_of(*PROFILES)]
    arrays: Annotated[tuple[ArraySpec, ...], each(fact(ArraySpec), minimum=1)]
    teacher: Annotated[TeacherFacts, fact(TeacherFacts)]
    inputs: Annotated[InputFacts, fact(InputFacts)]
    outputs: Annotated[OutputFacts, fact(OutputFacts)]
    dataset: Annotated[DatasetFacts, fact(DatasetFacts)]
    numerics: Annotated[NumericsFacts, fact(NumericsFacts)]
    schema_version: Annotated[int, integer(1)] = SCHEMA_VERSION

    @property
    def bytes_per_sample(self) -> int:
        """Size of one sample before compression, all arrays together."""
        return sum(array.bytes_per_sample for array in self.arrays)

    def array(self, name: str) -> ArraySpec:
        """The array of that name. Raises KeyError that lists the names there are."""
        for array in self.arrays:
            if array.name == name:
                return array
        raise KeyError(f"no array {name!r}; the store has {', '.join(a.name for a in self.arrays)}")

    def contradictions(self) -> list[Problem]:
        problems = []
        array_names = [array.name for array in self.arrays]
        if "sample" in array_names:
            problems.append(Problem("arrays", 'no array "sample": it is the name of a dimension', "one"))
        for name in sorted({name for name in array_names if array_names.count(name) > 1}):
            problems.append(Problem("arrays", "names that are all different", f"{name!r} more than once"))
        # A group opens as one xarray Dataset: there a dimension has one length, and no map bears its name.
        users: dict[str, dict[int, str]] = defaultdict(dict)
        for array in self.arrays:
            for dimension, length in zip(array.dimension_names, array.shape, strict=True):
                users[dimension].setdefault(length, array.name)
        for dimension, lengths in users.items():
            if len(lengths) > 1:
                found = ", ".join(f"{length} in {name}" for length, name in lengths.items())
                problems.append(Problem(f"dimension {dimension}", "one length in all arrays", found))
            if dimension in array_names:
                problems.append(Problem(f"dimension {dimension}", "a name that no array has", "an array"))
        return problems


def read_spec(raw: object, where: str) -> StoreSpec:
    """The spec of the store at `where`, from its attributes.

    Raises SchemaTooNew before anything else is looked at, as later formats may say things differently,
    and SpecInvalid when a field is bad.
    """
    version = raw.get("schema_version") if isinstance(raw, Mapping) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise SchemaTooNew(
            f"{where} was written with schema_version {version}; this reader knows up to {SCHEMA_VERSION}.\n"
            f"Update focalcache to a release that knows schema_version {version}, or dump the store again."
        )
    return StoreSpec.from_dict(raw)
