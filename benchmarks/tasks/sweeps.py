"""Errors of units under one threshold of the estimator, or under the best of several.

A protocol with several thresholds reports the one that does best over the whole data set, never the
best for each pair. Hence each unit keeps its error under every threshold, as a value of the name
:func:`threshold_value`, until all units are there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from benchmarks.core.protocols import Protocol
from benchmarks.core.samples import FloatArray
from benchmarks.core.tasks import Metric, UnitScore
from benchmarks.metrics.auc import error_auc
from benchmarks.metrics.bootstrap import bootstrap_interval
from matcher.errors import InputError

__all__ = [
    "ErrorTable",
    "auc_metric",
    "error_table",
    "interval_metric",
    "mean_value_metric",
    "median_matches_metric",
    "threshold_value",
    "unit_errors",
]

Statistic = Callable[[FloatArray], float]


@dataclass(frozen=True, slots=True, eq=False)
class ErrorTable:
    """What is counted.

    Attributes:
        rows: (N, R) errors of each unit, one column a repeat; infinite: a failure.
        threshold: of the estimator, pixels.
        is_best_of_several: the threshold was chosen for these very units.
    """

    rows: FloatArray
    threshold: float
    is_best_of_several: bool


def threshold_value(threshold: float) -> str:
    """Name of the value that keeps a unit's error under one of several thresholds."""
    return f"error_at_{threshold:g}px"


def unit_errors(
    errors: Sequence[Sequence[float]], protocol: Protocol
) -> tuple[tuple[float, ...], dict[str, float]]:
    """``errors`` and ``values`` of a unit's score.

    Args:
        errors: for each threshold one error a repeat.
        protocol: whose thresholds they are. With several, ``errors`` of the unit are those under
            the middle one, by which the best and the worst units are shown.

    Raises:
        InputError: several thresholds and several repeats at once.
    """
    thresholds = protocol.estimator.thresholds
    if len(thresholds) == 1:
        return tuple(errors[0]), {}
    if protocol.estimator.repeats > 1:
        raise InputError("protocol", "several thresholds or several repeats", "both")
    values = {
        threshold_value(threshold): row[0]
        for threshold, row in zip(thresholds, errors, strict=True)
    }
    return tuple(errors[(len(thresholds) - 1) // 2]), values


def error_table(scores: Sequence[UnitScore], protocol: Protocol) -> ErrorTable:
    """The errors that count, under the threshold with the best mean AUC where there are several."""
    thresholds = protocol.estimator.thresholds
    if len(thresholds) == 1:
        repeats = protocol.estimator.repeats
        rows = [_repeated(score.errors, repeats) for score in scores]
        return ErrorTable(np.array(rows).reshape(len(scores), repeats), thresholds[0], False)
    columns = np.array(
        [[score.values.get(threshold_value(t), math.inf) for t in thresholds] for score in scores]
    ).reshape(len(scores), len(thresholds))
    mean_auc = [
        np.mean([error_auc(column, t) for t in protocol.auc_thresholds]) for column in columns.T
    ]
    best = int(np.argmax(mean_auc))
    return ErrorTable(columns[:, best : best + 1], thresholds[best], True)


def interval_metric(
    name: str, rows: FloatArray, statistic: Statistic, groups: Sequence[str] | None = None
) -> Metric:
    """A statistic of (N, ...) rows with its bootstrap interval.

    With ``groups``, (N,) names, it is the mean of the groups' statistics, and the interval holds
    for other groups instead of other units.
    """
    if groups is not None:
        names = np.asarray(groups)
        by_group = [statistic(rows[names == group]) for group in np.unique(names)]
        rows, statistic = np.array(by_group), _mean
    low, high = bootstrap_interval(rows, statistic)
    return Metric(name, statistic(rows), low, high, count=len(rows))


def auc_metric(rows: FloatArray, threshold: float, groups: Sequence[str] | None = None) -> Metric:
    """``AUC@threshold`` of (N, R) errors; ``groups`` as for :func:`interval_metric`."""
    return interval_metric(
        f"AUC@{threshold:g}", rows, partial(error_auc, threshold=threshold), groups
    )


def mean_value_metric(
    name: str,
    scores: Sequence[UnitScore],
    value: str,
    where_missing: float,
    groups: Sequence[str] | None = None,
) -> Metric:
    """Mean of a value over all units; units without it count as ``where_missing``."""
    values = np.array([score.values.get(value, math.nan) for score in scores], dtype=np.float64)
    values = np.where(np.isnan(values), where_missing, values)
    return interval_metric(name, values, _mean, groups)


def median_matches_metric(scores: Sequence[UnitScore]) -> Metric:
    """Median number of matches; a failure has none."""
    return interval_metric(
        "median matches", np.array([float(score.num_matches) for score in scores]), _median
    )


def _mean(values: FloatArray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median(values: FloatArray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _repeated(errors: Sequence[float], repeats: int) -> list[float]:
    """One error a repeat: a unit that failed as a whole failed in every repeat."""
    if len(errors) == repeats:
        return list(errors)
    return [errors[0] if errors else math.inf] * repeats
