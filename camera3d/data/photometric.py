"""Photometric distortion of training images, as the official pipeline has it.

Source: PhotoMetricDistortionMultiViewImage in transform_3d.py of Li et al., ECCV 2022, which is SSD's
distortion (Liu et al., ECCV 2016) drawn anew for every camera. Written here on an explicit generator, so that
a run can be repeated and a data worker needs no global seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True, kw_only=True)
class PhotometricDistortion:
    """Brightness, contrast, saturation, hue and channel order, each changed with probability one half.

    Contrast comes either first or last, by a coin of its own. Values are not clipped to 0..255 in between or
    at the end; neither does the official code.
    """

    brightness_delta: float = 32.0
    contrast_range: tuple[float, float] = (0.5, 1.5)
    saturation_range: tuple[float, float] = (0.5, 1.5)
    hue_delta_degrees: float = 18.0

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Distort one image.

        Args:
            image: (H, W, 3) float32 BGR, 0..255; not changed.

        Returns a new (H, W, 3) float32 BGR image. Raises TypeError for another dtype: OpenCV scales hue and
        saturation differently for integers.
        """
        if image.dtype != np.float32:
            raise TypeError(f"photometric distortion needs a float32 image, got {image.dtype}")
        image = image.copy()
        if _coin(rng):
            image += np.float32(rng.uniform(-self.brightness_delta, self.brightness_delta))
        contrast_first = _coin(rng)
        if contrast_first and _coin(rng):
            image *= np.float32(rng.uniform(*self.contrast_range))
        # For float32 OpenCV gives hue in degrees, 0 to 360, and saturation 0 to 1.
        hsv = cv2.cvtColor(image, cv2.COLOR_BGR2HSV)
        if _coin(rng):
            hsv[..., 1] *= np.float32(rng.uniform(*self.saturation_range))
        if _coin(rng):
            hue = hsv[..., 0]
            hue += np.float32(rng.uniform(-self.hue_delta_degrees, self.hue_delta_degrees))
            hue[hue > 360] -= 360
            hue[hue < 0] += 360
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)
        if not contrast_first and _coin(rng):
            image *= np.float32(rng.uniform(*self.contrast_range))
        if _coin(rng):
            image = image[..., rng.permutation(3)]
        return np.ascontiguousarray(image)


def _coin(rng: np.random.Generator) -> bool:
    return bool(rng.integers(2))
