"""Figures that need nothing but a report: viewpoint change, error curves, match counts."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.core.tasks import Metric, UnitScore
from benchmarks.report.numbers import axis_label, is_share
from benchmarks.report.results import BenchmarkReport, MethodResult
from benchmarks.report.style import MethodStyle, drawing, legend_outside, method_styles
from benchmarks.report.table import ranked

__all__ = ["draw_error_curves", "draw_match_counts", "draw_viewpoint"]

_WIDE = (8.4, 4.4)
_DODGE = 0.09  # categories apart, so that intervals do not hide each other
_AREA = re.compile(r"(?:AUC@|mAA[@(\d])")
_RECALL_UNITS = ("px", "deg", "cm", "mm", "m")


def draw_viewpoint(
    report: BenchmarkReport, path: Path, styles: Mapping[str, MethodStyle] | None = None
) -> bool:
    """The first metric in bins of viewpoint change, with 95 % intervals; all methods.

    Returns:
        Whether there was anything to draw; no file is written otherwise.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    results = [result for result in ranked(report.results) if result.summary.by_viewpoint]
    if not results:
        return False
    looks = styles or method_styles(result.method for result in report.results)
    labels = list(dict.fromkeys(one for result in results for one in result.summary.by_viewpoint))
    metric = next(iter(results[0].summary.by_viewpoint.values()))
    with drawing(path, "drawing the figures of a report", _WIDE) as axes:
        for index, result in enumerate(results):
            style = looks[result.method.name]
            offset = _DODGE * (index - (len(results) - 1) / 2)
            points = [_point(result.summary.by_viewpoint.get(label)) for label in labels]
            x = np.arange(len(labels)) + offset
            value, low, high = np.array(points).T
            axes.vlines(x, low, high, color=style.colour, linewidth=1.2, alpha=0.55)
            axes.plot(
                x,
                value,
                color=style.colour,
                marker=style.marker,
                markersize=6.5,
                markeredgecolor="white",
                linewidth=style.width,
                zorder=style.order,
                label=result.method.name,
            )
        counts = [
            max(
                (
                    one.summary.by_viewpoint[label].count
                    for one in results
                    if label in one.summary.by_viewpoint
                ),
                default=0,
            )
            for label in labels
        ]
        axes.set_xticks(
            range(len(labels)),
            [
                f"{label}\n{n} pairs" if n else label
                for label, n in zip(labels, counts, strict=True)
            ],
        )
        axes.grid(axis="x", visible=False)
        axes.set_xlim(-0.5, len(labels) - 0.5)
        axes.set_ylim(bottom=0, top=100 if is_share(metric.name) else None)
        axes.set_ylabel(axis_label(metric.name))
        axes.set_title(f"{report.display_title}: {metric.name} by viewpoint change")
        legend_outside(axes, [result.method.name for result in results])
    return True


def draw_error_curves(
    report: BenchmarkReport, path: Path, styles: Mapping[str, MethodStyle] | None = None
) -> bool:
    """Share of units within an error, up to the largest threshold of the protocol.

    The area under a curve up to a threshold, over the threshold, is the AUC there. A failure never
    enters the curve but counts in its share. Returns and raises as :func:`draw_viewpoint`.
    """
    results = [
        result
        for result in ranked(report.results)
        # Where no area under the curve is reported, the thresholds are not of the units' errors.
        if result.scores and any(_AREA.match(one.name) for one in result.summary.metrics)
    ]
    thresholds = sorted(report.protocol.auc_thresholds)
    if not results or not thresholds:
        return False
    looks = styles or method_styles(result.method for result in report.results)
    limit = thresholds[-1]
    with drawing(path, "drawing the figures of a report", _WIDE) as axes:
        for result in results:
            style = looks[result.method.name]
            error, share = _recall_curve(result.scores, limit)
            axes.step(
                error,
                100 * share,
                where="post",
                color=style.colour,
                linewidth=style.width,
                zorder=style.order,
                label=result.method.name,
            )
        axes.set_xlim(0, limit)
        axes.set_ylim(0, 100)
        if len(thresholds) <= 5:
            axes.set_xticks([0.0, *thresholds], [f"{tick:g}" for tick in (0.0, *thresholds)])
        axes.set_xlabel(f"error{_unit_of(results[0])}")
        axes.set_ylabel("pairs within the error (%)")
        axes.set_title(f"{report.display_title}: recall against error")
        legend_outside(axes, [result.method.name for result in results])
    return True


