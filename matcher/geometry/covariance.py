"""How sure an absolute pose is: the covariance that its correspondences leave.

A pose is changed by a small rotation ``w`` (axis times angle, radians) and a small shift ``v``,
both in the camera's frame: ``rotation = exp(w) @ rotation``, ``translation = translation + v``. All
covariances here are of the six numbers ``(w_x, w_y, w_z, v_x, v_y, v_z)``, in this order.
"""

from __future__ import annotations

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch

from matcher.geometry.camera import undistort_keypoints, undistorted_camera
from matcher.geometry.pnp import reprojection_errors_px
from matcher.geometry.ransac import finite_rows
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["center_covariance", "pose_covariance"]

_PARAMETERS = 6
# Above this condition number (of the normal equations in units of the scene's depth) some motion
# of the camera changes no pixel.
_WORST_CONDITION = 1e14


def pose_covariance(
    keypoints: npt.ArrayLike, points: npt.ArrayLike, camera: Camera, cam_from_world: Pose
) -> FloatArray | None:
    """The covariance of a camera's pose against 3-D points, from the Jacobian at the solution.

    The noise of the keypoints is taken to be independent and equal, and is measured by their own
    reprojection errors; the points count as exact. Correspondences that share their errors (one
    depth map seen by many) make the true uncertainty larger.

    Args:
        keypoints: (M, 2) pixels of the inliers, as photographed. Rows with NaN are passed over.
        points: (M, 3) in the world's frame.
        camera: intrinsics.
        cam_from_world: the pose that fits them.

    Returns:
        (6, 6), rotation in radians then translation in the unit of the points, both in the
        camera's frame (the module says how); ``None`` with fewer than 4 correspondences in front
        of the camera, or where these leave the pose open.
    """
    _, (pixels, world) = finite_rows(("keypoints", keypoints, 2), ("points", points, 3))
    pinhole = undistorted_camera(camera)
    pixels = undistort_keypoints(pixels, camera)
    # NaN where the point is behind the camera, or the lens has no inverse there.
    errors = reprojection_errors_px(
        np.nan_to_num(pixels), world, pinhole, cam_from_world
    ) + 0 * pixels.sum(axis=1)
    used = np.isfinite(errors)
    degrees_of_freedom = 2 * np.count_nonzero(used) - _PARAMETERS
    if degrees_of_freedom < 2:
        return None
    in_camera = cam_from_world.transform(world[used])
    jacobian = _projection_jacobian(in_camera, cam_from_world.translation, pinhole)
    # Rotations and shifts on one footing: a shift in units of the scene's depth.
    depth = float(np.median(in_camera[:, 2]))
    units = np.array([1.0] * 3 + [depth] * 3)
    scaled = jacobian * units
    normal = scaled.T @ scaled
    if not np.isfinite(normal).all() or np.linalg.cond(normal) > _WORST_CONDITION:
        return None
    variance = float(np.sum(errors[used] ** 2)) / degrees_of_freedom
    covariance: FloatArray = variance * np.linalg.inv(normal) * np.outer(units, units)
    return (covariance + covariance.T) / 2


def center_covariance(cam_from_world: Pose, covariance: npt.ArrayLike) -> FloatArray:
    """(3, 3) covariance of where the camera stands, world frame, from the pose's (6, 6)."""
    # center = -rotation.T @ translation; to first order it moves by
    # -rotation.T @ (v + cross(translation, w)).
    world_from_cam = cam_from_world.rotation.T
    jacobian = np.concatenate(
        [-world_from_cam @ _cross_matrices(cam_from_world.translation[None])[0], -world_from_cam],
        axis=1,
    )
    center: FloatArray = jacobian @ np.asarray(covariance, dtype=np.float64) @ jacobian.T
    return center


def _projection_jacobian(
    in_camera: FloatArray, translation: FloatArray, camera: Camera
) -> FloatArray:
    """(2 M, 6) derivatives of pixels by the six numbers, for (M, 3) points in the camera's frame.

    ``x = exp(w) @ (rotation @ point) + translation + v``: what turns is the point without the
    translation.
    """
    x, y, z = in_camera.T
    fx, fy = camera.focals
    by_place = np.zeros((len(in_camera), 2, 3))
    by_place[:, 0, 0], by_place[:, 0, 2] = fx / z, -fx * x / z**2
    by_place[:, 1, 1], by_place[:, 1, 2] = fy / z, -fy * y / z**2
    by_rotation = -by_place @ _cross_matrices(in_camera - translation)
    jacobian: FloatArray = np.concatenate([by_rotation, by_place], axis=2).reshape(-1, _PARAMETERS)
    return jacobian


def _cross_matrices(vectors: FloatArray) -> FloatArray:
    """(M, 3, 3) matrices ``[v]`` with ``[v] @ u = cross(v, u)``."""
    matrices: FloatArray = kornia_geometry.vector_to_skew_symmetric_matrix(
        torch.from_numpy(np.array(vectors, dtype=np.float64))
    ).numpy()
    return matrices
