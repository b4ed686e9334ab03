"""What the caller may choose about the sparse alignment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from matcher.errors import InputError

__all__ = ["SparseOptions"]


@dataclass(frozen=True, slots=True)
class SparseOptions:
    """Options of ``align_sparse``.

    Attributes:
        block_px: side of the blocks of pixels that share one depth, pixels of the network's view.
        max_error_px: error up to which a match agrees with a pose, pixels of the network's view.
        min_inliers: pairs, and in the end photographs, with fewer agreeing matches do not count.
        min_inlier_share: pairs in which a smaller share of the matches agrees do not count.
        max_matches_per_pair: so many of a pair's matches take part in the optimisation.
        shared_focal: photographs of one size whose camera is not known have one focal.
        refine_principal_point: also move the principal points of cameras that are not known.
        max_steps: steps of each round of the refinement at most.
        max_depth_step: a point that lies this share of its depth in front of what another, more
            confident photograph sees there is rejected.
        seed: the same seed and input give the same answer.

    Raises:
        InputError: a value out of its range.
    """

    block_px: int = 8
    max_error_px: float = 1.0
    min_inliers: int = 30
    min_inlier_share: float = 0.08
    max_matches_per_pair: int = 600
    shared_focal: bool = False
    refine_principal_point: bool = False
    max_steps: int = 15
    max_depth_step: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("block_px", 1),
            ("min_inliers", 8),
            ("max_matches_per_pair", 8),
            ("max_steps", 0),
            ("seed", 0),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InputError(name, f"an integer of at least {least}", repr(value))
        for name in ("max_error_px", "max_depth_step"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(name, "a positive number", repr(value))
        if not 0 <= self.min_inlier_share < 1:
            raise InputError("min_inlier_share", "a number in [0, 1)", repr(self.min_inlier_share))
