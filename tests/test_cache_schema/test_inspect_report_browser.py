"""The page of `report` in a browser: no complaint, controls that work, boxes where they belong."""

import re

import numpy as np
import pytest
from browser import DRIVER, REASON, Browser
from corruption_cases import profile_store
from projection_cases import project_points
from truth_cases import ground_truth_store

from cache_schema import inspect_cache
from cache_schema.inspection.boxes import box_corners
from cache_schema.inspection.sample import load_sample

pytestmark = pytest.mark.skipif(DRIVER is None, reason=REASON)
VISIBLE = "return document.querySelectorAll(arguments[0] + ' g.box:not(.hidden)').length"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def truth(tiny_nuscenes, tmp_path_factory):
    """A page of a store that detects what is annotated; the page and the store's sample."""
    from camera3d.data import build_index

    dataroot, folder = tiny_nuscenes(scenes={"scene-0061": 1}), tmp_path_factory.mktemp("truth")
    (frame,) = build_index(dataroot, "v1.0-mini", "mini_train")
    ground_truth_store(folder / "s.zarr", frame, 0.5)
    argv = ["report", str(folder / "s.zarr"), "--out", str(folder / "r.html"), "--dataroot", str(dataroot)]
    inspect_cache.main(argv)
    return folder / "r.html", load_sample(folder / "s.zarr", frame.sample_token, 0.0)


def test_slider_and_scene_lead_through_time(browser, tmp_path):
    store = profile_store(tmp_path / "s.zarr", "focal", {"scene-0001": 3, "scene-0002": 2})
    assert inspect_cache.main(["report", str(store), "--out", str(tmp_path / "r.html")]) == 0
    browser.open(tmp_path / "r.html")
    assert browser.text("time-text") == "+0.0 s, 1 of 3"
    browser.set("time", 2)
    assert browser.text("time-text") == "+1.0 s, 3 of 3"
    assert "scene-0001-token2" in browser.text("status")
    browser.press("time", "\ue012")  # the left arrow
    assert browser.text("time-text") == "+0.5 s, 2 of 3"
    browser.set("scene", 1)
    assert "scene-0002-token0" in browser.text("status")
    before = browser.run("return document.querySelector('svg.bev image').getAttribute('href')")
    browser.set("layer", 2)
    assert browser.run("return document.querySelector('svg.bev image').getAttribute('href')") != before
    assert browser.shows("layer-label")
    assert not browser.shows("truth-label")
    assert browser.texts_that_are_cut() == []
    assert browser.messages() == []


@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_threshold_and_ground_truth(browser, truth):
    page, sample = truth
    browser.open(page)
    for least in (0.3, 0.7, 1.0, 0.0):
        browser.set("threshold", least)
        assert browser.run(VISIBLE, "svg.bev") == int((sample.boxes.scores >= least).sum())
    label = browser.run("return document.querySelector('svg.bev').getAttribute('aria-label')")
    assert label == f"Bird's-eye view: {len(sample.boxes.scores)} boxes"
    dashed = "return document.querySelectorAll('g:not(.hidden) > path.truth').length"
    assert browser.shows("truth-label")
    assert browser.run(dashed) > 0
    browser.set("with-truth", False)
    assert browser.run(dashed) == 0
    images = "return [...document.querySelectorAll('svg.camera image')].map((i) => i.getBBox().width)"
    assert browser.run(images) == [sample.spec.inputs.image_shape[1]] * 6
    assert browser.messages() == []


@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_boxes_are_where_the_detectors_see_them(browser, truth):
    page, sample = truth
    browser.open(page)
    corners = box_corners(sample.boxes.boxes)
    drawn = paths(browser, "svg.bev")
    assert len(drawn) == len(corners)
    for points, expected in zip(drawn, corners, strict=True):
        np.testing.assert_allclose(points[:4], expected[[0, 2, 6, 4], :2] * [1, -1], atol=0.006)
    compared = 0
    names = browser.run(
        "return [...document.querySelectorAll('.cameras figcaption')].map((c) => c.textContent)"
    )
    for place, name in enumerate(names, 1):
        lidar2img = sample.arrays["lidar2img"][sample.spec.inputs.camera_order.index(name.split(",")[0])]
        pixels, depth = project_points(corners.reshape(-1, 3), lidar2img)
        ahead = [row for row in range(len(corners)) if (depth.reshape(-1, 8)[row] > 0.1).all()]
        expected = pixels.reshape(-1, 8, 2)[ahead]
        for points in paths(browser, f".cameras figure:nth-child({place})"):
            if len(points) == 28:  # all twelve edges and the cross: no corner is behind the camera
                np.testing.assert_allclose(np.abs(expected[:, 4] - points[0]).sum(-1).min(), 0, atol=0.02)
                compared += 1
    assert compared == len(corners) == 5


def paths(browser, within):
    """Points (n, 2) of every box's path, best score first."""
    script = (
        "return [...document.querySelectorAll(arguments[0] + ' path.edge')].map((p) => p.getAttribute('d'))"
    )
    texts = browser.run(script, within)
    return [np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", text), float) for text in texts][::-1]


@pytest.mark.filterwarnings("ignore:nuScenes v1")
def test_nothing_is_wider_than_a_small_window(truth, tmp_path):
    page, _ = truth
    with Browser(tmp_path, width=500, height=900) as small:
        small.open(page)
        assert small.run("return document.documentElement.scrollWidth <= window.innerWidth")