def draw_match_counts(
    report: BenchmarkReport, path: Path, styles: Mapping[str, MethodStyle] | None = None
) -> bool:
    """Matches of each method: median, middle half, and the middle 90 % of the units.

    Returns and raises as :func:`draw_viewpoint`.
    """
    results = [result for result in ranked(report.results) if result.scores]
    if not results:
        return False
    looks = styles or method_styles(result.method for result in report.results)
    inches = (8.4, 1.5 + 0.5 * len(results))
    with drawing(path, "drawing the figures of a report", inches) as axes:
        places = np.arange(len(results))[::-1]
        for place, result in zip(places, results, strict=True):
            counts = np.array([score.num_matches for score in result.scores], dtype=np.float64)
            low, first, middle, third, high = np.quantile(counts, (0.05, 0.25, 0.5, 0.75, 0.95))
            colour = looks[result.method.name].colour
            axes.hlines(place, low, high, color=colour, linewidth=2)
            axes.hlines(place, first, third, color=colour, linewidth=13, alpha=0.55)
            axes.plot(
                middle, place, "o", color=colour, markersize=8.5, markeredgecolor="white", zorder=5
            )
            empty = int((counts == 0).sum())
            notes = [(f"{middle:,.0f}", 44, "right", "#222222")]
            if empty:
                notes.append((f"{empty} without any", 56, "left", "#777777"))
            for note, shift, side, ink in notes:
                axes.annotate(
                    note,
                    (1.0, place),
                    xycoords=("axes fraction", "data"),
                    xytext=(shift, 0),
                    textcoords="offset points",
                    ha=side,
                    va="center",
                    color=ink,
                )
        axes.set_xscale("symlog", linthresh=10, linscale=0.35)
        axes.set_xlim(0, max(10.0, axes.get_xlim()[1]))
        axes.set_ylim(-0.6, len(results) - 0.4)
        axes.set_yticks(places, [result.method.name for result in results])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        axes.set_xlabel("matches a pair (dot: median; bar: middle half; line: middle 90 %)")
        axes.set_title(f"{report.display_title}: matches")
    return True


def _point(metric: Metric | None) -> tuple[float, float, float]:
    """Value and interval as drawn; a value that is not finite leaves a gap."""
    if metric is None or not math.isfinite(metric.value):
        return math.nan, math.nan, math.nan
    scale = 100.0 if is_share(metric.name) else 1.0
    interval = (metric.low, metric.high)
    low, high = interval if all(map(math.isfinite, interval)) else (metric.value, metric.value)
    return scale * metric.value, scale * low, scale * high


def _recall_curve(scores: tuple[UnitScore, ...], limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Errors in ascending order with the share of all errors up to each; from 0 to ``limit``."""
    errors = np.sort([error for score in scores for error in (score.errors or (math.inf,))])
    share = np.arange(1, len(errors) + 1) / len(errors)
    within = errors <= limit
    last = share[within][-1] if within.any() else 0.0
    return (
        np.concatenate(([0.0], errors[within], [limit])),
        np.concatenate(([0.0], share[within], [last])),
    )


def _unit_of(result: MethodResult) -> str:
    """The unit of the error, where a metric's name ends in one."""
    for metric in result.summary.metrics:
        unit = metric.name.split()[-1]
        if "error" in metric.name and unit in _RECALL_UNITS:
            return f" ({unit})"
    return ""
