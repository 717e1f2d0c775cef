"""Bad input: one clear error for each kind, naming what is wrong and the way out."""

from __future__ import annotations

import pickle

import cv2
import numpy as np
import pytest
from nuscenes_tables import edit_table, token

from camera3d.data import build_index, check_images, load_or_build_index
from camera3d.data.worker_errors import worker_deaths_told
from camera3d.errors import (
    Camera3DError,
    DatasetNotFound,
    DataWorkerDied,
    ImagesBroken,
    SceneGap,
    SplitMismatch,
)

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")
BUILDERS = [build_index, load_or_build_index]


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(splits={"mine": ["scene-0103"], "away": ["scene-7777"]})


@pytest.mark.parametrize("build", BUILDERS)
def test_no_such_dataroot(build, tmp_path):
    with pytest.raises(DatasetNotFound, match=r"no nuScenes dataroot at .*nowhere.*samples/"):
        build(tmp_path / "nowhere", "v1.0-mini", "mini_train")


@pytest.mark.parametrize("build", BUILDERS)
def test_no_such_version(build, dataroot):
    with pytest.raises(DatasetNotFound, match=r"no version 'v1.0-trainval'.*Versions there: v1.0-mini"):
        build(dataroot, "v1.0-trainval", "train")


def test_a_table_is_missing(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    (root / "v1.0-mini" / "ego_pose.json").unlink()
    with pytest.raises(DatasetNotFound, match=r"(?s)lacks tables:\n  ego_pose.json\n.*again"):
        build_index(root, "v1.0-mini", "mini_train")


def test_a_truncated_table_is_named(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    path = root / "v1.0-mini" / "sample_data.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(DatasetNotFound, match=r"sample_data.json: not JSON"):
        build_index(root, "v1.0-mini", "mini_train")


def test_a_missing_map_is_named(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    (root / "maps" / "blank.png").unlink()
    with pytest.raises(DatasetNotFound, match=r"blank.png does not exist"):
        build_index(root, "v1.0-mini", "mini_train")


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("split", ["train", "val", "test", "train_detect", "train_track"])
def test_a_split_of_another_version(build, split, dataroot):
    with pytest.raises(SplitMismatch, match=rf"'{split}' belongs to v1.0-.*mini_train, mini_val, mine, away"):
        build(dataroot, "v1.0-mini", split)


def test_an_unknown_split(dataroot):
    with pytest.raises(SplitMismatch, match=r"unknown split 'minitrain'.*splits.json does not have it.*mine"):
        build_index(dataroot, "v1.0-mini", "minitrain")


def test_an_unknown_split_without_custom_splits(tiny_nuscenes):
    with pytest.raises(SplitMismatch, match=r"splits.json does not exist"):
        build_index(tiny_nuscenes(scenes={"scene-0061": 1}), "v1.0-mini", "mine")


@pytest.mark.parametrize(
    ("content", "says"),
    [("{", "is not JSON"), ("[]", "holds no object"), ('{"mine": "scene-0061"}', "'mine' is not a list")],
)
def test_a_bad_splits_file(tiny_nuscenes, content, says):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    (root / "v1.0-mini" / "splits.json").write_text(content)
    with pytest.raises(SplitMismatch, match=says):
        build_index(root, "v1.0-mini", "mine")
    assert len(build_index(root, "v1.0-mini", "mini_train")) == 1  # which needs no such file


def test_a_split_without_any_scene(dataroot):
    with pytest.raises(SplitMismatch, match=r"(?s)none of the 1 scenes of split 'away'.*scene-7777"):
        build_index(dataroot, "v1.0-mini", "away")


def test_absent_scenes_of_a_split_are_one_warning(dataroot):
    with pytest.warns(UserWarning, match="are not in the tables") as caught:
        index = build_index(dataroot, "v1.0-mini", "mini_train")
    assert len(index.scenes) == 2
    (said,) = [str(w.message) for w in caught if "not in the tables" in str(w.message)]
    assert "6 of the split's 8 scenes" in said


def broken_link(samples):
    samples[1]["next"] = "0" * 32


def wrong_back_link(samples):
    samples[2]["prev"] = samples[0]["token"]


def chain_cut_short(samples):
    samples[1]["next"] = ""


def loop(samples):
    samples[3]["next"] = samples[1]["token"]


def into_another_scene(samples):
    samples[1]["next"] = token("sample", "scene-0553", 0)


def time_stands_still(samples):
    samples[2]["timestamp"] = samples[1]["timestamp"]


def a_second_is_missing(samples):
    for sample in samples[2:4]:
        sample["timestamp"] += 1_000_000


GAPS = [
    (broken_link, "0000 (after .*) is not in sample.json"),
    (wrong_back_link, "as prev, not"),
    (chain_cut_short, "the chain ends at sample"),
    (loop, "comes twice"),
    (into_another_scene, "belongs to another scene"),
    (time_stands_still, "time does not increase"),
    (a_second_is_missing, r"1\.50\d s without a keyframe"),
]


@pytest.mark.parametrize(("change", "says"), GAPS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_gap_names_scene_samples_and_way_out(tiny_nuscenes, change, says):
    root = tiny_nuscenes(scenes={"scene-0061": 4, "scene-0553": 2})
    edit_table(root, "sample", change)
    with pytest.raises(SceneGap, match=says.replace("(", r"\(").replace(")", r"\)")) as caught:
        build_index(root, "v1.0-mini", "mini_train")
    message = str(caught.value)
    assert "scene-0061: " in message
    assert token("sample", "scene-0061", 1)[:8] in message or "comes twice" in message
    assert "leave the scenes out" in message
    index = build_index(root, "v1.0-mini", "mini_train", scenes=["scene-0553"])  # the way out
    assert len(index) == 2


def test_a_count_that_differs_from_nbr_samples(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 3})

    def recount(scenes):
        scenes[0]["nbr_samples"] = 4

    edit_table(root, "scene", recount)
    with pytest.raises(SceneGap, match=r"3 keyframes in the chain and 3 in sample.json, nbr_samples is 4"):
        build_index(root, "v1.0-mini", "mini_train")


def test_all_gaps_are_collected_and_ten_shown(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 9, "scene-0553": 6}, tracks=0)

    def stretch(samples):
        for number, sample in enumerate(samples):
            sample["timestamp"] += number * 1_000_000

    edit_table(root, "sample", stretch)
    with pytest.raises(SceneGap) as caught:
        build_index(root, "v1.0-mini", "mini_train")
    assert str(caught.value).count("without a keyframe") == 10
    assert "... and 3 more" in str(caught.value)
    assert len(build_index(root, "v1.0-mini", "mini_train", max_gap_s=2.0)) == 15


@pytest.mark.parametrize("path", ["/etc/passwd", "samples/../../secret.jpg", "..", "samples\\..\\a.jpg", ""])
def test_a_path_out_of_the_dataroot_is_refused(tiny_nuscenes, path):
    root = tiny_nuscenes(scenes={"scene-0061": 2})

    def point_out(records):
        next(r for r in records if "CAM_BACK" in r["filename"])["filename"] = path

    edit_table(root, "sample_data", point_out)
    with pytest.raises(ImagesBroken, match="the path leaves the dataroot") as caught:
        build_index(root, "v1.0-mini", "mini_train")
    assert caught.value.paths == (path,)


def test_a_keyframe_without_a_camera(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 2})
    edit_table(root, "sample_data", lambda rs: [r for r in rs if "__CAM_BACK_LEFT__" not in r["filename"]])
    with pytest.raises(ImagesBroken, match="CAM_BACK_LEFT: no keyframe of this sensor") as caught:
        build_index(root, "v1.0-mini", "mini_train")
    assert len(caught.value.paths) == 2


def test_images_of_different_size_in_one_frame(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})

    def widen(records):
        next(r for r in records if "CAM_BACK__" in r["filename"])["width"] = 200

    edit_table(root, "sample_data", widen)
    with pytest.raises(ImagesBroken, match=r"CAM_BACK__.*not the size of CAM_FRONT, \[90, 160\]"):
        build_index(root, "v1.0-mini", "mini_train")


