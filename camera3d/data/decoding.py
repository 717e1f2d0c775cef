"""From the bytes of an image file to pixels; what the decoder would only have warned of is an error.

A JPEG that is damaged inside and keeps its markers is decoded by OpenCV to a picture with bands of grey or
false colour, and a line on stderr at most. simplejpeg runs the same decoder (libjpeg-turbo), gives the same
pixels, and tells of what the decoder has noticed. It does not notice everything: damage that leaves a valid
stream of codes changes the picture and nothing else.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import simplejpeg

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
_COLOUR_JPEG = ("YCbCr", "RGB")
_GREY_JPEG = "Gray"


class Undecodable(Exception):
    """Why one file gave no image, in a few words."""


def read_image(path: Path) -> np.ndarray:
    """The image (h, w, 3) uint8 BGR in a file. Raises Undecodable."""
    return _read(path, any_colour=False)


def read_any_colour(path: Path) -> np.ndarray:
    """`read_image` for pictures of many sources: grey ones, and those with a palette or opacity, as BGR."""
    return _read(path, any_colour=True)


def _read(path: Path, *, any_colour: bool) -> np.ndarray:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise Undecodable("missing") from None
    except OSError as error:
        raise Undecodable(f"cannot be read ({error.strerror})") from error
    if not content:
        raise Undecodable("empty")
    decoded = _decoded_jpeg if content.startswith(JPEG_START) else _decoded
    return decoded(content, any_colour)


def jpeg_tail_fault(tail: bytes) -> str | None:
    """Whether the last bytes of a JPEG hold its end marker; some writers pad with zeros after it."""
    return None if tail.rstrip(b"\0").endswith(JPEG_END) else "truncated (no end marker)"


def _decoded_jpeg(content: bytes, any_colour: bool) -> np.ndarray:
    if fault := jpeg_tail_fault(content):
        raise Undecodable(fault)
    try:
        _, _, colours, _ = simplejpeg.decode_jpeg_header(content)
        if any_colour and colours not in (*_COLOUR_JPEG, _GREY_JPEG):
            return _decoded(content, any_colour)  # four inks, which simplejpeg does not mix
        if colours not in _COLOUR_JPEG and not any_colour:
            raise Undecodable(f"not an 8-bit colour image (a JPEG in {colours})")
        return simplejpeg.decode_jpeg(content, colorspace="BGR", strict=True)
    except ValueError as error:
        raise Undecodable(f"damaged ({error})") from error


def _decoded(content: bytes, any_colour: bool) -> np.ndarray:
    # A turn that the file's metadata asks for is not made: boxes are of the pixels as they are stored.
    flag = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION if any_colour else cv2.IMREAD_UNCHANGED
    image = cv2.imdecode(np.frombuffer(content, dtype=np.uint8), flag)
    if image is None:
        raise Undecodable("cannot be decoded")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise Undecodable(f"not an 8-bit colour image (shape {image.shape}, {image.dtype})")
    return image
