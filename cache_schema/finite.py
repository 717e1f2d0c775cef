"""Finding NaN and infinity fast enough for a dump: `np.isfinite` on float16 runs at about 1 GB/s.

In every IEEE 754 format a number is not finite exactly when all bits of its exponent are set.
"""

import numpy as np

_EXPONENT = {2: (np.uint16, 0x7C00), 4: (np.uint32, 0x7F80_0000), 8: (np.uint64, 0x7FF0_0000_0000_0000)}
_BLOCK = 1 << 16  # items; small enough that a block stays in the cache between the two passes over it


def all_finite(values: np.ndarray) -> bool:
    """Whether a C-ordered array holds no NaN and no infinity; integers never do."""
    if values.dtype.kind != "f":
        return True
    kind, exponent = _EXPONENT[values.dtype.itemsize]
    bits = values.reshape(-1).view(kind)
    mask = kind(exponent)
    scratch = np.empty(min(_BLOCK, bits.size), kind)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if np.bitwise_and(block, mask, out=scratch[: block.size]).max() == mask:
            return False
    return True


def describe_not_finite(values: np.ndarray) -> str:
    """How many values of an array are not finite, of which kind, and where the first one is."""
    bad = ~np.isfinite(values)
    first = tuple(int(index) for index in np.unravel_index(int(np.argmax(bad)), values.shape))
    n_nan = int(np.isnan(values).sum())
    return f"{n_nan} NaN and {int(bad.sum()) - n_nan} infinite of {values.size} values, the first at {first}"
