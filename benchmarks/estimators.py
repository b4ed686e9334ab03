"""Robust estimation from matches, as each protocol prescribes it.

Every function answers once for each threshold and, within it, once for each repeat. A search that
finds nothing is an answer with ``None``; nothing a method matched makes it raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from benchmarks.core.protocols import EstimatorOptions
from matcher.geometry.camera import normalize
from matcher.geometry.essential import estimate_essential
from matcher.geometry.homography import estimate_homography as search_homography
from matcher.geometry.planes import settle_planes
from matcher.geometry.ransac import RansacOptions, finite_rows, poselib_options, usac_params
from matcher.structures import Camera, FloatArray, Pose

__all__ = [
    "MatrixEstimate",
    "PoseEstimate",
    "estimate_fundamental",
    "estimate_homography",
    "estimate_relative_poses",
]

_MIN_POSE_MATCHES = 5
_MIN_FUNDAMENTAL_MATCHES = 8
# Points further than this many baselines are taken for infinitely far, and do not vote on the side
# that the cameras look to; OpenCV's default (50) throws distant scenes away.
_FAR_BASELINES = 1e9

Estimate = TypeVar("Estimate")


@dataclass(frozen=True, slots=True, eq=False)
class PoseEstimate:
    """``cam1_from_cam0`` with a translation of length 1, or ``None``; and its inliers."""

    pose: Pose | None
    num_inliers: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class MatrixEstimate:
    """A (3, 3) homography or fundamental matrix, or ``None``; and its inliers."""

    matrix: FloatArray | None
    num_inliers: int = 0


def estimate_relative_poses(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    k0: npt.ArrayLike,
    k1: npt.ArrayLike,
    options: EstimatorOptions,
    confidence: npt.ArrayLike | None = None,
    depths0: npt.ArrayLike | None = None,
) -> list[list[PoseEstimate]]:
    """Relative poses of a calibrated pair.

    Args:
        keypoints0: (M, 2) pixels of image 0, x then y.
        keypoints1: (M, 2) pixels of image 1; row i matches row i.
        k0: (3, 3) intrinsics for these pixels of image 0.
        k1: (3, 3) the same for image 1.
        options: the estimator; its thresholds are Sampson errors in these pixels.
        confidence: (M,) of the method; only a progressive search looks at it, at its order.
        depths0: (M,) that the method predicts at the keypoints of image 0, in any unit; only
            ``options.settles_planes`` looks at them.

    Returns:
        For each threshold a list with one estimate a repeat.
    """
    cameras = Camera.from_matrix(k0), Camera.from_matrix(k1)
    sure = np.zeros(0) if confidence is None else np.asarray(confidence, dtype=np.float64)
    asks_depth = options.settles_planes and depths0 is not None
    depths = np.asarray(depths0, dtype=np.float64) if asks_depth else None
    is_ordered = options.progressive and len(np.unique(sure)) > 1
    if is_ordered:
        order = np.argsort(-sure, kind="stable")
        keypoints0, keypoints1 = np.asarray(keypoints0)[order], np.asarray(keypoints1)[order]
        depths = None if depths is None else depths[order]
    if depths is not None:  # row by row with what the search is given
        finite, _ = finite_rows(("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2))
        depths = depths[finite]

    def search(
        pixels0: FloatArray, pixels1: FloatArray, threshold: float, seed: int
    ) -> PoseEstimate:
        if len(pixels0) < _MIN_POSE_MATCHES:
            return PoseEstimate(None)
        if options.estimator == "opencv-ransac":
            return _opencv_pose(pixels0, pixels1, *cameras, threshold, options)
        ransac = replace(_ransac_options(options, threshold, seed), progressive=is_ordered)
        found = estimate_essential(pixels0, pixels1, *cameras, ransac)
        if found is not None and options.settles_planes:
            found = settle_planes(pixels0, pixels1, found, ransac, depths)
        if found is None or found.num_inliers < _MIN_POSE_MATCHES:
            return PoseEstimate(None)
        return PoseEstimate(found.cam1_from_cam0, found.num_inliers)

    return _over_thresholds_and_repeats(keypoints0, keypoints1, options, search)


def estimate_homography(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, options: EstimatorOptions
) -> list[list[MatrixEstimate]]:
    """Homographies ``pixel1 ~ H pixel0``; thresholds are transfer errors in image 1, pixels.

    Arguments and answer as for :func:`estimate_relative_poses`.
    """

    def search(
        pixels0: FloatArray, pixels1: FloatArray, threshold: float, seed: int
    ) -> MatrixEstimate:
        if options.estimator == "opencv-ransac":
            return _opencv_homography(pixels0, pixels1, threshold, options)
        found = search_homography(pixels0, pixels1, _ransac_options(options, threshold, seed))
        if found is None:
            return MatrixEstimate(None)
        return MatrixEstimate(found.image1_from_image0, found.num_inliers)

    return _over_thresholds_and_repeats(keypoints0, keypoints1, options, search)


def estimate_fundamental(
    keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, options: EstimatorOptions
) -> list[list[MatrixEstimate]]:
    """Fundamental matrices, ``pixel1.T F pixel0 = 0``; thresholds in pixels.

    Arguments and answer as for :func:`estimate_relative_poses`.
    """

    def search(
        pixels0: FloatArray, pixels1: FloatArray, threshold: float, seed: int
    ) -> MatrixEstimate:
        if len(pixels0) < _MIN_FUNDAMENTAL_MATCHES:
            return MatrixEstimate(None)
        ransac = _ransac_options(options, threshold, seed)
        if options.estimator == "poselib":
            matrix, info = poselib.estimate_fundamental(
                pixels0, pixels1, poselib_options(ransac), {}
            )
            return _matrix_estimate(matrix, info["inliers"], _MIN_FUNDAMENTAL_MATCHES)
        try:
            if options.estimator == "opencv-magsac":
                found = cv2.findFundamentalMat(pixels0, pixels1, usac_params(ransac))
            else:
                found = cv2.findFundamentalMat(
                    pixels0,
                    pixels1,
                    cv2.FM_RANSAC,
                    threshold,
                    options.confidence,
                    options.max_iterations,
                )
        except cv2.error:  # OpenCV throws where its solver finds no model at all
            return MatrixEstimate(None)
        return _matrix_estimate(*found, _MIN_FUNDAMENTAL_MATCHES)

    return _over_thresholds_and_repeats(keypoints0, keypoints1, options, search)


def _over_thresholds_and_repeats(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    options: EstimatorOptions,
    search: Callable[[FloatArray, FloatArray, float, int], Estimate],
) -> list[list[Estimate]]:
    _, (pixels0, pixels1) = finite_rows(
        ("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2)
    )
    estimates = []
    for threshold in options.thresholds:
        row = []
        for repeat, rows in enumerate(_draws(len(pixels0), options)):
            seed = options.seed + repeat
            # OpenCV's global generator: what its estimators draw must not depend on what ran
            # before. (Most keep a generator of their own; which ones is not documented.)
            cv2.setRNGSeed(seed)
            row.append(search(pixels0[rows], pixels1[rows], threshold, seed))
        estimates.append(row)
    return estimates


def _draws(count: int, options: EstimatorOptions) -> Iterator[npt.NDArray[np.intp] | slice]:
    """Rows of each repeat; every threshold sees the same draws."""
    if options.repeats == 1 and not 0 < options.max_matches < count:
        yield slice(None)
        return
    random = np.random.default_rng(options.seed)
    for _ in range(options.repeats):
        yield random.permutation(count)[: options.max_matches or count]


def _ransac_options(options: EstimatorOptions, threshold: float, seed: int) -> RansacOptions:
    return RansacOptions(
        max_error_px=threshold,
        max_iterations=options.max_iterations,
        confidence=options.confidence,
        seed=seed,
        estimator="magsac" if options.estimator == "opencv-magsac" else "poselib",
    )


def _mean_focal(camera0: Camera, camera1: Camera, options: EstimatorOptions) -> float:
    (fx0, fy0), (fx1, fy1) = camera0.focals, camera1.focals
    return (fx0 + fy1) / 2 if options.mean_focal == "loftr" else (fx0 + fy0 + fx1 + fy1) / 4


def _opencv_pose(
    pixels0: FloatArray,
    pixels1: FloatArray,
    camera0: Camera,
    camera1: Camera,
    threshold: float,
    options: EstimatorOptions,
) -> PoseEstimate:
    rays0, rays1 = normalize(pixels0, camera0), normalize(pixels1, camera1)
    try:
        stacked, mask = cv2.findEssentialMat(
            rays0,
            rays1,
            np.eye(3),
            cv2.RANSAC,
            options.confidence,
            threshold / _mean_focal(camera0, camera1, options),
            options.max_iterations,
        )
    except cv2.error:  # OpenCV throws where its solver finds no model at all
        return PoseEstimate(None)
    if stacked is None or stacked.size % 9 or not np.isfinite(stacked).all():
        return PoseEstimate(None)
    best = PoseEstimate(None)
    # From exactly five matches come up to ten matrices, one below the other.
    for essential in stacked.reshape(-1, 3, 3):
        in_front, rotation, translation, _, _ = cv2.recoverPose(
            essential, rays0, rays1, np.eye(3), distanceThresh=_FAR_BASELINES, mask=mask.copy()
        )
        if in_front > best.num_inliers and np.isfinite(translation).all():
            best = PoseEstimate(
                Pose(rotation.astype(np.float64), translation.astype(np.float64)), int(in_front)
            )
    return best


def _opencv_homography(
    pixels0: FloatArray, pixels1: FloatArray, threshold: float, options: EstimatorOptions
) -> MatrixEstimate:
    if len(pixels0) < 4:
        return MatrixEstimate(None)
    try:
        found = cv2.findHomography(
            pixels0,
            pixels1,
            cv2.RANSAC,
            threshold,
            maxIters=options.max_iterations,
            confidence=options.confidence,
        )
    except cv2.error:
        return MatrixEstimate(None)
    return _matrix_estimate(*found, 4)


def _matrix_estimate(
    matrix: npt.ArrayLike | None, inliers: npt.ArrayLike | None, min_inliers: int
) -> MatrixEstimate:
    num_inliers = int(np.count_nonzero(np.asarray(inliers))) if inliers is not None else 0
    if matrix is None or np.shape(matrix) != (3, 3) or num_inliers < min_inliers:
        return MatrixEstimate(None)
    values = np.asarray(matrix, dtype=np.float64)
    if not np.isfinite(values).all() or not np.any(values):
        return MatrixEstimate(None)
    return MatrixEstimate(values, num_inliers)
