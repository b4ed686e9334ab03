"""Virtual correspondence reprojection error (Map-free relocalisation).

What an augmented-reality user sees of a pose error: points of a virtual box in front of the query
camera, drawn with the estimated pose, against where they belong.
"""

from __future__ import annotations

import numpy as np

from benchmarks.core.samples import FloatArray
from matcher.geometry.camera import project
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["vcre_px", "virtual_points"]

_COUNTS_XYZ = (7, 4, 7)
_STEP_M = 0.3
_FIRST_DEPTH_M = 1.8


def virtual_points() -> FloatArray:
    """(196, 3) points of the box in the camera's frame, metres: 7 x 4 centred, 7 from 1.8 m on."""
    columns, rows, layers = _COUNTS_XYZ
    x = (np.arange(columns) - (columns - 1) / 2) * _STEP_M
    y = (np.arange(rows) - (rows - 1) / 2) * _STEP_M
    z = np.arange(layers) * _STEP_M + _FIRST_DEPTH_M
    grid = np.stack(np.meshgrid(x, y, z, indexing="ij"), axis=-1)
    points: FloatArray = grid.reshape(-1, 3)
    return points


def vcre_px(estimated: Pose, expected: Pose, camera1: Camera, size1: ImageSize) -> float:
    """Mean distance between the virtual points through the true and the estimated pose, pixels.

    The points stand still in the query's true frame (camera 1). They go to camera 0 by the true
    pose and come back by the estimated one; both projections are clamped to the photograph. A
    point that comes back behind the camera counts the photograph's diagonal, the largest distance
    that clamped pixels can have.

    Args:
        estimated: ``cam1_from_cam0``, metres.
        expected: ``cam1_from_cam0``, metres.
        camera1: intrinsics of the query.
        size1: size of the query.
    """
    points = virtual_points()
    seen = _clamped(project(points, camera1), size1)
    drawn = _clamped(project((estimated @ expected.inverse).transform(points), camera1), size1)
    distances = np.linalg.norm(drawn - seen, axis=1)
    return float(np.mean(np.where(np.isnan(distances), size1.diagonal, distances)))


def _clamped(pixels: FloatArray, size: ImageSize) -> FloatArray:
    limits = np.array([size.width - 1, size.height - 1], dtype=np.float64)
    clamped: FloatArray = np.clip(pixels, 0.0, limits)  # NaN stays NaN
    return clamped
