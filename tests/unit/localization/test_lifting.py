"""3-D points behind pixels: interpolation on surfaces, never across edges; tracked keypoints."""

from __future__ import annotations

import numpy as np
import pytest

from matcher import Camera, ImageSize, InputError, Pose
from matcher.geometry.camera import unproject
from matcher.geometry.pose import axis_angle_to_rotation
from matcher.localization import DepthPoints, MatchArrays, PointmapPoints, TrackedPoints, gather
from matcher.localization.lifting import Lifted

SIZE = ImageSize(60, 80)
CAMERA = Camera.pinhole(70, 72, 39.5, 29.5, SIZE)
POSE = Pose(axis_angle_to_rotation([0.1, 0.3, -0.2]), [0.4, -1.0, 2.0])


def matches_at(reference):
    reference = np.asarray(reference, dtype=np.float64)
    return MatchArrays(reference + 3, reference, np.full(len(reference), 0.5))


def plane_depth(height, width):
    """Depth of a slanted plane, seen by the camera resized to the given shape."""
    y, x = np.mgrid[:height, :width]
    u = ((x + 0.5) * SIZE.width / width - 0.5 - 39.5) / 70
    v = ((y + 0.5) * SIZE.height / height - 0.5 - 29.5) / 72
    return (2 / (1 + 0.3 * u - 0.2 * v)).astype(np.float32)


def plane_points(keypoints):
    u, v = ((np.asarray(keypoints) - [39.5, 29.5]) / [70, 72]).T
    return POSE.inverse.transform(unproject(keypoints, 2 / (1 + 0.3 * u - 0.2 * v), CAMERA))


@pytest.mark.parametrize("shape", [(60, 80), (30, 40), (120, 160)])
def test_a_plane_is_exact_between_pixels_at_any_size(shape):
    keypoints = np.random.default_rng(0).uniform([5, 5], [74, 54], (50, 2))
    source = DepthPoints(plane_depth(*shape), CAMERA, POSE, SIZE)
    lifted = source.lift(matches_at(keypoints))
    assert len(lifted) == 50
    np.testing.assert_allclose(lifted.points, plane_points(keypoints), atol=1e-5)
    np.testing.assert_array_equal(lifted.matches.query, keypoints + 3)


def test_nothing_is_known_across_an_edge_in_a_hole_and_outside():
    depth = np.full((60, 80), 2.0, np.float32)
    depth[:, 40:] = 5
    depth[10:20, 10:20] = 0
    depth[30, 30] = np.nan
    source = DepthPoints(depth, CAMERA, Pose.identity(), SIZE)
    places = [[20, 40], [39.5, 40], [38.9, 40], [41, 40], [15, 15], [30, 30], [-3, 5], [79.4, 5]]
    lifted = source.lift(matches_at(places))
    np.testing.assert_array_equal(
        lifted.matches.reference, [[20, 40], [38.9, 40], [41, 40], [79.4, 5]]
    )
    np.testing.assert_allclose(lifted.points[:, 2], [2, 2, 5, 5])


def test_a_pointmap_is_interpolated_on_its_surface():
    y, x = np.mgrid[:30, :40]
    grid = np.stack([(2 * x + 0.5).ravel(), (2 * y + 0.5).ravel()], axis=1)
    points = plane_points(grid).reshape(30, 40, 3).astype(np.float32)
    points[:, 30:] += 10
    to_photograph = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1.0]])
    source = PointmapPoints(points, to_photograph, POSE.inverse.translation)
    keypoints = np.array([[10.0, 10], [20.3, 31.7], [59.5, 20], [57, 20]])
    lifted = source.lift(matches_at(keypoints))
    np.testing.assert_array_equal(lifted.matches.reference, keypoints[[0, 1, 3]])
    # A plane's points are not linear in the pixels, but nearly over one pixel.
    np.testing.assert_allclose(lifted.points, plane_points(keypoints[[0, 1, 3]]), atol=2e-3)


