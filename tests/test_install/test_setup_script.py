"""tools/setup.sh with a Python that only pretends: what it says, what it asks pip for, when it builds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KEY = "py311-torch2.13.0+cpu-cpu-x86_64-mmcv2.1.0"

# Answers the questions of the script from files in $STATE, and writes every call of pip there.
PYTHON = r"""#!/bin/sh
case "$*" in
    *"-m pip --version"*) exit 0 ;;
    *"-m pip cache list"*) cat "$STATE/pips_own" 2>/dev/null; exit 0 ;;
    "-m pip wheel "*)
        echo "$*" >> "$STATE/pip"
        echo "CFLAGS=$CFLAGS" >> "$STATE/pip"
        while [ "$1" != --wheel-dir ]; do shift; done
        mkdir -p "$2"; touch "$2/mmcv-2.1.0-cp311.whl"
        case "$*" in *--no-cache-dir*) touch "$STATE/loads" ;; esac ;;
    "-m pip "*)
        echo "$*" >> "$STATE/pip"
        case "$*" in *" torch") touch "$STATE/torch" ;; *mmcv-*.whl) touch "$STATE/mmcv" ;; esac ;;
    "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    *"import mmcv.ops"*) [ -e "$STATE/mmcv" ] && [ -e "$STATE/loads" ] ;;
    *"sys.exit(not torch.cuda.is_available())"*) exit 1 ;;
    *"torch.version.cuda is None"*) [ -e "$STATE/cuda" ] ;;
    *"platform.machine()"*) echo @KEY@ ;;
    *"import torch"*) [ -e "$STATE/torch" ] ;;
esac
""".replace("@KEY@", KEY)


class Machine:
    """A checkout of the script, a home, and what the pretended Python has been asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "home" / ".cache" / "focalcache" / "wheels"
        (folder / "programs").mkdir(parents=True)
        for name in ("python3.11", "c++"):
            program = folder / "programs" / name
            program.write_text(PYTHON if name.startswith("python") else "#!/bin/sh\n")
            program.chmod(0o755)

    def clone(self, name: str, **state: str) -> Path:
        """A new clone with a state of its own; a keyword is a file of the state."""
        clone = self.folder / name
        (clone / "tools").mkdir(parents=True)
        (clone / "state").mkdir()
        shutil.copy(ROOT / "tools" / "setup.sh", clone / "tools")
        shutil.copy(ROOT / "constraints.txt", clone)
        for file, text in state.items():
            (clone / "state" / file).write_text(text)
        return clone

    def run(self, clone: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": f"{self.folder / 'programs'}{os.pathsep}/usr/bin{os.pathsep}/bin",
            "HOME": str(self.folder / "home"),
            "STATE": str(clone / "state"),
            **variables,
        }
        words = ["sh", "tools/setup.sh", *arguments]
        return subprocess.run(words, cwd=clone, env=environment, capture_output=True, text=True, timeout=60)


def pip_calls(clone: Path) -> list[str]:
    file = clone / "state" / "pip"
    return file.read_text().splitlines() if file.exists() else []


def builds(clone: Path) -> list[str]:
    return [call for call in pip_calls(clone) if call.startswith("-m pip wheel")]


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


def test_syntax():
    subprocess.run(["sh", "-n", ROOT / "tools" / "setup.sh"], check=True)


def test_plan_says_what_it_takes_and_does_nothing(machine):
    clone = machine.clone("one")
    done = machine.run(clone, "--plan")
    assert done.returncode == 0, done.stderr
    for words in ("3 GB", "TORCH=cpu takes 0.2 GB", "some 6 on two cores", str(machine.wheels)):
        assert words in done.stdout
    assert not pip_calls(clone)
    assert not (clone / ".venv").exists()
    assert not machine.wheels.exists()


def test_one_build_is_kept_and_the_next_clone_takes_it(machine):
    first = machine.clone("first", loads="")
    done = machine.run(first)
    assert done.returncode == 0, done.stderr
    assert done.stdout.index("Setting up .venv") < done.stdout.index("1/4")
    assert len(builds(first)) == 1
    assert "CFLAGS= -g0" in pip_calls(first)
    assert [file.name for file in (machine.wheels / KEY).iterdir()] == ["mmcv-2.1.0-cp311.whl"]
    assert any("-e .[all,test]" in call for call in pip_calls(first))
    assert (first / ".venv" / ".ready").exists()

    second = machine.clone("second", loads="")
    assert "nothing to build" in machine.run(second, "--plan").stdout
    done = machine.run(second)
    assert done.returncode == 0, done.stderr
    assert "took the wheel that was built before" in done.stdout
    assert not builds(second)


def test_a_second_call_installs_nothing_big(machine):
    clone = machine.clone("one", loads="")
    machine.run(clone)
    done = machine.run(clone)
    assert "PyTorch      is there" in done.stdout
    assert "mmcv with its operators is there" in done.stdout
    assert len(builds(clone)) == 1


def test_a_wheel_of_pip_that_does_not_load_is_built_again_once(machine):
    clone = machine.clone("one", pips_own="/cache/mmcv-2.1.0-cp311.whl\n")
    done = machine.run(clone)
    assert done.returncode == 0, done.stderr
    first, second = builds(clone)
    assert "--no-cache-dir" not in first
    assert "--no-cache-dir" in second


def test_a_build_that_does_not_load_is_not_kept(machine):
    clone = machine.clone("one")
    done = machine.run(clone)
    assert done.returncode == 2
    assert "its operators do not load" in done.stderr
    assert len(builds(clone)) == 1
    assert not (machine.wheels / KEY).exists()
    assert not (clone / ".venv" / ".ready").exists()


def test_a_home_that_cannot_be_written(machine):
    clone = machine.clone("one", loads="")
    done = machine.run(clone, FOCALCACHE_WHEELS="/proc/nowhere")
    assert done.returncode == 0, done.stderr
    assert (clone / ".wheels" / KEY / "mmcv-2.1.0-cp311.whl").exists()


class TestTorch:
    def test_cpu(self, machine):
        clone = machine.clone("one", loads="")
        done = machine.run(clone, TORCH="cpu")
        assert done.returncode == 0, done.stderr
        assert "without CUDA: a download of 0.2 GB" in done.stdout
        torch = next(call for call in pip_calls(clone) if call.endswith(" torch"))
        assert "--extra-index-url https://download.pytorch.org/whl/cpu" in torch

    def test_as_pip_chooses(self, machine):
        clone = machine.clone("one", loads="")
        machine.run(clone)
        assert "download.pytorch.org" not in "".join(pip_calls(clone))

    def test_cpu_where_another_one_is(self, machine):
        clone = machine.clone("one", loads="", cuda="")
        done = machine.run(clone, TORCH="cpu")
        assert done.returncode == 2
        assert "remove .venv first" in done.stderr

    def test_unknown(self, machine):
        done = machine.run(machine.clone("one"), TORCH="gpu")
        assert done.returncode == 2
        assert "TORCH=gpu: expected cpu, or nothing" in done.stderr


def test_unknown_argument(machine):
    done = machine.run(machine.clone("one"), "--paln")
    assert done.returncode == 2
    assert "unknown argument --paln" in done.stderr
