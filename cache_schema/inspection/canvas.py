"""What the panels of a picture have in common: matplotlib, colours, axes, lines that stand out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from cache_schema.errors import CacheError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, PAPER, FAINT = "#f2f2f2", "#14161a", "#8a8f98"
TRUTH = "#7fe7ff"  # of the ground truth, which is also dashed


def require_matplotlib() -> None:
    """Raises CacheError with what to install where matplotlib is absent."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CacheError("--png needs matplotlib: pip install 'focalcache[inspect]'") from None


def score_colours(scores: np.ndarray) -> np.ndarray:
    """RGBA by score in [0, 1]: violet is doubtful, yellow is sure."""
    return score_map()(np.clip(scores, 0, 1))


def score_map() -> Any:
    """The colour map of `score_colours`; without plasma's blue end, which drowns in a dark map."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    return ListedColormap(colormaps["plasma"](np.linspace(0.3, 1, 256)))


def outline(width: float = 1.8) -> list[Any]:
    """A dark rim for lines and texts, so that they stand out on any map."""
    from matplotlib import patheffects

    return [patheffects.withStroke(linewidth=width, foreground="black", alpha=0.75)]


def draw_lines(
    ax: Axes, lines: Iterable[np.ndarray], colour: Any, width: float, *, dashed: bool = False
) -> None:
    """Polylines, each (n, 2), in one colour; `width` in points."""
    from matplotlib.collections import LineCollection

    style = (0, (4, 2.5)) if dashed else "solid"
    rim = outline(width + 1.4)
    ax.add_collection(
        LineCollection(list(lines), colors=[colour], linewidths=width, linestyles=[style], path_effects=rim)
    )


def plain_axes(ax: Axes, title: str, x: tuple[float, float], y: tuple[float, float]) -> None:
    """A panel with a title, fixed limits and nothing else around it."""
    ax.set_title(title, color=INK, fontsize=9, loc="left", pad=4)
    ax.set_xlim(*x)
    ax.set_ylim(*y)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_facecolor("black")
    for spine in ax.spines.values():
        spine.set_color(FAINT)
        spine.set_linewidth(0.6)
