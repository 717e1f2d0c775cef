"""The page's sections: template and script from the files beside, facts and charts from the store."""

from collections.abc import Mapping, Sequence
from string import Template
from typing import Any

import numpy as np

from cache_schema.inspection.faults import Findings, summary_rows
from cache_schema.inspection.report.numbers import Tally
from cache_schema.inspection.tables import bytes_text
from cache_schema.pages.charts import bar_chart, histogram
from cache_schema.pages.document import asset, document, gallery_panels, pairs, table
from cache_schema.pages.escape import escaped
from cache_schema.wording import counted

_MOST_FAULTS, _MOST_BARS = 200, 16
_LAYER = '<label for="layer" id="layer-label">Map <select id="layer"></select></label>'


def page(
    store: str,
    facts: Mapping[str, Any],
    findings: Findings | None,
    frames: Mapping[str, Any],
    unreadable: Sequence[str],
    tally: Tally,
) -> str:
    """The HTML.

    Args:
        store: where it lies, as it was asked for.
        facts: of `info.describe`.
        findings: of `verify`; None when that was skipped.
        frames: what the script draws: frames, class_names, range_m, min_score.
        unreadable: why samples are not shown.
    """
    dataset, teacher = facts["dataset"], facts["teacher"]
    body = Template(asset(__package__, "report.html")).substitute(
        card=pairs(_card(facts)),
        bytes_chart=_bytes_chart(facts),
        health=_health(findings),
        gallery=_gallery(frames, unreadable),
        histograms=_histograms(tally),
        losses=_losses(facts, tally),
    )
    return document(
        title=f"{teacher['detector']}, {facts['profile']}",
        subtitle=f"{store} · {dataset['name']} {dataset['version']}, split {dataset['split']}",
        body=body,
        facts=frames,
        script=asset(__package__, "report.js"),
    )


def _card(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    teacher, dataset, head = facts["teacher"], facts["dataset"], facts["teacher_head"]
    weights = (
        f"trained, checkpoint sha256 {teacher['checkpoint_sha256']}"
        if teacher["trained"]
        else f"UNTRAINED, random weights of seed {teacher['random_seed']}"
    )
    height, width = facts["inputs"]["image_shape"]
    return [
        ("Teacher", f"{teacher['detector']}, {weights}"),
        ("Regime", teacher["regime"]),
        ("Teacher head", f"{head['parameters']} parameters" if head else "none"),
        ("Dataset", f"{dataset['name']} {dataset['version']}, split {dataset['split']}"),
        ("Samples", f"{facts['samples']:,} in {counted(len(facts['scenes']), 'scene')}"),
        ("Profile", f"{facts['profile']}, schema_version {facts['schema_version']}"),
        ("On disk", bytes_text(sum(array["disk_bytes"] for array in facts["arrays"]))),
        ("Inputs", f"{len(facts['inputs']['camera_order'])} cameras, {height} × {width} pixels"),
        ("Classes", ", ".join(facts["class_names"])),
        ("Numerics", ", ".join(f"{name} {value}" for name, value in facts["numerics"].items())),
        ("Digest", facts["digest"] or "none before it is sealed"),
    ]


def _bytes_chart(facts: Mapping[str, Any]) -> str:
    arrays = sorted(facts["arrays"], key=lambda array: -array["disk_bytes"])
    sizes = [(array["name"], array["disk_bytes"]) for array in arrays[:_MOST_BARS]]
    if rest := arrays[_MOST_BARS:]:
        sizes.append((f"{len(rest)} smaller", sum(array["disk_bytes"] for array in rest)))
    rows = [(name, float(n_bytes), bytes_text(n_bytes)) for name, n_bytes in sizes]
    return bar_chart("Bytes on disk by array", rows)


def _health(findings: Findings | None) -> str:
    if findings is None:
        return "<p>Not looked at, as --skip-verify was given. Run verify to read every byte.</p>"
    found = findings.all_faults()
    if findings.complete:
        verdict = '<p class="good">Every byte is as it was written.</p>'
    elif found:
        verdict = f'<p class="bad">{counted(len(found), "fault")}.</p>'
    else:
        verdict = '<p class="bad">Not all of the plan is there yet; what is there has no fault.</p>'
    faults = table(("File", "What is wrong"), [(f.path, f.what) for f in found[:_MOST_FAULTS]])
    more = len(found) - _MOST_FAULTS
    rest = f"<p>{more:,} more: run verify for all of them.</p>" if more > 0 else ""
    return verdict + pairs(summary_rows(findings)) + (faults if found else "") + rest


def _gallery(frames: Mapping[str, Any], unreadable: Sequence[str]) -> str:
    problems = "".join(f'<p class="bad">Not shown: {escaped(problem)}</p>' for problem in unreadable)
    panels = gallery_panels("sample", _LAYER) if frames["frames"] else "<p>No sample can be shown.</p>"
    return problems + panels


def _histograms(tally: Tally) -> str:
    scores = np.concatenate([np.zeros(0, np.float32), *tally.scores])
    charts = [histogram("scores of the detections", scores, (0.0, 1.0))]
    charts += [histogram(f"values of {name}", np.concatenate(found)) for name, found in tally.values.items()]
    return "\n".join(charts)


def _losses(facts: Mapping[str, Any], tally: Tally) -> str:
    rows = []
    for loss in tally.losses():
        steps = "–" if loss.steps is None else "{1:.3g} ({0:.2g} to {2:.3g})".format(*loss.steps)
        error = "–" if loss.error_share is None else f"{loss.error_share:.2%}"
        rows.append((loss.name, loss.stored_as, steps, error, f"{loss.kept_share:.1%}"))
    said = {
        "exact": "Nothing is left out: every array is as the teacher gave it, in the dtype of the table.",
        "compact": "Maps are int8 with one step a channel and sample. All else is as the teacher gave it.",
        "focal": "Maps are int8 around the instances, over a coarse background, and only confident queries.",
    }
    text = f"<p>{escaped(said[facts['profile']])}</p>"
    if tally.kept_queries:
        text += f"<p>Queries kept: {np.mean(tally.kept_queries):.1%} on average.</p>"
    if not rows:
        return text + "<p>The store has no maps.</p>"
    heads = ("Map", "Stored as", "Step, median (range)", "Rounding error of the RMS", "Cells kept")
    return text + table(heads, rows)
