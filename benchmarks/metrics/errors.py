"""Errors of poses and of matches, for one pair."""

from __future__ import annotations

import math

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import InputError
from matcher.geometry.pose import (
    essential_from_pose,
    rotation_error_deg,
    translation_error_deg,
)
from matcher.structures import FloatArray, Pose, as_keypoints

__all__ = [
    "fundamental_from_pose",
    "matching_precision",
    "pose_errors_deg",
    "symmetric_epipolar_errors_px",
]


def pose_errors_deg(estimated: Pose | None, cam1_from_cam0: npt.ArrayLike) -> tuple[float, float]:
    """Errors of rotation and of the translation's direction, degrees; infinite without a pose.

    The translation's sign is left open (at most 90 degrees), as in the evaluations of SuperGlue and
    LoFTR. Where the truth has no translation, only the rotation counts. The pose error of these
    benchmarks is the larger of the two.

    Args:
        estimated: ``cam1_from_cam0`` of any scale, or ``None``.
        cam1_from_cam0: (4, 4) truth.
    """
    if estimated is None:
        return math.inf, math.inf
    truth = np.asarray(cam1_from_cam0, dtype=np.float64)
    rotation = rotation_error_deg(estimated.rotation, truth[:3, :3])
    if not np.linalg.norm(truth[:3, 3]) > 0:
        return rotation, 0.0
    translation = translation_error_deg(estimated.translation, truth[:3, 3], sign_blind=True)
    return rotation, math.inf if math.isnan(translation) else translation


def fundamental_from_pose(
    k0: npt.ArrayLike, k1: npt.ArrayLike, cam1_from_cam0: npt.ArrayLike
) -> FloatArray:
    """(3, 3) fundamental matrix F with ``pixel1.T @ F @ pixel0 = 0``."""
    essential = essential_from_pose(Pose.from_matrix(cam1_from_cam0))
    rays0, rays1 = (np.linalg.inv(np.asarray(k, dtype=np.float64)) for k in (k0, k1))
    fundamental: FloatArray = rays1.T @ essential @ rays0
    return fundamental


def symmetric_epipolar_errors_px(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, fundamental: npt.ArrayLike
) -> FloatArray:
    """Distances of matches from each other's epipolar lines.

    Args:
        keypoints0: (M, 2) pixels of image 0, x then y.
        keypoints1: (M, 2) pixels of image 1.
        fundamental: (3, 3), ``pixel1.T @ F @ pixel0 = 0``.

    Returns:
        (M,) root of the sum of both squared distances, pixels; infinite where a match lies on an
        epipole, or where F is nothing but zeros.
    """
    pixels0, pixels1 = (
        as_keypoints("keypoints0", keypoints0),
        as_keypoints("keypoints1", keypoints1),
    )
    matrix = np.asarray(fundamental, dtype=np.float64)
    if matrix.shape != (3, 3) or len(pixels0) != len(pixels1):
        raise InputError(
            "matches and F",
            "two (M, 2) and a (3, 3)",
            f"{pixels0.shape}, {pixels1.shape} and {matrix.shape}",
        )
    if not len(pixels0):
        return np.zeros(0)
    # eps is added to the squared lengths of the lines: the scale of F must not meet it.
    scale = float(np.linalg.norm(matrix))
    if not (np.isfinite(scale) and scale > 0):
        return np.full(len(pixels0), np.inf)
    errors: FloatArray = kornia_geometry.symmetrical_epipolar_distance(
        torch.from_numpy(pixels0)[None],
        torch.from_numpy(pixels1)[None],
        torch.from_numpy(matrix / scale)[None],
        squared=False,
        eps=1e-300,
    )[0].numpy()
    return np.where(np.isnan(errors), np.inf, errors)


def matching_precision(errors_px: npt.ArrayLike, threshold_px: float) -> float:
    """Share of matches with an error under a threshold, in [0, 1]; NaN without matches."""
    errors = np.asarray(errors_px, dtype=np.float64)
    return float(np.mean(errors < threshold_px)) if len(errors) else math.nan
