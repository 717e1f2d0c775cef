"""Plain-text tables and numbers for people."""

from collections.abc import Sequence

from cache_schema.errors import printable


def aligned(rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Rows as lines with columns of one width; the columns whose numbers are in `right` end flush.

    Cells may come from a store or a file system: what does not print is spelled out.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def shape_text(shape: Sequence[int]) -> str:
    """A shape as 6 × 256 × 116 × 200."""
    return " × ".join(map(str, shape))


def bytes_text(n_bytes: float) -> str:
    """Bytes in the decimal unit that leaves one to three digits before the point."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            return f"{value:.0f} {unit}" if unit == "B" else f"{_three_digits(value)} {unit}"
        value /= 1000
    return f"{_three_digits(value)} TB" if value < 999.5 else f"{value:,.0f} TB"


def _three_digits(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")
