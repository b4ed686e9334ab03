"""What the caller may choose about localization."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from matcher.errors import InputError
from matcher.geometry.ransac import RansacOptions
from matcher.matching import MatchingOptions
from matcher.pipeline import PairOptions
from matcher.structures import ImageSize

__all__ = ["LocalizationOptions", "default_pair_options"]


def default_pair_options() -> PairOptions:
    """How a query is matched with a reference, unless the caller says otherwise."""
    return PairOptions(matching=MatchingOptions(subsample=4))


@dataclass(frozen=True, slots=True)
class LocalizationOptions:
    """How a query is localized.

    Attributes:
        num_references: match the query with so many references, the most similar first.
        pair: how the query is matched with each of them; ``None``: as the matcher does.
        max_error: a correspondence further than this from the pose is an outlier; share of the
            query's diagonal. MASt3R (arXiv:2406.09756), appendix, takes 0.008.
        max_iterations: no more hypotheses than this.
        min_inliers: no answer with fewer, nor with fewer than chance could give.
        seed: the same seed and input give the same answer.

    Raises:
        InputError: a value out of its range.
    """

    num_references: int = 10
    pair: PairOptions | None = None
    max_error: float = 0.008
    max_iterations: int = 20_000
    min_inliers: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("num_references", 1), ("max_iterations", 1), ("min_inliers", 4)):
            if getattr(self, name) < least:
                raise InputError(name, f"at least {least}", f"{getattr(self, name)}")
        if not (math.isfinite(self.max_error) and 0 < self.max_error < 1):
            raise InputError("max_error", "a share of the diagonal in (0, 1)", f"{self.max_error}")

    def ransac(self, size: ImageSize) -> RansacOptions:
        """The robust estimator's options for a query of a size."""
        return RansacOptions(
            max_error_px=self.max_error * size.diagonal,
            max_iterations=self.max_iterations,
            seed=self.seed,
        )

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, for JSON."""
        return dataclasses.asdict(self)
