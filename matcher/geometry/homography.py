"""Homographies between two images, from correspondences."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from matcher.geometry.pixels import transform_keypoints
from matcher.geometry.ransac import (
    RansacOptions,
    expand_mask,
    finite_rows,
    poselib_options,
    usac_params,
)
from matcher.geometry.support import is_collinear
from matcher.structures import FloatArray

__all__ = ["HomographyEstimate", "estimate_homography", "transfer_errors_px"]

_MIN_MATCHES = 4


@dataclass(frozen=True, slots=True, eq=False)
class HomographyEstimate:
    """A homography between two images.

    Attributes:
        image1_from_image0: (3, 3) map of homogeneous pixels, of Frobenius norm 1 and a positive
            determinant.
        inlier_mask: (M,) bool, correspondences within the threshold.
    """

    image1_from_image0: FloatArray
    inlier_mask: npt.NDArray[np.bool_]

    @property
    def num_inliers(self) -> int:
        """Number of correspondences within the threshold."""
        return int(np.count_nonzero(self.inlier_mask))


def estimate_homography(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, options: RansacOptions | None = None
) -> HomographyEstimate | None:
    """The plane-to-plane map of image 0 into image 1.

    Args:
        keypoints0: (M, 2) pixels in image 0, x then y.
        keypoints1: (M, 2) pixels in image 1. Rows with NaN count as outliers.
        options: the threshold is a transfer error in image 1, pixels.

    Returns:
        The estimate, or ``None`` with fewer than 4 usable correspondences or no model (as when
        all of them lie on one line).
    """
    options = options or RansacOptions()
    finite, (pixels0, pixels1) = finite_rows(
        ("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2)
    )
    if len(pixels0) < _MIN_MATCHES:
        return None
    if options.estimator == "magsac":
        try:
            found: npt.ArrayLike | None = cv2.findHomography(
                pixels0, pixels1, usac_params(options)
            )[0]
        except cv2.error:  # OpenCV throws where its solver finds no model at all
            return None
    else:
        found = poselib.estimate_homography(pixels0, pixels1, poselib_options(options), {})[0]
    if found is None:
        return None
    matrix = np.asarray(found, dtype=np.float64)
    if not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        return None
    matrix = np.sign(np.linalg.det(matrix)) * matrix / np.linalg.norm(matrix)
    errors = transfer_errors_px(pixels0, pixels1, matrix)
    inliers = errors <= options.max_error_px
    if np.count_nonzero(inliers) < _MIN_MATCHES or any(
        is_collinear(pixels[inliers], options.max_error_px) for pixels in (pixels0, pixels1)
    ):
        return None
    return HomographyEstimate(matrix, expand_mask(finite, inliers))


def transfer_errors_px(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, image1_from_image0: npt.ArrayLike
) -> FloatArray:
    """(M,) distances in image 1 between the mapped keypoints of image 0 and their matches."""
    mapped = transform_keypoints(image1_from_image0, keypoints0)
    errors: FloatArray = np.linalg.norm(mapped - np.asarray(keypoints1, dtype=np.float64), axis=1)
    return errors
