"""The sensors of the generated vehicle: six cameras and a LiDAR, mounted as on the nuScenes cars.

The numbers are those of one nuScenes vehicle, rounded. Cameras look along z, x to the right, y down; the ego
frame has x forward, y left, z up, its origin on the ground below the rear axle.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from camera3d.geometry import Float64, normalise_quaternion, rigid_transform

NATIVE_HW = (900, 1600)
LIDAR_NAME = "LIDAR_TOP"


@dataclass(frozen=True, kw_only=True)
class Mount:
    """One sensor: where it sits on the vehicle and when it fires.

    translation in metres and rotation (w first) take the sensor frame to the ego frame; focal length and
    centre are in pixels of the 900×1600 image (zero for the LiDAR); delay_us is the time after the sweep's.
    """

    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]
    focal_px: float = 0.0
    centre_px: tuple[float, float] = (0.0, 0.0)
    delay_us: int = 0

    @property
    def unit_rotation(self) -> Float64:
        """The rotation as a unit quaternion: the rounded constants are a little off."""
        return normalise_quaternion(self.rotation)

    @property
    def sensor_to_ego(self) -> Float64:
        """(4, 4)."""
        return rigid_transform(self.unit_rotation, self.translation)

    def intrinsic(self, image_hw: tuple[int, int]) -> Float64:
        """(3, 3) for images of this height and width: the rig's own, scaled."""
        scale_y, scale_x = image_hw[0] / NATIVE_HW[0], image_hw[1] / NATIVE_HW[1]
        return np.array(
            [
                [self.focal_px * scale_x, 0.0, self.centre_px[0] * scale_x],
                [0.0, self.focal_px * scale_y, self.centre_px[1] * scale_y],
                [0.0, 0.0, 1.0],
            ]
        )


CAMERAS = {
    "CAM_FRONT": Mount(
        translation=(1.371, 0.019, 1.509),
        rotation=(0.5000, -0.5028, 0.4995, -0.4977),
        focal_px=1266.4,
        centre_px=(816.3, 491.5),
        delay_us=-35_000,
    ),
    "CAM_FRONT_RIGHT": Mount(
        translation=(1.295, -0.491, 1.494),
        rotation=(0.2063, -0.2024, 0.6823, -0.6715),
        focal_px=1260.8,
        centre_px=(808.0, 495.3),
        delay_us=-27_500,
    ),
    "CAM_FRONT_LEFT": Mount(
        translation=(1.124, 0.498, 1.507),
        rotation=(0.6758, -0.6735, 0.2117, -0.2117),
        focal_px=1272.6,
        centre_px=(826.6, 479.8),
        delay_us=-43_000,
    ),
    "CAM_BACK": Mount(
        translation=(-0.068, 0.004, 1.578),
        rotation=(0.5037, -0.4975, -0.4942, 0.5045),
        focal_px=809.2,
        centre_px=(829.2, 481.8),
        delay_us=-10_500,
    ),
    "CAM_BACK_LEFT": Mount(
        translation=(1.031, 0.485, 1.591),
        rotation=(0.6924, -0.7032, -0.1165, 0.1120),
        focal_px=1256.7,
        centre_px=(792.1, 492.8),
        delay_us=-500,
    ),
    "CAM_BACK_RIGHT": Mount(
        translation=(0.829, -0.479, 1.561),
        rotation=(0.1226, -0.1326, -0.7004, 0.6905),
        focal_px=1259.5,
        centre_px=(807.3, 501.2),
        delay_us=-20_000,
    ),
}
LIDAR = Mount(translation=(0.944, 0.0, 1.840), rotation=(0.7078, -0.0065, 0.0106, -0.7063))
