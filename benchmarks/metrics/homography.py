"""The error of a homography, at the corners or over what both images show."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from matcher.structures import FloatArray, ImageSize

__all__ = ["image_corners", "mean_corner_error_px", "mean_visible_error_px", "visible"]

# Pixels of a regular grid over image 0 that stand for all of them.
_GRID = 100


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
    return _mean_distance(estimated, h1_from_0, image_corners(size0))


def mean_visible_error_px(
    estimated: npt.ArrayLike | None,
    h1_from_0: npt.ArrayLike,
    size0: ImageSize,
    size1: ImageSize,
) -> float:
    """As :func:`mean_corner_error_px`, over the pixels of image 0 that image 1 shows (EVD's error).

    Infinite where image 1 shows none of them.
    """
    x, y = (np.linspace(0, side - 1, min(side, _GRID)) for side in (size0.width, size0.height))
    pixels = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return _mean_distance(estimated, h1_from_0, pixels[visible(pixels, h1_from_0, size1)])


def visible(
    pixels: FloatArray, h1_from_0: npt.ArrayLike, size1: ImageSize
) -> npt.NDArray[np.bool_]:
    """(M,) bool: which (M, 2) pixels of image 0 a homography sends into image 1."""
    homography = np.asarray(h1_from_0, dtype=np.float64)
    mapped = np.column_stack([pixels, np.ones(len(pixels))]) @ homography.T
    # What lies beyond the line that goes to infinity comes back from the other side.
    same_side = mapped[:, 2] * float(np.sign(np.linalg.det(homography))) > 0
    mapped[~same_side] = -1.0, -1.0, 1.0
    mapped = mapped[:, :2] / mapped[:, 2:]
    limits = np.array([size1.width, size1.height]) - 0.5
    inside = np.asarray(((mapped >= -0.5) & (mapped <= limits)).all(axis=1))
    return np.asarray(same_side & inside)


def _mean_distance(
    estimated: npt.ArrayLike | None, expected: npt.ArrayLike, pixels: FloatArray
) -> float:
    if estimated is None or not len(pixels):
        return math.inf
    homogeneous = np.column_stack([pixels, np.ones(len(pixels))])
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        mapped0, mapped1 = (
            (points := homogeneous @ np.asarray(matrix, dtype=np.float64).T)[:, :2] / points[:, 2:]
            for matrix in (estimated, expected)
        )
        error = float(np.linalg.norm(mapped0 - mapped1, axis=1).mean())
    return error if math.isfinite(error) else math.inf
