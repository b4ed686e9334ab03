"""The relative pose of one pair in metres, from its matches and the points that a method gives."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import EstimatorOptions, Protocol
from benchmarks.core.samples import FloatArray, PoseTruth
from benchmarks.core.tasks import Answered
from benchmarks.estimators import estimate_relative_poses
from benchmarks.tasks.pairs import resized_intrinsics, resized_keypoints
from matcher.geometry.essential import epipolar_errors_px
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.ransac import RansacOptions
from matcher.geometry.triangulation import triangulate
from matcher.structures import Camera, Pose

__all__ = ["MetricPoseEstimate", "estimate_metric_pose"]


@dataclass(frozen=True, slots=True, eq=False)
class MetricPoseEstimate:
    """The relative pose of one pair.

    Attributes:
        cam1_from_cam0: with a translation in metres, of length 1 where ``is_metric`` is false.
        num_inliers: matches that agree, by which answers are ranked.
        is_metric: whether the method's points gave the length.
    """

    cam1_from_cam0: Pose
    num_inliers: int
    is_metric: bool


def estimate_metric_pose(answered: Answered, protocol: Protocol) -> MetricPoseEstimate | None:
    """The pose by the protocol's estimator at its first threshold, or ``None``: none was found.

    ``poselib-pnp`` fits camera 1 to the method's points in camera 0's frame. The others search an
    essential matrix and take the translation's length from those points; a method that has none,
    under any estimator, gets an essential matrix and a translation of length 1.
    """
    truth, prediction = answered.sample.truth, answered.prediction
    assert isinstance(truth, PoseTruth)
    keypoints = resized_keypoints(answered)
    k0, k1 = resized_intrinsics(truth, answered.frame)
    cameras = Camera.from_matrix(k0), Camera.from_matrix(k1)
    options = protocol.estimator
    if options.estimator == "poselib-pnp":
        if len(prediction.points0):
            return _by_pnp(keypoints[1], prediction.points0, cameras[1], options)
        options = dataclasses.replace(options, estimator="poselib")
    return _by_essential(prediction, keypoints, cameras, options)


def _by_pnp(
    keypoints1: FloatArray, points0: FloatArray, camera1: Camera, options: EstimatorOptions
) -> MetricPoseEstimate | None:
    ransac = RansacOptions(
        max_error_px=options.thresholds[0],
        max_iterations=options.max_iterations,
        confidence=options.confidence,
        seed=options.seed,
    )
    found = estimate_absolute_pose(keypoints1, points0, camera1, ransac)
    if found is None:
        return None
    return MetricPoseEstimate(found.cam_from_world, found.num_inliers, is_metric=True)


def _by_essential(
    prediction: MatchPrediction,
    keypoints: tuple[FloatArray, FloatArray],
    cameras: tuple[Camera, Camera],
    options: EstimatorOptions,
) -> MetricPoseEstimate | None:
    found = estimate_relative_poses(*keypoints, cameras[0].matrix, cameras[1].matrix, options)[0][0]
    if found.pose is None:
        return None
    scale = None
    if len(prediction.points0):
        errors = epipolar_errors_px(*keypoints, *cameras, found.pose)
        inliers = errors <= options.thresholds[0]
        ends = keypoints[0][inliers], keypoints[1][inliers]
        depth = triangulate(*ends, *cameras, found.pose)[:, 2]
        scale = _median_ratio(prediction.points0[inliers, 2], depth)
    if scale is None:
        return MetricPoseEstimate(found.pose, found.num_inliers, is_metric=False)
    pose = Pose(found.pose.rotation, scale * found.pose.translation)
    return MetricPoseEstimate(pose, found.num_inliers, is_metric=True)


def _median_ratio(metres: FloatArray, units: FloatArray) -> float | None:
    """Metres a unit; ``None`` where nothing could be triangulated.

    The median leaves wrong depths without a say, and so the rays that are nearly parallel.
    """
    ratios = metres / units
    ratios = ratios[np.isfinite(ratios) & (ratios > 0)]
    return float(np.median(ratios)) if len(ratios) else None
