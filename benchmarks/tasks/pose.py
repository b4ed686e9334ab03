"""Relative pose of calibrated pairs: the larger of the rotation's and the translation's error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, FloatArray, PairSample, PoseTruth
from benchmarks.core.tasks import Answered, Metric, OracleOptions, Summary, UnitScore
from benchmarks.estimators import estimate_relative_poses
from benchmarks.metrics.auc import mean_average_accuracy, recall_at
from benchmarks.metrics.errors import (
    fundamental_from_pose,
    matching_precision,
    pose_errors_deg,
    symmetric_epipolar_errors_px,
)
from benchmarks.tasks.oracle_points import sample_true_matches
from benchmarks.tasks.pairs import (
    oracle_prediction,
    oracle_random,
    resized_intrinsics,
    resized_keypoints,
    single_answer,
)
from benchmarks.tasks.sweeps import (
    auc_metric,
    error_table,
    interval_metric,
    mean_value_metric,
    median_matches_metric,
    unit_errors,
)
from matcher.errors import InputError

__all__ = ["VIEWPOINT_BINS_DEG", "PoseTask"]

VIEWPOINT_BINS_DEG = ((0, 15), (15, 30), (30, 60), (60, 90), (90, 180))
_PRECISION_PX = (1, 3, 5)
# The protocols of multi-view sets also count the rotations and the translations alone; CO3D's
# numbers are means over its categories.
_COUNTS_ANGLES = frozenset({"co3d", "realestate10k"})
_MEAN_OVER_GROUPS = frozenset({"co3d"})
_ANGLES_DEG = (5, 15, 30)


class PoseTask:
    """Scores matches by the relative pose that the protocol's estimator finds in them.

    Values of a unit: ``rotation_deg`` (between the cameras), ``overlap``, ``rotation_error_deg``
    and ``translation_error_deg`` (medians over repeats), ``precision_1px`` and so on,
    ``num_inliers``, and with several thresholds the error under each.
    """

    kind = "pose"
    ceiling = 1.0

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Score one pair; a pair without a pose has an infinite error."""
        answered = single_answer(answers)
        sample, prediction, truth = answered.sample, answered.prediction, _truth(answered.sample)
        keypoints0, keypoints1 = resized_keypoints(answered)
        k0, k1 = resized_intrinsics(truth, answered.frame)
        # A method without pointmaps has no points at all, not one a match.
        depths0 = prediction.points0[:, 2] if len(prediction.points0) else None
        estimates = estimate_relative_poses(
            keypoints0, keypoints1, k0, k1, protocol.estimator, prediction.confidence, depths0
        )
        angles = [
            [pose_errors_deg(estimate.pose, truth.cam1_from_cam0) for estimate in row]
            for row in estimates
        ]
        errors, values = unit_errors([[max(pair) for pair in row] for row in angles], protocol)
        middle = (len(estimates) - 1) // 2
        rotation, translation = np.median(angles[middle], axis=0)
        epipolar = symmetric_epipolar_errors_px(
            keypoints0, keypoints1, fundamental_from_pose(k0, k1, truth.cam1_from_cam0)
        )
        values |= {
            "rotation_deg": truth.rotation_deg,
            "overlap": math.nan if truth.overlap is None else truth.overlap,
            "rotation_error_deg": float(rotation),
            "translation_error_deg": float(translation),
            "num_inliers": float(np.median([one.num_inliers for one in estimates[middle]])),
            **{f"precision_{px}px": matching_precision(epipolar, px) for px in _PRECISION_PX},
        }
        failure = prediction.failure
        if not failure and np.isinf(angles).all():
            failure = f"no pose from {len(prediction)} matches"
        return UnitScore(
            sample.unit_name,
            sample.group,
            errors,
            values,
            len(prediction),
            prediction.seconds,
            failure,
        )

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """AUCs, mAA, precision and counts; by group, and by the angle between the cameras."""
        table = error_table(scores, protocol)
        names = [score.group for score in scores]
        groups = names if protocol.name in _MEAN_OVER_GROUPS else None
        thresholds, largest = protocol.auc_thresholds, max(protocol.auc_thresholds)
        accuracy = partial(mean_average_accuracy, max_threshold=largest)
        metrics = [
            *(auc_metric(table.rows, threshold, groups) for threshold in thresholds),
            interval_metric(f"mAA({largest:g})", table.rows, accuracy, groups),
            *(_angle_recalls(scores, groups) if protocol.name in _COUNTS_ANGLES else ()),
            *(
                mean_value_metric(f"precision@{px}px", scores, f"precision_{px}px", 0.0, groups)
                for px in _PRECISION_PX
            ),
            median_matches_metric(scores),
        ]
        if table.is_best_of_several:
            metrics.append(Metric("best threshold px", table.threshold, count=len(scores)))
        by_group = {}
        for name in sorted(set(names)):
            rows = table.rows[np.array([group == name for group in names])]
            by_group[name] = tuple(auc_metric(rows, threshold) for threshold in thresholds)
        num_failures = sum(bool(score.failure) for score in scores)
        by_viewpoint = _by_viewpoint(table.rows, scores, largest)
        return Summary(tuple(metrics), by_group, by_viewpoint, len(scores), num_failures)

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """Projections of random points that lie in front of both cameras."""
        truth, random = _truth(sample), oracle_random(sample, options)
        matches = sample_true_matches(truth, frame.stored0, frame.stored1, options.count, random)
        if not len(matches.keypoints0):
            return MatchPrediction.failed("no point lies in front of both cameras")
        points0 = matches.points0 if truth.is_metric else None
        return oracle_prediction(
            matches.keypoints0, matches.keypoints1, frame, options, random, points0
        )

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """No server scores this task."""
        return None


def _truth(sample: PairSample) -> PoseTruth:
    if not isinstance(sample.truth, PoseTruth):
        raise InputError(sample.name, "a PoseTruth", type(sample.truth).__name__)
    return sample.truth


def _by_viewpoint(
    rows: FloatArray, scores: Sequence[UnitScore], threshold: float
) -> dict[str, Metric]:
    """The AUC of each bin that holds pairs; pairs whose angle nobody knows are in none."""
    angles = np.array([score.values.get("rotation_deg", math.nan) for score in scores])
    metrics = {}
    for low, high in VIEWPOINT_BINS_DEG:
        inside = (angles >= low) & ((angles < high) | (high == 180))
        if inside.any():
            metrics[f"{low}-{high}"] = auc_metric(rows[inside], threshold)
    return metrics


def _angle_recalls(scores: Sequence[UnitScore], groups: Sequence[str] | None) -> list[Metric]:
    """Shares of pairs with a rotation (RRA) and a translation (RTA) within some angles."""
    metrics = []
    for name, value in (("RRA", "rotation_error_deg"), ("RTA", "translation_error_deg")):
        errors = np.array([score.values.get(value, math.inf) for score in scores])
        for angle in _ANGLES_DEG:
            recall = partial(recall_at, threshold=angle)
            metrics.append(interval_metric(f"{name}@{angle}", errors, recall, groups))
    return metrics
