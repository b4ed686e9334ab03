"""Which pairs can be trusted: the two-view geometry of every pair, from its matches alone.

A pair counts where a relative pose explains more of its matches than chance could. Where both
photographs were taken from one place there is no such pose, but a rotation; that counts too. All
other pairs give no constraint, however sure their matches are of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import poselib
from scipy.spatial.transform import Rotation

from matcher.alignment.observations import PairMatches
from matcher.alignment.sparse_options import SparseOptions
from matcher.geometry.camera import bearing_vectors
from matcher.geometry.essential import epipolar_errors_px
from matcher.geometry.ransac import RansacOptions, poselib_options
from matcher.geometry.relative import estimate_relative_pose
from matcher.geometry.relative_solvers import RelativePoseOptions
from matcher.geometry.support import required_inliers
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = ["TwoView", "verify_pair"]

_ROTATION_POLISH_STEPS = 5
_MOST_TRIED = 2_000
"""Of a pair's matches the most confident: more cost time and change nothing."""
_RANSAC_ITERATIONS = 5_000


@dataclass(frozen=True, slots=True, eq=False)
class TwoView:
    """A verified pair.

    Attributes:
        matches: those that agree.
        pose: of the second photograph relative to the first; its translation has length 1, or 0
            where only the rotation can be seen.
        num_tried: matches among which they were found.
    """

    matches: PairMatches
    pose: Pose
    num_tried: int

    @property
    def has_baseline(self) -> bool:
        """Whether the two photographs were taken from different places."""
        return bool(np.any(self.pose.translation))


def verify_pair(
    pair: PairMatches,
    cameras: Sequence[Camera],
    sizes: Sequence[ImageSize],
    view_px: Sequence[float],
    options: SparseOptions,
    known: Pose | None = None,
) -> TwoView | str:
    """The two-view geometry of a pair, or why there is none.

    Args:
        pair: matches in pixels without lens distortion.
        cameras: pinholes of all photographs, known or guessed.
        sizes: of all photographs.
        view_px: original pixels in a pixel of the network's view, for each photograph.
        options: thresholds.
        known: relative pose of the pair, if both poses are given.
    """
    if len(pair) == 0:
        return pair.reason or "no matches"
    order = np.argsort(-pair.confidence, kind="stable")[:_MOST_TRIED]
    tried = pair.select(np.sort(order))
    camera0, camera1 = cameras[pair.first], cameras[pair.second]
    size0, size1 = sizes[pair.first], sizes[pair.second]
    threshold = options.max_error_px * float(np.sqrt(view_px[pair.first] * view_px[pair.second]))
    if known is not None:
        return _with_known_pose(tried, camera0, camera1, known, threshold, options)
    found = estimate_relative_pose(
        tried.keypoints0,
        tried.keypoints1,
        camera0=camera0,
        camera1=camera1,
        size0=size0,
        size1=size1,
        options=RelativePoseOptions(
            method="essential",
            max_epipolar_error_px=threshold,
            max_iterations=_RANSAC_ITERATIONS,
            min_inliers=options.min_inliers,
            seed=options.seed,
        ),
    )
    needed = max(options.min_inliers, options.min_inlier_share * len(tried))
    if found.cam1_from_cam0 is not None:
        if found.num_inliers < needed:
            return f"{found.num_inliers} of {len(tried)} matches agree on a pose; too few"
        return TwoView(tried.select(found.inlier_mask), found.cam1_from_cam0, len(tried))
    turned = _rotation_only(tried, camera0, camera1, 2 * threshold, options.seed)
    if turned is not None:
        rotation, agree = turned
        chance = required_inliers(len(tried), size0, size1, 2 * threshold, options.min_inliers)
        if np.count_nonzero(agree) >= max(chance, needed):
            return TwoView(tried.select(agree), Pose(rotation, np.zeros(3)), len(tried))
    return found.reason or "no pose"


def _with_known_pose(
    tried: PairMatches,
    camera0: Camera,
    camera1: Camera,
    known: Pose,
    threshold: float,
    options: SparseOptions,
) -> TwoView | str:
    length = float(np.linalg.norm(known.translation))
    if length > 0:
        unit = Pose(known.rotation, known.translation / length)
        errors = epipolar_errors_px(tried.keypoints0, tried.keypoints1, camera0, camera1, unit)
        agree = errors <= threshold
    else:
        unit = known
        agree = _turn_errors_px(tried, camera0, camera1, known.rotation) <= 2 * threshold
    if np.count_nonzero(agree) < options.min_inliers:
        return f"{np.count_nonzero(agree)} of {len(tried)} matches agree with the known poses"
    return TwoView(tried.select(agree), unit, len(tried))


def _rotation_only(
    tried: PairMatches, camera0: Camera, camera1: Camera, threshold: float, seed: int
) -> tuple[FloatArray, npt.NDArray[np.bool_]] | None:
    """The rotation that most matches agree with, and which do; by a homography first."""
    if len(tried) < 4:
        return None
    options = poselib_options(RansacOptions(max_error_px=threshold, seed=seed))
    options["max_reproj_error"] = threshold
    homography, _ = poselib.estimate_homography(tried.keypoints0, tried.keypoints1, options, {})
    matrix = np.linalg.inv(camera1.matrix) @ np.asarray(homography) @ camera0.matrix
    if not np.isfinite(matrix).all():
        return None
    left, _, right = np.linalg.svd(matrix)
    rotation = left @ right
    rotation = rotation * np.sign(np.linalg.det(rotation))
    bearings0 = bearing_vectors(tried.keypoints0, camera0)
    bearings1 = bearing_vectors(tried.keypoints1, camera1)
    agree = _turn_errors_px(tried, camera0, camera1, rotation) <= threshold
    for _ in range(_ROTATION_POLISH_STEPS):
        if np.count_nonzero(agree) < 3:
            return None
        rotation = Rotation.align_vectors(bearings1[agree], bearings0[agree])[0].as_matrix()
        agree = _turn_errors_px(tried, camera0, camera1, rotation) <= threshold
    return rotation, agree


def _turn_errors_px(
    tried: PairMatches, camera0: Camera, camera1: Camera, rotation: FloatArray
) -> FloatArray:
    bearings0 = bearing_vectors(tried.keypoints0, camera0)
    bearings1 = bearing_vectors(tried.keypoints1, camera1)
    focal = float(np.mean([*camera0.focals, *camera1.focals]))
    errors: FloatArray = focal * np.linalg.norm(bearings1 - bearings0 @ rotation.T, axis=1)
    return errors
