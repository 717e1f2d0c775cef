"""The pose messages of the CAN bus expansion for a scene."""

from __future__ import annotations

from synthetic_nuscenes.frames import sweep_stamp_us
from synthetic_nuscenes.tables import quaternion
from synthetic_nuscenes.world import World

STEP_US = 20_000  # 50 Hz
SLOPE_S = 0.06
GRAVITY = 9.81


def pose_messages(world: World, scene: int, seconds: float) -> list[dict[str, object]]:
    """50 Hz from 50 ms before the first keyframe to 50 ms behind the end; the keys in the dataset's order.

    vel in m/s, accel in m/s² and rotation_rate in rad/s are in the ego frame, pos and orientation global.
    """
    start_us = sweep_stamp_us(scene, 0)
    messages = []
    for offset_us in range(-50_000, int(seconds * 1e6) + 50_000, STEP_US):
        t = offset_us / 1e6
        x, y, yaw = world.ego_pose(t)
        before, now, after = (world.ego.at(t + k * SLOPE_S) for k in (-1, 0, 1))
        speed = (after - before) / (2 * SLOPE_S)
        acceleration = (after - 2 * now + before) / SLOPE_S**2
        turn_rate = (world.ego_pose(t + SLOPE_S)[2] - world.ego_pose(t - SLOPE_S)[2]) / (2 * SLOPE_S)
        messages.append(
            {
                "accel": [acceleration, speed * turn_rate, GRAVITY],
                "orientation": quaternion(yaw),
                "pos": [x, y, 0.0],
                "rotation_rate": [0.0, 0.0, turn_rate],
                "utime": start_us + offset_us,
                "vel": [speed, 0.0, 0.0],
            }
        )
    return messages
