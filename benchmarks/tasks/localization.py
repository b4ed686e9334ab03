"""Where a query was taken from: its matches with the references of a map, as one pose problem."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, FloatArray, PairSample
from benchmarks.core.tasks import Answered, Metric, OracleOptions, Summary, UnitScore
from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.metrics.localization import (
    INLOC_THRESHOLDS,
    OUTDOOR_THRESHOLDS,
    ROOM_THRESHOLDS,
    absolute_pose_error,
    median_error,
    pose_recall,
)
from benchmarks.tasks.localization_options import localization_options
from benchmarks.tasks.pairs import oracle_prediction, oracle_random
from benchmarks.tasks.query_pose import localize_query, query_camera, truth_of
from benchmarks.tasks.reference_points import sample_reference
from matcher.errors import MatcherError
from matcher.files import replaced
from matcher.geometry.camera import project
from matcher.geometry.pose import rotation_to_quaternion
from matcher.structures import ImageSize, Pose

__all__ = ["LocalizationTask"]

_RECALLS = (*OUTDOOR_THRESHOLDS[:1], INLOC_THRESHOLDS[0], *OUTDOOR_THRESHOLDS[1:], *ROOM_THRESHOLDS)
_SHUFFLED_AWAY = 0.1


class LocalizationTask:
    """Scores queries; a unit is a query with all its references."""

    kind = "localization"
    ceiling = 1.0

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Errors of one query; without a known pose, only whether one was found."""
        first = answers[0].sample
        truth = truth_of(first)
        found = localize_query(answers, localization_options(protocol))
        metres = degrees = math.nan
        if truth.cam_from_world is not None:
            metres = degrees = math.inf
            if found.pose is not None:
                error = absolute_pose_error(found.pose.matrix, truth.cam_from_world)
                metres, degrees = error.metres, error.degrees
        return UnitScore(
            unit=first.unit_name,
            group=first.group,
            errors=() if truth.cam_from_world is None else (metres,),
            values={
                "translation_m": metres,
                "rotation_deg": degrees,
                "has_pose": float(found.pose is not None),
                "num_correspondences": float(found.num_correspondences),
                "num_inliers": float(found.num_inliers),
                "focal_ratio": found.focal_ratio,
                "map_unread": float(bool(found.unread)),
            },
            num_matches=sum(len(answered.prediction) for answered in answers),
            seconds=sum(answered.prediction.seconds for answered in answers),
            failure=found.reason,
        )

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """Recalls and medians over all queries, and for each scene; failures are infinite.

        Where no query's pose is known (a server keeps them), the share of queries with a pose.
        """
        del protocol
        groups = sorted({score.group for score in scores} - {""})
        scored = not _is_private(scores)
        metrics = _metrics(scores, scored, with_intervals=True)
        by_group = {
            group: _metrics([score for score in scores if score.group == group], scored)
            for group in groups
        }
        if scored and len(groups) > 1:
            metrics += tuple(
                Metric(
                    f"mean of scene {name}",
                    float(np.mean([_value(by_group[group], name) for group in groups])),
                    higher_is_better=False,
                    count=len(groups),
                )
                for name in ("median translation cm", "median rotation deg")
            )
        return Summary(
            metrics,
            by_group,
            num_units=len(scores),
            num_failures=sum(bool(score.failure) for score in scores),
        )

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """Points that the map knows, seen by the true camera of the query."""
        truth = truth_of(sample)
        if truth.cam_from_world is None:
            return MatchPrediction.failed("the pose of this query is not public")
        random = oracle_random(sample, options)
        try:
            keypoints1, points = sample_reference(
                truth.reference, frame.stored1, 4 * options.count, random
            )
        except MatcherError as error:
            return MatchPrediction.failed(str(error))
        pose = Pose.from_matrix(truth.cam_from_world)
        keypoints0 = project(pose.transform(points), query_camera(truth))
        seen = np.flatnonzero(_inside(keypoints0, frame.stored0))[: options.count]
        keypoints0, keypoints1 = keypoints0[seen], keypoints1[seen]
        prediction = oracle_prediction(keypoints0, keypoints1, frame, options, random)
        if not options.shuffled:
            return prediction
        # What fell near its true place is dropped: over many references it would add up to the true
        # pose, which robust estimation finds among a percent of inliers.
        moved = np.linalg.norm(prediction.keypoints1 - keypoints1, axis=1)
        far = moved > _SHUFFLED_AWAY * frame.stored1.diagonal
        return MatchPrediction(
            prediction.keypoints0[far], prediction.keypoints1[far], prediction.confidence[far]
        )

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """Write ``name qw qx qy qz tx ty tz`` (world to camera) for each query with a pose.

        Returns:
            What was written, or ``None`` where all poses are public. A query without a pose has no
            line: the server counts it as a failure.
        """
        truths = [truth_of(sample) for sample in dataset.samples]
        if all(truth.cam_from_world is not None for truth in truths):
            return None
        units: dict[str, list[Answered]] = {}
        for answered in answers:
            if not answered.prediction.failure:
                units.setdefault(answered.sample.unit_name, []).append(answered)
        options = localization_options(protocol)
        lines = []
        for unit in units.values():
            pose = localize_query(unit, options).pose
            if pose is not None:
                numbers = (*rotation_to_quaternion(pose.rotation), *pose.translation)
                query = truth_of(unit[0].sample).query
                lines.append(" ".join([query, *(f"{number:.12g}" for number in numbers)]))
        with replaced(path) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        queries = len({sample.unit_name for sample in dataset.samples}) + len(dataset.problems)
        return f"{path}: {len(lines)} of {queries} queries have a pose; written, not scored"


def _metrics(
    scores: Sequence[UnitScore], scored: bool, *, with_intervals: bool = False
) -> tuple[Metric, ...]:
    count = len(scores)
    if not scored:
        found = np.array([score.values.get("has_pose", 0.0) for score in scores])
        share = float(found.mean()) if count else math.nan
        return (Metric("queries with a pose (written, not scored)", share, count=count),)
    errors = np.array(
        [
            [score.values.get(name, math.inf) for name in ("translation_m", "rotation_deg")]
            for score in scores
        ]
    ).reshape(-1, 2)
    metrics = []
    for threshold in _RECALLS:
        within = np.array([pose_recall(row[:1], row[1:], threshold) for row in errors])
        low, high = bootstrap_interval(within, _mean) if with_intervals else (math.nan, math.nan)
        value = pose_recall(errors[:, 0], errors[:, 1], threshold)
        metrics.append(Metric(f"recall@{threshold.label}", value, low, high, count=count))
    for name, column in (
        ("median translation cm", 100 * errors[:, 0]),
        ("median rotation deg", errors[:, 1]),
    ):
        interval = (math.nan, math.nan)
        if with_intervals:
            interval = bootstrap_interval(column, median_error)
        metrics.append(Metric(name, median_error(column), *interval, False, count))
    return tuple(metrics)


def _mean(values: FloatArray) -> float:
    return float(values.mean())


def _value(metrics: Sequence[Metric], name: str) -> float:
    return next(metric.value for metric in metrics if metric.name == name)


def _is_private(scores: Sequence[UnitScore]) -> bool:
    """Whether queries were answered, and none of them can be scored."""
    answered = [score for score in scores if "has_pose" in score.values]
    return bool(answered) and all(not score.errors for score in answered)


def _inside(keypoints: FloatArray, size: ImageSize) -> npt.NDArray[np.bool_]:
    limit = np.array([size.width, size.height]) - 0.5
    inside: npt.NDArray[np.bool_] = np.all((keypoints >= -0.5) & (keypoints <= limit), axis=1)
    return inside
