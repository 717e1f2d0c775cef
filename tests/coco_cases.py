"""Tiny COCO-format datasets: pictures of several sizes, one grey, one without a box, one with a crowd."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

VERSION = "2017"
CLASSES = ("car", "person", "traffic light")
# Height and width, and boxes x, y, w, h with category and crowd flag; no detector here has category 9.
PICTURES = (
    ((48, 80), [((4, 6, 30, 20), 3, 0), ((50, 10, 12, 30), 1, 0)]),
    ((80, 48), [((2, 40, 40, 36), 3, 0)]),
    ((64, 64), []),
    ((40, 96), [((10, 8, 9, 25), 1, 0), ((30, 4, 60, 30), 3, 1), ((70, 20, 10, 10), 9, 0)]),
    ((60, 90), [((20, 20, 8, 16), 10, 0), ((40, 10, 44, 40), 3, 0)]),
)
# Not in the order of CLASSES, as in many a file.
CATEGORIES = {1: "person", 3: "car", 9: "kite", 10: "traffic light"}
COLOURS = {1: (40, 40, 220), 3: (220, 60, 40), 9: (30, 200, 200), 10: (60, 220, 60)}


def write_coco(root: Path, *, splits: tuple[str, ...] = ("train", "val")) -> Path:
    """The dataroot, with these splits of version 2017: the same pictures under other ids."""
    rng = np.random.default_rng(0)
    (root / "annotations").mkdir(parents=True)
    for number, split in enumerate(splits):
        folder = root / f"{split}{VERSION}"
        folder.mkdir()
        images, annotations = [], []
        for i, (hw, boxes) in enumerate(PICTURES):
            image_id = 100 * number + 7 * i
            picture = rng.integers(0, 60, (*hw, 3), dtype=np.uint8)
            for (x, y, w, h), category, crowd in boxes:
                picture[y : y + h, x : x + w] = COLOURS[category]
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": image_id,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": crowd,
                    }
                )
            name = f"{image_id:012d}.jpg"
            grey = i == 3
            cv2.imwrite(str(folder / name), cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) if grey else picture)
            images.append({"id": image_id, "file_name": name, "height": hw[0], "width": hw[1]})
        categories = [{"id": i, "name": name} for i, name in CATEGORIES.items()]
        contents = {"images": images, "annotations": annotations, "categories": categories}
        (root / "annotations" / f"instances_{split}{VERSION}.json").write_text(json.dumps(contents))
    return root


def edit_annotations(root: Path, split: str, change) -> None:
    """Rewrite the annotations of a split: `change` is given their contents."""
    path = root / "annotations" / f"instances_{split}{VERSION}.json"
    contents = json.loads(path.read_text())
    change(contents)
    path.write_text(json.dumps(contents))