def test_depth_of_another_aspect_is_refused():
    with pytest.raises(InputError, match=r"photograph \(80 x 60\), got 80 x 80"):
        DepthPoints(np.ones((80, 80), np.float32), CAMERA, POSE, SIZE)
    with pytest.raises(InputError, match=r"shape \(H, W\)"):
        DepthPoints(np.ones((60, 80, 1), np.float32), CAMERA, POSE, SIZE)


def test_a_tracked_keypoint_is_carried_over_by_the_matches_around():
    y, x = np.mgrid[2:60:4, 2:80:4]
    reference = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    linear, shift = np.array([[1.2, 0.1], [-0.2, 0.9]]), np.array([7.0, -3.0])
    matches = MatchArrays(reference @ linear + shift, reference, np.ones(len(reference)))
    random = np.random.default_rng(1)
    keypoints = random.uniform([10, 10], [70, 50], (40, 2))
    points = random.normal(size=(40, 3))
    lifted = TrackedPoints(keypoints, points, 8, 1).lift(matches)
    assert len(lifted) == 40
    np.testing.assert_allclose(lifted.matches.query, keypoints @ linear + shift, atol=1e-9)
    np.testing.assert_array_equal(lifted.points, points)


def test_matches_that_disagree_carry_nothing():
    y, x = np.mgrid[2:60:4, 2:80:4]
    reference = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    torn = reference + np.where(reference[:, :1] < 40, 0, [30.0, 0.0])
    matches = MatchArrays(torn, reference, np.ones(len(reference)))
    keypoints = np.array([[12.0, 30.0], [40.0, 30.0], [66.0, 30.0]])
    lifted = TrackedPoints(keypoints, np.eye(3), 8, 0.5).lift(matches)
    np.testing.assert_allclose(lifted.matches.query, [[12, 30], [96, 30]], atol=1e-9)
    np.testing.assert_array_equal(lifted.points, np.eye(3)[[0, 2]])


def test_a_lonely_match_counts_only_close_by():
    matches = matches_at([[20.0, 20.0], [60.0, 40.0]])
    keypoints = np.array([[20.6, 20.0], [62.0, 40.0]])
    lifted = TrackedPoints(keypoints, np.eye(3)[:2], 8, 1).lift(matches)
    np.testing.assert_array_equal(lifted.matches.query, [[23, 23]])
    np.testing.assert_array_equal(lifted.matches.reference, [[20.6, 20.0]])


def test_nothing_gives_nothing():
    none = matches_at(np.zeros((0, 2)))
    for source in (
        DepthPoints(plane_depth(60, 80), CAMERA, POSE, SIZE),
        PointmapPoints(np.zeros((3, 4, 3), np.float32), np.eye(3), np.zeros(3)),
        TrackedPoints(np.zeros((1, 2)), np.zeros((1, 3)), 8, 1),
    ):
        assert len(source.lift(none)) == 0
    assert (
        len(TrackedPoints(np.zeros((0, 2)), np.zeros((0, 3)), 8, 1).lift(matches_at([[1, 1]]))) == 0
    )
    assert len(gather([])) == 0


def test_repeated_correspondences_count_once_and_the_surest_stays():
    query = np.array([[10.0, 10], [50, 20], [30, 40]])
    points = np.array([[0.0, 0, 5], [1, 0, 6], [0, 1, 7]])

    def seen(offset, confidence):
        arrays = MatchArrays(query + offset, query, np.full(3, confidence))
        return Lifted(arrays, points + offset / 1000)

    found = gather([seen(0.1, 0.4), seen(-0.1, 0.9), Lifted.empty()])
    assert len(found) == 3
    np.testing.assert_array_equal(found.reference, [1, 1, 1])
    moved = Lifted(MatchArrays(query, query, np.ones(3)), points + 1)
    both = gather([seen(0.1, 0.4), moved])
    np.testing.assert_array_equal(both.reference, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(both.select(both.reference == 1).points, points + 1)
