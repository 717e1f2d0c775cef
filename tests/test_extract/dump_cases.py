"""What the tests of the dump share."""

from pathlib import Path

TEACHER = Path(__file__).parent / "tiny_teacher.py"
SCENES = {
    "scene-0001": 2,
    "scene-0002": 4,
    "scene-0003": 3,
    "scene-0004": 2,
    "scene-0005": 3,
    "scene-0006": 2,
}


def contents(store: Path) -> dict[str, bytes]:
    """Every file of a store."""
    return {str(f.relative_to(store)): f.read_bytes() for f in sorted(store.rglob("*")) if f.is_file()}


def temporary(store: Path) -> list[str]:
    """What is being written, or was."""
    return [path.name for path in store.iterdir() if path.name.startswith(".writing-")]
