"""Hand-marked correspondences: does the fundamental matrix found in the matches explain them?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import CorrespondenceTruth, Dataset, FloatArray, PairSample
from benchmarks.core.tasks import Answered, Metric, OracleOptions, Summary, UnitScore
from benchmarks.estimators import estimate_fundamental
from benchmarks.metrics.auc import recall_at
from benchmarks.metrics.errors import symmetric_epipolar_errors_px
from benchmarks.tasks.pairs import (
    oracle_prediction,
    oracle_random,
    resized_keypoints,
    single_answer,
)
from benchmarks.tasks.sweeps import mean_value_metric, median_matches_metric
from matcher.errors import InputError
from matcher.geometry.pixels import resize_transform, transform_keypoints

__all__ = ["RECALL_THRESHOLDS_PX", "CorrespondencesTask"]

RECALL_THRESHOLDS_PX = tuple(range(20))
_REPORTED_RECALLS_PX = (1, 3, 5, 10, 19)
# The eight-point algorithm needs so many; with fewer the marks are answered as they are.
_MIN_MARKS_FOR_FIT = 8


class CorrespondencesTask:
    """Scores matches by the share of marked correspondences near the epipolar lines they imply.

    A unit's errors are the symmetric epipolar distances of its marks, pixels of the resized
    photographs (infinite without a fundamental matrix). Its values: ``recall_0px`` to
    ``recall_19px``, ``mAA_10px`` (mean of the recalls at 0, 1, ... 10 px; as no distance is
    exactly 0, 10 / 11 is the most it reaches), ``num_inliers``.
    """

    kind = "correspondences"
    ceiling = 10 / 11  # no distance is below the first of its thresholds, 0 px

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Score one pair."""
        answered = single_answer(answers)
        sample, prediction, frame = answered.sample, answered.prediction, answered.frame
        options = protocol.estimator
        if len(options.thresholds) > 1 or options.repeats > 1:
            raise InputError("protocol", "one threshold and one repeat", protocol.name)
        estimate = estimate_fundamental(*resized_keypoints(answered), options)[0][0]
        truth = _truth(sample)
        marks0 = transform_keypoints(
            resize_transform(frame.stored0, frame.resized0), truth.keypoints0
        )
        marks1 = transform_keypoints(
            resize_transform(frame.stored1, frame.resized1), truth.keypoints1
        )
        errors = np.full(len(marks0), np.inf)
        if estimate.matrix is not None:
            errors = symmetric_epipolar_errors_px(marks0, marks1, estimate.matrix)
        recalls = {f"recall_{px}px": recall_at(errors, float(px)) for px in RECALL_THRESHOLDS_PX}
        failure = prediction.failure
        if not failure and estimate.matrix is None:
            failure = f"no fundamental matrix from {len(prediction)} matches"
        mean_accuracies = {
            f"mAA_{top:g}px": float(np.mean([recalls[f"recall_{px}px"] for px in range(top + 1)]))
            for top in _tops(protocol)
        }
        return UnitScore(
            sample.unit_name,
            sample.group,
            tuple(errors.tolist()),
            {**mean_accuracies, **recalls, "num_inliers": float(estimate.num_inliers)},
            len(prediction),
            prediction.seconds,
            failure,
        )

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """Means over pairs of mAA and recalls; mAA also by category."""

        def accuracies(chosen: Sequence[UnitScore]) -> tuple[Metric, ...]:
            return tuple(
                mean_value_metric(f"mAA@{top}px", chosen, f"mAA_{top}px", 0.0)
                for top in _tops(protocol)
            )

        recalls = (
            mean_value_metric(f"recall@{px}px", scores, f"recall_{px}px", 0.0)
            for px in _REPORTED_RECALLS_PX
        )
        metrics = (*accuracies(scores), *recalls, median_matches_metric(scores))
        by_group = {
            name: accuracies([score for score in scores if score.group == name])
            for name in sorted({score.group for score in scores})
        }
        num_failures = sum(bool(score.failure) for score in scores)
        return Summary(metrics, by_group, {}, len(scores), num_failures)

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """The marks, moved onto the epipolar geometry that fits all of them best.

        There is no more truth than the marks: ``options.count`` is not reached.
        """
        truth, random = _truth(sample), oracle_random(sample, options)
        marks0, marks1 = _consistent(truth.keypoints0, truth.keypoints1)
        return oracle_prediction(marks0, marks1, frame, options, random)

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """No server scores this task."""
        return None


def _consistent(marks0: FloatArray, marks1: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The nearest pixels that agree with one fundamental matrix exactly."""
    if len(marks0) < _MIN_MARKS_FOR_FIT:
        return marks0, marks1
    fundamental, _ = cv2.findFundamentalMat(marks0, marks1, cv2.FM_8POINT)
    if fundamental is None or fundamental.shape != (3, 3):
        return marks0, marks1
    moved0, moved1 = cv2.correctMatches(fundamental, marks0[None], marks1[None])
    moved = np.concatenate([moved0[0], moved1[0]], axis=1).astype(np.float64)
    return (moved[:, :2], moved[:, 2:]) if np.isfinite(moved).all() else (marks0, marks1)


def _tops(protocol: Protocol) -> tuple[int, ...]:
    """Whole pixels up to which recalls are averaged."""
    tops = tuple(math.floor(top) for top in protocol.auc_thresholds)
    if not all(0 < top <= RECALL_THRESHOLDS_PX[-1] for top in tops):
        raise InputError("protocol", "thresholds of 1 to 19 px", f"{protocol.auc_thresholds}")
    return tops


def _truth(sample: PairSample) -> CorrespondenceTruth:
    if not isinstance(sample.truth, CorrespondenceTruth):
        raise InputError(sample.name, "a CorrespondenceTruth", type(sample.truth).__name__)
    return sample.truth
