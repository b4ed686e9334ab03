from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.camera import project
from matcher.geometry.essential import estimate_essential
from matcher.geometry.planes import depth_disagreement, settle_planes
from matcher.geometry.pose import rotation_error_deg
from matcher.geometry.ransac import RansacOptions
from matcher.geometry.relative import RelativePoseOptions, estimate_relative_pose
from matcher.geometry.triangulation import triangulate
from matcher.structures import Camera, ImageSize

OPTIONS = RansacOptions(max_iterations=1000)
FLOOR = (0.0, 0.2, 0.1)  # 5 in front of the camera and more
MOTION = {"rotation": (0.05, -0.5, 0.1), "translation": (0.5, -1.0, 2.0)}
SEEDS = range(12)
RADIAL = Camera("SIMPLE_RADIAL", (500, 319.5, 239.5, -0.1), ImageSize(480, 640))


def ends(views):
    return views.keypoints0, views.keypoints1


def found(views):
    estimate = estimate_essential(*ends(views), views.camera0, views.camera1, OPTIONS)
    assert estimate is not None
    return estimate


def rotation_error(views, estimate):
    return rotation_error_deg(estimate.cam1_from_cam0.rotation, views.cam1_from_cam0.rotation)


def guessed(views, seed=0, error=0.1):
    """Depth as a network knows it: in a unit of its own, and off by a tenth."""
    noise = np.random.default_rng(seed).normal(0, error, len(views.points0))
    return 0.3 * views.points0[:, 2] * np.exp(noise)


@pytest.mark.parametrize("cameras", [{}, {"camera0": RADIAL, "camera1": RADIAL}])
def test_depth_finds_the_motion_that_a_plane_leaves_open(make_two_views, cameras):
    alone, with_depth = [], []
    for seed in SEEDS:
        views = make_two_views(seed, noise_px=0.5, outliers=0.3, plane=FLOOR, **MOTION, **cameras)
        estimate = found(views)
        chosen = settle_planes(*ends(views), estimate, OPTIONS, guessed(views, seed))
        alone.append(rotation_error(views, estimate))
        with_depth.append(rotation_error(views, chosen))
        assert chosen.num_inliers >= 0.9 * estimate.num_inliers
        assert np.linalg.norm(chosen.cam1_from_cam0.translation) == pytest.approx(1)
    assert np.max(alone) > 20  # some are the twin: otherwise nothing would be tested
    assert np.max(with_depth) < 5


def test_of_a_plane_depth_is_believed_and_of_a_room_not(make_two_views):
    plane = make_two_views(1, noise_px=0.5, plane=FLOOR, **MOTION)
    twin = found(plane)
    assert rotation_error(plane, twin) > 20
    points = triangulate(*ends(plane), plane.camera0, plane.camera1, twin.cam1_from_cam0)
    right = settle_planes(*ends(plane), twin, OPTIONS, guessed(plane))
    assert rotation_error(plane, right) < 2
    back = settle_planes(*ends(plane), right, OPTIONS, points[:, 2])
    assert rotation_error(plane, back) > 20

    room = make_two_views(1, noise_px=0.5, **MOTION)
    estimate = found(room)
    assert settle_planes(*ends(room), estimate, OPTIONS, points[:, 2]) is estimate


def test_a_room_keeps_its_pose(make_two_views):
    for seed in SEEDS:
        views = make_two_views(seed, noise_px=0.5, outliers=0.5, **MOTION)
        estimate = found(views)
        assert settle_planes(*ends(views), estimate, OPTIONS, guessed(views)) is estimate


@pytest.mark.parametrize("depth", [np.nan, np.inf, -1.0, 0.0])
def test_depth_that_says_nothing_changes_nothing(make_two_views, depth):
    views = make_two_views(1, noise_px=0.5, plane=FLOOR, **MOTION)
    estimate = found(views)
    depths = np.full(len(views.keypoints0), depth)
    chosen = settle_planes(*ends(views), estimate, OPTIONS, depths)
    without = settle_planes(*ends(views), estimate, OPTIONS)
    np.testing.assert_array_equal(chosen.cam1_from_cam0.matrix, without.cam1_from_cam0.matrix)


def test_the_motion_of_a_plane_is_known_better_by_its_homography(make_two_views):
    by_lines, by_plane = [], []
    for seed in SEEDS:
        views = make_two_views(
            seed,
            noise_px=0.5,
            outliers=0.3,
            plane=(0.03, 0.1, 0.15),
            rotation=(0.02, -0.1, 0.0),
            translation=(-2.0, 0.3, 0.2),
        )
        estimate = found(views)
        settled = settle_planes(*ends(views), estimate, OPTIONS)
        by_lines.append(rotation_error(views, estimate))
        by_plane.append(rotation_error(views, settled))
        assert settled.num_inliers >= 0.97 * estimate.num_inliers
    assert max(by_lines) < 1  # nobody met the other motion
    assert np.mean(by_plane) < 0.7 * np.mean(by_lines)


def test_low_relief_is_no_plane(make_two_views):
    flat = make_two_views(0, plane=FLOOR, **MOTION)
    # Bumps of a hundredth of the depth: a homography holds to within its tolerance.
    height = 1 + 0.01 * np.random.default_rng(0).uniform(-1, 1, len(flat.points0))
    relief = flat.cam1_from_cam0.transform(flat.points0 * height[:, None])
    keypoints1 = project(relief, flat.camera1)
    assert np.abs(keypoints1 - flat.keypoints1).max() < 2.5
    bumpy = replace(flat, keypoints1=keypoints1)
    estimate = found(bumpy)
    assert rotation_error(bumpy, estimate) < 1e-3
    assert settle_planes(*ends(bumpy), estimate, OPTIONS) is estimate


def test_relative_pose_asks_the_pointmap(make_two_views):
    worst = {False: 0.0, True: 0.0}
    for seed in SEEDS:
        views = make_two_views(seed, noise_px=0.5, outliers=0.3, plane=FLOOR, **MOTION)
        points = views.points0 * (guessed(views, seed) / views.points0[:, 2])[:, None]
        for with_points in worst:
            answer = estimate_relative_pose(
                *ends(views),
                camera0=views.camera0,
                camera1=views.camera1,
                size0=views.size0,
                size1=views.size1,
                options=RelativePoseOptions(max_iterations=1000),
                # Out of order on purpose: depths must stay with their matches.
                confidence=np.random.default_rng(seed).uniform(size=len(points)),
                points0=points if with_points else None,
            )
            assert answer.cam1_from_cam0 is not None
            assert answer.method == "essential"
            worst[with_points] = max(worst[with_points], rotation_error(views, answer))
    assert worst[False] > 20
    assert worst[True] < 5


def test_disagreement_does_not_depend_on_the_unit():
    depths = np.random.default_rng(0).uniform(1, 9, 400)
    assert depth_disagreement(depths, 7 * depths) == pytest.approx(0, abs=1e-12)
    off = depths * np.where(np.arange(400) % 2, 1.1, 1 / 1.1)
    assert depth_disagreement(off, depths) == pytest.approx(np.log(1.1))
    some = np.where(np.arange(400) < 393, np.nan, depths)
    assert depth_disagreement(some, depths) == np.inf


def test_one_depth_a_match(make_two_views):
    views = make_two_views(plane=FLOOR, **MOTION)
    with pytest.raises(InputError, match=r"depths0: expected shape \(300,\), got \(299,\)"):
        settle_planes(*ends(views), found(views), OPTIONS, np.ones(299))
