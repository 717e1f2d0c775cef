"""The demo ends with two pages: of the store, and of teacher and students side by side."""

from page_cases import facts_of, faults_of
from run_folders import annotations, leave_run, leave_store

from camera3d.data import build_index
from demo.__main__ import CONTESTANTS, compared
from demo.stages import Stages
from synthetic_nuscenes import VERSION


def test_pages_of_store_and_runs(tmp_path, tiny_nuscenes, capsys):
    stages = Stages(tmp_path, threads=1)
    scenes = {"scene-0001": 2}
    dataroot = tiny_nuscenes(scenes=scenes, version=VERSION, splits={"all": list(scenes)})
    (tmp_path / "data").symlink_to(dataroot)
    leave_store(tmp_path / "store.zarr", build_index(dataroot, VERSION, "all").scenes[0].frames, VERSION)
    for contestant in CONTESTANTS.values():
        leave_run(tmp_path / contestant.folder, annotations(dataroot, VERSION))
    page = compared(stages)
    facts = facts_of(page.read_text())
    assert facts["runs"] == list(CONTESTANTS)
    assert all(found["boxes"] for frame in facts["frames"] for found in frame["found"])
    for name in (page, tmp_path / "store.html"):
        assert faults_of(name.read_text()) == []
    assert len(facts_of((tmp_path / "store.html").read_text())["frames"]) == 2
    compared(stages)
    assert "compare: reused" in capsys.readouterr().err
