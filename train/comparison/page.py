"""The page: scores, average precision by class, frames, losses and curves, one colour a run."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Any

from cache_schema.pages.charts import line_chart
from cache_schema.pages.document import asset, document, gallery_panels
from cache_schema.pages.escape import escaped
from train.comparison.frames import CLASS_NAMES, Gallery
from train.comparison.runs import DETECTION, Run

ERRORS = ("mATE", "mASE", "mAOE", "mAVE", "mAAE")
_DISTANCE_M = "2.0"  # of the curves: the one at which the true-positive errors are measured, too
_CONTROLS = """<label for="camera">Camera <select id="camera"></select></label>
<label for="as-many"><input id="as-many" type="checkbox" checked> The surest, as many as annotated</label>"""
_SAID = {"loss": "loss, the sum of all", DETECTION: "detection, all decoder layers"}


def page(runs: Sequence[Run], gallery: Gallery, without_frames: str) -> str:
    """The HTML.

    Args:
        without_frames: what is said in place of the gallery's frames where there are none.
    """
    body = Template(asset(__package__, "compare.html")).substitute(
        legend=_legend(runs),
        scores=_scores(runs),
        classes=_classes(runs),
        frames=gallery_panels("runs", _CONTROLS) if gallery.frames else f"<p>{escaped(without_frames)}</p>",
        losses=_losses(runs),
        curves=_curves(runs),
    )
    facts = {
        "runs": [run.name for run in runs],
        "class_names": list(CLASS_NAMES),
        "range_m": list(gallery.range_m),
        "frames": gallery.frames,
    }
    return document(
        title=" · ".join(run.name for run in runs),
        subtitle=" · ".join(str(run.path) for run in runs),
        body=body,
        facts=facts,
        script=asset(__package__, "compare.js"),
    )


def _legend(runs: Sequence[Run]) -> str:
    rows = [
        f'<span><span class="swatch line-{number}" aria-hidden="true"></span>{escaped(run.name)}</span>'
        for number, run in enumerate(runs)
    ]
    return f'<p class="legend-row">{"".join(rows)}</p>'


def _scores(runs: Sequence[Run]) -> str:
    scored = [run for run in runs if run.metrics is not None]
    rows = [
        (
            run.name,
            [run.metrics["nds"], run.metrics["mean_ap"], *(run.metrics["tp_errors"][e] for e in ERRORS)],
        )
        for run in scored
    ]
    text = _numbers("", ("NDS", "mAP", *ERRORS), rows, best=(max, max, *(min for _ in ERRORS)))
    unscored = [run.name for run in runs if run.metrics is None]
    if unscored:
        text += (
            f"<p>Without a score: {escaped(', '.join(unscored))}. train/evaluate.py scores a checkpoint, a"
            " results JSON or a store; name the folder of its --out here.</p>"
        )
    over_time = [
        line_chart(
            name,
            [(n, run.name, run.scores[name]) for n, run in enumerate(runs) if name in run.scores],
            x_name="epoch",
        )
        for name in ("NDS", "mAP")
        if any(len(run.scores.get(name, ())) > 1 for run in runs)
    ]
    return text + (f'<div class="charts">{"".join(over_time)}</div>' if over_time else "")


def _classes(runs: Sequence[Run]) -> str:
    scored = [run for run in runs if run.metrics is not None]
    if not scored:
        return "<p>Nothing was scored.</p>"
    by_run = [{row["name"]: row["ap"] for row in run.metrics["per_class"]} for run in scored]
    names = dict.fromkeys(name for found in by_run for name in found)
    rows = [(name, [found.get(name) for found in by_run]) for name in names]
    return _numbers("class", [run.name for run in scored], rows, best_of_row=True)


def _losses(runs: Sequence[Run]) -> str:
    terms = list(dict.fromkeys(term for run in runs for term in run.losses))
    if not terms:
        return "<p>No training is among these.</p>"
    charts = [
        line_chart(
            _SAID.get(term, term),
            [(n, run.name, run.losses[term]) for n, run in enumerate(runs) if term in run.losses],
            x_name="step",
        )
        for term in terms
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _curves(runs: Sequence[Run]) -> str:
    known = [(number, run) for number, run in enumerate(runs) if run.curves is not None]
    missing = [run for run in runs if run.curves is None and run.metrics is not None]
    text = ""
    if missing:
        names = escaped(", ".join(run.name for run in missing))
        text = (
            f"<p>No curves of {names}, which an earlier release scored: run train/evaluate.py --results"
            " …/results_nusc.json with --out the folder of that file.</p>"
        )
    if not known:
        return text or "<p>Nothing was scored.</p>"
    charts = []
    for name in dict.fromkeys(name for _, run in known for name in run.curves["precision"]):
        lines = [
            (number, run.name, list(zip(run.curves["recall"], precision[_DISTANCE_M], strict=True)))
            for number, run in known
            if _DISTANCE_M in (precision := run.curves["precision"].get(name, {}))
        ]
        charts.append(line_chart(name, lines, x_name="recall", limits=(0, 0, 1, 1)))
    note = f"<p>Found within {_DISTANCE_M} m of the centre; precision is 0 beyond the recall reached.</p>"
    return f'{text}{note}<div class="charts">{"".join(charts)}</div>'


def _numbers(
    corner: str,
    heads: Sequence[str],
    rows: Sequence[tuple[str, Sequence[float | None]]],
    *,
    best: Sequence[Any] = (),
    best_of_row: bool = False,
) -> str:
    """A table of numbers; the best of each column, or the largest of each row, stands out."""
    columns = [[values[n] for _, values in rows] for n in range(len(heads))]
    marks = [choose(column) if column else None for choose, column in zip(best, columns, strict=False)]
    head = "".join(f'<th scope="col" class="number">{escaped(name)}</th>' for name in heads)
    lines = []
    for name, values in rows:
        targets = (
            [max((v for v in values if v is not None), default=None)] * len(heads) if best_of_row else marks
        )
        cells = "".join(
            f'<td class="number{" best" if value is not None and value == target else ""}">'
            f"{'–' if value is None else f'{value:.4f}'}</td>"
            for value, target in zip(values, targets, strict=True)
        )
        lines.append(f'<tr><th scope="row">{escaped(name)}</th>{cells}</tr>')
    return (
        f'<div class="scroll"><table><thead><tr><th scope="col">{escaped(corner)}</th>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )
