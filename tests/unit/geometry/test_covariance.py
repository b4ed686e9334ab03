"""The covariance of an absolute pose against repeated estimates from noisy keypoints."""

from __future__ import annotations

import numpy as np
import pytest

from matcher.geometry.camera import project
from matcher.geometry.covariance import center_covariance, pose_covariance
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.pose import axis_angle_to_rotation, rotation_to_axis_angle
from matcher.geometry.ransac import RansacOptions
from matcher.structures import Camera, ImageSize, Pose

CAMERA = Camera.pinhole(500, 520, 320, 240, ImageSize(480, 640))
POSE = Pose(axis_angle_to_rotation([0.2, -0.4, 0.1]), [0.7, -0.3, 1.2])
NOISE_PX = 0.7


def scene(count=120, seed=3):
    random = np.random.default_rng(seed)
    in_camera = random.uniform([-1.5, -1.0, 3.0], [1.5, 1.0, 6.0], (count, 3))
    return POSE.inverse.transform(in_camera)


def test_it_agrees_with_monte_carlo():
    points = scene()
    exact = project(POSE.transform(points), CAMERA)
    random = np.random.default_rng(0)
    offsets, centers, predicted = [], [], []
    for _ in range(300):
        keypoints = exact + random.normal(0, NOISE_PX, exact.shape)
        found = estimate_absolute_pose(
            keypoints,
            points,
            CAMERA,
            RansacOptions(max_error_px=50, max_iterations=10, min_iterations=1),
        )
        pose = found.cam_from_world
        offsets.append(
            np.concatenate(
                [
                    rotation_to_axis_angle(pose.rotation @ POSE.rotation.T),
                    pose.translation - POSE.translation,
                ]
            )
        )
        centers.append(pose.inverse.translation)
        predicted.append(pose_covariance(keypoints, points, CAMERA, pose))
    measured = np.cov(np.array(offsets).T)
    mean = np.mean(predicted, axis=0)
    # 300 draws know a standard deviation to 4 %, and the final refinement is robust: a little
    # noisier than least squares.
    np.testing.assert_allclose(np.sqrt(np.diag(measured)), np.sqrt(np.diag(mean)), rtol=0.15)
    scale = np.sqrt(np.outer(np.diag(mean), np.diag(mean)))
    np.testing.assert_allclose(measured / scale, mean / scale, atol=0.25)
    moved = np.cov(np.array(centers).T)
    np.testing.assert_allclose(
        np.sqrt(np.diag(moved)), np.sqrt(np.diag(center_covariance(POSE, mean))), rtol=0.15
    )


def test_more_correspondences_make_it_surer():
    few, many = scene(50), scene(5000)
    random = np.random.default_rng(1)
    widths = []
    for points in (few, many):
        keypoints = project(POSE.transform(points), CAMERA)
        keypoints = keypoints + random.normal(0, NOISE_PX, keypoints.shape)
        widths.append(np.sqrt(np.diag(pose_covariance(keypoints, points, CAMERA, POSE))))
    assert widths[0] / widths[1] == pytest.approx(np.full(6, 10), rel=0.35)


def test_an_exact_fit_is_sure():
    points = scene()
    covariance = pose_covariance(project(POSE.transform(points), CAMERA), points, CAMERA, POSE)
    assert np.abs(covariance).max() < 1e-20


def test_the_lens_is_removed_first():
    camera = Camera("OPENCV", (500, 520, 320, 240, -0.2, 0.05, 0.001, -0.002), CAMERA.size)
    points = scene()
    covariance = pose_covariance(project(POSE.transform(points), camera), points, camera, POSE)
    assert np.abs(covariance).max() < 1e-12


@pytest.mark.parametrize("case", ["three", "behind", "line", "nan"])
def test_what_leaves_the_pose_open_has_no_covariance(case):
    points = scene(40)
    keypoints = project(POSE.transform(points), CAMERA) + 0.5
    if case == "three":
        keypoints, points = keypoints[:3], points[:3]
    elif case == "behind":
        points = POSE.inverse.transform(-POSE.transform(points))
    elif case == "nan":
        points = np.full_like(points, np.nan)
    else:
        start, step = points[0], points[1] - points[0]
        points = start + np.linspace(0, 1, 40)[:, None] * step
        keypoints = project(POSE.transform(points), CAMERA)
        keypoints += np.random.default_rng(0).normal(0, 0.1, keypoints.shape)
    assert pose_covariance(keypoints, points, CAMERA, POSE) is None
