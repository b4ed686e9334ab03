"""Matching again in crops that show the same surface alike, at the photographs' resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from matcher.images import RgbArray, prepare_view, warp_view
from matcher.matching import CropPair, add_matches, merge_matches, plan_crops
from matcher.structures import ImageSize, Matches, View
from matcher.turns import turn
from matcher.view_matching import PairOptions, ViewMatches, credible_matches

__all__ = ["MaskedPhotograph", "MatchViewPairs", "match_crops"]

MatchViewPairs = Callable[[list[View], list[View], PairOptions], list[ViewMatches]]
"""Views of photograph 0 and of photograph 1, row i with row i, to their matches."""

_LARGER_THAN_VIEW = 1.25
_AT_ONCE = 2
# Features bridge less than a factor of two; in either direction this is one step more.
_ZOOM = 1.5
_SMALLEST_ZOOMED = 192
# Of the long side of a crop: about as far from its map as the matches that planned it lie.
_REACH = 0.125
# The most useful crops come first; more matches of an easy pair change nothing.
_ENOUGH_RIGHT = 2000


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
    coarse: ViewMatches,
    options: PairOptions,
    match: MatchViewPairs,
    *,
    patch_size: int,
    is_probability: bool,
) -> Matches:
    """Match again where credible coarse matches are.

    Where few matches are right although a common place is likely, the photographs may show it at
    different sizes, or too small: first they are matched as a whole again, with one of them and
    then the other shown larger beside its partner. Where few matches are right and crops make up
    for a change of shape, the matches of some crops say better how each place changed: crops are
    then planned anew from these.

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

    def credible(matches: Matches) -> Matches:
        return credible_matches(matches, options.matching, is_probability=is_probability)

    def plan(matches: Matches) -> list[CropPair]:
        return plan_crops(
            credible(matches),
            size0,
            size1,
            max_size=options.max_size,
            max_crops=options.max_crops,
            patch_size=patch_size,
        )

    # Whatever reach the photographs have, that of two crops of one place is smaller.
    near = replace(options, matching=replace(options.matching, reach=_REACH))

    def look(pairs: list[CropPair], before: Matches) -> Matches:
        fine: list[Matches] = []
        for start in range(0, len(pairs), _AT_ONCE):
            part = pairs[start : start + _AT_ONCE]
            views0, views1 = ([_crop(sources, pair, side) for pair in part] for side in (0, 1))
            fine += [credible(one.matches) for one in match(views0, views1, near)]
            right = sum(float(one.confidence.sum()) for one in fine)
            if options.crops == "auto" and right > _ENOUGH_RIGHT:
                break
        # Crops are finer but see less around: where they lose the place, the matches before stay.
        pixel = max([1.0, *(side for pair in pairs for side in pair.original_px)])
        return add_matches(merge_matches(fine, cell_px=2.0 * pixel), before, cell_px=8.0 * pixel)

    def zoomed() -> ViewMatches:
        views0, views1 = _zoomed_views(photographs(), options.max_size, patch_size)
        parts = [coarse.matches, *(one.matches for one in match(views0, views1, options))]
        pixel = max(1.0, *(view.original_px for view in views0 + views1))
        together = merge_matches([credible(part) for part in parts], cell_px=2.0 * pixel)
        return replace(coarse, matches=together) if len(together) else coarse

    longest = max(size0.height, size0.width, size1.height, size1.width)
    is_large = longest > _LARGER_THAN_VIEW * options.max_size
    if options.crops == "auto" and not is_large and not coarse.has_few_right:
        return coarse.matches
    shortest = min(max(size0.height, size0.width), max(size1.height, size1.width))
    if coarse.is_worth_another_try and shortest >= _SMALLEST_ZOOMED:
        coarse = zoomed()
    pairs = plan(coarse.matches)
    if not pairs:
        return coarse.matches
    sources = photographs()
    if not coarse.has_few_right or not any(pair.changes_shape for pair in pairs):
        return look(pairs, coarse.matches)
    found = look(pairs[: max(1, options.max_crops // 2)], coarse.matches)
    return look(plan(found), found)


def _zoomed_views(
    sources: tuple[MaskedPhotograph, MaskedPhotograph], max_size: int, patch_size: int
) -> tuple[list[View], list[View]]:
    """Whole photographs: photograph 0 shown larger beside photograph 1 than at first, and back.

    Where the larger one has no pixels left to show, the other one becomes smaller instead.
    """
    views: tuple[list[View], list[View]] = [], []
    full = [max(source.image.shape[:2]) for source in sources]
    for closer in (0, 1):
        sizes = [min(long, max_size) for long in full]
        gain = min(_ZOOM, full[closer] / sizes[closer])
        sizes[closer] = round(gain * sizes[closer])
        sizes[1 - closer] = max(patch_size, round(gain / _ZOOM * sizes[1 - closer]))
        for side in (0, 1):
            source = sources[side]
            view = prepare_view(
                source.image, max_size=sizes[side], patch_size=patch_size, mask=source.mask
            )
            views[side].append(view)
    return views


def _crop(sources: tuple[MaskedPhotograph, MaskedPhotograph], pair: CropPair, side: int) -> View:
    """The crop of photograph ``side``."""
    crop_from_original = (pair.crop_from_original0, pair.crop_from_original1)[side]
    source = sources[side]
    return warp_view(source.image, crop_from_original, pair.size, mask=source.mask)
