"""Maps as int8: symmetric, one scale a channel (and camera) of a sample.

Shapes: … leading dimensions, that is (channel,) of a BEV map or (camera, channel) of image views; H W cells.

A scale is the channel's largest magnitude / 127, so values lie in -127…127 and -128 is never made. Rounding
is to the nearest, halves to even; what comes back is off by at most half a scale. A channel of zeros has
scale 0.
"""

import numpy as np

LARGEST = 127
# Below this a magnitude / 127 is no normal float32 any more; such a channel counts as zeros.
_NEGLIGIBLE = np.float32(LARGEST) * np.finfo(np.float32).tiny
# Rounded down, so that 127 times it is no infinity.
_LARGEST_SCALE = np.nextafter(np.finfo(np.float32).max / np.float32(LARGEST), np.float32(0))


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 values and float32 scales of a map.

    Args:
        values: (…, H, W), finite; float16 or float32.

    Returns:
        (…, H, W) int8 and (…,) float32.
    """
    quantised, scales = quantise_rows(values.reshape(-1, values.shape[-2] * values.shape[-1]))
    return quantised.reshape(values.shape), scales.reshape(values.shape[:-2])


def dequantise(values: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """float32 map of (…, H, W) int8 values and their (…,) scales."""
    return values * scales[..., None, None].astype(np.float32, copy=False)


def quantise_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int8 of the same shape and float32 (R,) scales of (R, K) rows, each scaled for itself; K may be 0."""
    quantised = np.zeros(rows.shape, np.int8)
    scales = np.zeros(len(rows), np.float32)
    if rows.size == 0:
        return quantised, scales
    scratch = np.empty(rows.shape[1], np.float32)
    # Row by row, so that the passes over a row find it in the processor's cache.
    for row, (values, target) in enumerate(zip(rows, quantised, strict=True)):
        scratch[:] = values
        largest = max(scratch.max(), -scratch.min())
        if largest >= _NEGLIGIBLE:
            scales[row] = min(largest / np.float32(LARGEST), _LARGEST_SCALE)
            np.divide(scratch, scales[row], out=scratch)
            np.rint(scratch, out=scratch)
            target[:] = np.clip(scratch, -LARGEST, LARGEST, out=scratch)
    return quantised, scales
