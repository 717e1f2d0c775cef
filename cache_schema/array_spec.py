"""What one array of a scene group is: its role, numbers and shape on disk."""

import math
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np

from cache_schema import names
from cache_schema.errors import Problem, shown
from cache_schema.fields import Fact, each, flag, integer, number, one_of, optional

# What an array is to the teacher: a map of each camera, a bird's-eye-view map, something about each object
# query, a map of a head without queries, what the frame itself says, or the decoded boxes.
IMAGE_MAP, BEV_MAP, QUERY, DENSE_HEAD, CALIBRATION, DETECTION = TEACHER_ROLES = (
    "image_map",
    "bev_map",
    "query",
    "dense_head",
    "calibration",
    "detection",
)
# A profile's own array: scales, masks, cells and background of a map, and which queries were kept.
PACKING = "packing"
FRAMES = ("lidar", "ego")
DTYPES = (
    "bool",
    "float16",
    "float32",
    "float64",
    "int8",
    "uint8",
    "int16",
    "uint16",
    "int32",
    "uint32",
    "int64",
)
# What a store says is believed only so far: a reader takes the memory of a sample.
MAX_SAMPLE_NBYTES = 1 << 32
MAX_DIMENSIONS = 16
MAX_STRIDE, MAX_EXTENT_M = 1 << 16, 1e6
QUERY_DIMENSION = "query"
# Written beside the arrays of the spec, see coordinates.py; so no array of the spec may bear such a name.
COORDINATES = ("sample_token", "time")
CONFIDENT_DIMENSION = "confident_query"


@dataclass(frozen=True, kw_only=True)
class ArraySpec(Fact):
    """One array of a scene group. On disk the dimension "sample" comes before those named here.

    `stride` is that of an image map, in input pixels a cell. `extent_m` is what a BEV map covers, or what
    positions in [0, 1] are fractions of: x, y, z minimum, then maximum, in metres of `frame`.

    An array with `rows_per_chunk` is ragged: of its first dimension a sample fills as many rows as it has,
    from row 0 on. They are stored in chunks of that many rows; chunks that would hold none are left out.
    """

    name: Annotated[str, names.array_name]
    role: Annotated[str, one_of(*TEACHER_ROLES, PACKING)]
    dtype: Annotated[str, one_of(*DTYPES)]
    shape: Annotated[tuple[int, ...], each(integer(1))]  # of one sample; the largest, when ragged
    dimension_names: Annotated[tuple[str, ...], each(names.dimension_name, unique=True)]  # without "sample"
    compressed: Annotated[bool, flag]  # Blosc, for masks; features gain next to nothing from it
    rows_per_chunk: Annotated[int | None, optional(integer(1))] = None
    stride: Annotated[float | None, optional(number(0, MAX_STRIDE))] = None
    extent_m: Annotated[
        tuple[float, ...] | None, optional(each(number(-MAX_EXTENT_M, MAX_EXTENT_M), minimum=6))
    ] = None
    frame: Annotated[str | None, optional(one_of(*FRAMES))] = None

    @classmethod
    def of_output(cls, output: Any) -> Self:
        """What a detector says about one of its outputs: the same fields, but for how it is compressed.

        Raises SpecInvalid when no store could hold it.
        """
        return cls(
            name=output.name,
            role=output.role,
            dtype=output.dtype,
            shape=tuple(output.shape),
            dimension_names=tuple(output.dimension_names),
            compressed=False,
            stride=None if output.stride is None else float(output.stride),
            extent_m=output.extent_m,
            frame=output.frame,
        )

    @property
    def is_map(self) -> bool:
        """Whether profiles pack it as a feature map: (…, channel, y, x)."""
        return self.role in (IMAGE_MAP, BEV_MAP)

    @property
    def query_axis(self) -> int | None:
        """Which dimension counts the object queries; None when none does."""
        return self.dimension_names.index(QUERY_DIMENSION) if self.role == QUERY else None

    @property
    def ragged(self) -> bool:
        """Whether samples differ in the length of the first dimension."""
        return self.rows_per_chunk is not None

    @property
    def bytes_per_sample(self) -> int:
        """Size of one sample before compression; the largest possible size when ragged."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """Shape of a chunk, without the 1 of the dimension "sample"."""
        return (self.rows_per_chunk, *self.shape[1:]) if self.rows_per_chunk else self.shape

    @property
    def chunk_nbytes(self) -> int:
        """Size of a chunk before compression."""
        return math.prod(self.chunk_shape) * np.dtype(self.dtype).itemsize

    @property
    def chunks_per_sample(self) -> int:
        """Chunks that the largest sample takes."""
        return self.n_chunks(self.shape[0]) if self.rows_per_chunk else 1

    def n_chunks(self, rows: int) -> int:
        """Chunks that this many rows of a ragged array take."""
        return -(-rows // self.rows_per_chunk)

    @property
    def fill_value(self) -> float | int | bool:
        """What stands where nothing was stored; in dtypes that spare a number, one that no sample holds."""
        kind = np.dtype(self.dtype)
        return {"f": math.nan, "b": False}.get(kind.kind, -128 if kind == np.int8 else 0)

    def contradictions(self) -> list[Problem]:
        problems = []
        if len(self.shape) > MAX_DIMENSIONS or self.bytes_per_sample > MAX_SAMPLE_NBYTES:
            expected = f"at most {MAX_DIMENSIONS} dimensions and {MAX_SAMPLE_NBYTES:,} bytes"
            problems.append(Problem("shape", expected, shown(self.shape)))
        if len(self.shape) != len(self.dimension_names):
            expected = f"{len(self.shape)} names, one for each dimension of {self.shape}"
            problems.append(Problem("dimension_names", expected, str(self.dimension_names)))
        if "sample" in self.dimension_names:
            problems.append(Problem("dimension_names", 'no "sample": it is put in front on disk', "sample"))
        if self.role == QUERY and not {QUERY_DIMENSION, CONFIDENT_DIMENSION} & set(self.dimension_names):
            expected = f"a dimension {QUERY_DIMENSION!r}, as the role is {QUERY}"
            problems.append(Problem("dimension_names", expected, str(self.dimension_names)))
        if self.role == IMAGE_MAP and self.stride is None:
            problems.append(Problem("stride", "input pixels a cell, as the role is image_map", "null"))
        if self.role == BEV_MAP and self.extent_m is None:
            problems.append(Problem("extent_m", "what the map covers, as the role is bev_map", "null"))
        if self.extent_m is not None and (len(self.extent_m) != 6 or self.frame is None):
            expected = "six numbers, and a frame that they are metres of"
            problems.append(Problem("extent_m", expected, f"{self.extent_m}, frame {self.frame}"))
        if self.ragged and (self.compressed or not self.shape):
            expected = "null, as the array is compressed or has no dimension"
            problems.append(Problem("rows_per_chunk", expected, str(self.rows_per_chunk)))
        return problems
