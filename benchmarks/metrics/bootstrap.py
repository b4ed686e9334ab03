"""How far a number would move with other pairs of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.structures import FloatArray

__all__ = ["bootstrap_interval"]


def bootstrap_interval(
    values: npt.ArrayLike,
    statistic: Callable[[FloatArray], float],
    groups: Sequence[str] | None = None,
    draws: int = 500,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic.

    Args:
        values: (N, ...) one row a unit.
        statistic: of (M, ...) rows drawn with replacement.
        groups: (N,) names; given, whole groups are drawn instead of single rows, which is the
            honest width where the pairs of one scene succeed and fail together.
        draws: how often.
        level: share of the draws inside the interval.
        seed: of the draws.

    Returns:
        (low, high); NaN where fewer than two units (or groups) leave nothing to draw from.

    Raises:
        InputError: as many groups as rows are expected.
    """
    rows = np.asarray(values, dtype=np.float64)
    if groups is not None and len(groups) != len(rows):
        raise InputError("groups", f"{len(rows)} names", f"{len(groups)}")
    blocks = None if groups is None else _rows_by_group(groups)
    count = len(rows) if blocks is None else len(blocks)
    if count < 2:
        return math.nan, math.nan
    random = np.random.default_rng(seed)
    samples = np.empty(draws)
    for index in range(draws):
        drawn = random.integers(0, count, count)
        if blocks is not None:
            drawn = np.concatenate([blocks[block] for block in drawn])
        samples[index] = statistic(rows[drawn])
    samples = samples[~np.isnan(samples)]
    if not len(samples):
        return math.nan, math.nan
    low, high = np.quantile(samples, ((1 - level) / 2, (1 + level) / 2), method="nearest")
    return float(low), float(high)


def _rows_by_group(groups: Sequence[str]) -> list[npt.NDArray[np.intp]]:
    names, group_of_row = np.unique(np.asarray(groups), return_inverse=True)
    return [np.flatnonzero(group_of_row == index) for index in range(len(names))]
