"""The numbers of Map-free relocalisation from the scores of its pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import compress

import numpy as np

from benchmarks.core.samples import FloatArray
from benchmarks.core.tasks import Metric, Summary, UnitScore
from benchmarks.metrics.auc import precision_recall_auc
from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.tasks.pose import VIEWPOINT_BINS_DEG
from benchmarks.tasks.sweeps import interval_metric

__all__ = ["summarise_metric_poses"]

_POSE_LIMITS = (0.25, 5.0)  # metres, degrees
# Columns of the table of units, from which every number of a summary is computed.
_VCRE, _TRANSLATION, _ROTATION, _INLIERS, _IS_METRIC = range(5)


def summarise_metric_poses(scores: Sequence[UnitScore], max_vcre_px: float) -> Summary:
    """Precisions, areas and averages of medians.

    Args:
        scores: ``errors`` in pixels (empty: the pose is kept by a server), ``values`` with
            ``translation_m``, ``rotation_error_deg``, ``num_inliers``, ``is_metric`` (0: the length
            of the translation is only assumed) and ``rotation_deg`` (between the cameras).
        max_vcre_px: a pair below is right.
    """
    failures = sum(bool(score.failure) for score in scores)
    if any(not score.errors for score in scores):
        nothing = Metric(_precision_name(max_vcre_px), math.nan, count=len(scores))
        return Summary((nothing,), num_units=len(scores), num_failures=failures)
    by_group: dict[str, list[UnitScore]] = {}
    by_viewpoint: dict[str, list[UnitScore]] = {}
    for score in scores:
        by_group.setdefault(score.group, []).append(score)
    for low, high in VIEWPOINT_BINS_DEG:
        angles = [score.values.get("rotation_deg", math.nan) for score in scores]
        inside = [low <= angle < high or (angle == high == 180) for angle in angles]
        if any(inside):
            by_viewpoint[f"{low}-{high}"] = list(compress(scores, inside))
    return Summary(
        _metrics(scores, max_vcre_px),
        {name: (_precision(of, max_vcre_px),) for name, of in sorted(by_group.items()) if name},
        {label: _precision(of, max_vcre_px) for label, of in by_viewpoint.items()},
        len(scores),
        failures,
    )


def _precision_name(max_vcre_px: float) -> str:
    return f"VCRE precision@{max_vcre_px:g}px"


def _table(scores: Sequence[UnitScore]) -> FloatArray:
    """(N, 5), one row a unit; infinite errors for pairs without a pose."""
    rows = [
        (
            score.error,
            score.values.get("translation_m", math.inf),
            score.values.get("rotation_error_deg", math.inf),
            score.values.get("num_inliers", 0.0),
            score.values.get("is_metric", 0.0),
        )
        for score in scores
    ]
    return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _precision(scores: Sequence[UnitScore], max_vcre_px: float) -> Metric:
    value = float(np.mean([score.error < max_vcre_px for score in scores]))
    return Metric(_precision_name(max_vcre_px), value, count=len(scores))


def _metrics(scores: Sequence[UnitScore], max_vcre_px: float) -> tuple[Metric, ...]:
    table, groups = _table(scores), [score.group for score in scores]

    def good_vcre(rows: FloatArray) -> FloatArray:
        return np.asarray(rows[:, _VCRE] < max_vcre_px)

    def good_pose(rows: FloatArray) -> FloatArray:
        return np.asarray((rows[:, (_TRANSLATION, _ROTATION)] < _POSE_LIMITS).all(axis=1))

    def area(rows: FloatArray, good: FloatArray) -> float:
        answered = np.isfinite(rows[:, _VCRE])
        unanswered = int(np.count_nonzero(~answered))
        return precision_recall_auc(good[answered], rows[answered, _INLIERS], unanswered)

    def share(name: str, statistic: Callable[[FloatArray], float]) -> Metric:
        # The pairs of one scene succeed and fail together: scenes are drawn where there are some.
        drawn = groups if len(set(groups)) > 1 else None
        interval = bootstrap_interval(table, statistic, drawn)
        value = statistic(table) if len(table) else math.nan
        return Metric(name, value, *interval, count=len(table))

    return (
        share(_precision_name(max_vcre_px), lambda rows: float(good_vcre(rows).mean())),
        share("VCRE AUC", lambda rows: area(rows, good_vcre(rows))),
        _mean_of_medians("VCRE median px", table[:, _VCRE], groups),
        _mean_of_medians("median translation m", table[:, _TRANSLATION], groups),
        _mean_of_medians("median rotation deg", table[:, _ROTATION], groups),
        share(
            f"pose precision@{_POSE_LIMITS[0]:g}m,{_POSE_LIMITS[1]:g}deg",
            lambda rows: float(good_pose(rows).mean()),
        ),
        share("pose AUC", lambda rows: area(rows, good_pose(rows))),
        share("answered share", lambda rows: float(np.isfinite(rows[:, _VCRE]).mean())),
        share("metric scale share", lambda rows: float(rows[:, _IS_METRIC].mean())),
    )


def _mean_of_medians(name: str, errors: FloatArray, groups: Sequence[str]) -> Metric:
    """Mean over scenes of the median over the answered pairs of a scene."""
    answered = np.isfinite(errors)
    of_answered = [group for group, is_there in zip(groups, answered, strict=True) if is_there]
    metric = interval_metric(name, errors[answered], _median, of_answered)
    return replace(metric, higher_is_better=False)


def _median(errors: FloatArray) -> float:
    return float(np.median(errors))
