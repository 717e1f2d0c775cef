"""deploy/: the job scripts run with pretended programs, and what they call takes the options they give."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from camera3d.config_files import find_config
from focalcache.__main__ import COMMANDS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
INSTRUCTIONS = {"ARG", "FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
SLURM = {
    "SLURM_ARRAY_TASK_ID": "3",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NODELIST": "node[1-2]",
    "SLURM_JOB_NUM_NODES": "2",
}
GIVEN = {"DATAROOT": "/data/nu scenes", "CHECKPOINT": "a.pth", "STORE": "s.zarr", "INIT_FROM": "b.pth"}
GIVEN["WORK_DIR"] = "work/one"


class Parsed(Exception):
    """Raised in place of the work, with the arguments."""


@pytest.fixture
def calls(tmp_path):
    """A function: run a job script; returns the words of every call of focalcache and torchrun."""
    programs = tmp_path / "programs"
    programs.mkdir()
    scripts = {
        "srun": '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift 2; done\nexec "$@"\n',
        "scontrol": "#!/bin/sh\necho node1; echo node2\n",
    }
    for name in ("focalcache", "torchrun"):
        scripts[name] = f'#!/bin/sh\nprintf "%s\\0" {name} "$@" >> calls; printf "\\n" >> calls\n'
    for name, text in scripts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)

    def run(script: str, **variables: str) -> list[list[str]]:
        environment = {"PATH": f"{programs}:/usr/bin:/bin", **SLURM, **variables}
        words = ["bash", str(DEPLOY / script)]
        subprocess.run(words, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True)
        lines = (tmp_path / "calls").read_text().splitlines()
        return [line.rstrip("\0").split("\0") for line in lines]

    return run


def parsed(words: list[str], monkeypatch) -> tuple[argparse.Namespace | None, str, argparse.Namespace]:
    """Arguments of torchrun, if it is in the call; the command's name; and its arguments."""
    launcher = None
    if words[0] == "torchrun":
        launcher = get_args_parser().parse_args(words[1:])
        assert launcher.module
        words = [launcher.training_script, *launcher.training_script_args]
    assert words[0] == "focalcache"
    parse = argparse.ArgumentParser.parse_args

    def stop(parser, argv=None, namespace=None):
        raise Parsed(parse(parser, argv, namespace))

    main = import_module(COMMANDS[words[1]].module).main
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", stop)
        with pytest.raises(Parsed) as result:
            main(words[2:])
    return launcher, words[1], result.value.args[0]


def test_the_dump_is_an_array_of_shards(calls, monkeypatch):
    (call,) = calls("slurm_dump.sh", **GIVEN)
    _, command, arguments = parsed(call, monkeypatch)
    assert command == "dump"
    assert (arguments.shard, arguments.out, arguments.dataroot) == ("3/8", "s.zarr", "/data/nu scenes")
    array = re.search(r"^#SBATCH --array=1-(\d+)$", (DEPLOY / "slurm_dump.sh").read_text(), re.M)
    assert array[1] == arguments.shard.partition("/")[2]
    find_config(arguments.config)


def test_the_training_is_distributed_and_scored(calls, monkeypatch):
    first, second = calls("slurm_distil.sh", **GIVEN)
    launcher, command, arguments = parsed(first, monkeypatch)
    assert command == "distil"
    assert arguments.resume
    assert (launcher.nnodes, launcher.nproc_per_node, launcher.rdzv_endpoint) == ("2", "8", "node1:29500")
    find_config(arguments.config)
    launcher, command, arguments = parsed(second, monkeypatch)
    assert launcher.standalone
    assert (command, arguments.checkpoint) == ("evaluate", "work/one/last.pth")
    find_config(arguments.config)


@pytest.mark.parametrize("script", ["slurm_dump.sh", "slurm_distil.sh"])
def test_a_job_script(script):
    subprocess.run(["bash", "-n", str(DEPLOY / script)], check=True)
    done = subprocess.run(["bash", str(DEPLOY / script)], env={}, capture_output=True, text=True)
    assert done.returncode != 0
    assert "DATAROOT: the folder of nuScenes" in done.stderr
    lines = (DEPLOY / script).read_text().splitlines()
    settings = [line for line in lines if line.startswith("#SBATCH")]
    assert all(re.fullmatch(r"#SBATCH --[a-z-]+(=\S+)?", line) for line in settings)
    last = max(lines.index(line) for line in settings)
    assert all(line.startswith("#") for line in lines[:last]), "sbatch reads no setting after a command"


def test_the_dockerfile():
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    lines = [line.partition(" ") for line in text.splitlines() if line.strip()]
    assert {name for name, _, _ in lines} <= INSTRUCTIONS
    assert [name for name, _, _ in lines][:2] == ["ARG", "FROM"]
    targets = []
    for name, _, rest in lines:
        if name == "RUN":
            subprocess.run(["sh", "-n", "-c", rest], check=True)
            targets += re.findall(r"(?:^|&&)\s*make (\w+)", rest)
        if name == "CMD":
            assert json.loads(rest)[0] == "focalcache"
    assert targets == ["setup"]
    assert re.search(r"^setup:", (ROOT / "Makefile").read_text(), re.M)
