"""Image preparation against the mmcv functions of the official pipeline, and photometric distortion."""

from __future__ import annotations

import cv2
import mmcv
import numpy as np
import pytest
from projection_cases import project_points

from camera3d.data import ImagePipeline, PhotometricDistortion, build_index
from camera3d.data.decoding import Undecodable, jpeg_tail_fault, read_image
from camera3d.errors import ConfigInvalid, ImagesBroken

pytestmark = pytest.mark.filterwarnings("ignore:nuScenes v1")

CAFFE = {"mean": [103.530, 116.280, 123.675], "std": [1.0, 1.0, 1.0], "to_rgb": False}
PYTORCH = {"mean": [123.675, 116.28, 103.53], "std": [58.395, 57.12, 57.375], "to_rgb": True}
CONFIGS = {  # a tenth of the official sizes; 450 × 800 is what half of 900 × 1600 gives
    "base": {"scale": 1.0, "pad_hw": [96, 160], **CAFFE},
    "small": {"scale": 0.5, "pad_hw": [46, 80], **CAFFE},
    "tiny": {"scale": 0.5, "pad_hw": [48, 80], **PYTORCH},
    "uneven": {"scale": 0.33, "pad_hw": [40, 64], **PYTORCH},
}


@pytest.fixture(scope="module")
def dataroot(tiny_nuscenes):
    return tiny_nuscenes(scenes={"scene-0061": 2})


@pytest.fixture(scope="module")
def frame(dataroot):
    return build_index(dataroot, "v1.0-mini", "mini_train")[1]


@pytest.mark.parametrize("name", CONFIGS)
def test_preparation_is_mmcvs_step_by_step(name, frame, dataroot):
    config = CONFIGS[name]
    images, lidar2img = ImagePipeline.from_config(config).load(frame, dataroot)
    assert images.dtype == np.float32
    assert images.flags.c_contiguous
    mean, std = np.array(config["mean"], np.float32), np.array(config["std"], np.float32)
    for ours, path, projection, native in zip(
        images, frame.image_paths, lidar2img, frame.lidar2img, strict=True
    ):
        image = mmcv.imread(str(dataroot / path), "unchanged").astype(np.float32)
        image = mmcv.imnormalize(image, mean, std, config["to_rgb"])
        height, width = (int(side * config["scale"]) for side in image.shape[:2])
        image = mmcv.imresize(image, (width, height))
        image = mmcv.impad(image, shape=tuple(config["pad_hw"]), pad_val=0)
        np.testing.assert_array_equal(ours, image.transpose(2, 0, 1))
        scale = np.diag([config["scale"], config["scale"], 1, 1])
        np.testing.assert_array_equal(projection, scale @ native)


def test_projection_follows_the_scale(frame):
    pipeline = ImagePipeline.from_config(CONFIGS["small"])
    points = frame.gt_boxes[:, :3]
    native, depth = project_points(points, frame.lidar2img)
    scaled, same_depth = project_points(points, pipeline.scale_lidar2img(frame.lidar2img))
    np.testing.assert_allclose(scaled, native / 2, rtol=1e-9)
    np.testing.assert_allclose(same_depth, depth)


def test_official_sizes():
    assert ImagePipeline.from_config(CONFIGS["base"]).size_after_scaling((900, 1600)) == (900, 1600)
    assert ImagePipeline.from_config(CONFIGS["small"]).size_after_scaling((900, 1600)) == (450, 800)


def test_config_round_trip():
    for config in CONFIGS.values():
        pipeline = ImagePipeline.from_config(config)
        assert pipeline.to_dict() == config
        assert ImagePipeline.from_config(pipeline.to_dict()) == pipeline


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": 0}, "scale: expected a number > 0, got 0"),
        ({"scale": "half"}, "scale: expected a number > 0, got 'half'"),
        ({"pad_hw": [96]}, r"pad_hw: expected 2 numbers, got \[96\]"),
        ({"std": [1, 0, 1]}, "expected numbers > 0"),
        ({"to_rgb": 1}, "to_rgb: expected true or false, got 1"),
        ({"mean": None, "scale": -1}, r"(?s)mean: expected 3 numbers, got None.*scale"),
        ({"size": 3}, "size: unknown"),
    ],
)
def test_bad_configs(change, says):
    with pytest.raises(ConfigInvalid, match=says):
        ImagePipeline.from_config(CONFIGS["base"] | change)