def test_whole_images_pass(dataroot, capsys):
    index = build_index(dataroot, "v1.0-mini", "mini_train")
    assert check_images(dataroot, index.frames(), jobs=2) == 6 * len(index)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "checking images" in captured.err


def test_every_broken_image_is_collected(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 3})
    index = build_index(root, "v1.0-mini", "mini_train")
    paths = [path for frame in index for path in frame.image_paths]
    (root / paths[0]).unlink()
    (root / paths[3]).write_bytes(b"")
    (root / paths[5]).write_bytes((root / paths[5]).read_bytes()[:-30])
    (root / paths[7]).write_bytes(b"hello, no picture")
    with pytest.raises(ImagesBroken) as caught:
        check_images(root, index.frames(), progress=False)
    assert caught.value.paths == (paths[0], paths[3], paths[5], paths[7])
    reasons = ("missing", "empty", "truncated (no end marker)", "not a JPEG (no start marker)")
    assert caught.value.reasons == reasons
    for path, reason in zip(caught.value.paths, reasons, strict=True):
        assert f"{path}: {reason}" in str(caught.value)
    assert "4 of 18 image files" in str(caught.value)


def test_damage_inside_is_found_when_every_image_is_decoded(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    index = build_index(root, "v1.0-mini", "mini_train")
    assert check_images(root, index.frames(), progress=False, decode=True) == 6
    name = index[0].image_paths[2]
    whole = (root / name).read_bytes()
    middle = len(whole) * 2 // 3
    (root / name).write_bytes(whole[:middle] + b"\xff\xd9" + whole[middle + 2 :])
    assert check_images(root, index.frames(), progress=False) == 6
    with pytest.raises(ImagesBroken) as caught:
        check_images(root, index.frames(), progress=False, decode=True)
    assert caught.value.paths == (name,)
    assert "damaged" in str(caught.value)


def test_ten_of_many_broken_images_are_shown(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 3})
    index = build_index(root, "v1.0-mini", "mini_train")
    for path in (root / "samples").rglob("*.jpg"):
        path.unlink()
    with pytest.raises(ImagesBroken, match=r"\.\.\. and 8 more") as caught:
        check_images(root, index.frames(), progress=False)
    assert len(caught.value.paths) == 18
    assert str(caught.value).count(": missing") == 10
    # A worker's error reaches the parent process whole.
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.paths, str(again)) == (caught.value.paths, str(caught.value))


