"""Absolute pose from 2-D to 3-D correspondences (perspective-n-point)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from matcher.geometry.camera import project, undistort_keypoints, undistorted_camera
from matcher.geometry.ransac import (
    RansacOptions,
    expand_mask,
    finite_rows,
    poselib_camera,
    poselib_options,
)
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["AbsolutePoseEstimate", "estimate_absolute_pose", "reprojection_errors_px"]

_MIN_MATCHES = 4
# Below this ratio of the second to the first singular value the points are on one line, around
# which the camera could turn freely.
_COLLINEAR_RATIO = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class AbsolutePoseEstimate:
    """A camera's pose against 3-D points.

    Attributes:
        cam_from_world: the pose, in the unit of the points.
        inlier_mask: (M,) bool, correspondences within the threshold.
    """

    cam_from_world: Pose
    inlier_mask: npt.NDArray[np.bool_]

    @property
    def num_inliers(self) -> int:
        """Number of correspondences within the threshold."""
        return int(np.count_nonzero(self.inlier_mask))


def estimate_absolute_pose(
    keypoints: npt.ArrayLike,
    points: npt.ArrayLike,
    camera: Camera,
    options: RansacOptions | None = None,
) -> AbsolutePoseEstimate | None:
    """Pose of a calibrated camera that sees known 3-D points.

    Args:
        keypoints: (M, 2) pixels, as photographed (the lens is removed here).
        points: (M, 3) in the world's frame. Rows with NaN in either array count as outliers.
        camera: intrinsics.
        options: the threshold is a reprojection error in pixels; 5 px (the default here) suits
            pointmaps. ``"poselib"`` is LO-RANSAC over P3P; ``"magsac"`` selects OpenCV, whose
            RANSAC with SQPNP and a final Levenberg-Marquardt is what it has for this problem; it
            draws its samples with a fixed seed of its own.

    Returns:
        The estimate, or ``None`` with fewer than 4 usable correspondences, points on one line, or
        no model.
    """
    options = options or RansacOptions(max_error_px=5.0)
    finite, (pixels, world) = finite_rows(("keypoints", keypoints, 2), ("points", points, 3))
    invertible, (pixels, world) = finite_rows(
        ("keypoints", undistort_keypoints(pixels, camera), 2), ("points", world, 3)
    )
    if len(pixels) < _MIN_MATCHES or _collinear(world):
        return None
    solve = _opencv if options.estimator == "magsac" else _poselib
    pose = solve(pixels, world, undistorted_camera(camera), options)
    if pose is None:
        return None
    errors = reprojection_errors_px(pixels, world, undistorted_camera(camera), pose)
    inliers = errors <= options.max_error_px  # False for NaN: behind the camera
    if np.count_nonzero(inliers) < _MIN_MATCHES:
        return None
    return AbsolutePoseEstimate(pose, expand_mask(finite, expand_mask(invertible, inliers)))


def reprojection_errors_px(
    keypoints: npt.ArrayLike, points: npt.ArrayLike, camera: Camera, cam_from_world: Pose
) -> FloatArray:
    """(M,) distances between keypoints and projected points; NaN behind the camera."""
    projected = project(cam_from_world.transform(points), camera)
    errors: FloatArray = np.linalg.norm(projected - np.asarray(keypoints, dtype=np.float64), axis=1)
    return errors


def _poselib(
    pixels: FloatArray, world: FloatArray, camera: Camera, options: RansacOptions
) -> Pose | None:
    found, _ = poselib.estimate_absolute_pose(
        pixels, world, poselib_camera(camera), poselib_options(options), {}
    )
    if not (np.isfinite(found.R).all() and np.isfinite(found.t).all()):
        return None
    return Pose(found.R, found.t)


def _opencv(
    pixels: FloatArray, world: FloatArray, camera: Camera, options: RansacOptions
) -> Pose | None:
    try:
        found, axis_angle, translation, inliers = cv2.solvePnPRansac(
            world,
            pixels,
            camera.matrix,
            None,
            iterationsCount=options.max_iterations,
            reprojectionError=options.max_error_px,
            confidence=options.confidence,
            flags=cv2.SOLVEPNP_SQPNP,
        )
        if not found or inliers is None or len(inliers) < _MIN_MATCHES:
            return None
        rows = inliers.reshape(-1)
        axis_angle, refined = cv2.solvePnPRefineLM(
            world[rows], pixels[rows], camera.matrix, None, axis_angle, translation
        )
    except cv2.error:  # OpenCV throws where its solver finds no model at all
        return None
    rotation = np.asarray(cv2.Rodrigues(axis_angle)[0], dtype=np.float64)
    translation_vector = np.asarray(refined, dtype=np.float64).reshape(3)
    if not (np.isfinite(rotation).all() and np.isfinite(translation_vector).all()):
        return None
    return Pose(rotation, translation_vector)


def _collinear(points: FloatArray) -> bool:
    singular = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(singular[1] <= _COLLINEAR_RATIO * max(singular[0], np.finfo(np.float64).tiny))
