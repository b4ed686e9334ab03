"""The pose of one query from its matches with all its references, as the library finds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.core.samples import FloatArray, LocalizationTruth, PairSample
from benchmarks.core.tasks import Answered
from benchmarks.tasks.localization_options import LocalizationOptions
from benchmarks.tasks.reference_points import world_points
from matcher.errors import MatcherError
from matcher.geometry.camera import resize_camera
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.pnp_focal import estimate_pose_and_focal
from matcher.geometry.ransac import RansacOptions
from matcher.localization import Lifted, MatchArrays, gather
from matcher.structures import Camera, Pose

__all__ = ["QueryPose", "localize_query", "query_camera", "truth_of"]


@dataclass(frozen=True, slots=True, eq=False)
class QueryPose:
    """What came out for one query.

    Attributes:
        pose: cam_from_world, or ``None``.
        num_correspondences: pixels with a point, repeated ones counted once.
        num_inliers: of them, within the threshold.
        focal_ratio: estimated focal over the true one; NaN where it was given.
        unread: why a reference's part of the map could not be read; empty: all could.
        reason: why there is no pose.
    """

    pose: Pose | None
    num_correspondences: int = 0
    num_inliers: int = 0
    focal_ratio: float = math.nan
    unread: str = ""
    reason: str = ""


def localize_query(answers: Sequence[Answered], options: LocalizationOptions) -> QueryPose:
    """The pose of the query that all ``answers`` share."""
    truth, frame = truth_of(answers[0].sample), answers[0].frame
    pixels, points, problem = _correspondences(answers)
    if options.max_matches and len(points) > options.max_matches:
        random = np.random.default_rng(options.seed)
        rows = random.choice(len(points), options.max_matches, replace=False)
        pixels, points = pixels[rows], points[rows]
    stored = query_camera(truth)
    camera = resize_camera(stored, frame.resized0, frame.stored0)
    ransac = RansacOptions(
        max_error_px=options.threshold_px(frame),
        max_iterations=options.max_iterations,
        confidence=options.confidence,
        seed=options.seed,
        estimator="poselib" if options.estimator == "poselib" else "magsac",
    )
    ratio = math.nan
    if options.estimate_focal:
        both = estimate_pose_and_focal(pixels, points, frame.resized0, ransac)
        estimate = None if both is None else both[0]
        ratio = math.nan if both is None else both[1] / camera.focals[0]
    else:
        estimate = estimate_absolute_pose(pixels, points, camera, ransac)
    if estimate is None:
        reason = problem or f"no pose from {len(points)} correspondences"
        return QueryPose(None, len(points), unread=problem, reason=reason)
    return QueryPose(estimate.cam_from_world, len(points), estimate.num_inliers, ratio, problem)


def _correspondences(answers: Sequence[Answered]) -> tuple[FloatArray, FloatArray, str]:
    """(M, 2) pixels of the resized query, (M, 3) points, and why a reference gave none."""
    lifted, problem = [], ""
    for answered in answers:
        prediction, frame = answered.prediction, answered.frame
        if not len(prediction):
            continue
        try:
            world = world_points(
                truth_of(answered.sample).reference, prediction.keypoints1, frame.stored1
            )
        except MatcherError as error:
            problem = str(error)
            continue
        known = np.isfinite(world).all(axis=1)
        to_resized = resize_transform(frame.stored0, frame.resized0)
        matches = MatchArrays(
            transform_keypoints(to_resized, prediction.keypoints0[known]),
            prediction.keypoints1[known],
            prediction.confidence[known],
        )
        lifted.append(Lifted(matches, world[known]))
    found = gather(lifted)
    return found.keypoints, found.points, problem


def truth_of(sample: PairSample) -> LocalizationTruth:
    """The truth of a pair of a localization set."""
    assert isinstance(sample.truth, LocalizationTruth)
    return sample.truth


def query_camera(truth: LocalizationTruth) -> Camera:
    """The camera of a query, for its stored photograph."""
    return Camera(truth.camera_model, truth.camera_params)  # type: ignore[arg-type]
