"""What `make demo` runs: the whole pipeline in small, by the commands that a user would give."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
