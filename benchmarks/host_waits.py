"""How often a GPU's host would wait in a training step and in a dumped scene, and at which lines.

    python benchmarks/host_waits.py

Needs no GPU: the small detectors of the tests run on a pretended one, which counts each read of a number,
each search for what is not zero, and each tensor that crosses between host and device. The count does not
depend on the sizes of maps and images; it grows with the frames of a queue and the frames of a scene.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile

from common import ROOT, markdown_table, publish

FAMILIES = ("bevformer", "detr3d")
KINDS = ("item", "nonzero", "to host", "to device")
# With tests/pretended_steps.py at commit 299e8b6 and its parent: one step of the same batch.
BEFORE = {
    "bevformer": {"item": 24, "nonzero": 68, "to host": 4, "to device": 136},
    "detr3d": {"item": 18, "nonzero": 51, "to host": 4, "to device": 23},
}


def counted(family: str) -> dict[str, dict]:
    """What tests/pretended_steps.py prints of a family."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(ROOT / "tests" / "pretended_steps.py"), family, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def row(name: str, waits: dict[str, int]) -> list[object]:
    """A line of the table."""
    return [name, *(waits.get(kind, 0) for kind in KINDS), sum(waits.values())]


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    rows, sites = [], []
    for family in FAMILIES:
        found = counted(family)
        rows += [
            row(f"{family}: training step, before", BEFORE[family]),
            row(f"{family}: training step", found["step"]["waits"]),
            row(f"{family}: training step, focal store", found["focal step"]["waits"]),
            row(f"{family}: scene of {found['stream']['frames']} frames, dumped", found["stream"]["waits"]),
        ]
        for part, what in (("step", "training step"), ("stream", "scene")):
            sites.append(f"**{family}, {what}**\n")
            sites += [f"- {count} × {site}" for site, count in found[part]["sites"]]
            sites.append("")
    body = [
        "One training step of two samples with queues of two frames and all terms of the family, from an"
        " `exact` store where nothing else is said; the second step, for constants are sent in the first one"
        " and stay. Before: while areas were drawn on the device, samples were assigned one by one and layer"
        " by layer, and camera masks were found in every layer.",
        markdown_table(["", *KINDS, "all"], rows),
        "## Where",
        "\n".join(sites),
    ]
    publish("host_waits", "Where a GPU's host would wait", "\n\n".join(body))


if __name__ == "__main__":
    main()
