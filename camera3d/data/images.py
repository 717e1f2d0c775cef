"""From the image files of a frame to the array a detector reads.

The official order, which matters to the last digits: float32, photometric distortion (training), normalise,
resize, pad. Normalising before resizing and padding after it makes the padding zero in normalised units.
Two other official orders: `pillow_keep_bottom`, resize the 8-bit picture, crop, normalise; nothing is padded;
and `keep_ratio`, resize the 8-bit picture until it fits, normalise, pad. A picture that is moved by
augmentation takes the way of `pillow_keep_bottom`, but for its resizing.
Sources: transform_3d.py, augmentation.py and the pipelines in the configs of Li et al., ECCV 2022; the
evaluation pipeline of Li et al., AAAI 2023; Resize and DetDataPreprocessor of mmdet 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import mmcv
import numpy as np

from camera3d.data.augmentation import ImageDraw
from camera3d.data.decoding import Undecodable, read_any_colour, read_image
from camera3d.data.index import Frame
from camera3d.data.photometric import PhotometricDistortion
from camera3d.data.plane_move import PlaneMove
from camera3d.errors import ConfigInvalid, ImagesBroken, shown
from camera3d.geometry import Float64

RESIZES = OPENCV, PILLOW_KEEP_BOTTOM, KEEP_RATIO = ("opencv", "pillow_keep_bottom", "keep_ratio")
OPTIONAL = ("resize", "fit")


@dataclass(frozen=True, kw_only=True)
class ImagePipeline:
    """How images are prepared; the same object in extraction, training and evaluation.

    Args:
        scale: factor on height and width, > 0.
        pad_hw: height and width after zero padding at the bottom and on the right.
        mean, std: of the three channels, in the order that `to_rgb` leads to.
        to_rgb: whether the network wants RGB.
        resize: `opencv` normalises, then resizes bilinearly and pads at the bottom and on the right.
            `pillow_keep_bottom` resizes the 8-bit picture with Pillow's bicubic filter and keeps the lowest
            rows and the middle columns that `pad_hw` has place for, then normalises.
            `keep_ratio` resizes the 8-bit picture bilinearly, normalises and pads as `opencv` does; for
            pictures that differ in size.
        fit: of `keep_ratio`: before `scale` counts, a picture is made as large as it can be with its short
            side within the first and its long side within the second number of pixels.
        distortion: what `load` and `prepare` apply when they are given a generator. Not part of `to_dict`:
            it is the trainer's choice, and no fact about the input of a teacher.

    Raises ConfigInvalid with every bad value.
    """

    scale: float
    pad_hw: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    to_rgb: bool
    resize: str = OPENCV
    fit: tuple[int, int] | None = None
    distortion: PhotometricDistortion = field(default_factory=PhotometricDistortion)

    def __post_init__(self) -> None:
        faults = []
        lengths = {"pad_hw": 2, "mean": 3, "std": 3} | ({} if self.fit is None else {"fit": 2})
        for name, length in lengths.items():
            value = getattr(self, name)
            if not isinstance(value, Sequence) or len(value) != length or not all(map(_is_number, value)):
                faults.append(f"{name}: expected {length} numbers, got {value!r}")
            else:
                kind = int if name in ("pad_hw", "fit") else float
                object.__setattr__(self, name, tuple(kind(number) for number in value))
        if not faults and (min(self.pad_hw) <= 0 or min(self.std) <= 0):
            faults.append(f"pad_hw and std: expected numbers > 0, got {self.pad_hw} and {self.std}")
        if not _is_number(self.scale) or self.scale <= 0:
            faults.append(f"scale: expected a number > 0, got {self.scale!r}")
        if not isinstance(self.to_rgb, bool):
            faults.append(f"to_rgb: expected true or false, got {self.to_rgb!r}")
        if self.resize not in RESIZES:
            faults.append(f"resize: expected one of {', '.join(RESIZES)}, got {self.resize!r}")
        if (self.fit is None) == (self.resize == KEEP_RATIO):
            faults.append(f"fit: goes with resize='{KEEP_RATIO}', got {self.fit!r} with {self.resize!r}")
        elif self.fit is not None and not faults and not 0 < self.fit[0] <= self.fit[1]:
            faults.append(f"fit: expected the short side, then the long side, > 0, got {self.fit!r}")
        if faults:
            raise ConfigInvalid(f"the image pipeline of the config cannot work:\n{shown(faults)}")

    @classmethod
    def from_config(cls, config: Mapping) -> ImagePipeline:
        """From a dict with scale, pad_hw, mean, std, to_rgb and perhaps resize and fit.

        Raises ConfigInvalid, naming every bad key.
        """
        expected = {f.name for f in fields(cls)} - {"distortion"}
        faults = [f"{name}: missing" for name in sorted(expected - set(OPTIONAL) - set(config))]
        faults += [f"{name}: unknown" for name in sorted(set(config) - expected)]
        if faults:
            raise ConfigInvalid(f"the image pipeline of the config needs other keys:\n{shown(faults)}")
        return cls(**config)

    def to_dict(self) -> dict[str, object]:
        """The JSON-ready facts that `from_config` takes; `resize` where it is not `opencv`, `fit` with it."""
        left_out = {"distortion"} | ({"resize"} if self.resize == OPENCV else set())
        left_out |= {"fit"} if self.fit is None else set()
        facts = {name: value for name, value in asdict(self).items() if name not in left_out}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in facts.items()}

    def load(
        self,
        frame: Frame,
        dataroot: str | Path,
        rng: np.random.Generator | None = None,
        draws: Sequence[ImageDraw] | None = None,
    ) -> tuple[np.ndarray, Float64]:
        """Read and prepare the six images of a frame; distorted when there is a generator.

        Args:
            draws: what moves the picture of each camera; None leaves them.

        Returns images (6, 3, H, W) float32 and the matching `lidar2img` (6, 4, 4) float64.
        Raises ImagesBroken (missing, truncated, damaged files; all of the frame) and ConfigInvalid (an
        image that does not fit into pad_hw).
        """
        return self.prepare(read_images(frame.image_paths, dataroot), frame.lidar2img, rng, draws)

    def prepare(
        self,
        images_bgr: Sequence[np.ndarray],
        lidar2img: np.ndarray,
        rng: np.random.Generator | None = None,
        draws: Sequence[ImageDraw] | None = None,
    ) -> tuple[np.ndarray, Float64]:
        """`load` for images in memory: (h, w, 3) uint8 BGR each, with `lidar2img` (N, 4, 4) to match."""
        pictures = self.pictures(images_bgr, rng, draws)
        return pictures, self.scale_lidar2img(lidar2img, images_bgr[0].shape[:2], draws)

    def pictures(
        self,
        images_bgr: Sequence[np.ndarray],
        rng: np.random.Generator | None = None,
        draws: Sequence[ImageDraw] | None = None,
    ) -> np.ndarray:
        """(N, 3, H, W) float32 of images (h, w, 3) uint8 BGR; `size_after_scaling` is what is no padding."""
        height, width = self.pad_hw
        prepared = np.zeros((len(images_bgr), 3, height, width), dtype=np.float32)
        for slot, image, draw in zip(prepared, images_bgr, draws or [None] * len(images_bgr), strict=True):
            self.require_fit(image.shape[:2])
            h, w = self.size_after_scaling(image.shape[:2])
            move = self.move(image.shape[:2], draw)
            if self.resize == PILLOW_KEEP_BOTTOM:
                image, (h, w) = move.of_bytes(image), self.pad_hw
            elif self.resize == KEEP_RATIO:
                image = mmcv.imresize(image, (w, h))
            image = image.astype(np.float32)
            if rng is not None:
                image = self.distortion(image, rng)
            image = mmcv.imnormalize(image, np.float32(self.mean), np.float32(self.std), self.to_rgb)
            if draw is not None and self.resize == OPENCV:
                image, (h, w) = move.of_floats(image), self.pad_hw
            elif (h, w) != image.shape[:2]:
                image = mmcv.imresize(image, (w, h))
            slot[:, :h, :w] = image.transpose(2, 0, 1)
        return prepared

    def require_fit(self, *image_hws: Sequence[int]) -> None:
        """Raise ConfigInvalid unless images of these heights and widths fit into pad_hw once scaled."""
        for native in image_hws:
            scaled = self.size_after_scaling(native)
            if self.resize == PILLOW_KEEP_BOTTOM:
                if scaled[0] < self.pad_hw[0] or scaled[1] < self.pad_hw[1]:
                    raise ConfigInvalid(
                        f"an image of {native[0]}×{native[1]} scaled by {self.scale:g} is"
                        f" {scaled[0]}×{scaled[1]} and does not fill {self.pad_hw[0]}×{self.pad_hw[1]}."
                        " Change pad_hw or scale in the config."
                    )
            elif scaled[0] > self.pad_hw[0] or scaled[1] > self.pad_hw[1]:
                raise ConfigInvalid(
                    f"an image of {native[0]}×{native[1]} scaled by {self.scale:g} is {scaled[0]}×{scaled[1]}"
                    f" and does not fit into pad_hw = {self.pad_hw[0]}×{self.pad_hw[1]}. Change pad_hw or"
                    " scale in the config."
                )

    def size_after_scaling(self, image_hw: Sequence[int]) -> tuple[int, int]:
        """Height and width before padding; rounded as in the official codes."""
        if self.resize == KEEP_RATIO:
            short, long = self.fit
            factor = self.scale * min(short / min(image_hw), long / max(image_hw))
            return tuple(max(1, int(side * factor + 0.5)) for side in image_hw)
        return int(image_hw[0] * self.scale), int(image_hw[1] * self.scale)

    def move(self, image_hw: Sequence[int], draw: ImageDraw | None = None) -> PlaneMove:
        """What makes the input of a picture of that size. Padding moves no pixel.

        Where something is cut off it is the upper rows: the sky.
        """
        zoom = 1.0 if draw is None else draw.zoom
        scale = self.scale * zoom
        scaled = int(image_hw[0] * scale), int(image_hw[1] * scale)
        rows, columns = (size - kept for size, kept in zip(scaled, self.pad_hw, strict=True))
        place = {"left": columns // 2 if self.resize == PILLOW_KEEP_BOTTOM else 0, "top": rows}
        if draw is not None:
            place["left"] = int(draw.left * max(0, columns))
            place |= {"mirrored": draw.mirrored, "degrees": draw.degrees}
        if self.resize == OPENCV:
            place["top"] = max(0, rows)
        return PlaneMove(scale=scale, scaled_hw=scaled, input_hw=self.pad_hw, **place)

    def image_transform(
        self, image_hw: Sequence[int] | None = None, draws: Sequence[ImageDraw] | None = None
    ) -> Float64:
        """(4, 4): (u, v, depth, 1) of a picture of that size to the prepared image; (N, 4, 4) of draws.

        The size counts where something is cut.
        """
        if draws is not None:
            return np.stack([self.move(image_hw, draw).matrix() for draw in draws])
        if self.resize == OPENCV:
            return np.diag([self.scale, self.scale, 1.0, 1.0])
        return self.move(image_hw).matrix()

    def scale_lidar2img(
        self,
        lidar2img: np.ndarray,
        image_hw: Sequence[int] | None = None,
        draws: Sequence[ImageDraw] | None = None,
    ) -> Float64:
        """`lidar2img` (..., 4, 4) for the prepared images, see `image_transform`."""
        to_input = self.image_transform(image_hw, draws)
        # Points are projected as (u·depth, v·depth, depth, 1): what is cut off is a multiple of the depth.
        to_input[..., :2, 2], to_input[..., :2, 3] = to_input[..., :2, 3].copy(), 0.0
        return to_input @ np.asarray(lidar2img, dtype=np.float64)


def read_images(paths: Sequence[str], dataroot: str | Path, *, any_colour: bool = False) -> list[np.ndarray]:
    """Images (h, w, 3) uint8 BGR. Raises ImagesBroken, naming every file that cannot be read.

    Args:
        any_colour: see `read_any_colour`.
    """
    read = read_any_colour if any_colour else read_image
    images, broken = [], []
    for path in paths:
        try:
            images.append(read(Path(dataroot) / path))
        except Undecodable as fault:
            broken.append((path, str(fault)))
    if broken:
        lines = shown(f"{path}: {fault}" for path, fault in broken)
        raise ImagesBroken(
            f"image files below {dataroot} cannot be read:\n{lines}\nCopy or unpack these files again.",
            broken,
        )
    return images


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
