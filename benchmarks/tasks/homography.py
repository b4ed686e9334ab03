"""Homographies: how far the corners of image 0 land from where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, FloatArray, HomographyTruth, PairSample
from benchmarks.core.tasks import Answered, Metric, OracleOptions, Summary, UnitScore
from benchmarks.estimators import estimate_homography
from benchmarks.metrics.auc import recall_at
from benchmarks.metrics.errors import matching_precision
from benchmarks.metrics.homography import mean_corner_error_px, mean_visible_error_px, visible
from benchmarks.tasks.pairs import (
    oracle_prediction,
    oracle_random,
    resized_homography,
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
from matcher.geometry.homography import transfer_errors_px
from matcher.geometry.pixels import transform_keypoints

__all__ = ["HomographyTask"]

_PRECISION_PX = (1, 3, 5)
# EVD counts the mean error over what both images show, as a mean over thresholds (mAA).
_COUNTS_VISIBLE_PART = frozenset({"evd"})
_TRIES_PER_MATCH = 40


class HomographyTask:
    """Scores matches by the homography that the protocol's estimator finds in them.

    Errors are pixels of resized photograph 1. Values of a unit: ``precision_1px`` and so on (share
    of matches that the true homography maps so near), ``num_inliers``, and with several thresholds
    the error under each.
    """

    kind = "homography"
    ceiling = 1.0

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Score one pair; a pair without a homography has an infinite error."""
        answered = single_answer(answers)
        sample, prediction, frame = answered.sample, answered.prediction, answered.frame
        truth = resized_homography(_truth(sample).h1_from_0, frame)
        keypoints0, keypoints1 = resized_keypoints(answered)
        estimates = estimate_homography(keypoints0, keypoints1, protocol.estimator)

        def error(estimated: FloatArray | None) -> float:
            if protocol.name in _COUNTS_VISIBLE_PART:
                return mean_visible_error_px(estimated, truth, frame.resized0, frame.resized1)
            return mean_corner_error_px(estimated, truth, frame.resized0)

        by_threshold = [[error(estimate.matrix) for estimate in row] for row in estimates]
        errors, values = unit_errors(by_threshold, protocol)
        transfer = transfer_errors_px(keypoints0, keypoints1, truth)
        middle = (len(estimates) - 1) // 2
        values |= {
            "num_inliers": float(np.median([one.num_inliers for one in estimates[middle]])),
            **{f"precision_{px}px": matching_precision(transfer, px) for px in _PRECISION_PX},
        }
        failure = prediction.failure
        if not failure and np.isinf(by_threshold).all():
            failure = f"no homography from {len(prediction)} matches"
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
        """AUCs (for EVD: mAA) and the recalls (MHA) at the same thresholds; by group."""
        table = error_table(scores, protocol)
        metrics = list(_accuracies(table.rows, protocol))
        if protocol.name not in _COUNTS_VISIBLE_PART:
            for threshold in protocol.auc_thresholds:
                recall = partial(recall_at, threshold=threshold)
                metrics.append(interval_metric(f"MHA@{threshold:g}", table.rows, recall))
        for px in _PRECISION_PX:
            metrics.append(mean_value_metric(f"precision@{px}px", scores, f"precision_{px}px", 0.0))
        metrics.append(median_matches_metric(scores))
        if table.is_best_of_several:
            metrics.append(Metric("best threshold px", table.threshold, count=len(scores)))
        names = np.array([score.group for score in scores])
        by_group = {
            str(name): _accuracies(table.rows[names == name], protocol) for name in np.unique(names)
        }
        num_failures = sum(bool(score.failure) for score in scores)
        return Summary(tuple(metrics), by_group, {}, len(scores), num_failures)

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """Random pixels of image 0 that image 1 shows too, and where they lie there."""
        random = oracle_random(sample, options)
        homography, size0 = _truth(sample).h1_from_0, frame.stored0
        tries = _TRIES_PER_MATCH * options.count
        pixels = random.uniform(0, 1, (tries, 2)) * [size0.width, size0.height] - 0.5
        pixels = pixels[visible(pixels, homography, frame.stored1)][: options.count]
        if not len(pixels):
            return MatchPrediction.failed("the images share nothing")
        mapped = transform_keypoints(homography, pixels)
        return oracle_prediction(pixels, mapped, frame, options, random)

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """No server scores this task."""
        return None


def _accuracies(rows: FloatArray, protocol: Protocol) -> tuple[Metric, ...]:
    thresholds = protocol.auc_thresholds
    if protocol.name not in _COUNTS_VISIBLE_PART:
        return tuple(auc_metric(rows, threshold) for threshold in thresholds)

    def mean_accuracy(drawn: FloatArray) -> float:
        return float(np.mean([recall_at(drawn, threshold) for threshold in thresholds]))

    return (interval_metric("mAA", rows, mean_accuracy),)


def _truth(sample: PairSample) -> HomographyTruth:
    if not isinstance(sample.truth, HomographyTruth):
        raise InputError(sample.name, "a HomographyTruth", type(sample.truth).__name__)
    return sample.truth