def test_missing_keys_are_named_together():
    with pytest.raises(ConfigInvalid, match=r"(?s)mean: missing.*to_rgb: missing"):
        ImagePipeline.from_config({"scale": 1.0, "pad_hw": [96, 160], "std": [1, 1, 1]})


def test_an_image_too_large_for_the_padding(frame, dataroot):
    pipeline = ImagePipeline.from_config(CONFIGS["base"] | {"pad_hw": [88, 160]})
    with pytest.raises(ConfigInvalid, match=r"90×160 scaled by 1 is 90×160 .* pad_hw = 88×160"):
        pipeline.load(frame, dataroot)


def test_unreadable_images_are_named_together(tiny_nuscenes):
    root = tiny_nuscenes(scenes={"scene-0061": 1})
    frame = build_index(root, "v1.0-mini", "mini_train")[0]
    files = [root / path for path in frame.image_paths]
    files[0].write_bytes(files[0].read_bytes()[:-10])
    files[1].unlink()
    files[2].write_bytes(b"no picture at all")
    files[3].write_bytes(b"")
    files[4].write_bytes(cv2.imencode(".png", np.zeros((90, 160), np.uint8))[1].tobytes())
    with pytest.raises(ImagesBroken) as caught:
        ImagePipeline.from_config(CONFIGS["base"]).load(frame, root)
    assert caught.value.paths == frame.image_paths[:5]
    reasons = " ".join(caught.value.reasons)
    for reason in ("truncated", "missing", "cannot be decoded", "empty", "not an 8-bit colour image"):
        assert reason in reasons


