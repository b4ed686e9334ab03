"""3-D points from two views."""

from __future__ import annotations

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch

from matcher.geometry.camera import bearing_vectors, normalize
from matcher.geometry.ransac import finite_rows
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["triangulate", "triangulation_angles_deg"]


def triangulate(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    camera0: Camera,
    camera1: Camera,
    cam1_from_cam0: Pose,
) -> FloatArray:
    """Where the viewing rays of correspondences meet (direct linear transform).

    Args:
        keypoints0: (M, 2) pixels in image 0.
        keypoints1: (M, 2) pixels in image 1.
        camera0: intrinsics of image 0.
        camera1: intrinsics of image 1.
        cam1_from_cam0: relative pose; the points come in the unit of its translation.

    Returns:
        (M, 3) in camera 0's frame; NaN for a point at infinity or behind one of the cameras.
    """
    rays0, rays1 = normalize(keypoints0, camera0), normalize(keypoints1, camera1)
    usable, _ = finite_rows(("keypoints0", rays0, 2), ("keypoints1", rays1, 2))
    points = np.full((len(usable), 3), np.nan)
    if not usable.any():
        return points
    # "svd" because a short baseline makes the system ill-conditioned, where "eigh" loses digits.
    points[usable] = kornia_geometry.triangulate_points(
        torch.eye(3, 4, dtype=torch.float64)[None],
        torch.from_numpy(cam1_from_cam0.matrix[:3])[None],
        torch.from_numpy(rays0[usable])[None],
        torch.from_numpy(rays1[usable])[None],
        solver="svd",
    )[0].numpy()
    behind = ~((points[:, 2] > 0) & (cam1_from_cam0.transform(points)[:, 2] > 0))
    points[behind] = np.nan
    return points


def triangulation_angles_deg(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    camera0: Camera,
    camera1: Camera,
    cam1_from_cam0: Pose,
) -> FloatArray:
    """(M,) angles between the two viewing rays of each correspondence, degrees."""
    bearings0 = bearing_vectors(keypoints0, camera0) @ cam1_from_cam0.rotation.T
    bearings1 = bearing_vectors(keypoints1, camera1)
    sine = np.linalg.norm(np.cross(bearings0, bearings1), axis=1)
    cosine = np.sum(bearings0 * bearings1, axis=1)
    angles: FloatArray = np.degrees(np.arctan2(sine, cosine))
    return angles
