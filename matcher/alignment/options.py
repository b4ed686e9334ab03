"""How pointmaps are aligned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matcher.errors import InputError

__all__ = ["PointmapOptions"]


@dataclass(frozen=True, slots=True)
class PointmapOptions:
    """How pointmaps are aligned (DUSt3R, arXiv:2312.14132, section 3.3, and its released values).

    Attributes:
        iterations: steps of Adam.
        learning_rate: of the first step.
        final_learning_rate: of the last; between them it falls along a cosine.
        max_points: pixels of one photograph that the optimisation sees, on an even lattice; the
            dense result is at full size all the same. ``None``: all of them. So many make 25
            photographs and 300 pairs about a minute of one core.
        optimize_principal_points: estimate them too, where the camera is not given; otherwise
            they stay in the middle of the photograph.
        min_matches: a pair with fewer matches is no pair.
        min_overlap: a pair whose overlap score is known and lower is no pair.
        min_agreement: a pair is left out where its pointmaps agree with a smaller share of its
            matches (``agreement``); 0 believes every pointmap, as the released system does.

    Raises:
        InputError: a value out of its range.
    """

    iterations: int = 300
    learning_rate: float = 0.01
    final_learning_rate: float = 1e-6
    max_points: int | None = 12_500
    optimize_principal_points: bool = False
    min_matches: int = 15
    min_overlap: float = 0.0
    min_agreement: float = 0.25

    def __post_init__(self) -> None:
        if self.iterations < 0:
            raise InputError("iterations", "at least 0", f"{self.iterations}")
        for name in ("learning_rate", "final_learning_rate"):
            value = getattr(self, name)
            if not (np.isfinite(value) and value > 0):
                raise InputError(name, "a positive number", f"{value}")
        if self.max_points is not None and self.max_points < 16:
            raise InputError("max_points", "at least 16, or None", f"{self.max_points}")
        if self.min_matches < 0:
            raise InputError("min_matches", "at least 0", f"{self.min_matches}")
        for name in ("min_overlap", "min_agreement"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(name, "a number from 0 to 1", f"{getattr(self, name)}")
