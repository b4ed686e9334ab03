"""Poses: their errors, their quaternions, and what an essential matrix says about them."""

from __future__ import annotations

from typing import Any

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation

from matcher.errors import InputError
from matcher.structures import FloatArray, Pose

__all__ = [
    "axis_angle_to_rotation",
    "essential_from_pose",
    "pose_from_essential",
    "quaternion_to_rotation",
    "rotation_error_deg",
    "rotation_to_axis_angle",
    "rotation_to_quaternion",
    "translation_error_deg",
    "unit_pose",
]

# Which of the four motions of an essential matrix is the true one is a vote; so many voters do.
_MOST_VOTERS = 500


def rotation_error_deg(estimated: npt.ArrayLike, expected: npt.ArrayLike) -> float:
    """Angle between two (3, 3) rotations, degrees in [0, 180]."""
    a, b = _as_rotation("estimated", estimated), _as_rotation("expected", expected)
    return float(np.degrees(Rotation.from_matrix(a.T @ b).magnitude()))


def translation_error_deg(
    estimated: npt.ArrayLike, expected: npt.ArrayLike, *, sign_blind: bool = False
) -> float:
    """Angle between the directions of two (3,) translations.

    Args:
        estimated: (3,) translation.
        expected: (3,) translation.
        sign_blind: take the smaller of the angle and 180 degrees minus it, as the pose benchmarks
            of the field do, because an essential matrix alone does not tell the sign.

    Returns:
        Degrees in [0, 180] (in [0, 90] if ``sign_blind``); NaN if one of the two has no length.
    """
    a = np.asarray(estimated, dtype=np.float64).reshape(-1)
    b = np.asarray(expected, dtype=np.float64).reshape(-1)
    if a.shape != (3,) or b.shape != (3,):
        raise InputError("translation", "shape (3,)", f"{a.shape} and {b.shape}")
    if not np.linalg.norm(a) * np.linalg.norm(b) > 0:
        return float("nan")
    # atan2 keeps its digits near 0 and 180 degrees, where the arc cosine loses half of them.
    angle = float(np.degrees(np.arctan2(np.linalg.norm(np.cross(a, b)), a @ b)))
    return min(angle, 180.0 - angle) if sign_blind else angle


def rotation_to_quaternion(rotation: npt.ArrayLike) -> FloatArray:
    """(4,) unit quaternion w, x, y, z (Hamilton, COLMAP's order) of a (3, 3) rotation, w >= 0."""
    matrix = torch.from_numpy(_as_rotation("rotation", rotation))
    quaternion: FloatArray = kornia_geometry.rotation_matrix_to_quaternion(matrix).numpy()
    return -quaternion if quaternion[0] < 0 else quaternion


def quaternion_to_rotation(quaternion: npt.ArrayLike) -> FloatArray:
    """(3, 3) rotation of a (4,) quaternion w, x, y, z of any length but zero."""
    array = np.asarray(quaternion, dtype=np.float64)
    if array.shape != (4,) or not np.isfinite(array).all() or not np.linalg.norm(array) > 0:
        raise InputError("quaternion", "four finite numbers w, x, y, z, not all 0", f"{array}")
    unit = torch.from_numpy(array / np.linalg.norm(array))
    rotation: FloatArray = kornia_geometry.quaternion_to_rotation_matrix(unit).numpy()
    return rotation


def rotation_to_axis_angle(rotation: npt.ArrayLike) -> FloatArray:
    """(3,) rotation axis times the angle in radians."""
    matrix = torch.from_numpy(_as_rotation("rotation", rotation))
    vector: FloatArray = kornia_geometry.rotation_matrix_to_axis_angle(matrix[None])[0].numpy()
    return vector


def axis_angle_to_rotation(axis_angle: npt.ArrayLike) -> FloatArray:
    """(3, 3) rotation about a (3,) axis by its length in radians."""
    vector = np.array(axis_angle, dtype=np.float64)
    if vector.shape != (3,) or not np.isfinite(vector).all():
        raise InputError("axis_angle", "three finite numbers", f"{vector}")
    rotation: FloatArray = kornia_geometry.axis_angle_to_rotation_matrix(
        torch.from_numpy(vector)[None]
    )[0].numpy()
    return rotation


def essential_from_pose(cam1_from_cam0: Pose) -> FloatArray:
    """(3, 3) essential matrix E with ``ray1.T @ E @ ray0 = 0``."""
    skew = kornia_geometry.vector_to_skew_symmetric_matrix(
        torch.tensor(cam1_from_cam0.translation)[None]
    )
    essential: FloatArray = skew[0].numpy() @ cam1_from_cam0.rotation
    return essential


def pose_from_essential(
    essential: npt.ArrayLike, rays0: npt.ArrayLike, rays1: npt.ArrayLike
) -> Pose | None:
    """The motion of an essential matrix that puts most points in front of both cameras.

    Args:
        essential: (3, 3).
        rays0: (M, 2) normalized coordinates x / z, y / z in camera 0 of the inliers.
        rays1: (M, 2) the same in camera 1.

    Returns:
        ``cam1_from_cam0`` with a translation of length 1, or ``None`` if no point is in front.
    """
    stride = max(1, len(np.asarray(rays0)) // _MOST_VOTERS)
    voters = [
        torch.from_numpy(np.asarray(rays, dtype=np.float64)[::stride].copy())
        for rays in (rays0, rays1)
    ]
    if not len(voters[0]):
        return None
    identity = torch.eye(3, dtype=torch.float64)
    rotation, translation, _, in_front = kornia_geometry.motion_from_essential_choose_solution(
        torch.from_numpy(np.array(essential, dtype=np.float64)), identity, identity, *voters
    )
    if int(in_front) == 0 or not bool(torch.isfinite(rotation).all()):
        return None
    return Pose(rotation.numpy(), translation.numpy())


def unit_pose(rotation: npt.NDArray[Any], translation: npt.NDArray[Any]) -> Pose | None:
    """A solver's (3, 3) rotation and (3,) translation, the latter brought to length 1.

    ``None`` if it has no length, or something is not finite.
    """
    length = float(np.linalg.norm(translation))
    if not (np.isfinite(rotation).all() and np.isfinite(length) and length > 0):
        return None
    return Pose(rotation.astype(np.float64), (translation / length).astype(np.float64))


def _as_rotation(name: str, value: npt.ArrayLike) -> FloatArray:
    matrix = np.array(value, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError(name, "a finite rotation of shape (3, 3)", f"{matrix.shape}")
    return matrix
