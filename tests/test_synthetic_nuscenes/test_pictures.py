"""What the synthetic renderer draws: boxes sit on pixels, what stands in front hides what is behind."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from synthetic_nuscenes.actors import Actor, actor
from synthetic_nuscenes.camera import photograph
from synthetic_nuscenes.categories import CATEGORIES
from synthetic_nuscenes.lidar import scan
from synthetic_nuscenes.look import Look, make_look
from synthetic_nuscenes.options import SyntheticOptions
from synthetic_nuscenes.rig import CAMERAS
from synthetic_nuscenes.tables import noticed_span, visibility
from synthetic_nuscenes.view import sensor_pose
from synthetic_nuscenes.world import World, draft_world, world_of

IMAGE_HW = (225, 400)
# Share of the projected box that is covered at least: a bicycle is mostly air, a bus fills its box.
COVERED = {"vehicle.bicycle": 0.15, "vehicle.motorcycle": 0.25, "movable_object.trafficcone": 0.25}
COVERED |= {"movable_object.barrier": 0.3, "vehicle.construction": 0.3, "vehicle.truck": 0.45}
COVERED |= {name: 0.3 for name in CATEGORIES if name.startswith("human.")}
DRAWS = 3
LOOK: list[Look] = []  # of the street, made once: it is the slow part


@pytest.fixture(scope="module")
def street() -> World:
    """A real scene, for its road and light."""
    world = draft_world(SyntheticOptions(scenes=2, seconds=1.0, image_hw=IMAGE_HW), 0, 0)
    LOOK[:] = [make_look(world)]
    return world


def empty_but(street: World, *actors: Actor) -> World:
    return world_of(
        list(actors),
        path=street.path,
        ego=street.ego,
        section=street.section,
        profiles=street.profiles,
        look_seed=street.look_seed,
    )


def photo_of(world: World, channel: str = "CAM_FRONT", time_s: float = 0.0):
    return photograph(world, LOOK[0], channel, time_s, IMAGE_HW, (0,))


def box_hull(world: World, number: int, channel: str, time_s: float) -> np.ndarray:
    """The convex hull of the projected box of an actor, as a mask (H, W) one pixel larger all round."""
    poses, (w, l, h) = world.poses(time_s), world.actors[number].size_wlh  # noqa: E741
    c, s = np.cos(poses.yaw[number]), np.sin(poses.yaw[number])
    corners = np.array([(x, y, z) for x in (-l / 2, l / 2) for y in (-w / 2, w / 2) for z in (0, h)])
    turned = corners @ np.array(((c, s, 0), (-s, c, 0), (0, 0, 1)))
    turned += (poses.x[number], poses.y[number], 0)
    rotation, origin = sensor_pose(CAMERAS[channel], world.ego_pose(time_s))
    seen = (turned - origin) @ rotation @ CAMERAS[channel].intrinsic(IMAGE_HW).T
    assert (seen[:, 2] > 0.5).all(), "the case must stand in front of the camera"
    hull = cv2.convexHull((seen[:, :2] / seen[:, 2:] - 0.5).astype(np.float32))
    mask = np.zeros(IMAGE_HW, np.uint8)
    cv2.fillConvexPoly(mask, np.round(hull).astype(np.int32), 1)
    return cv2.dilate(mask, np.ones((3, 3), np.uint8)).astype(bool)


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_box_sits_on_the_pixels(street, category):
    covered = []
    for draw in range(DRAWS):
        rng = np.random.default_rng(draw)
        rider = bool(draw % 2)
        distance = 6.0 + 1.1 * CATEGORIES[category].size_wlh[1] + draw
        one = actor(rng, category, distance, 0.3, yaw=1.1 * draw + 0.2, rider=rider)
        world = empty_but(street, one)
        shows = photo_of(world).owner == 0
        hull = box_hull(world, 0, "CAM_FRONT", 0.0)
        assert shows.sum() > 20
        # A mirror or a bag may stick out by a hand's breadth.
        assert (shows & ~hull).sum() <= 0.03 * shows.sum() + 2
        covered.append(shows.sum() / hull.sum())
    assert np.mean(covered) > COVERED.get(category, 0.5)


@pytest.mark.parametrize("channel", CAMERAS)
def test_a_moving_box_sits_on_the_pixels_of_every_camera(street, channel):
    # At the camera's own time: the vehicle drives, and so does the car beside it.
    time_s, view = 0.7, {"CAM_FRONT": 0, "CAM_FRONT_RIGHT": -55, "CAM_FRONT_LEFT": 55, "CAM_BACK": 180}
    view |= {"CAM_BACK_LEFT": 110, "CAM_BACK_RIGHT": -110}
    bearing = np.deg2rad(view[channel])
    ego_s = street.ego.at(time_s)
    at = (ego_s + 0.5 + 13.0 * np.cos(bearing) - 6.0 * time_s, 13.0 * np.sin(bearing))
    world = empty_but(street, actor(np.random.default_rng(5), "vehicle.car", *at, speed=6.0))
    photo = photo_of(world, channel, time_s)
    shows, hull = photo.owner == 0, box_hull(world, 0, channel, time_s)
    assert (shows & ~hull).sum() <= 0.02 * shows.sum()
    assert shows.sum() > 0.6 * hull.sum()


def shown_share(world: World, number: int) -> float:
    hits = photo_of(world).hits
    row = hits.owners.tolist().index(number)
    return hits.shown[row] / hits.alone[row]


def test_what_stands_in_front_hides(street):
    rng = np.random.default_rng(1)
    person = actor(rng, "human.pedestrian.adult", 22.0, 0.0)
    bus = actor(rng, "vehicle.bus.rigid", 14.0, 0.0, yaw=np.pi / 2)
    assert shown_share(empty_but(street, person), 0) == 1.0
    assert shown_share(empty_but(street, person, bus), 0) < 0.1
    assert shown_share(empty_but(street, person, bus), 1) == 1.0
    assert scan(empty_but(street, person), 0.0, (0,)).counts[0] > 0
    assert scan(empty_but(street, person, bus), 0.0, (0,)).counts[0] <= 1


def test_half_hidden_is_a_middle_level(street):
    rng = np.random.default_rng(2)
    car = actor(rng, "vehicle.car", 20.0, 0.0, yaw=np.pi / 2)
    low = [actor(rng, "movable_object.barrier", 15.0, lateral, yaw=0.0) for lateral in (-2.5, 0.0, 2.5)]
    share = shown_share(empty_but(street, car, *low), 0)
    assert 0.15 < share < 0.9


@pytest.mark.parametrize(
    ("shown", "alone", "level"),
    [(0, 0, "1"), (0, 9, "1"), (39, 100, "1"), (40, 100, "2"), (60, 100, "3"), (80, 100, "4"), (5, 5, "4")],
)
def test_visibility_levels(shown, alone, level):
    assert visibility(shown, alone) == level


@pytest.mark.parametrize(
    ("seen", "kept"),
    [([], []), ([0, 0], []), ([1, 1], [0, 1]), ([0, 1, 0, 1, 0], [1, 2, 3]), ([0, 0, 1], [2])],
)
def test_tracks_reach_from_first_to_last_sight(seen, kept):
    assert list(range(len(seen)))[noticed_span([bool(one) for one in seen])] == kept


def test_points_fall_with_distance(street):
    counts = []
    for distance in (10.0, 20.0, 40.0, 70.0, 90.0):
        world = empty_but(street, actor(np.random.default_rng(3), "vehicle.car", distance, 0.0))
        counts.append(int(scan(world, 0.0, (0,)).counts[0]))
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 100
    assert 0 < counts[-2] < 10
    assert counts[-1] == 0


def test_small_things_are_small(street):
    cone = empty_but(street, actor(np.random.default_rng(4), "movable_object.trafficcone", 25.0, 0.0))
    truck = empty_but(street, actor(np.random.default_rng(4), "vehicle.truck", 25.0, 0.0))
    assert 3 < (photo_of(cone).owner == 0).sum() < 0.06 * (photo_of(truck).owner == 0).sum()
