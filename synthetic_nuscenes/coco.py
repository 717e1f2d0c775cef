"""What each camera shows, as COCO-format annotations: tight boxes around what is visible of an actor.

`annotations/instances_<split>_<version>.json`, beside the tables; the pictures are the tables' own.
"""

from __future__ import annotations

from collections.abc import Sequence

from nuscenes.eval.detection.utils import category_to_detection_name

from synthetic_nuscenes.categories import CATEGORIES
from synthetic_nuscenes.frames import KeyframeFacts, file_name
from synthetic_nuscenes.options import TRAIN_SPLIT, VAL_SPLIT, VERSION, SyntheticOptions
from synthetic_nuscenes.rig import CAMERAS
from synthetic_nuscenes.world import World

# In the generator's own order: who reads the files goes by name.
CLASS_NAMES = tuple(dict.fromkeys(map(category_to_detection_name, CATEGORIES)))


def annotations_name(split: str) -> str:
    """Where the annotations of a split lie below the dataroot."""
    return f"annotations/instances_{split}_{VERSION}.json"


class CocoTables:
    """Collects pictures and boxes; `splits` gives the contents of both annotation files."""

    def __init__(self, options: SyntheticOptions):
        self._options = options
        self._images: dict[str, list[dict]] = {TRAIN_SPLIT: [], VAL_SPLIT: []}
        self._annotations: dict[str, list[dict]] = {TRAIN_SPLIT: [], VAL_SPLIT: []}

    def add_scene(self, number: int, world: World, facts: Sequence[KeyframeFacts]) -> None:
        """The pictures of one scene, keyframe by keyframe, camera by camera."""
        options = self._options
        split = TRAIN_SPLIT if number < options.scenes - options.val_scenes else VAL_SPLIT
        height, width = options.image_hw
        for fact in facts:
            for camera, (channel, visible) in enumerate(zip(CAMERAS, fact.visible, strict=True)):
                image = (number * options.keyframes + fact.number) * len(CAMERAS) + camera
                name = file_name(number, fact.number, channel)
                self._images[split].append({"id": image, "file_name": name, "height": height, "width": width})
                for actor, x1, y1, x2, y2, pixels in visible.tolist():
                    category = category_to_detection_name(world.actors[actor].category)
                    self._annotations[split].append(
                        {
                            "id": len(self._annotations[split]) + 1,  # pycocotools takes 0 for no match
                            "image_id": image,
                            "category_id": CLASS_NAMES.index(category) + 1,
                            "bbox": [x1, y1, x2 - x1, y2 - y1],
                            "area": pixels,
                            "iscrowd": 0,
                        }
                    )

    def splits(self) -> dict[str, dict]:
        """By split, what its annotation file holds."""
        categories = [{"id": i, "name": name} for i, name in enumerate(CLASS_NAMES, start=1)]
        return {
            split: {"images": images, "annotations": self._annotations[split], "categories": categories}
            for split, images in self._images.items()
        }
