"""What a synthetic dataset is made of: the options, checked, and kept inside the dataset."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Self

from camera3d.errors import ConfigInvalid, shown

VERSION = "v1.0-synthetic"
# The devkit reserves the plain names train and val for the scenes of v1.0-trainval.
TRAIN_SPLIT = "synthetic_train"
VAL_SPLIT = "synthetic_val"
OPTIONS_FILE = "synthetic.json"
GENERATOR = 1  # raise it when the same options give other bytes: an older dataset is then not taken for ours
MAX_SCENES = 4000
KEYFRAMES_A_SECOND = 2


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Everything that decides the bytes of a dataset.

    Args:
        scenes: how many, at least 2: each split needs one.
        seconds: length of a scene; two keyframes a second.
        image_hw: height and width of the images in pixels.
        seed: of every random choice.
        val_share: share of the scenes in the val split, at least one scene and never all.
        density: multiplies how many vehicles, people and things stand and move in a scene.
        coco: whether there are COCO-format annotations besides, see synthetic_nuscenes.coco.

    Raises ConfigInvalid, naming every value that cannot work.
    """

    scenes: int = 20
    seconds: float = 10.0
    image_hw: tuple[int, int] = (900, 1600)
    seed: int = 0
    val_share: float = 0.2
    density: float = 1.0
    generator: int = GENERATOR
    coco: bool = False

    def __post_init__(self) -> None:
        height, width = self.image_hw
        faults = []
        if not 2 <= self.scenes <= MAX_SCENES:
            faults.append(f"scenes is {self.scenes}: give 2 to {MAX_SCENES}, each split needs one")
        if not 0.5 <= self.seconds <= 120.0:
            faults.append(f"seconds is {self.seconds:g}: give 0.5 to 120")
        if not (32 <= height <= 1800 and 56 <= width <= 3200):
            faults.append(f"the image size is {height}x{width}: give 32x56 to 1800x3200, as HxW")
        if self.seed < 0:
            faults.append(f"seed is {self.seed}: give 0 or more")
        if not 0.0 < self.val_share < 1.0:
            faults.append(f"val_share is {self.val_share:g}: give a share between 0 and 1")
        if not 0.2 <= self.density <= 3.0:
            faults.append(f"density is {self.density:g}: give 0.2 to 3")
        if faults:
            raise ConfigInvalid(f"the synthetic dataset cannot be made:\n{shown(faults)}")

    @property
    def keyframes(self) -> int:
        """Keyframes of a scene."""
        return max(1, int(self.seconds * KEYFRAMES_A_SECOND))

    @property
    def val_scenes(self) -> int:
        """Scenes of the val split: the last ones."""
        return min(self.scenes - 1, max(1, round(self.scenes * self.val_share)))

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON; `coco` only where it is true, as in datasets from before there was one."""
        facts = {**asdict(self), "image_hw": list(self.image_hw)}
        return facts if self.coco else {name: value for name, value in facts.items() if name != "coco"}

    @classmethod
    def from_dict(cls, raw: Mapping[str, object]) -> Self:
        """What `to_dict` gave. Raises ConfigInvalid when a field is missing, unknown or of another kind."""
        names = {field.name for field in fields(cls)}
        if set(raw) | {"coco"} != names:
            odd = ", ".join(sorted((set(raw) | {"coco"}) ^ names))
            raise ConfigInvalid(f"not the options of a synthetic dataset: missing or unknown {odd}")
        try:
            height, width = raw["image_hw"]
            return cls(**{**raw, "image_hw": (int(height), int(width))})
        except (TypeError, ValueError) as error:
            raise ConfigInvalid(f"not the options of a synthetic dataset: {error}") from error

    def differences(self, other: SyntheticOptions) -> list[str]:
        """One line for each option that differs from `other`: name, here, there."""
        ours, theirs = ({"coco": False, **options.to_dict()} for options in (self, other))
        return [
            f"{name}: asked for {ours[name]}, there is {theirs[name]}"
            for name in ours
            if ours[name] != theirs[name]
        ]


def scene_name(number: int) -> str:
    """scene-5001 for scene 0: the devkit wants four digits, and below 1200 it has its own list of names."""
    return f"scene-{5001 + number:04d}"
