"""Images as `data:` URIs, so that a page needs no other file."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.errors import CacheError

_JPEG_QUALITY = 72
_PALETTE = 96  # colours of a map; more make files larger and no difference to the eye


def require_pillow() -> None:
    """Raises CacheError with what to install where Pillow is absent."""
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise CacheError("report needs Pillow: pip install 'focalcache[inspect]'") from None


def photo_uri(file: Path, width: int) -> tuple[str, tuple[int, int]]:
    """A JPEG of at most that width in pixels, and width and height of the file itself.

    Raises CacheError when the file is no image.
    """
    from PIL import Image

    try:
        with Image.open(file) as image:
            size_wh = image.size
            small = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise CacheError(f"{file} is not a readable image: {error}") from None
    if small.width > width:
        small = small.resize((width, max(1, round(small.height * width / small.width))))
    return _uri(small, "jpeg", quality=_JPEG_QUALITY, optimize=True), size_wh


def colours_uri(colours: np.ndarray) -> str:
    """A PNG of colours (H, W, 3) in [0, 1], each cell a pixel."""
    from PIL import Image

    pixels = np.ascontiguousarray((colours * 255).round().clip(0, 255).astype(np.uint8))
    return _uri(Image.fromarray(pixels).quantize(_PALETTE), "png", optimize=True)


def _uri(image: Any, kind: str, **options: object) -> str:
    out = io.BytesIO()
    image.save(out, format=kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"
