"""report.md, made of the results alone."""

from __future__ import annotations

from collections.abc import Sequence

from common import markdown_table

from gpu_stages.records import OK, Result
from gpu_stages.stage import Row, Stage

NOT_RUN = "not run"


def report(stages: Sequence[Stage], results: Sequence[Result], *, left_out: dict[str, str]) -> str:
    """The whole page.

    Args:
        results: in any order; of some of the stages.
        left_out: why a stage has no result, by its name.
    """
    by_name = {result.stage: result for result in results}
    places = list(dict.fromkeys(r.environment for r in results if r.environment))
    title = "# One GPU" + (", in small, on a CPU: the numbers say nothing" if _tiny(results) else "")
    overview = [
        [stage.name, *_state(by_name.get(stage.name), left_out.get(stage.name, NOT_RUN))] for stage in stages
    ]
    parts = [
        title,
        *places[:1],
        markdown_table(["stage", "state", "measurements", "went wrong", "s"], overview),
    ]
    for stage in stages:
        if stage.name in by_name:
            result = by_name[stage.name]
            elsewhere = (
                f"Measured elsewhere: {result.environment}" if result.environment in places[1:] else ""
            )
            parts += [f"## {stage.title}", elsewhere, *_tables(result)]
    return "\n\n".join(parts) + "\n"


def _tiny(results: Sequence[Result]) -> bool:
    return any(result.tiny for result in results)


def _state(result: Result | None, why: str) -> list[object]:
    if result is None:
        return [why, 0, 0, ""]
    measured = {row["measured"] for row in result.rows}
    return [result.status, len(measured), result.faults, f"{result.seconds:.0f}"]


def _tables(result: Result) -> list[str]:
    """Rows with the same columns share a table."""
    tables: dict[tuple[str, ...], list[Row]] = {}
    for row in result.rows:
        if "error" not in row:
            tables.setdefault(tuple(row), []).append(row)
    parts = []
    for columns, rows in tables.items():
        header = ["" if name == "measured" else name for name in columns]
        parts.append(markdown_table(header, [[shown(row[name]) for name in columns] for row in rows]))
    wrong = [f"- {row['measured']}: {row['error']}" for row in result.rows if "error" in row]
    parts += ["\n".join(wrong)] if wrong else []
    if result.status != OK:
        parts.append(f"**{result.status}**: {result.fault}")
    return parts


def shown(value: object) -> str:
    """Numbers with as many digits as they are worth."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("|", "/")
