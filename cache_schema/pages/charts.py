"""Small charts as SVG. Every text in them is escaped here."""

from collections.abc import Sequence

import numpy as np

from cache_schema.pages.escape import escaped

_BAR_HEIGHT, _BAR_WIDTH, _VALUE_WIDTH, _LETTER_WIDTH = 20, 320, 90, 7.5
_WIDTH, _HEIGHT, _FOOT = 320, 110, 18
_BINS = 48
_LINES_HEIGHT, _MARGIN, _TOP = 150, 40, 6
_MOST_POINTS = 240  # of a curve: more are closer together than a pixel
N_LINES = 8  # colours that page.css has


def bar_chart(title: str, rows: Sequence[tuple[str, float, str]]) -> str:
    """Bars to the right, one a row of label, value and the value as text."""
    most = max((value for _, value, _ in rows), default=0) or 1
    start = 16 + _LETTER_WIDTH * max((len(label) for label, _, _ in rows), default=0)
    width, height = start + _BAR_WIDTH + _VALUE_WIDTH, _BAR_HEIGHT * len(rows)
    parts = []
    for number, (label, value, text) in enumerate(rows):
        y, length = number * _BAR_HEIGHT, _BAR_WIDTH * value / most
        parts.append(f'<text x="{start - 8:.1f}" y="{y + 14}" text-anchor="end">{escaped(label)}</text>')
        parts.append(
            f'<rect class="bar" x="{start:.1f}" y="{y + 3}" width="{length:.1f}" height="{_BAR_HEIGHT - 6}"/>'
        )
        parts.append(f'<text x="{start + length + 6:.1f}" y="{y + 14}">{escaped(text)}</text>')
    alt = f"{title}: " + ", ".join(f"{label} {text}" for label, _, text in rows)
    return _svg(width, height, alt, parts)


def histogram(title: str, values: np.ndarray, limits: tuple[float, float] | None = None) -> str:
    """How often which value occurs; the height is logarithmic, as most values of a map are near zero.

    Args:
        limits: of the axis; by default the middle 99.8 %, and the end bars hold what lies outside.
    """
    if values.size == 0:
        return f"<p>{escaped(title)}: no values.</p>"
    low, high = limits or (float(edge) for edge in np.percentile(values, (0.1, 99.9)))
    if not high > low:
        low, high = low - 0.5, low + 0.5
    counts, _ = np.histogram(values.clip(low, high), bins=_BINS, range=(low, high))
    heights = np.log1p(counts) / np.log1p(counts.max()) * (_HEIGHT - 6)
    step = _WIDTH / _BINS
    parts = [
        f'<rect class="bar" x="{number * step:.1f}" y="{_HEIGHT - height:.1f}" '
        f'width="{step - 1:.1f}" height="{height:.1f}"/>'
        for number, height in enumerate(heights)
        if height
    ]
    foot = _HEIGHT + _FOOT - 4
    parts.append(f'<line class="axis" x1="0" y1="{_HEIGHT}" x2="{_WIDTH}" y2="{_HEIGHT}"/>')
    parts.append(f'<text x="0" y="{foot}">{low:.3g}</text>')
    parts.append(f'<text x="{_WIDTH}" y="{foot}" text-anchor="end">{high:.3g}</text>')
    if low < 0 < high and 0.15 < -low / (high - low) < 0.85:
        parts.append(f'<text x="{-low / (high - low) * _WIDTH:.1f}" y="{foot}" text-anchor="middle">0</text>')
    alt = (
        f"Histogram of {title}: {values.size:,} values from {values.min():.3g} to {values.max():.3g}, "
        f"mean {values.mean():.3g}, standard deviation {values.std():.3g}"
    )
    svg = _svg(_WIDTH, _HEIGHT + _FOOT, alt, parts)
    return f"<figure>{svg}<figcaption>{escaped(alt.removeprefix('Histogram of '))}</figcaption></figure>"


def line_chart(
    title: str,
    lines: Sequence[tuple[int, str, Sequence[tuple[float, float]]]],
    *,
    x_name: str,
    limits: tuple[float, float, float, float] | None = None,
) -> str:
    """Curves in one panel, of at most some hundred points each: neighbours are averaged.

    Args:
        lines: number of its colour, name, and points (x, y) of each.
        limits: of the axes, x and y from, x and y to; by default what the points take, and 0.
    """
    lines = [(number, name, thinned(line)) for number, name, line in lines]
    points = [point for _, _, line in lines for point in line]
    if not points:
        return f"<p>{escaped(title)}: no values.</p>"
    xs, ys = zip(*points, strict=True)
    x0, y0, x1, y1 = limits or (min(xs), min(0.0, *ys), max(xs), max(0.0, *ys))
    x1, y1 = x1 if x1 > x0 else x0 + 1, y1 if y1 > y0 else y0 + 1
    across, down = _WIDTH - _MARGIN, _LINES_HEIGHT - _TOP
    foot = _LINES_HEIGHT + _FOOT - 4
    parts = [
        f'<line class="axis" x1="{_MARGIN}" y1="{_LINES_HEIGHT}" x2="{_WIDTH}" y2="{_LINES_HEIGHT}"/>',
        f'<line class="axis" x1="{_MARGIN}" y1="{_TOP}" x2="{_MARGIN}" y2="{_LINES_HEIGHT}"/>',
        f'<text x="{_MARGIN - 5}" y="{_TOP + 9}" text-anchor="end">{y1:.3g}</text>',
        f'<text x="{_MARGIN - 5}" y="{_LINES_HEIGHT}" text-anchor="end">{y0:.3g}</text>',
        f'<text x="{_MARGIN}" y="{foot}">{x0:.6g}</text>',
        f'<text x="{_WIDTH}" y="{foot}" text-anchor="end">{escaped(x_name)} {x1:.6g}</text>',
    ]
    for number, name, line in lines:
        places = [
            (_MARGIN + (x - x0) / (x1 - x0) * across, _LINES_HEIGHT - (y - y0) / (y1 - y0) * down)
            for x, y in line
        ]
        tip = f"<title>{escaped(name)}</title>"
        if len(places) == 1:
            (x, y) = places[0]
            parts.append(f'<circle class="dot line-{number}" cx="{x:.1f}" cy="{y:.1f}" r="3">{tip}</circle>')
        elif places:
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path class="curve line-{number}" d="M{path}">{tip}</path>')
    last = ", ".join(f"{name} ends at {line[-1][1]:.4g}" for _, name, line in lines if line)
    svg = _svg(_WIDTH, _LINES_HEIGHT + _FOOT, f"{title} by {x_name}: {last}", parts)
    return f"<figure>{svg}<figcaption>{escaped(title)}</figcaption></figure>"


def thinned(line: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A curve of no more points than can be seen; each is the mean of as many neighbours."""
    if len(line) <= _MOST_POINTS:
        return list(line)
    groups = np.array_split(np.array(line, float), _MOST_POINTS)
    return [tuple(group.mean(axis=0).tolist()) for group in groups]


def _svg(width: float, height: float, alt: str, parts: Sequence[str]) -> str:
    opening = f'<svg class="chart" role="img" aria-label="{escaped(alt)}" viewBox="0 0 {width} {height}">'
    return opening + "".join(parts) + "</svg>"
