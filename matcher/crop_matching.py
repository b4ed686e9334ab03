"""Matching again in crops that show the same surface alike, at the photographs' resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.images import RgbArray, warp_view
from matcher.matching import add_matches, merge_matches, plan_crops
from matcher.structures import FloatArray, ImageSize, Matches, View
from matcher.turns import turn
from matcher.view_matching import PairOptions, ViewMatches, credible_matches

__all__ = ["MaskedPhotograph", "MatchViewPairs", "match_crops"]

MatchViewPairs = Callable[[list[View], list[View], PairOptions], list[ViewMatches]]
"""Views of photograph 0 and of photograph 1, row i with row i, to their matches."""

_LARGER_THAN_VIEW = 1.25
_AT_ONCE = 4


@dataclass(frozen=True, slots=True, eq=False)
class MaskedPhotograph:
    """A photograph and where matches are welcome in it.

    Attributes:
        image: (H, W, 3) uint8 RGB, the photograph, upright.
        mask: (H, W) bool in original pixels, where matches are welcome, or ``None``.
    """

    image: RgbArray
    mask: npt.NDArray[np.bool_] | None = None

    def turned(self, quarter_turns: int) -> MaskedPhotograph:
        """The same, turned counter-clockwise."""
        mask = None if self.mask is None else turn(self.mask, quarter_turns)
        return MaskedPhotograph(turn(self.image, quarter_turns), mask)


def match_crops(
    photographs: Callable[[], tuple[MaskedPhotograph, MaskedPhotograph]],
    size0: ImageSize,
    size1: ImageSize,
    coarse: Matches,
    options: PairOptions,
    match: MatchViewPairs,
    *,
    patch_size: int,
    is_probability: bool,
) -> Matches:
    """Match again where credible coarse matches are.

    Args:
        photographs: gives both; called only if there is anything to be looked at again.
        size0: of photograph 0.
        size1: of photograph 1.
        coarse: matches of the whole photographs.
        options: how the pair is matched.
        match: matches pairs of views.
        patch_size: of the network.
        is_probability: whether the confidence of the matches is one.

    Returns:
        Matches of the crops, and coarse ones where no crop found any.
    """
    credible = credible_matches(coarse, options.matching, is_probability=is_probability)
    plan = plan_crops(
        credible,
        size0,
        size1,
        max_size=options.max_size,
        max_crops=options.max_crops,
        patch_size=patch_size,
    )
    longest = max(size0.height, size0.width, size1.height, size1.width)
    if options.crops == "auto" and longest <= _LARGER_THAN_VIEW * options.max_size:
        # The view has seen all that small photographs hold, except for what is foreshortened.
        plan = [pair for pair in plan if pair.changes_shape]
    if not plan:
        return coarse
    source0, source1 = photographs()
    fine: list[Matches] = []
    for start in range(0, len(plan), _AT_ONCE):
        part = plan[start : start + _AT_ONCE]
        views0 = [_crop(source0, pair.crop_from_original0, pair.size) for pair in part]
        views1 = [_crop(source1, pair.crop_from_original1, pair.size) for pair in part]
        fine += [found.matches for found in match(views0, views1, options)]
    # Crops are finer but see less around: where they lose the place, coarse matches stay.
    pixel = max(1.0, *(side for pair in plan for side in pair.original_px))
    return add_matches(merge_matches(fine, cell_px=2.0 * pixel), coarse, cell_px=8.0 * pixel)


def _crop(source: MaskedPhotograph, crop_from_original: FloatArray, size: ImageSize) -> View:
    return warp_view(source.image, crop_from_original, size, mask=source.mask)
