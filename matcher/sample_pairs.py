"""A real pair of photographs with ground truth, for demonstrations and tests.

The adapter around scikit-image, whose wheel carries one rectified pair of the Middlebury 2014
stereo benchmark (Scharstein et al., "High-resolution stereo datasets with subpixel-accurate ground
truth", GCPR 2014). The pictures stay in that package; nothing is downloaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from matcher.errors import InputError, MissingDependencyError
from matcher.structures import Camera, FloatArray, ImageSize, Pose, as_keypoints

__all__ = ["SamplePair", "disparity_errors_px", "motorcycle_pair", "share_within"]

RgbArray = npt.NDArray[np.uint8]
DisparityArray = npt.NDArray[np.float32]

# Calibration of the pair as scikit-image ships it, a quarter of the benchmark's 2964 x 2000.
_FOCAL_PX = 994.978
_PRINCIPAL_X_PX = 311.193
_PRINCIPAL_Y_PX = 254.877
_PRINCIPAL_DX_PX = 31.086
_BASELINE_M = 0.193001
# Those numbers were divided by 4, but the pictures are means of 4 x 4 blocks: the centre of the
# first block lies at 1.5 of the full picture's pixels, not at 0.
_BLOCK_CENTER_PX = 1.5 / 4

_SMOOTH_PX = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class SamplePair:
    """Two rectified photographs, the cameras that took them, and what corresponds to what.

    Attributes:
        image0: (H, W, 3) uint8 RGB, the left photograph.
        image1: (H, W, 3) uint8 RGB, the right photograph.
        camera0: pinhole camera of image 0, for pixel centres at integers.
        camera1: pinhole camera of image 1.
        cam1_from_cam0: the pose, metres.
        disparity: (H, W) float32, pixels, NaN where unknown: pixel (x, y) of image 0 shows the
            same point as (x - disparity, y) of image 1.
    """

    image0: RgbArray
    image1: RgbArray
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Pose
    disparity: DisparityArray


def motorcycle_pair() -> SamplePair:
    """The "Motorcycle" pair: 741 x 500 pixels, 0.193 m apart, disparities of 7 to 60 pixels.

    The depth of pixel (x, y) of image 0 is ``focal * baseline / (disparity + dx)``, where ``dx``
    is how much further right the principal point of image 1 lies; lifting with ``camera0``, moving
    by ``cam1_from_cam0`` and projecting with ``camera1`` then lands on (x - disparity, y).
    Depths are 2.1 to 5.0 m; 7 % of the pixels have none.

    Raises:
        MissingDependencyError: scikit-image is not installed.
    """
    try:
        from skimage.data import stereo_motorcycle
    except ImportError:
        raise MissingDependencyError("scikit-image", "demo", "the sample pair") from None
    load: Any = stereo_motorcycle  # it carries no types
    image0, image1, disparity = load()
    disparity = np.array(disparity, dtype=np.float32)
    # scikit-image documents NaN; its file has infinity.
    disparity[~np.isfinite(disparity)] = np.nan
    size = ImageSize(*disparity.shape)
    cx0, cy = _PRINCIPAL_X_PX - _BLOCK_CENTER_PX, _PRINCIPAL_Y_PX - _BLOCK_CENTER_PX
    return SamplePair(
        image0=np.asarray(image0, dtype=np.uint8),
        image1=np.asarray(image1, dtype=np.uint8),
        camera0=Camera.pinhole(_FOCAL_PX, _FOCAL_PX, cx0, cy, size),
        camera1=Camera.pinhole(_FOCAL_PX, _FOCAL_PX, cx0 + _PRINCIPAL_DX_PX, cy, size),
        cam1_from_cam0=Pose(np.eye(3), np.array([-_BASELINE_M, 0.0, 0.0])),
        disparity=disparity,
    )


def disparity_errors_px(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, disparity: npt.ArrayLike
) -> FloatArray:
    """How far the matches of a rectified pair end from the true place in image 1.

    Between pixels the disparity is interpolated where all four neighbours are known and lie within
    1 px of each other; elsewhere (at an edge of an object, beside a hole) the nearest pixel's
    holds.

    Args:
        keypoints0: (M, 2) pixels of image 0, x then y.
        keypoints1: (M, 2) pixels of image 1.
        disparity: (H, W) pixels, NaN or infinite where unknown (see :class:`SamplePair`).

    Returns:
        (K,) float64 distances in pixels, in order, of the K <= M matches whose disparity is known.
        Matches that start outside the disparity map count as unknown.

    Raises:
        InputError: wrong shapes, or keypoints that are not finite.
    """
    starts, ends = as_keypoints("keypoints0", keypoints0), as_keypoints("keypoints1", keypoints1)
    if len(starts) != len(ends):
        raise InputError("keypoints1", f"{len(starts)} rows, as keypoints0", f"{len(ends)}")
    values = np.asarray(disparity, dtype=np.float64)
    if values.ndim != 2 or values.size == 0:
        raise InputError("disparity", "shape (H, W)", f"{values.shape}")
    at_starts = _disparity_at(starts, values)
    known = np.isfinite(at_starts)
    offsets = ends[known] - starts[known]
    errors: FloatArray = np.hypot(offsets[:, 0] + at_starts[known], offsets[:, 1])
    return errors


def share_within(errors: npt.ArrayLike, px: float) -> float:
    """Share of errors of at most ``px`` pixels, in [0, 1]; 0 where there are none to count.

    Args:
        errors: (K,) distances, pixels; one that is NaN is not within.
        px: the largest distance that counts, pixels.

    Raises:
        InputError: ``errors`` is not one row of numbers, or ``px`` is negative or NaN.
    """
    distances = np.asarray(errors, dtype=np.float64)
    if distances.ndim != 1:
        raise InputError("errors", "shape (K,)", f"{distances.shape}")
    if not px >= 0:
        raise InputError("px", "a distance of at least 0 pixels", f"{px}")
    return float(np.mean(distances <= px)) if distances.size else 0.0


def _disparity_at(keypoints: FloatArray, disparity: FloatArray) -> FloatArray:
    """(M,) disparities at sub-pixel places, not finite where unknown."""
    height, width = disparity.shape
    last = np.array([width - 1, height - 1])
    is_inside = ((keypoints >= -0.5) & (keypoints <= last + 0.5)).all(axis=1)
    places = np.clip(keypoints, 0, last)
    low = np.floor(places).astype(np.int64)
    high = np.minimum(low + 1, last)
    columns = np.stack([low[:, 0], high[:, 0], low[:, 0], high[:, 0]])
    rows = np.stack([low[:, 1], low[:, 1], high[:, 1], high[:, 1]])
    neighbours = disparity[rows, columns]
    are_known = np.isfinite(neighbours).all(axis=0)
    is_smooth = are_known & (np.ptp(np.where(are_known, neighbours, 0.0), axis=0) <= _SMOOTH_PX)
    nearest = np.rint(places).astype(np.int64)
    found: FloatArray = disparity[nearest[:, 1], nearest[:, 0]]
    found[is_smooth] = map_coordinates(
        disparity, places[is_smooth, ::-1].T, order=1, mode="nearest"
    )
    found[~is_inside] = np.nan
    return found
