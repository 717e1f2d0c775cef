"""COCO-format folders: splits, groups, labels in our order, preparation as mmdet's, and errors in words."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from coco_cases import CLASSES, PICTURES, VERSION, edit_annotations, write_coco

from camera3d.data import ImagePipeline, check_images, streaming_frames
from camera3d.data.coco.folder import fitting_splits
from camera3d.data.coco.reader import build_coco_index
from camera3d.data.coco.train_dataset import CocoTrainDataset
from camera3d.errors import (
    ConfigInvalid,
    DatasetNotFound,
    ImagesBroken,
    SampleUnknown,
    SplitMismatch,
)

PIPELINE = ImagePipeline(
    resize="keep_ratio",
    fit=(64, 96),
    scale=1.0,
    pad_hw=(96, 96),
    mean=(123.675, 116.28, 103.53),
    std=(58.395, 57.12, 57.375),
    to_rgb=True,
)


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco")


def index_of(root, split="train", **options):
    return build_coco_index(root, VERSION, split, class_names=CLASSES, **options)


def test_index(root):
    index = index_of(root, images_per_group=2)
    assert index.scene_names == ("images-000000", "images-000001", "images-000002")
    assert [len(scene.frames) for scene in index.scenes] == [2, 2, 1]
    assert [frame.sample_token for frame in index] == [f"{7 * i:012d}" for i in range(5)]
    assert [frame.image_hw for frame in index] == [hw for hw, _ in PICTURES]
    assert index[0].image_paths == (f"train{VERSION}/000000000000.jpg",)
    assert index[0].gt_boxes.tolist() == [[4, 6, 34, 26], [50, 10, 62, 40]]
    # Labels count in the detector's classes, whatever order the file has its categories in.
    assert [frame.gt_labels.tolist() for frame in index] == [[0, 1], [0], [], [1, 0], [2, 0]]
    assert index[3].crowd.tolist() == [False, True]
    part = index.select(["images-000001"])
    assert [frame.sample_token for frame in part] == ["000000000014", "000000000021"]
    assert part[1].gt_boxes.tolist() == index[3].gt_boxes.tolist()
    assert len(index_of(root, scenes=["images-000000"])) == 5


def test_frames_are_prepared_as_mmdet_prepares_them(root):
    """Resize to fit, normalise, pad: pixel by pixel what mmdet's transforms and preprocessor make."""
    from mmdet.datasets.transforms import Resize
    from mmdet.models.data_preprocessors import DetDataPreprocessor
    from mmdet.structures import DetDataSample

    index = index_of(root)
    resize = Resize(scale=(96, 64), keep_ratio=True)
    prepare = DetDataPreprocessor(
        mean=PIPELINE.mean, std=PIPELINE.std, bgr_to_rgb=True, pad_size_divisor=1, pad_value=0
    )
    for frame, item in zip(index, streaming_frames(index, PIPELINE, root), strict=True):
        picture = cv2.imread(str(root / frame.image_paths[0]))  # three channels, of the grey one too
        wanted = resize({"img": picture, "img_shape": picture.shape[:2]})
        height, width = wanted["img_shape"]
        assert item["image_hw"].tolist() == list(picture.shape[:2])
        assert item["valid_hw"].tolist() == [height, width]
        sample = DetDataSample(metainfo={"img_shape": (height, width)})
        image = torch.from_numpy(wanted["img"].transpose(2, 0, 1).copy())
        theirs = prepare({"inputs": [image], "data_samples": [sample]})["inputs"][0]
        torch.testing.assert_close(item["images"][0, :, :height, :width], theirs, rtol=0, atol=1e-4)
        padding = item["images"].clone()
        padding[..., :height, :width] = 0
        assert not padding.any()
    assert check_images(root, index.frames(), progress=False, decode=True) == 5


def test_training_samples(root):
    dataset = CocoTrainDataset(index_of(root), PIPELINE, root)
    assert dataset.annotated_rows == [0, 1, 3, 4]
    assert dataset.labels_of(4) == {0, 2}
    item = dataset[1]
    assert item["images"].shape == (1, 1, 3, 96, 96)
    assert item["data_samples"].sample_token == "000000000007"
    assert item["data_samples"].gt_instances.bboxes.tolist() == [[2, 40, 42, 76]]
    distorted = CocoTrainDataset(index_of(root), PIPELINE, root, distort=True)
    first, again = distorted[1]["images"], distorted[1]["images"]
    torch.testing.assert_close(first, again)
    distorted.set_epoch(1)
    assert not torch.equal(first, distorted[1]["images"])


def test_picture_of_another_size(root):
    index = index_of(root)
    path = root / index[2].image_paths[0]
    cv2.imwrite(str(path), np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(ImagesBroken, match="32×64 pixels, and its annotations say 64×64"):
        streaming_frames(index, PIPELINE, root)[2]


def broken(change):
    return lambda root: edit_annotations(root, "train", change)


CASES = {
    "no folder": (
        lambda root: (root / "annotations").rename(root / "notes"),
        DatasetNotFound,
        "no annotations/",
    ),
    "not JSON": (
        lambda root: (root / "annotations" / f"instances_train{VERSION}.json").write_text("{"),
        DatasetNotFound,
        "is not in COCO format",
    ),
    "no area": (
        broken(lambda c: c["annotations"][0].pop("area")),
        DatasetNotFound,
        r"KeyError: 'area'.*annotations id, image_id, category_id, bbox, area",
    ),
    "no categories": (broken(lambda c: c.pop("categories")), DatasetNotFound, "is not in COCO format"),
    "text ids": (
        broken(lambda c: c.update(annotations=[], images=[c["images"][0] | {"id": "one"}])),
        DatasetNotFound,
        "ids of pictures must be whole numbers",
    ),
    "class": (
        broken(lambda c: c["categories"].pop(0)),
        ConfigInvalid,
        "person: not one category each of .*which has car, kite, traffic light",
    ),
    "no picture": (broken(lambda c: c.update(images=[], annotations=[])), SplitMismatch, "names no picture"),
    "leaves": (
        broken(lambda c: c["images"][1].update(file_name="../../x.jpg")),
        ImagesBroken,
        "the path leaves the dataroot",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refusals(case, root):
    change, error, says = CASES[case]
    change(root)
    with pytest.raises(error, match=says):
        index_of(root)


def test_splits(root):
    assert fitting_splits(root, VERSION) == ("train", "val")
    with pytest.raises(SplitMismatch, match=r"no split 'test'.* Splits that fit 2017: train, val"):
        index_of(root, "test")
    with pytest.raises(SampleUnknown, match="images-000007"):
        index_of(root, scenes=["images-000007"])
