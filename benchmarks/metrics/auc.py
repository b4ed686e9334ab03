"""Areas under curves: the two that the field calls AUC and mAA, which differ, and recall."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.integrate import trapezoid

from matcher.errors import InputError
from matcher.structures import FloatArray

__all__ = [
    "error_auc",
    "mean_average_accuracy",
    "precision_recall_auc",
    "precision_recall_curve",
    "recall_at",
]


def error_auc(errors: npt.ArrayLike, threshold: float) -> float:
    """Area under the recall curve up to a threshold, over the threshold (SuperGlue's and LoFTR's).

    The curve joins (0, 0) and the sorted errors by straight lines, and is flat beyond the last
    error under the threshold.

    Args:
        errors: any shape; infinite: a failure.
        threshold: in the unit of the errors.

    Returns:
        In [0, 1]; NaN without errors.

    Raises:
        InputError: an error that is NaN or negative, a threshold that is not positive.
    """
    ordered = np.sort(_as_errors(errors, threshold))
    if not len(ordered):
        return math.nan
    recall = np.arange(1, len(ordered) + 1) / len(ordered)
    below = int(np.searchsorted(ordered, threshold))
    last = recall[below - 1] if below else 0.0
    x = np.concatenate(([0.0], ordered[:below], [threshold]))
    y = np.concatenate(([0.0], recall[:below], [last]))
    return float(trapezoid(y, x) / threshold)


def mean_average_accuracy(
    errors: npt.ArrayLike, max_threshold: float, num_bins: int | None = None
) -> float:
    """Mean of the cumulative histogram of errors up to a threshold (CO3D's and IMC's mAA).

    A staircase that counts a bin at its right edge: of many errors it is above :func:`error_auc`,
    by up to half a bin over the threshold; of few, below or above.

    Args:
        errors: any shape; infinite: a failure.
        max_threshold: right edge of the last bin, in the unit of the errors.
        num_bins: of equal width; ``None``: one a unit.

    Returns:
        In [0, 1]; NaN without errors.

    Raises:
        InputError: as for :func:`error_auc`.
    """
    values = _as_errors(errors, max_threshold)
    if not len(values):
        return math.nan
    bins = max(1, round(max_threshold)) if num_bins is None else num_bins
    counts, _ = np.histogram(values[np.isfinite(values)], bins=bins, range=(0.0, max_threshold))
    return float(np.mean(np.cumsum(counts) / len(values)))


def recall_at(errors: npt.ArrayLike, threshold: float) -> float:
    """Share of errors of at most a threshold, in [0, 1]; NaN without errors."""
    values = _as_errors(errors, 1.0)
    return float(np.mean(values <= threshold)) if len(values) else math.nan


def precision_recall_curve(
    correct: npt.ArrayLike, confidence: npt.ArrayLike, num_failures: int = 0
) -> tuple[FloatArray, FloatArray]:
    """Precision among the surest answers, against the share of all questions they answer.

    Args:
        correct: (N,) bool, whether each answer is right.
        confidence: (N,) of each answer; equal ones enter together.
        num_failures: questions without an answer; they keep the curve from reaching 1.

    Returns:
        (recall, precision), (D,) each, one entry for each distinct confidence, surest first.
        Recall is the share of the questions that are answered at all, rightly or not, as the
        Map-free benchmark counts it.

    Raises:
        InputError: different lengths, a confidence that is NaN, a negative count.
    """
    right, sure = np.asarray(correct, dtype=np.bool_), np.asarray(confidence, dtype=np.float64)
    if right.ndim != 1 or right.shape != sure.shape or np.isnan(sure).any():
        raise InputError("confidence", f"numbers of shape {right.shape}", f"{sure.shape}")
    if num_failures < 0:
        raise InputError("num_failures", "at least 0", f"{num_failures}")
    order = np.argsort(-sure, kind="stable")
    sure, right = sure[order], right[order]
    last_of_ties = np.flatnonzero(np.append(sure[1:] != sure[:-1], np.ones(min(1, len(sure)))))
    answered = last_of_ties + 1
    precision: FloatArray = np.cumsum(right)[last_of_ties] / answered
    recall: FloatArray = answered / max(1, len(right) + num_failures)
    return recall, precision


def precision_recall_auc(
    correct: npt.ArrayLike, confidence: npt.ArrayLike, num_failures: int = 0
) -> float:
    """Area under :func:`precision_recall_curve` as a staircase, in [0, 1] (Map-free's AUC).

    NaN without any question.
    """
    recall, precision = precision_recall_curve(correct, confidence, num_failures)
    if not len(recall):
        return math.nan if not num_failures else 0.0
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _as_errors(errors: npt.ArrayLike, threshold: float) -> FloatArray:
    values = np.asarray(errors, dtype=np.float64).reshape(-1)
    if not (values >= 0).all():
        raise InputError("errors", "numbers of at least 0, or infinity", "NaN or negative ones")
    if not threshold > 0:
        raise InputError("threshold", "a positive number", f"{threshold}")
    return values
