"""What one array of a scene group is: its name, numbers and shape on disk."""

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np

from cache_schema import names
from cache_schema.errors import Problem, shown
from cache_schema.fields import Fact, each, flag, integer, one_of, optional

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


@dataclass(frozen=True, kw_only=True)
class ArraySpec(Fact):
    """One array of a scene group. On disk the dimension "sample" comes before those named here.

    An array with `rows_per_chunk` is ragged: of its first dimension a sample fills as many rows as it has,
    from row 0 on. They are stored in chunks of that many rows; chunks that would hold none are left out.
    """

    name: Annotated[str, names.array_name]
    dtype: Annotated[str, one_of(*DTYPES)]
    shape: Annotated[tuple[int, ...], each(integer(1))]  # of one sample; the largest, when ragged
    dimension_names: Annotated[tuple[str, ...], each(names.dimension_name, unique=True)]  # without "sample"
    compressed: Annotated[bool, flag]  # Blosc, for masks; features gain next to nothing from it
    rows_per_chunk: Annotated[int | None, optional(integer(1))] = None

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
        """Chunks that so many rows of a ragged array take."""
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
        if self.ragged and (self.compressed or not self.shape):
            expected = "null, as the array is compressed or has no dimension"
            problems.append(Problem("rows_per_chunk", expected, str(self.rows_per_chunk)))
        return problems