SAMPLINGS = (0x411111, 0x221111, 0x211111, 0x111111)
FORMS = [
    *([cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling] for sampling in SAMPLINGS),
    [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
    [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    [cv2.IMWRITE_JPEG_QUALITY, 30],
]


@pytest.fixture(scope="module")
def busy():
    """A picture with detail everywhere, of an odd size: 90 kB as a JPEG."""
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8), (397, 301))
    return np.clip(coarse + rng.normal(0, 20, coarse.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_pixels_are_those_of_opencv(form, busy, tmp_path):
    path = tmp_path / "image.jpg"
    path.write_bytes(cv2.imencode(".jpg", busy, form)[1].tobytes())
    expected = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("what", ["zeros", "noise", "moved", "marker"])
def test_damage_between_the_markers_is_told(what, busy, tmp_path):
    whole = cv2.imencode(".jpg", busy, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
    middle = len(whole) // 2
    inside = {
        "zeros": bytes(4096),
        "noise": np.random.default_rng(1).integers(0, 255, 512, dtype=np.uint8).tobytes(),
        "moved": whole[middle // 2 : middle // 2 + 4096],
        "marker": b"\xff\xd9",
    }[what]
    path = tmp_path / "image.jpg"
    path.write_bytes(whole[:middle] + inside + whole[middle + len(inside) :])
    assert jpeg_tail_fault(path.read_bytes()) is None
    with pytest.raises(Undecodable, match=r"damaged \(.*JPEG"):
        read_image(path)


def test_a_grey_jpeg_is_no_colour_image(tmp_path):
    path = tmp_path / "image.jpg"
    cv2.imwrite(str(path), np.zeros((16, 24), np.uint8))
    with pytest.raises(Undecodable, match="not an 8-bit colour image"):
        read_image(path)


class Script:
    """A generator that plays back coins, uniform numbers (0 to 1 within the range) and a permutation."""

    def __init__(self, coins, uniforms=(), permutation=(0, 1, 2)):
        self.coins, self.uniforms, self.order = list(coins), list(uniforms), list(permutation)

    def integers(self, high):
        assert high == 2
        return self.coins.pop(0)

    def uniform(self, low, high):
        return low + (high - low) * self.uniforms.pop(0)

    def permutation(self, size):
        assert size == 3
        return self.order


def distorted(image, *script):
    player = Script(*script)
    out = PhotometricDistortion()(image, player)
    assert not player.coins, "not every coin was thrown"
    assert not player.uniforms
    return out


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(5).uniform(1, 254, (20, 30, 3)).astype(np.float32)


# The coins in order: brightness, contrast first, [contrast], saturation, hue, [contrast], channel order.
def test_no_change_is_a_trip_through_hsv(image):
    np.testing.assert_allclose(distorted(image, [0, 0, 0, 0, 0, 0]), image, atol=1e-2)


def test_brightness(image):
    bright = distorted(image, [1, 0, 0, 0, 0, 0], [0.75])
    np.testing.assert_allclose(bright, image + 16, atol=1e-2)  # and beyond 255: nothing is clipped


def test_contrast_first_and_last(image):
    first = distorted(image, [0, 1, 1, 0, 0, 0], [0.75])
    last = distorted(image, [0, 0, 0, 0, 1, 0], [0.75])
    np.testing.assert_allclose(first, image * 1.25, atol=1e-2)
    np.testing.assert_allclose(last, image * 1.25, atol=1e-2)


def test_saturation_and_hue_follow_opencvs_float_hsv(image):
    hsv = mmcv.bgr2hsv(image)
    hsv[..., 1] *= 1.25
    hue = hsv[..., 0] + 9
    hsv[..., 0] = np.where(hue > 360, hue - 360, hue)
    expected = mmcv.hsv2bgr(hsv)
    np.testing.assert_allclose(distorted(image, [0, 0, 1, 1, 0, 0], [0.75, 0.75]), expected, atol=1e-3)


def test_hue_wraps_both_ways():
    red = np.zeros((1, 2, 3), np.float32)
    red[0, :, 2], red[0, 0, 1], red[0, 1, 0] = 200, 10, 10  # hue 3 and 357 degrees
    for draw in (0.0, 1.0):
        turned = cv2.cvtColor(distorted(red, [0, 0, 0, 1, 0, 0], [draw]), cv2.COLOR_BGR2HSV)[0, :, 0]
        expected = (np.array([3.0, 357.0]) + (36 * draw - 18)) % 360
        np.testing.assert_allclose(turned, expected, atol=0.1)


def test_channel_order(image):
    swapped = distorted(image, [0, 0, 0, 0, 0, 1], [], [2, 0, 1])
    np.testing.assert_allclose(swapped, image[..., [2, 0, 1]], atol=1e-2)


def test_the_input_stays_and_integers_are_refused(image):
    before = image.copy()
    for seed in range(8):
        out = PhotometricDistortion()(image, np.random.default_rng(seed))
        assert out.dtype == np.float32
        assert out.flags.c_contiguous
    np.testing.assert_array_equal(image, before)
    with pytest.raises(TypeError, match="float32"):
        PhotometricDistortion()(image.astype(np.uint8), np.random.default_rng(0))


def test_same_generator_same_picture(image):
    draws = [PhotometricDistortion()(image, np.random.default_rng(7)) for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert not np.array_equal(draws[0], PhotometricDistortion()(image, np.random.default_rng(8)))


def test_training_images_are_distorted_each_on_its_own(frame, dataroot):
    pipeline = ImagePipeline.from_config(CONFIGS["base"] | {"mean": [0, 0, 0]})
    same = [np.full((90, 160, 3), 100, np.uint8)] * 6
    plain, _ = pipeline.prepare(same, frame.lidar2img)
    images, lidar2img = pipeline.prepare(same, frame.lidar2img, np.random.default_rng(0))
    assert (plain[:, :, :90] == 100).all()
    assert len({float(image.mean()) for image in images}) >= 5
    assert not images[:, :, 90:].any()  # the padding stays zero
    np.testing.assert_array_equal(lidar2img, frame.lidar2img)
