"""Which checkpoint a run continues from when some are damaged, and what it says."""

from __future__ import annotations

import shutil
import subprocess
from fractions import Fraction

import pytest
import torch
from train_cases import FRAMES, weights_of

from camera3d import files
from camera3d.checkpoint import read_state_dict
from camera3d.errors import CheckpointMismatch, ConfigInvalid
from train.engine.checkpoints import checkpoints, digest_path
from train.engine.run import distill

pytestmark = pytest.mark.usefixtures("one_thread")
NEWEST, BEFORE = f"iter_{FRAMES}.pth", f"iter_{FRAMES - 2}.pth"


@pytest.fixture(scope="module")
def trained(workshop, one_thread, tmp_path_factory):
    """A config, and the folder of a run of it with two checkpoints."""
    config = workshop.student_config(
        "digests",
        distiller={"terms": {"bev_heatmap": {}}},
        **{"train_cfg.max_epochs": 1, "checkpoint_interval": 2},
    )
    folder = tmp_path_factory.mktemp("trained")
    distill(workshop.options(config, folder))
    return config, folder


@pytest.fixture
def copied(trained, tmp_path):
    """The same, to be damaged."""
    config, folder = trained
    return config, shutil.copytree(folder, tmp_path / "copied")


def flip(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def unsigned(path) -> None:
    digest_path(path).unlink()
    cut(path)


def hostile(path) -> None:
    digest_path(path).unlink()
    torch.save({"state_dict": {}, "meta": Fraction}, path)


def test_each_checkpoint_has_a_digest_that_sha256sum_checks(trained):
    _, folder = trained
    assert [path.name for path in checkpoints(folder)] == [NEWEST, BEFORE]
    # Those of checkpoints that were removed are gone with them.
    assert sorted(path.name for path in folder.glob("*.sha256")) == [f"{BEFORE}.sha256", f"{NEWEST}.sha256"]
    for path in checkpoints(folder):
        subprocess.run(["sha256sum", "-c", digest_path(path).name], cwd=folder, check=True)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip, "its bytes changed"),
        (cut, "its bytes changed"),
        (unsigned, "it cannot be read"),
        (
            hostile,
            "it cannot be read: it holds more than tensors and plain values, such as fractions.Fraction",
        ),
    ],
)
def test_the_newest_intact_one_is_taken(workshop, trained, copied, capfd, damage, says):
    config, folder = copied
    damage(folder / NEWEST)
    (folder / "last.pth").unlink()
    distill(workshop.options(config, folder, resume=True))
    err = capfd.readouterr().err
    assert f"not resumed from {folder / NEWEST}: {says}" in err
    assert "weights_only" not in err
    got, wanted = weights_of(folder / "last.pth"), weights_of(trained[1] / "last.pth")
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)
    subprocess.run(["sha256sum", "-c", digest_path(folder / NEWEST).name], cwd=folder, check=True)


def test_a_checkpoint_of_an_earlier_version_has_no_digest(workshop, copied, capfd):
    config, folder = copied
    for path in checkpoints(folder):
        digest_path(path).unlink()
    distill(workshop.options(config, folder, resume=True))
    assert "not resumed from" not in capfd.readouterr().err


def test_without_an_intact_one_nothing_is_begun_anew(workshop, copied):
    config, folder = copied
    for path in checkpoints(folder):
        flip(path)
    before = (folder / "last.pth").read_bytes()
    with pytest.raises(ConfigInvalid, match="no intact checkpoint") as caught:
        distill(workshop.options(config, folder, resume=True))
    assert str(caught.value).count("its bytes changed") == 2
    assert (folder / "last.pth").read_bytes() == before


def test_a_file_is_on_the_disk_before_its_name_and_the_name_with_it(tmp_path, monkeypatch):
    calls, fsync, replace = [], files.os.fsync, files.os.replace

    def synced(descriptor):
        calls.append("folder" if files.os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    monkeypatch.setattr(files.os, "fsync", synced)
    monkeypatch.setattr(files.os, "replace", lambda *names: (calls.append("name"), replace(*names)))
    files.replace_with(tmp_path / "a.pth", lambda path: path.write_text("a"))
    assert calls == ["file", "name", "folder"]


def test_no_advice_to_run_what_is_in_a_file(tmp_path):
    torch.save({"state_dict": {}, "hook": Fraction}, tmp_path / "a.pth")
    with pytest.raises(CheckpointMismatch, match=r"such as fractions\.Fraction") as caught:
        read_state_dict(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)
