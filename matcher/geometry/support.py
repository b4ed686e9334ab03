"""Is there an answer at all? The tests that a relative pose passes before it is given out.

How many matches agree with the best essential matrix when all matches are wrong? Measured with
PoseLib's LO-RANSAC on uniformly random correspondences, 640 x 480 pixels, focal 500, threshold
1 px, 20 draws a cell for up to 1,000 iterations, 4 to 20 above (largest count met, mean in
brackets):

    matches    1,000 iterations   10,000 iterations   100,000 iterations   we ask for
         50      9  (7.3)            9  (8.2)              9  (8.5)              15
        100     10  (8.4)           15  (9.3)             10  (9.8)              16
        200     11  (9.7)           12 (10.9)             12 (11.8)              18
        300     13 (11.0)           13 (11.9)             14 (12.3)              20
        500     15 (12.7)           18 (14.5)                                    24
      1,000     19 (16.6)           20 (18.8)                                    33
      2,000     28 (25.0)           31 (28.8)                                    51
      3,000     40 (32.0)           38 (34.4)                                    70

The count grows by ``p`` a match, ``p`` the share of an image that lies within the threshold of an
epipolar line, and the search doubles that by choosing among lines: hence the rule of
:func:`required_inliers`, above every count met, by half with many matches.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from matcher.geometry.camera import bearing_vectors
from matcher.structures import Camera, FloatArray, ImageSize

__all__ = [
    "is_collinear",
    "required_inliers",
    "rotation_only_displacements_px",
    "translation_is_observable",
]

_CHANCE_OFFSET = 14
_CHANCE_FACTOR = 2.5
# A Sampson distance shares the error between both images: each may be off by sqrt(2) of it, on
# both sides of the line.
_BAND_WIDTH_PER_THRESHOLD = 2 * float(np.sqrt(2))

_ROTATION_ONLY_SHARE = 0.95
_NOISE_MULTIPLE = 3.0
_NOISE_RANGE = 4.0
_ROTATION_FIT_STEPS = 15


def required_inliers(
    num_matches: int,
    size0: ImageSize,
    size1: ImageSize,
    max_epipolar_error_px: float,
    min_inliers: int,
) -> int:
    """Inliers below which a pose may be the work of chance (the module's table)."""
    band = max(
        _BAND_WIDTH_PER_THRESHOLD
        * max_epipolar_error_px
        * size.diagonal
        / (size.height * size.width)
        for size in (size0, size1)
    )
    by_chance = _CHANCE_OFFSET + _CHANCE_FACTOR * min(band, 1.0) * num_matches
    return max(min_inliers, int(np.ceil(by_chance)))


def is_collinear(keypoints: FloatArray, tolerance_px: float) -> bool:
    """Whether (M, 2) keypoints lie on one line, or in one point, to within a tolerance (RMS)."""
    centered = keypoints - keypoints.mean(axis=0)
    spread = np.linalg.svd(centered, compute_uv=False)[-1] / np.sqrt(len(keypoints))
    return bool(len(keypoints) < 3 or spread <= tolerance_px)


def rotation_only_displacements_px(
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    camera0: Camera,
    camera1: Camera,
    initial_rotation: FloatArray,
) -> FloatArray:
    """(M,) pixels by which matches miss the rotation that explains most of them.

    The rotation is fitted to the bearing vectors, starting at ``initial_rotation``, with weights
    that let go of matches with parallax, so that a distant background decides.
    """
    bearings0 = bearing_vectors(keypoints0, camera0)
    bearings1 = bearing_vectors(keypoints1, camera1)
    focal = float(np.mean([*camera0.focals, *camera1.focals]))
    usable = np.isfinite(bearings0).all(axis=1) & np.isfinite(bearings1).all(axis=1)
    rotation = initial_rotation
    for _ in range(_ROTATION_FIT_STEPS):
        errors = focal * np.linalg.norm(bearings1 - bearings0 @ rotation.T, axis=1)
        scale = max(float(np.median(errors[usable])), 1e-9)
        weights = 1 / (1 + (errors[usable] / scale) ** 2)
        rotation = Rotation.align_vectors(bearings1[usable], bearings0[usable], weights=weights)[
            0
        ].as_matrix()
    displacements: FloatArray = focal * np.linalg.norm(bearings1 - bearings0 @ rotation.T, axis=1)
    return displacements


def translation_is_observable(
    displacements_px: FloatArray, epipolar_errors_px: FloatArray, max_epipolar_error_px: float
) -> bool:
    """Whether inliers show parallax: more than 5 % move further than threshold and noise explain.

    Args:
        displacements_px: (N,) of :func:`rotation_only_displacements_px`, inliers only.
        epipolar_errors_px: (M,) Sampson distances of all matches, which measure the noise (across
            the epipolar lines, where parallax does not reach).
        max_epipolar_error_px: the inlier threshold.
    """
    # Cut well outside the threshold: within it, noise of any size looks like half the threshold.
    near = epipolar_errors_px[epipolar_errors_px <= _NOISE_RANGE * max_epipolar_error_px]
    # A Sampson distance holds half the variance of a displacement's component.
    noise = float(np.sqrt(2) * 1.4826 * np.median(near)) if len(near) else 0.0
    limit = max(max_epipolar_error_px, _NOISE_MULTIPLE * noise)
    explained: npt.NDArray[np.bool_] = displacements_px <= limit
    return bool(np.mean(explained) < _ROTATION_ONLY_SHARE)
