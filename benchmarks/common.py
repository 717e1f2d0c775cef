"""What every benchmark needs: an honest header, and a table that is printed and kept."""

from __future__ import annotations

import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import torch

from demo.markdown import markdown_table

__all__ = ["RESULTS", "ROOT", "commit", "environment", "markdown_table", "processor", "publish"]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def environment() -> str:
    """Date, commit, processor, threads and torch, in one line."""
    device = f"{processor()}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        device += f", {torch.cuda.get_device_name()}"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {device}, "
        f"torch {torch.__version__}, Python {platform.python_version()}"
    )


def commit() -> str:
    """The one that is checked out, marked when files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def processor() -> str:
    """The CPU's own name where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(": ", 1)[1] for line in lines if line.startswith("model name")), "unknown CPU")


def publish(name: str, title: str, body: str) -> None:
    """Print a result and keep it under benchmarks/results."""
    text = f"# {title}\n\n{environment()}\n\n{body}\n"
    print(text)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.md").write_text(text)
