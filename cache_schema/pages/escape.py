"""What a store or a table says, as it may stand in a page: it can be anything, and must not become markup."""

import html
import json
from typing import Any

import numpy as np

from cache_schema.errors import printable


def escaped(text: object) -> str:
    """A text for an element or a quoted attribute; what does not print is spelled out."""
    return html.escape(printable(str(text)), quote=True)


def script_json(value: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end the element. ValueError on a NaN."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def numbers(values: np.ndarray) -> list[Any]:
    """As lists for JSON, to six digits: far below a pixel and a box's precision."""
    if values.ndim > 1:
        return [numbers(row) for row in values]
    return [float(f"{value:.6g}") for value in values.astype(np.float64)]
