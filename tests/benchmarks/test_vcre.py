"""Virtual correspondences against cases computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.metrics.vcre import vcre_px, virtual_points
from matcher.geometry.pose import axis_angle_to_rotation
from matcher.structures import Camera, ImageSize, Pose

SIZE = ImageSize(720, 540)
CAMERA = Camera.pinhole(600.0, 600.0, 269.5, 359.5, SIZE)
# The whole box is far inside this one, so that nothing is clamped.
WIDE = ImageSize(8000, 8000)
WIDE_CAMERA = Camera.pinhole(600.0, 600.0, 3999.5, 3999.5, WIDE)
TURNED = Pose(axis_angle_to_rotation([0.2, -0.4, 0.1]), np.array([0.5, -0.1, 0.3]))
MEAN_INVERSE_DEPTH = np.mean([1 / 1.8, 1 / 2.1, 1 / 2.4, 1 / 2.7, 1 / 3.0, 1 / 3.3, 1 / 3.6])


def shifted(pose: Pose, offset: list[float]) -> Pose:
    return Pose(pose.rotation, pose.translation + np.array(offset))


def test_box_has_seven_by_four_by_seven_points_from_1_8_metres_on() -> None:
    points = virtual_points()
    assert points.shape == (196, 3)
    np.testing.assert_allclose(points.min(axis=0), [-0.9, -0.45, 1.8])
    np.testing.assert_allclose(points.max(axis=0), [0.9, 0.45, 3.6])
    np.testing.assert_allclose(np.unique(points[:, 1].round(9)), [-0.45, -0.15, 0.15, 0.45])


def test_same_pose_has_no_error() -> None:
    assert vcre_px(TURNED, TURNED, CAMERA, SIZE) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("offset", [[0.1, 0.0, 0.0], [0.0, -0.1, 0.0], [0.06, 0.08, 0.0]])
def test_sideways_shift_moves_a_point_by_focal_times_shift_over_depth(offset: list[float]) -> None:
    expected = 600 * 0.1 * MEAN_INVERSE_DEPTH  # 23.8 px
    error = vcre_px(shifted(TURNED, offset), TURNED, WIDE_CAMERA, WIDE)
    assert error == pytest.approx(expected, rel=1e-9)


def test_scale_of_the_translation_matters_in_the_cameras_frame() -> None:
    doubled = Pose(TURNED.rotation, 2 * TURNED.translation)
    point = virtual_points() + TURNED.translation
    seen = 600 * virtual_points()[:, :2] / virtual_points()[:, 2:]
    drawn = 600 * point[:, :2] / point[:, 2:]
    expected = np.linalg.norm(drawn - seen, axis=1).mean()
    assert vcre_px(doubled, TURNED, WIDE_CAMERA, WIDE) == pytest.approx(expected, rel=1e-9)


def test_points_outside_are_clamped_to_the_border() -> None:
    # Narrow enough a box: f = 200 keeps every true point inside, so that the mean column is cx.
    camera = Camera.pinhole(200.0, 200.0, 269.5, 359.5, SIZE)
    error = vcre_px(shifted(TURNED, [1e6, 0.0, 0.0]), TURNED, camera, SIZE)
    assert error == pytest.approx(539 - 269.5, rel=1e-6)


def test_points_behind_the_camera_count_the_diagonal() -> None:
    behind = shifted(TURNED, [0.0, 0.0, -10.0])
    assert vcre_px(behind, TURNED, CAMERA, SIZE) == pytest.approx(900.0)


def test_box_stands_before_the_query_not_the_reference() -> None:
    # A turn about the reference, 5 m behind the query, swings the box about that point.
    turn = Pose(axis_angle_to_rotation([0.0, 0.1, 0.0]), np.zeros(3))
    away = Pose(np.eye(3), np.array([0.0, 0.0, -5.0]))
    box = virtual_points()
    offset = np.array([0.0, 0.0, 5.0])
    swung = (box + offset) @ turn.rotation.T - offset
    moved = 600 * (swung[:, :2] / swung[:, 2:] - box[:, :2] / box[:, 2:])
    expected = np.linalg.norm(moved, axis=1).mean()
    assert expected > 150  # about the query itself it would be 64
    assert vcre_px(away @ turn, away, WIDE_CAMERA, WIDE) == pytest.approx(expected, rel=1e-9)
