"""Figures of confidence: precision and recall of matches, and telling pairs apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.core.predictions import MethodInfo
from benchmarks.core.samples import FloatArray
from benchmarks.report.style import MethodStyle, drawing, legend_outside, method_styles
from matcher.errors import InputError

__all__ = [
    "MatchQuality",
    "PairRanking",
    "draw_precision_recall",
    "draw_roc",
]

_SQUARE, _WITH_LEGEND = (5.6, 5.2), (8.4, 4.8)
_MAX_POINTS = 1000
_FIRST_SHARE = 0.01  # the precision of fewer matches is noise


@dataclass(frozen=True, slots=True, eq=False)
class MatchQuality:
    """Matches whose truth is known.

    Attributes:
        confidence: (M,) higher is surer.
        correct: (M,) bool.
    """

    confidence: FloatArray
    correct: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        object.__setattr__(self, "confidence", np.asarray(self.confidence, dtype=np.float64))
        object.__setattr__(self, "correct", np.asarray(self.correct))
        _check_scores("confidence", self.confidence, "correct", self.correct)


@dataclass(frozen=True, slots=True, eq=False)
class PairRanking:
    """Scores of pairs that do and do not show common content.

    Attributes:
        score: (P,) higher: surer that they do; NaN (no score given) counts as the lowest.
        overlaps: (P,) bool, whether they do.
    """

    score: FloatArray
    overlaps: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        score = np.asarray(self.score, dtype=np.float64)
        object.__setattr__(self, "score", np.where(np.isnan(score), -np.inf, score))
        object.__setattr__(self, "overlaps", np.asarray(self.overlaps))
        _check_scores("score", self.score, "overlaps", self.overlaps, finite=False)


def draw_precision_recall(
    qualities: Sequence[tuple[MethodInfo, MatchQuality]],
    path: Path,
    *,
    title: str = "Precision and recall of matches",
    styles: Mapping[str, MethodStyle] | None = None,
) -> bool:
    """Precision against the share of a method's correct matches, as the confidence bound falls.

    A curve begins at the surest hundredth of the matches and ends (with its marker) at all of them;
    a method without confidence is that point alone.

    Args:
        qualities: the matches of all pairs of a data set, for each method.
        path: the PNG to write.
        title: of the figure.
        styles: looks by method; by default those of the methods given.

    Returns:
        Whether any method had a correct match; no file is written otherwise.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: the file cannot be written.
    """
    drawn = [(info, quality) for info, quality in qualities if quality.correct.any()]
    if not drawn:
        return False
    looks = styles or method_styles(info for info, _ in qualities)
    with drawing(path, "drawing precision and recall", _WITH_LEGEND) as axes:
        labels = []
        for info, quality in drawn:
            style = looks[info.name]
            true, false = _cumulative(quality.confidence, quality.correct)
            recall, precision = true / true[-1], true / (true + false)
            kept = _spread(true + false)
            label = f"{info.name}, {true[-1]:,.0f} of {true[-1] + false[-1]:,.0f} correct"
            labels.append((-precision[-1], label))
            axes.plot(
                100 * recall[kept],
                100 * precision[kept],
                color=style.colour,
                linewidth=style.width,
                marker=style.marker,
                markersize=8,
                markeredgecolor="white",
                markevery=[-1],
                clip_on=False,
                zorder=style.order,
                label=label,
            )
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("correct matches kept (% of the method's own)")
        axes.set_ylabel("correct among the kept (%)")
        axes.set_title(title)
        legend_outside(axes, [label for _, label in sorted(labels)])
    return True


def draw_roc(
    rankings: Sequence[tuple[MethodInfo, PairRanking]],
    path: Path,
    *,
    title: str = "Do two photographs share content?",
    styles: Mapping[str, MethodStyle] | None = None,
) -> tuple[float, ...]:
    """Receiver operating characteristics of pair scores.

    Returns:
        The area under each curve, ties counting half, in the order given.

    Raises:
        MissingDependencyError: matplotlib is not installed.
        InputError: a ranking without pairs of both kinds, or the file cannot be written.
    """
    for info, ranking in rankings:
        if ranking.overlaps.all() or not ranking.overlaps.any():
            raise InputError("rankings", "pairs of both kinds", f"{info.name} with one kind")
    looks = styles or method_styles(info for info, _ in rankings)
    areas, labels = [], []
    with drawing(path, "drawing a ROC", _SQUARE) as axes:
        axes.plot([0, 100], [0, 100], color="#999999", linewidth=1, linestyle=(0, (4, 3)))
        for info, ranking in rankings:
            style = looks[info.name]
            true, false = _cumulative(ranking.score, ranking.overlaps)
            hit = np.append(0.0, true / true[-1])
            alarm = np.append(0.0, false / false[-1])
            areas.append(float(np.sum(np.diff(alarm) * (hit[1:] + hit[:-1]) / 2)))
            labels.append((-areas[-1], f"{info.name}, area {areas[-1]:.3f}"))
            axes.plot(
                100 * alarm,
                100 * hit,
                color=style.colour,
                linewidth=style.width,
                zorder=style.order,
                label=labels[-1][1],
            )
        axes.set_xlim(-1, 100)
        axes.set_ylim(0, 101)
        axes.set_aspect("equal")
        axes.set_xlabel("pairs without common content accepted (%)")
        axes.set_ylabel("pairs with common content accepted (%)")
        axes.set_title(title)
        order = [label for _, label in sorted(labels)]
        handles = dict(zip(*axes.get_legend_handles_labels()[::-1], strict=True))
        axes.legend([handles[label] for label in order], order, loc="lower right")
    return tuple(areas)


def _cumulative(
    score: FloatArray, positive: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Positives and negatives at or above each distinct score, highest first."""
    order = np.argsort(-score, kind="stable")
    ordered, hits = score[order], np.cumsum(positive[order], dtype=np.float64)
    # Equal scores enter together: their order says nothing.
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return hits[last], last + 1.0 - hits[last]


def _spread(kept: FloatArray) -> npt.NDArray[np.int64]:
    """Indices worth drawing: at most 1000, the last one always, none of too few matches."""
    first = min(int(np.searchsorted(kept, _FIRST_SHARE * kept[-1])), len(kept) - 1)
    count = min(len(kept) - first, _MAX_POINTS)
    return np.unique(np.linspace(first, len(kept) - 1, count).astype(np.int64))


def _check_scores(
    score_name: str,
    score: FloatArray,
    flag_name: str,
    flags: npt.NDArray[np.bool_],
    *,
    finite: bool = True,
) -> None:
    if score.ndim != 1 or (finite and not np.isfinite(score).all()):
        raise InputError(score_name, "finite numbers of shape (M,)", f"shape {score.shape}")
    if flags.shape != score.shape or flags.dtype != np.bool_:
        raise InputError(
            flag_name, f"{len(score)} booleans", f"{flags.dtype} of shape {flags.shape}"
        )
