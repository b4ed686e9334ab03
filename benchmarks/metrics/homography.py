"""The error of a homography."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from matcher.structures import FloatArray, ImageSize

__all__ = ["image_corners", "mean_corner_error_px"]


def image_corners(size: ImageSize) -> FloatArray:
    """(4, 2) centres of the four corner pixels, x then y."""
    right, bottom = size.width - 1.0, size.height - 1.0
    return np.array([[0.0, 0.0], [right, 0.0], [right, bottom], [0.0, bottom]])


def mean_corner_error_px(
    estimated: npt.ArrayLike | None, h1_from_0: npt.ArrayLike, size0: ImageSize
) -> float:
    """Mean distance, in image 1, between image 0's corners under two homographies.

    Args:
        estimated: (3, 3), or ``None``.
        h1_from_0: (3, 3) truth.
        size0: of image 0.

    Returns:
        Pixels of image 1; infinite without an estimate, or where it sends a corner to infinity.
    """
    if estimated is None:
        return math.inf
    corners = np.column_stack([image_corners(size0), np.ones(4)])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mapped, expected = (
            (points := corners @ np.asarray(matrix, dtype=np.float64).T)[:, :2] / points[:, 2:]
            for matrix in (estimated, h1_from_0)
        )
        error = float(np.linalg.norm(mapped - expected, axis=1).mean())
    return error if math.isfinite(error) else math.inf
