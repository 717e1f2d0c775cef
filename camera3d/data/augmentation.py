"""What a training sample is moved by: each camera's picture in its plane, and the ground in the BEV map.

Everything is drawn for a sample as a whole, so that all its frames are moved alike.
Source: the training recipe of Li et al., AAAI 2023.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple, Self

import numpy as np
from torch import Tensor

from camera3d.config_values import is_number, keyword_faults
from camera3d.errors import ConfigInvalid, shown
from camera3d.geometry import Float64

# In the seed of the draws, so that they are others than those of queues and colours.
AUGMENTATION = 0xA06


class ImageDraw(NamedTuple):
    """Of one camera: zoom on the pipeline's scale, where between its ends the cut begins, mirror, turn."""

    zoom: float
    left: float
    mirrored: bool
    degrees: float


class Drawn(NamedTuple):
    """Of one sample.

    images: of each camera; None leaves the pictures as they are.
    bev: (4, 4), moves points of the BEV map's frame; None leaves them.
    """

    images: tuple[ImageDraw, ...] | None
    bev: Float64 | None


class Moves(NamedTuple):
    """By what an item was moved against the same item without augmentation, in float64.

    images: (N, 4, 4), (u, v, depth, 1) of the input as it would have been to the input as it is.
    lidar: (4, 4), LiDAR frame as it would have been to the one that boxes and `lidar2img` are given in.
    bev: (4, 4), likewise the frame of the BEV map.
    """

    images: Tensor
    lidar: Tensor
    bev: Tensor


@dataclass(frozen=True, kw_only=True)
class ImageAugmentation:
    """Each camera's picture, for itself.

    Attributes:
        zoom: lowest and highest factor on `inputs.scale`; a part is cut out at random, and what is missing
            is empty.
        mirror: exchange left and right in half of the pictures.
        rotate_deg: turn by at most so many degrees, either way.
    """

    zoom: tuple[float, float] = (1.0, 1.0)
    mirror: bool = True
    rotate_deg: float = 0.0

    def draw(self, rng: np.random.Generator, cameras: int) -> tuple[ImageDraw, ...]:
        """One for each camera."""
        return tuple(
            ImageDraw(
                zoom=float(rng.uniform(*self.zoom)),
                left=float(rng.uniform()),
                mirrored=bool(rng.integers(2)) and self.mirror,
                degrees=float(rng.uniform(-self.rotate_deg, self.rotate_deg)),
            )
            for _ in range(cameras)
        )


@dataclass(frozen=True, kw_only=True)
class BevAugmentation:
    """The frame of the BEV map, with all that stands in it.

    Attributes:
        rotate_deg: turn by at most so many degrees, either way.
        scale: lowest and highest factor on all lengths.
        mirror_x, mirror_y: change the sign of x, of y in half of the samples.
    """

    rotate_deg: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    mirror_x: bool = True
    mirror_y: bool = True

    def draw(self, rng: np.random.Generator) -> Float64:
        """(4, 4)."""
        degrees = float(rng.uniform(-self.rotate_deg, self.rotate_deg))
        scale = float(rng.uniform(*self.scale))
        x, y = (bool(rng.integers(2)) and wanted for wanted in (self.mirror_x, self.mirror_y))
        return bev_matrix(degrees, scale, mirror_x=x, mirror_y=y)


def bev_matrix(degrees: float, scale: float, *, mirror_x: bool, mirror_y: bool) -> Float64:
    """(4, 4): turned counter-clockwise seen from above, then scaled, then mirrored."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turned = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
    matrix = np.eye(4)
    matrix[:3, :3] = np.diag([-1.0 if mirror_x else 1.0, -1.0 if mirror_y else 1.0, 1.0]) @ turned * scale
    return matrix


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """`augmentation` of a config.

    Attributes:
        image, bev: None where nothing is moved.
    """

    image: ImageAugmentation | None = None
    bev: BevAugmentation | None = None

    @classmethod
    def from_config(cls, config: Mapping) -> Self | None:
        """What `augmentation` says; None where it says nothing. Raises ConfigInvalid with every bad value."""
        given = config.get("augmentation") or {}
        parts = {"image": ImageAugmentation, "bev": BevAugmentation}
        faults = augmentation_faults("augmentation", given)
        if faults:
            raise ConfigInvalid(f"the augmentation of the config cannot be:\n{shown(faults)}")
        made = {
            name: kind(**{key: tuple(v) if isinstance(v, list) else v for key, v in given[name].items()})
            for name, kind in parts.items()
            if given.get(name) is not None
        }
        return cls(**made) if made else None

    def draw(self, words: tuple[int, ...], cameras: int) -> Drawn:
        """What a sample is moved by, the same for the same words."""
        rng = np.random.default_rng([*words, AUGMENTATION])
        return Drawn(
            images=None if self.image is None else self.image.draw(rng, cameras),
            bev=None if self.bev is None else self.bev.draw(rng),
        )


def augmentation_faults(path: str, given: object) -> list[str]:
    """A line for everything that is wrong with `augmentation` of a config."""
    if given is None:
        return []
    faults = keyword_faults(path, given, Augmentation)
    if not isinstance(given, Mapping):
        return faults
    for name, kind in (("image", ImageAugmentation), ("bev", BevAugmentation)):
        part = given.get(name)
        if part is None:
            continue
        faults += keyword_faults(f"{path}.{name}", part, kind)
        if isinstance(part, Mapping):
            ranges = {f.name for f in fields(kind) if f.name in ("zoom", "scale")} & set(part)
            faults += [
                f"{path}.{name}.{key}: expected a lowest and a highest factor > 0, got {part[key]!r}"
                for key in sorted(ranges)
                if not _is_range(part[key])
            ]
            degrees = part.get("rotate_deg", 0)
            if is_number(degrees) and not 0 <= degrees <= 180:
                faults.append(f"{path}.{name}.rotate_deg: expected 0 to 180, got {degrees!r}")
    return faults


def _is_range(value: object) -> bool:
    if not isinstance(value, list | tuple) or len(value) != 2 or not all(map(is_number, value)):
        return False
    return 0 < value[0] <= value[1]
