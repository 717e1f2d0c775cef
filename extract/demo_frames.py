"""A handful of generated frames: boxes that drive over a plain, seen by six cameras.

Not a dataset: only enough for the first stage to run on a machine without nuScenes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from camera3d.data import CAMERA_NAMES, NuScenesIndex
from camera3d.data.index import COLUMNS, SceneRows, text_column
from camera3d.geometry import box_corners, project_points

IMAGE_HW = (128, 224)
CAMERA_YAW_DEG = {"CAM_FRONT": 0, "CAM_FRONT_RIGHT": -55, "CAM_FRONT_LEFT": 55}
CAMERA_YAW_DEG |= {"CAM_BACK": 180, "CAM_BACK_LEFT": 110, "CAM_BACK_RIGHT": -110}
CAMERA_HEIGHT_M = 1.6
FRAME_STEP_S = 0.5
EGO_SPEED_M_S = 6.0


def generate_frames(
    root: Path, scenes: Mapping[str, int], seed: int = 0, image_hw: tuple[int, int] = IMAGE_HW
) -> NuScenesIndex:
    """Write the images of every frame below `root` and return their index.

    Args:
        scenes: name to number of frames.
        image_hw: of every image, in pixels.
    """
    rng = np.random.default_rng(seed)
    lidar2img = np.stack([_lidar2img(CAMERA_YAW_DEG[name], image_hw) for name in CAMERA_NAMES])
    rows: dict[str, list] = {name: [] for name in COLUMNS}
    scene_rows = []
    for number, (name, count) in enumerate(scenes.items()):
        boxes, colours = _objects(rng)
        first = len(rows["timestamp_us"])
        scene_rows.append(SceneRows(name=name, token=f"{number:032x}", first=first, stop=first + count))
        for step in range(count):
            seconds = step * FRAME_STEP_S
            moved = boxes.copy()
            moved[:, 1] += (boxes[:, 8] - EGO_SPEED_M_S) * seconds
            paths = _write_images(root, f"{name}-{step}", moved, colours, lidar2img, rng, image_hw)
            rows["sample_token"].append(f"{number:016x}{step:016x}")
            rows["timestamp_us"].append(int((number * 1000 + seconds) * 1e6))
            rows["image_paths"].append(paths)
            rows["image_hw"].append(image_hw)
            rows["lidar2img"].append(lidar2img)
            rows["ego_translation"].append((0.0, EGO_SPEED_M_S * seconds, 0.0))
            # The LiDAR's y axis points ahead, and the ego's x axis does: the ego drives along global y.
            rows["ego_rotation"].append((np.cos(np.pi / 4), 0.0, 0.0, np.sin(np.pi / 4)))
            rows["can_bus_messages"].append(np.zeros(9))
            rows["can_bus_present"].append(False)
            rows["annotation_count"].append(0)
    return NuScenesIndex(
        version="generated",
        split="demo",
        scene_rows=tuple(scene_rows),
        columns={name: _column(name, values) for name, values in rows.items()},
    )


def _column(name: str, values: list) -> np.ndarray:
    column = COLUMNS[name]
    if column.dtype == "S":
        flat = np.array(values).reshape(-1)
        return text_column(flat.tolist()).reshape(len(flat) and -1, *column.row_shape)
    return np.array(values, dtype=column.dtype).reshape(len(values), *column.row_shape)


def _lidar2img(yaw_deg: float, image_hw: tuple[int, int]) -> np.ndarray:
    """(4, 4) of a camera over the LiDAR that looks `yaw_deg` to the left of straight ahead."""
    height, width = image_hw
    focal = width / 2 / np.tan(np.radians(35))
    ahead = np.radians(90 + yaw_deg)
    forward = np.array([np.cos(ahead), np.sin(ahead), 0.0])
    right = np.array([forward[1], -forward[0], 0.0])
    camera = np.eye(4)
    camera[:3, :3] = right, (0.0, 0.0, -1.0), forward
    intrinsics = np.eye(4)
    intrinsics[:2, :3] = (focal, 0.0, width / 2), (0.0, focal, height / 2)
    return intrinsics @ camera


def _objects(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 9) in our convention, standing on the ground, and a BGR colour for each."""
    n = 12
    boxes = np.zeros((n, 9))
    boxes[:, :2] = rng.uniform(-30, 30, (n, 2))
    boxes[:, 0] += np.sign(boxes[:, 0]) * 4
    boxes[:, 3:6] = rng.uniform((3.5, 1.6, 1.4), (7.0, 2.4, 2.8), (n, 3))
    boxes[:, 2] = boxes[:, 5] / 2 - CAMERA_HEIGHT_M
    boxes[:, 6] = np.pi / 2
    boxes[:, 8] = rng.uniform(0, 10, n)
    return boxes, rng.integers(40, 255, (n, 3))


def _write_images(
    root: Path,
    stem: str,
    boxes: np.ndarray,
    colours: np.ndarray,
    lidar2img: np.ndarray,
    rng: np.random.Generator,
    image_hw: tuple[int, int],
) -> list[str]:
    height, width = image_hw
    paths = []
    far_to_near = np.argsort(-np.linalg.norm(boxes[:, :2], axis=1))
    for camera, matrix in zip(CAMERA_NAMES, lidar2img, strict=True):
        image = np.empty((height, width, 3), dtype=np.uint8)
        image[: height // 2] = (200, 170, 140)
        image[height // 2 :] = (90, 95, 100)
        for i in far_to_near:
            pixels, depth = project_points(box_corners(boxes[i : i + 1])[0], matrix)
            if depth.min() > 0.5:
                hull = cv2.convexHull(np.clip(pixels, -5000, 5000).astype(np.int32))
                cv2.fillConvexPoly(image, hull, colours[i].tolist(), lineType=cv2.LINE_AA)
        noise = rng.normal(0, 6, image.shape)
        image = np.clip(image + noise, 0, 255).astype(np.uint8)
        path = Path("samples") / camera / f"{stem}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / path), image)
        paths.append(path.as_posix())
    return paths
