"""What a COCO-format folder knows of a sample, without pycocotools: its picture and its annotated boxes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cache_schema.errors import CacheError
from cache_schema.inspection.dataset_tables import DatasetTables, GroundTruth
from cache_schema.spec import StoreSpec

COCO = "coco"


class CocoFolder:
    """The annotations of one split, laid out as dumps read them.

    Its methods raise CacheError when something is not there, or not as COCO has it.
    """

    def __init__(self, dataroot: Path, version: str, split: str) -> None:
        self.dataroot = dataroot
        self._ends = [f"{split}{between}{version}" for between in ("", "_")]

    def image_files(self, sample_token: str, cameras: Sequence[str]) -> dict[str, Path]:
        """The sample's picture, under the store's one camera."""
        image = self._image(sample_token)
        folders = (self.dataroot / name for name in (*self._ends, "images"))
        folder = next((folder for folder in folders if folder.is_dir()), self.dataroot)
        path = folder / str(image["file_name"])
        if not path.is_file():
            raise CacheError(f"{path}, the picture of sample {sample_token}, is missing")
        return dict.fromkeys(cameras, path)

    def ground_truth(self, sample_token: str, class_names: Sequence[str]) -> GroundTruth:
        """The boxes of these classes, without crowds."""
        try:
            image, annotations = self._image(sample_token)["id"], self._annotations
            names = {category["id"]: category["name"] for category in annotations["categories"]}
            found = [
                (note["bbox"], list(class_names).index(names[note["category_id"]]))
                for note in annotations.get("annotations", ())
                if note["image_id"] == image
                and names.get(note["category_id"]) in class_names
                and not note.get("iscrowd")
            ]
            boxes = np.array([(x, y, x + w, y + h) for (x, y, w, h), _ in found], float).reshape(-1, 4)
        except (KeyError, TypeError, ValueError) as error:
            raise CacheError(f"the annotations of {self.dataroot} are not COCO's: {error!r}") from None
        return GroundTruth(boxes, np.array([label for _, label in found], np.int64))

    def _image(self, sample_token: str) -> dict[str, Any]:
        images = self._annotations.get("images", ())
        found = next((image for image in images if image.get("id") == int(sample_token)), None)
        if found is None:
            raise CacheError(f"the annotations of {self.dataroot} have no picture {sample_token}")
        return found

    @cached_property
    def _annotations(self) -> dict[str, Any]:
        paths = [self.dataroot / "annotations" / f"instances_{end}.json" for end in self._ends]
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            raise CacheError(f"{self.dataroot} is no COCO-format folder of this store: it has no {paths[0]}")
        try:
            return dict(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise CacheError(f"{path} cannot be read: {error}") from None


def dataset_of(spec: StoreSpec, dataroot: Path) -> DatasetTables | CocoFolder:
    """What the folder of a store's dataset is read by."""
    if spec.dataset.name == COCO:
        return CocoFolder(dataroot, spec.dataset.version, spec.dataset.split)
    return DatasetTables(dataroot, spec.dataset.version)
