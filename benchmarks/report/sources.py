"""Every method on every group (source, scene) by viewpoint change."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.core.tasks import Metric, UnitScore
from benchmarks.metrics.auc import error_auc
from benchmarks.report.markdown import (
    cell,
    markdown_table,
    method_cell,
    metric_named,
    value_cell,
)
from benchmarks.report.numbers import best_rows
from benchmarks.report.results import BenchmarkReport
from benchmarks.report.table import ranked
from benchmarks.tasks.pose import VIEWPOINT_BINS_DEG

__all__ = ["sources_table"]

_ANGLE = "rotation_deg"


def sources_table(report: BenchmarkReport) -> str:
    """Groups and methods by bins of the angle between the cameras, the area under the curve.

    Empty without such angles, with fewer than two groups, or where a threshold was swept: its
    choice belongs to the whole data set.
    """
    name = f"AUC@{max(report.protocol.auc_thresholds, default=0.0):g}"
    results = [one for one in ranked(report.results) if metric_named(one.summary.metrics, name)]
    groups = sorted({score.group for one in results for score in one.scores if score.group})
    has_angles = any(_angle(score) is not None for one in results for score in one.scores)
    if len(groups) < 2 or not has_angles or len(report.protocol.estimator.thresholds) > 1:
        return ""
    # A pair that a method failed on has its angle from the methods that did not.
    angles = {
        score.unit: angle
        for one in results
        for score in one.scores
        if (angle := _angle(score)) is not None
    }
    labels = [f"{low}-{high}" for low, high in VIEWPOINT_BINS_DEG]
    rows = []
    for group in groups:
        cells = [
            _by_viewpoint([one for one in result.scores if one.group == group], angles, report)
            for result in results
        ]
        counts = [max(column[k].count for column in cells) for k in range(len(labels))]
        rows.append([f"**{cell(group)}**", "pairs", *(str(n) if n else "–" for n in counts)])
        best = [best_rows([column[k] for column in cells]) for k in range(len(labels))]
        rows.extend(
            ["", method_cell(result.method)]
            + [value_cell(metric, index in best[k]) for k, metric in enumerate(cells[index])]
            for index, result in enumerate(results)
        )
    header = ["group", "method", *labels]
    return markdown_table(header, rows, num_left=2)


def _by_viewpoint(
    scores: Sequence[UnitScore], angles: dict[str, float], report: BenchmarkReport
) -> list[Metric]:
    threshold = max(report.protocol.auc_thresholds)
    repeats = report.protocol.estimator.repeats
    metrics = []
    for low, high in VIEWPOINT_BINS_DEG:
        inside = [
            score
            for score in scores
            if low <= (angle := angles.get(score.unit, math.nan)) and (angle < high or high == 180)
        ]
        # A failure counts as often as the repeats of a pair that was estimated.
        errors = [
            error
            for score in inside
            for error in (
                score.errors if len(score.errors) == repeats else (score.error,) * repeats
            )
        ]
        area = error_auc(np.array(errors), threshold) if errors else math.nan
        metrics.append(Metric(f"AUC@{threshold:g}", area, count=len(inside)))
    return metrics


def _angle(score: UnitScore) -> float | None:
    angle = score.values.get(_ANGLE, math.nan)
    return None if math.isnan(angle) else angle
