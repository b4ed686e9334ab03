"""Matching again in crops, at the photographs' own resolution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.images import RgbArray, crop_view
from matcher.matching import CropBox, add_matches, merge_matches, plan_crops
from matcher.structures import ImageSize, Matches, View
from matcher.turns import turn
from matcher.view_matching import PairOptions, ViewMatches, credible_matches

__all__ = ["MaskedPhotograph", "MatchViewPairs", "match_crops", "wants_crops"]

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


def wants_crops(size0: ImageSize, size1: ImageSize, options: PairOptions) -> bool:
    """Whether photographs of these sizes are matched again in crops."""
    if options.crops != "auto":
        return options.crops == "always"
    longest = max(max(size.height, size.width) for size in (size0, size1))
    return longest > _LARGER_THAN_VIEW * options.max_size


def match_crops(
    source0: MaskedPhotograph,
    source1: MaskedPhotograph,
    coarse: Matches,
    options: PairOptions,
    match: MatchViewPairs,
    *,
    patch_size: int,
    is_probability: bool,
) -> Matches:
    """Match again where credible coarse matches are.

    Args:
        source0: photograph 0.
        source1: photograph 1.
        coarse: matches of the whole photographs.
        options: how the pair is matched.
        match: matches pairs of views.
        patch_size: of the network.
        is_probability: whether the confidence of the matches is one.

    Returns:
        Matches of the crops, and coarse ones where no crop found any.
    """
    credible = credible_matches(coarse, options.matching, is_probability=is_probability)
    size0, size1 = (ImageSize(*source.image.shape[:2]) for source in (source0, source1))
    side = options.max_size
    crop_size = ImageSize(side * 3 // 4, side)
    plan = plan_crops(
        size0,
        size1,
        credible.keypoints0.numpy(),
        credible.keypoints1.numpy(),
        _crop_size(size0, crop_size),
        _crop_size(size1, crop_size),
        max_crops=options.max_crops,
    )
    if not plan:
        return coarse

    def crop(source: MaskedPhotograph, box: CropBox) -> View:
        return crop_view(
            source.image,
            (box.left, box.top, box.right, box.bottom),
            max_size=options.max_size,
            patch_size=patch_size,
            mask=source.mask,
        )

    fine: list[Matches] = []
    for start in range(0, len(plan), _AT_ONCE):
        part = plan[start : start + _AT_ONCE]
        views0 = [crop(source0, pair.box0) for pair in part]
        views1 = [crop(source1, pair.box1) for pair in part]
        fine += [found.matches for found in match(views0, views1, options)]
    # Crops are finer but see less around: where they lose the place, coarse matches stay.
    return add_matches(merge_matches(fine, cell_px=2.0), coarse, cell_px=8.0)


def _crop_size(size: ImageSize, landscape: ImageSize) -> ImageSize:
    if size.width >= size.height:
        return landscape
    return ImageSize(landscape.width, landscape.height)
