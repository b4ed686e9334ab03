"""The pose of a camera against 3-D points when its focal is not known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from scipy.optimize import least_squares

from matcher.geometry.camera import camera_from_focal
from matcher.geometry.focal import focal_from_field_of_view
from matcher.geometry.pnp import (
    AbsolutePoseEstimate,
    estimate_absolute_pose,
    reprojection_errors_px,
)
from matcher.geometry.ransac import RansacOptions
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = ["estimate_pose_and_focal"]

_FIELDS_OF_VIEW_DEG = (100.0, 85.0, 72.0, 62.0, 53.0, 45.0, 38.0, 32.0, 27.0, 22.0)
_SEARCH_POINTS = 1000
_REFINED_POINTS = 3000
_SEARCH_ITERATIONS = 1000


def estimate_pose_and_focal(
    keypoints: FloatArray,
    points: FloatArray,
    size: ImageSize,
    options: RansacOptions,
    *,
    focal_guess: float | None = None,
) -> tuple[AbsolutePoseEstimate, float] | None:
    """Pose and focal of a camera with square pixels, its principal point in the middle, no lens.

    Focals are tried over fields of view of 22 to 100 degrees; the best (by truncated squared
    reprojection errors) is refined together with its pose on its inliers, and the pose is estimated
    once more with it.

    Args:
        keypoints: (M, 2) pixels.
        points: (M, 3).
        size: of the photograph, pixels.
        options: the threshold is a reprojection error in pixels.
        focal_guess: pixels; tried beside the others.

    Returns:
        The estimate and the focal in pixels, or ``None`` where no focal gives a pose.
    """
    random = np.random.default_rng(options.seed)
    rows = random.permutation(len(points))[:_SEARCH_POINTS]
    pixels, world = keypoints[rows], points[rows]
    quick = replace(
        options, max_iterations=min(_SEARCH_ITERATIONS, options.max_iterations), min_iterations=100
    )
    # A wrong focal leaves large errors: inliers are gathered generously before it is refined.
    loose = replace(quick, max_error_px=4 * options.max_error_px)
    tried = []
    focals = [focal_from_field_of_view(size, angle) for angle in _FIELDS_OF_VIEW_DEG]
    for focal in focals if focal_guess is None else [focal_guess, *focals]:
        camera = camera_from_focal(focal, size)
        found = estimate_absolute_pose(pixels, world, camera, loose)
        if found is not None:
            refined = _refine(
                pixels, world, camera, found, options.max_error_px, _SEARCH_POINTS // 4
            )
            tried.append((_cost(pixels, world, *refined, options.max_error_px), refined))
    if not tried:
        return None
    camera, _ = min(tried, key=lambda entry: entry[0])[1]
    estimate = estimate_absolute_pose(keypoints, points, camera, options)
    if estimate is None:
        return None
    camera, pose = _refine(
        keypoints, points, camera, estimate, options.max_error_px, _REFINED_POINTS
    )
    errors = reprojection_errors_px(keypoints, points, camera, pose)
    inliers = errors <= options.max_error_px
    if np.count_nonzero(inliers) < estimate.num_inliers:
        return estimate, camera.focals[0]
    return AbsolutePoseEstimate(pose, inliers), camera.focals[0]


def _refine(
    pixels: FloatArray,
    world: FloatArray,
    camera: Camera,
    found: AbsolutePoseEstimate,
    scale_px: float,
    most: int,
) -> tuple[Camera, Pose]:
    """Pose and focal that fit the inliers (``most`` of them) best, robustly."""
    rows = np.flatnonzero(found.inlier_mask)[:most]
    size = camera.size
    assert size is not None
    start_focal = camera.focals[0]
    pose = found.cam_from_world

    def residuals(values: FloatArray) -> FloatArray:
        rotation = np.asarray(cv2.Rodrigues(values[:3])[0])
        in_camera = world[rows] @ (rotation @ pose.rotation).T + pose.translation + values[3:6]
        # Behind the camera nothing is seen; a small depth makes the step expensive, not invalid.
        depth = np.maximum(in_camera[:, 2:], 1e-6)
        projected = in_camera[:, :2] / depth * start_focal * np.exp(values[6])
        off = projected + np.array(camera.principal_point) - pixels[rows]
        return np.asarray(off.ravel())

    scale = max(float(np.linalg.norm(pose.transform(world[rows]), axis=1).mean()), 1e-6)
    steps = np.array([1.0, 1.0, 1.0, scale, scale, scale, 1.0])
    solution = least_squares(
        residuals, np.zeros(7), x_scale=steps, loss="soft_l1", f_scale=scale_px, max_nfev=50
    ).x
    refined = Pose(
        np.asarray(cv2.Rodrigues(solution[:3])[0]) @ pose.rotation, pose.translation + solution[3:6]
    )
    return camera_from_focal(start_focal * float(np.exp(solution[6])), size), refined


def _cost(
    pixels: FloatArray, world: FloatArray, camera: Camera, pose: Pose, threshold: float
) -> float:
    errors = reprojection_errors_px(pixels, world, camera, pose)
    truncated = np.minimum(np.nan_to_num(errors, nan=threshold), threshold)
    return float(np.mean(truncated**2))
