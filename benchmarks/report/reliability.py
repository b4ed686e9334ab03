"""The reliability diagram: is a confidence the share of matches that are correct?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.report.style import drawing
from matcher.errors import InputError

__all__ = ["reliability_diagram"]

_INCHES = (5.6, 5.2)
_BAR, _INK = "#0072B2", "#D55E00"


def reliability_diagram(
    confidence_bins: npt.ArrayLike,
    accuracy: npt.ArrayLike,
    counts: npt.ArrayLike,
    ece: float,
    path: Path,
    *,
    title: str = "Is the confidence a probability?",
) -> None:
    """Accuracy in bins of confidence against the diagonal, above how many matches each bin has.

    Args:
        confidence_bins: (B + 1,) edges in [0, 1], ascending.
        accuracy: (B,) share of correct matches; NaN for empty bins.
        counts: (B,) matches.
        ece: expected calibration error in [0, 1].
        path: the PNG to write.
        title: of the figure.

    Raises:
        InputError: shapes that do not fit, or the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    edges, height, size = (
        np.asarray(values, dtype=np.float64) for values in (confidence_bins, accuracy, counts)
    )
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise InputError("confidence_bins", "ascending edges (B + 1,)", f"shape {edges.shape}")
    for name, values in (("accuracy", height), ("counts", size)):
        if values.shape != (len(edges) - 1,):
            raise InputError(name, f"shape ({len(edges) - 1},)", f"{values.shape}")
    filled = (size > 0) & np.isfinite(height)
    middle, width = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
    share = size / max(1.0, size.sum())
    with drawing(path, "drawing a reliability diagram", _INCHES) as axes:
        axes.bar(
            middle[filled],
            height[filled],
            0.94 * width[filled],
            color=_BAR,
            zorder=2,
        )
        gap = np.abs(height - middle)
        axes.bar(
            middle[filled],
            gap[filled],
            0.94 * width[filled],
            bottom=np.minimum(height, middle)[filled],
            facecolor="none",
            edgecolor=_INK,
            hatch="////",
            linewidth=0.9,
            alpha=0.75,
            zorder=3,
            label="gap to a probability",
        )
        axes.plot([0, 1], [0, 1], color="#333333", linewidth=1.3, linestyle=(0, (4, 3)), zorder=4)
        for x, portion in zip(middle[filled], share[filled], strict=True):
            axes.annotate(
                f"{100 * portion:.0f}",
                (x, 0),
                xytext=(0, 4),
                textcoords="offset points",
                ha="center",
                color="#222222",
                fontsize=8.5,
                zorder=5,
                bbox={"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none"},
            )
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_aspect("equal")
        axes.set_xlabel("confidence (boxed: % of all matches)")
        axes.set_ylabel("share of correct matches")
        axes.set_title(f"{title}\nECE {100 * ece:.1f} %, {size.sum():,.0f} matches")
        if filled.any():
            axes.legend(loc="upper left")
