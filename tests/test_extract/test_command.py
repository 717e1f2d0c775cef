"""The command: what it stores, what it prints, how it fails."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray
from command_cases import IMAGE_HW, SCENES, write_small_config
from golden.formula import state_dict
from nuscenes_tables import edit_table

from cache_schema.reader import TargetReader
from camera3d.data import ImagePipeline, StreamingFrames, build_index
from camera3d.detectors import build_detector
from camera3d.detectors.builder import load_config
from extract.dump_teacher import main

ROOT = Path(__file__).parents[2]
# Metres and positions in single precision, what the frame says as it is; all else in half precision.
DETECTIONS = ("detection_boxes", "detection_scores", "detection_labels")
SINGLE = ("query_boxes", "reference_points", "sampling_locations", "detection_boxes", "detection_scores")
DTYPES = dict.fromkeys(SINGLE, "float32") | {
    "can_bus": "float64",
    "lidar2img": "float64",
    "detection_labels": "int16",
}


@pytest.fixture(scope="module")
def case(tiny_nuscenes, tmp_path_factory) -> dict:
    """A dataset, a config, a checkpoint, the store that the command made of them, and what it printed."""
    folder = tmp_path_factory.mktemp("dump")
    config = write_small_config(folder)
    dataroot = tiny_nuscenes(scenes=SCENES, image_hw=IMAGE_HW, can_bus=True)
    detector = build_detector(config)
    torch.save({"state_dict": state_dict(detector)}, folder / "teacher.pth")
    arguments = [str(config), "--dataroot", str(dataroot), "--version", "v1.0-mini", "--split", "all_scenes"]
    (dataroot / "v1.0-mini/splits.json").write_text('{"all_scenes": ["scene-0061", "scene-0553"]}')
    arguments += ["--workers", "0", "--threads", "2"]
    return {"folder": folder, "config": config, "dataroot": dataroot, "arguments": arguments}


def run(case: dict, out: str, *more: str, weights: tuple[str, ...] | None = None) -> int:
    chosen = weights or ("--checkpoint", str(case["folder"] / "teacher.pth"))
    return main([*case["arguments"], "--out", str(case["folder"] / out), *chosen, *more])


@pytest.fixture(scope="module")
def dumped(case) -> TargetReader:
    assert run(case, "teacher.zarr") == 0
    return TargetReader(case["folder"] / "teacher.zarr")


@pytest.fixture(scope="module")
def encoded(case) -> dict[str, dict[str, torch.Tensor]]:
    """Every frame by its sample token, as the detector gives it scene by scene."""
    index = build_index(case["dataroot"], "v1.0-mini", "all_scenes")
    config = load_config(case["config"])
    detector = build_detector(config)
    detector.load_state_dict(state_dict(detector))
    torch.set_num_threads(2)
    arrays, state = {}, None
    with torch.inference_mode():
        for item in StreamingFrames(index, ImagePipeline.from_config(config.inputs), case["dataroot"]):
            frame = {name: item[name][None] for name in detector.inputs}
            outputs, state = detector.encode(frame, state if item["has_prev"] else None)
            (found,) = detector.decode(outputs)
            arrays[item["sample_token"]] = {
                **{name: values[0] for name, values in outputs.items()},
                "can_bus": item["can_bus"],
                "lidar2img": item["lidar2img"],
                "detection_boxes": found.boxes,
                "detection_scores": found.scores,
                "detection_labels": found.labels,
            }
    return arrays


def test_store_holds_what_encode_returns(dumped, encoded):
    assert list(dumped.sample_tokens) == list(encoded)
    for token, expected in encoded.items():
        stored = dumped[token]
        assert stored.keys() == expected.keys()
        for name, value in expected.items():
            wanted = value.numpy().astype(DTYPES.get(name, "float16"))
            assert stored[name].dtype == wanted.dtype, name
            np.testing.assert_array_equal(stored[name], wanted, err_msg=name)


def test_a_scene_is_a_stream(dumped, encoded):
    """Later frames saw the BEV of the frame before: without it their map would be another one."""
    tokens = dumped.scenes["scene-0061"]
    assert len(tokens) == 3
    assert np.any(dumped[tokens[1]]["can_bus"][:3] != 0)
    for tokens in dumped.scenes.values():
        assert np.all(dumped[tokens[0]]["can_bus"][:3] == 0)


def test_xarray_opens_a_scene(case, dumped):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with xarray.open_zarr(case["folder"] / "teacher.zarr/scenes/scene-0061") as scene:
            assert scene.sizes["sample"] == 3
            assert scene["bev_feats"].dims == ("sample", "channel", "bev_y", "bev_x")
            token = dumped.scenes["scene-0061"][1]
            np.testing.assert_array_equal(scene["bev_feats"][1].values, dumped[token]["bev_feats"])


def test_head_is_in_the_store(case, dumped):
    detector = build_detector(case["config"])
    expected = {key: value for key, value in state_dict(detector).items() if key in detector.head_weights()}
    head = dumped.read_teacher_head()
    assert head.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(head[key], value.numpy(), err_msg=key)


def test_facts(case, dumped):
    spec = dumped.spec
    assert spec.teacher.trained
    assert len(spec.teacher.checkpoint_sha256) == 64
    assert spec.dataset.split == "all_scenes"
    assert spec.outputs.class_names[2] == "construction_vehicle"
    assert str(case["folder"]) not in str(spec.to_dict())


def test_summary(case, capsys):
    run(case, "summary.zarr", "--scenes", "scene-0553")
    printed = capsys.readouterr()
    assert "samples   2 in 1 scene\n" in printed.out
    assert "focal_feats" in printed.out
    assert "small_teacher (trained)" in printed.out
    assert "sample/s" in printed.err
    assert "sample/s" not in printed.out.replace("samples/s", "")


def test_arrays_subset(case):
    assert run(case, "bev.zarr", "--arrays", "bev", "--scenes", "scene-0553") == 0
    reader = TargetReader(case["folder"] / "bev.zarr")
    assert {array.name for array in reader.spec.arrays} == {"bev_feats", "can_bus", "lidar2img", *DETECTIONS}


def test_untrained_is_marked_and_repeatable(case):
    readers = []
    for out in ("random-a.zarr", "random-b.zarr"):
        weights = ("--untrained", "--seed", "3")
        assert run(case, out, "--scenes", "scene-0553", weights=weights) == 0
        readers.append(TargetReader(case["folder"] / out))
    first, second = readers
    assert not first.spec.teacher.trained
    assert first.spec.teacher.random_seed == 3
    for token in first.sample_tokens:
        for name, value in first[token].items():
            np.testing.assert_array_equal(value, second[token][name], err_msg=name)


FAILURES = {
    "config": (["nowhere.py"], "no config file nowhere.py"),
    "dataroot": (["--dataroot", "/nowhere"], "/nowhere"),
    "version": (["--version", "v9"], "v9"),
    "split": (["--split", "train"], "train"),
    "scene": (["--scenes", "scene-0062"], "did you mean scene-0061"),
    "checkpoint": (["--checkpoint", "nowhere.pth"], "no checkpoint file nowhere.pth"),
    "arrays": (["--arrays", "bev,lidar"], "bev, pv, queries"),
    "device": (["--device", "tpu"], "tpu"),
    "workers": (["--workers", "-1"], "--workers -1"),
    "threads": (["--threads", "0"], "--threads 0"),
}


@pytest.mark.parametrize("name", FAILURES)
def test_failures(case, name, capsys, monkeypatch):
    changed, message = FAILURES[name]
    arguments = [*case["arguments"], "--checkpoint", str(case["folder"] / "teacher.pth")]
    arguments += ["--out", str(case["folder"] / "never.zarr")]
    arguments = changed + arguments[1:] if name == "config" else arguments + changed
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert not (case["folder"] / "never.zarr").exists()


def test_gap_stops_only_who_asks_for_that_scene(case, tiny_nuscenes, capsys):
    dataroot = tiny_nuscenes(scenes=SCENES, image_hw=IMAGE_HW)
    edit_table(dataroot, "scene", lambda rows: rows[0].update(nbr_samples=9))
    arguments = [*case["arguments"], "--dataroot", str(dataroot), "--split", "mini_train", "--untrained"]
    assert main([*arguments, "--out", str(case["folder"] / "never.zarr")]) == 2
    printed = capsys.readouterr().err
    assert "scene-0061" in printed
    assert "--scenes" in printed
    arguments += ["--scenes", "scene-0553", "--out", str(case["folder"] / "whole-scene.zarr")]
    assert main(arguments) == 0


def test_broken_image(case, tiny_nuscenes, capsys):
    dataroot = tiny_nuscenes(scenes=SCENES, image_hw=IMAGE_HW)
    victim = sorted(dataroot.glob("samples/CAM_BACK/*.jpg"))[0]
    victim.write_bytes(victim.read_bytes()[:100])
    arguments = [*case["arguments"], "--dataroot", str(dataroot), "--split", "mini_train"]
    assert main([*arguments, "--untrained", "--out", str(case["folder"] / "never.zarr")]) == 2
    assert victim.name in capsys.readouterr().err


def test_another_dump_into_the_same_store(case, dumped, capsys):
    assert run(case, "teacher.zarr", weights=("--untrained",)) == 2
    assert "teacher" in capsys.readouterr().err


def test_weights_must_be_chosen(case, capsys):
    with pytest.raises(SystemExit):
        main([*case["arguments"], "--out", "never.zarr"])
    assert "--checkpoint" in capsys.readouterr().err


def test_runs_as_printed_in_the_help():
    """As a script, from the root: `extract/` is then the first place where Python looks for modules."""
    done = subprocess.run(
        [sys.executable, "extract/dump_teacher.py", "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "configs/demo/teacher.py" in done.stdout


def test_images_that_do_not_fit_are_refused_before_anything_is_written(case, capsys):
    config = load_config(case["config"])
    config.inputs.scale = 2.0
    config.dump(case["folder"] / "large.py")
    arguments = [str(case["folder"] / "large.py"), *case["arguments"][1:]]
    assert main([*arguments, "--out", str(case["folder"] / "large.zarr"), "--untrained"]) == 2
    assert "does not fit into pad_hw = 64×96" in capsys.readouterr().err
    assert not (case["folder"] / "large.zarr").exists()
