"""A wheel in an environment that has only what the store needs: no torch, no OpenMMLab, no checkout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import distribution
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORE = ROOT / "tests" / "golden" / "store-v2-exact"
BUILT_FROM = ("setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
PACKAGES = (
    "cache_schema",
    "camera3d",
    "configs",
    "demo",
    "extract",
    "focalcache",
    "synthetic_nuscenes",
    "train",
)
PLAN = ("inspect", "plan", "--version", "v1.0-mini", "--split", "mini_train", "--profile", "exact")
HEAVY = ("torch", "mmengine", "mmcv", "mmdet", "mmdet3d", "nuscenes", "cv2")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy, so that no build folder is left beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, folder)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder)], check=True)
    return next(folder.glob("*.whl"))


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of the distributions that these requirements bring, those of extras and of Windows left out."""
    names: set[str] = set()
    waiting = list(requirements)
    while waiting:
        requirement, _, condition = waiting.pop().partition(";")
        name = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        if not condition and name not in names:
            names.add(name)
            waiting += distribution(name).requires or []
    return names


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A fresh virtual environment: the wheel, and what it requires without extras."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-compile",
        "--no-deps",
        "--no-index",
    ]
    subprocess.run([*pip, str(wheel)], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    prefix = "Requires-Dist: "
    for name in closure(line.removeprefix(prefix) for line in lines if line.startswith(prefix)):
        made_of = distribution(name)
        for top in {file.parts[0] for file in made_of.files} - {"..", "__pycache__"}:
            (site / top).symlink_to(Path(made_of.locate_file(top)).resolve())
    return folder


def run(environment: Path, folder: Path, command: str, *arguments: str) -> subprocess.CompletedProcess:
    """In a folder outside the checkout, with nothing of this process's environment but the path."""
    words = [str(environment / "bin" / command), *arguments]
    variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(words, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)


def test_nothing_heavy_is_there(environment, tmp_path):
    code = f"from importlib.util import find_spec; print([n for n in {HEAVY} if find_spec(n)])"
    assert run(environment, tmp_path, "python", "-c", code).stdout.strip() == "[]"


def test_inspects_a_store(environment, tmp_path):
    done = run(environment, tmp_path, "focalcache", "inspect", "info", str(STORE))
    assert done.returncode == 0, done.stderr
    assert "bev_feats" in done.stdout
    assert run(environment, tmp_path, "focalcache", "inspect", "verify", str(STORE)).returncode == 0


def test_the_parts_of_pages_are_packaged(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    for folder in ("cache_schema/pages", "cache_schema/inspection/report", "train/comparison"):
        parts = {path.name for path in (ROOT / folder).iterdir() if path.suffix in (".html", ".css", ".js")}
        assert parts
        assert {f"{folder}/{part}" for part in parts} <= names


def test_imports_nothing_heavy(environment, tmp_path):
    arguments = ("-X", "importtime", "-m", "focalcache", "inspect", "info", str(STORE))
    done = run(environment, tmp_path, "python", *arguments)
    assert done.returncode == 0, done.stderr
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "zarr" in imported
    assert not imported & {*HEAVY, "matplotlib", "camera3d", "train", "extract"}


def test_the_configs_are_packaged(environment, tmp_path):
    code = (
        "from camera3d.config_files import configs_folder, find_config\n"
        "for name in ('teacher/bevformer_base.py', 'configs/teacher/bevformer_base.py'):\n"
        "    print(find_config(name))\n"
        "files = (path for path in configs_folder().rglob('*') if path.suffix in ('.py', '.pth'))\n"
        "print(*sorted(str(path.relative_to(configs_folder())) for path in files))"
    )
    done = run(environment, tmp_path, "python", "-B", "-c", code)
    assert done.returncode == 0, done.stderr
    first, second, all_of_them = done.stdout.splitlines()
    assert first == second
    assert first.endswith("site-packages/camera3d/configs/teacher/bevformer_base.py")
    files = (path for path in (ROOT / "configs").rglob("*") if path.suffix in (".py", ".pth"))
    there = {path.relative_to(ROOT / "configs") for path in files}
    assert all_of_them.split() == sorted(map(str, there))


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("synth", "--out", "data"), "nuscenes|cv2"),
        (("demo",), "cv2|torch|mmengine|nuscenes|pyquaternion"),
        ((*PLAN, "teacher/bevformer_base.py"), "torch|mmengine|mmdet"),
    ],
    ids=["synth", "demo", "plan"],
)
def test_what_needs_more_says_how_to_get_it(arguments, missing, environment, tmp_path):
    done = run(environment, tmp_path, "focalcache", *arguments)
    assert done.returncode == 2, done.stderr
    message = done.stderr.strip().splitlines()[-1]
    assert re.search(rf"needs ({missing}), which is not installed.*pip install 'focalcache\[all\]'", message)
    assert "Traceback" not in done.stderr
