"""How a camera's picture becomes the network's input: made smaller or larger, cut, mirrored, turned.

Pixel positions count from the corner of the first pixel, whose centre lies at (0.5, 0.5).
Source: the data preparation of Li et al., AAAI 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from camera3d.geometry import Float64


@dataclass(frozen=True, kw_only=True)
class PlaneMove:
    """From a picture to an input of `input_hw` pixels. What lies outside the picture is empty.

    Attributes:
        scale: factor on the picture's sides.
        scaled_hw: height and width of the scaled picture, rounded down.
        left, top: of the input in the scaled picture; may be negative.
        mirrored: whether left and right are exchanged, after the cut.
        degrees: by which the input is turned about its centre at last, counter-clockwise.
    """

    scale: float
    scaled_hw: tuple[int, int]
    input_hw: tuple[int, int]
    left: int = 0
    top: int = 0
    mirrored: bool = False
    degrees: float = 0.0

    def matrix(self) -> Float64:
        """(4, 4): (u, v, depth, 1) of the picture to the input.

        It has the scale as it was given, not that of the rounded size, as the official codes do.
        """
        height, width = self.input_hw
        moved = np.diag([self.scale, self.scale, 1.0, 1.0])
        moved[:2, 3] = -self.left, -self.top
        if self.mirrored:
            moved = _about(np.diag([-1.0, 1.0]), (width / 2, 0.0)) @ moved
        if self.degrees:
            cos, sin = math.cos(math.radians(self.degrees)), math.sin(math.radians(self.degrees))
            # v points down: counter-clockwise for whoever looks at the picture.
            moved = _about(np.array([[cos, sin], [-sin, cos]]), (width / 2, height / 2)) @ moved
        return moved

    def of_bytes(self, picture: np.ndarray) -> np.ndarray:
        """The input (H, W, 3) uint8 of a picture (h, w, 3) uint8, by Pillow as the official code has it."""
        (height, width), (input_height, input_width) = self.scaled_hw, self.input_hw
        box = (self.left, self.top, self.left + input_width, self.top + input_height)
        image = Image.fromarray(picture).resize((width, height)).crop(box)
        if self.mirrored:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if self.degrees:
            image = image.rotate(self.degrees)
        return np.asarray(image)

    def of_floats(self, picture: np.ndarray) -> np.ndarray:
        """The input (H, W, 3) float32 of a picture (h, w, 3) float32, bilinear; zero outside the picture."""
        height, width = self.input_hw
        # OpenCV counts from the centre of the first pixel.
        to_corner, to_centre = np.eye(4), np.eye(4)
        to_corner[:2, 3], to_centre[:2, 3] = 0.5, -0.5
        rows = (to_centre @ self.matrix() @ to_corner)[:2][:, [0, 1, 3]]
        return cv2.warpAffine(picture, rows, (width, height), flags=cv2.INTER_LINEAR)


def _about(turn: np.ndarray, centre: tuple[float, float]) -> Float64:
    """(4, 4) of a map (2, 2) of the image plane that leaves one point where it is."""
    matrix, fixed = np.eye(4), np.array(centre)
    matrix[:2, :2] = turn
    matrix[:2, 3] = fixed - turn @ fixed
    return matrix
