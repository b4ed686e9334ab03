"""How a metric is printed, and which of several is best."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from benchmarks.core.tasks import Metric

__all__ = ["axis_label", "best_rows", "is_share", "shown", "shown_value"]

# Shares lie in [0, 1] and are printed in percent; everything else has its unit in its name.
_SHARE = re.compile(
    r"\b(?:AUC|mAA\w*|MHA|MMA|RRA|RTA|ECE|AP|precision|recall|accuracy@|share|within|queries)\b|[%<]",
    re.IGNORECASE,
)
_CIRCUMSTANCE = re.compile(r"\b(?:threshold|matches)\b")
_MISSING = "–"


def is_share(name: str) -> bool:
    """Whether a metric of this name lies in [0, 1] and is printed in percent."""
    return _SHARE.search(name) is not None


def axis_label(name: str) -> str:
    """A metric's name with the unit it is printed in."""
    return f"{name} (%)" if is_share(name) and "%" not in name else name


def shown_value(metric: Metric) -> str:
    """The value alone: percent with one decimal, or three digits in its own unit."""
    return _number(metric.value, is_share(metric.name))


def shown(metric: Metric) -> str:
    """The value with its interval, where it has one."""
    if math.isnan(metric.value) or math.isnan(metric.low) or math.isnan(metric.high):
        return shown_value(metric)
    share = is_share(metric.name)
    return f"{shown_value(metric)} ({_number(metric.low, share)}–{_number(metric.high, share)})"


def best_rows(metrics: Sequence[Metric | None]) -> frozenset[int]:
    """Indices of the best of several methods; all that print alike, none where nobody competes."""
    competing = [
        (index, metric)
        for index, metric in enumerate(metrics)
        if metric is not None and not math.isnan(metric.value)
    ]
    # A threshold that a sweep chose, or many matches, are circumstances and no merit.
    if len(competing) < 2 or _CIRCUMSTANCE.search(competing[0][1].name):
        return frozenset()
    sign = 1.0 if competing[0][1].higher_is_better else -1.0
    best = max(sign * metric.value for _, metric in competing)
    if math.isinf(best):
        return frozenset()  # everybody failed
    printed = {shown_value(metric) for _, metric in competing if sign * metric.value == best}
    return frozenset(index for index, metric in competing if shown_value(metric) in printed)


def _number(value: float, share: bool) -> str:
    if math.isnan(value):
        return _MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if share:
        return f"{100 * value:.1f}"
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{decimals}f}"