def test_png_images_are_decoded(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    edit_table(
        root, "sample_data", lambda rs: [{**r, "filename": r["filename"].replace(".jpg", ".png")} for r in rs]
    )
    for path in (root / "samples").rglob("*.jpg"):
        cv2.imwrite(str(path.with_suffix(".png")), cv2.imread(str(path)))
    index = build_index(root, "v1.0-mini", "mini_train")
    assert check_images(root, index.frames(), progress=False) == 6
    victim = root / index[0].image_paths[2]
    victim.write_bytes(victim.read_bytes()[:2000])
    with pytest.raises(ImagesBroken, match="cannot be decoded"):
        check_images(root, index.frames(), progress=False)


def test_zeros_after_the_end_marker_are_harmless(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    index = build_index(root, "v1.0-mini", "mini_train")
    path = root / index[0].image_paths[0]
    path.write_bytes(path.read_bytes() + b"\0" * 100)
    assert check_images(root, index.frames(), progress=False) == 6


def test_every_error_belongs_to_one_tree():
    from camera3d import errors

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {errors.StartUnfit, errors.OutputsNotFinite, errors.ImagesBroken} < set(kinds)
    assert all(issubclass(kind, Camera3DError) for kind in kinds)
    assert errors.shown(map(str, np.arange(12))).endswith("  9\n  ... and 2 more")


@pytest.mark.parametrize("error", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_worker_that_dies_while_it_hands_a_batch_over(error):
    expected = pytest.raises(DataWorkerDied, match=r"a process that reads data ended .*--workers")
    with expected, worker_deaths_told():
        raise error


DEATH = RuntimeError("DataLoader worker (pid 8371) is killed by signal: Killed. ")


def translated() -> None:
    """What `inspect` makes of a signal handler's error that meets it at its work."""
    try:
        raise DEATH
    except RuntimeError as error:
        raise TypeError("unsupported callable") from error


def replaced() -> None:
    """Code that fails while it tidies up after the signal handler's error."""
    try:
        raise DEATH
    finally:
        raise KeyError("hook")


@pytest.mark.parametrize("raise_death", [translated, replaced])
def test_a_death_that_a_library_turned_into_an_error_of_its_own(raise_death):
    expected = pytest.raises(DataWorkerDied, match=r"pid 8371\) was ended by a signal \(Killed\).*--workers")
    with expected, worker_deaths_told():
        raise_death()


def test_other_errors_stay_what_they_are():
    expected = pytest.raises(TypeError, match="unsupported callable")
    with expected, worker_deaths_told():
        try:
            raise RuntimeError("a CUDA error")
        except RuntimeError as error:
            raise TypeError("unsupported callable") from error
