from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from matcher.errors import InputError
from matcher.geometry.pose import (
    axis_angle_to_rotation,
    essential_from_pose,
    pose_from_essential,
    quaternion_to_rotation,
    rotation_error_deg,
    rotation_to_axis_angle,
    rotation_to_quaternion,
    translation_error_deg,
)


@pytest.mark.parametrize("angle_deg", [0.0, 1e-5, 0.5, 37.0, 179.9999])
def test_rotation_error_is_the_angle(angle_deg):
    start = Rotation.from_rotvec([0.3, -0.2, 0.9]).as_matrix()
    turn = Rotation.from_rotvec(np.radians(angle_deg) * np.array([0.6, 0.0, 0.8])).as_matrix()
    assert rotation_error_deg(turn @ start, start) == pytest.approx(angle_deg, abs=1e-9)


def test_translation_error_signed_and_sign_blind():
    assert translation_error_deg([1, 0, 0], [0, 5, 0]) == pytest.approx(90)
    assert translation_error_deg([1, 0, 0], [-3, 0, 0]) == pytest.approx(180)
    assert translation_error_deg([1, 0, 0], [-3, 0, 0], sign_blind=True) == pytest.approx(0)
    tilted = [np.cos(np.radians(170)), np.sin(np.radians(170)), 0]
    assert translation_error_deg([1, 0, 0], tilted) == pytest.approx(170)
    assert translation_error_deg([1, 0, 0], tilted, sign_blind=True) == pytest.approx(10)
    assert np.isnan(translation_error_deg([0, 0, 0], [1, 0, 0]))


@pytest.mark.parametrize("seed", range(5))
def test_conversions_agree_with_scipy_and_invert(seed):
    rotation = Rotation.random(random_state=seed)
    matrix = rotation.as_matrix()
    quaternion = rotation_to_quaternion(matrix)
    expected = np.roll(rotation.as_quat(canonical=True), 1)
    np.testing.assert_allclose(quaternion, expected, atol=1e-12)
    np.testing.assert_allclose(quaternion_to_rotation(-3 * quaternion), matrix, atol=1e-12)
    axis_angle = rotation_to_axis_angle(matrix)
    np.testing.assert_allclose(axis_angle, rotation.as_rotvec(), atol=1e-9)
    np.testing.assert_allclose(axis_angle_to_rotation(axis_angle), matrix, atol=1e-9)


def test_pose_from_essential(make_two_views):
    views = make_two_views(matches=40)
    center, focal = np.array(views.camera0.principal_point), views.camera0.focals[0]
    rays = [(keypoints - center) / focal for keypoints in (views.keypoints0, views.keypoints1)]
    # E is known up to scale and sign, with four motions: only one is in front of both cameras.
    pose = pose_from_essential(-2 * essential_from_pose(views.cam1_from_cam0), *rays)
    assert pose is not None
    assert rotation_error_deg(pose.rotation, views.cam1_from_cam0.rotation) < 1e-5
    assert translation_error_deg(pose.translation, views.cam1_from_cam0.translation) < 1e-5


@pytest.mark.parametrize(
    ("convert", "value"),
    [
        (quaternion_to_rotation, [0, 0, 0, 0]),
        (quaternion_to_rotation, [1, 0, 0]),
        (axis_angle_to_rotation, [0, np.nan, 0]),
        (rotation_to_quaternion, np.eye(4)),
    ],
)
def test_bad_values(convert, value):
    with pytest.raises(InputError):
        convert(value)
