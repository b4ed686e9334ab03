"""What two views of a pair have in common: matches, their confidence, their pointmaps.

The network's dense output on one side, original pixels on the other; ``pipeline`` decides which
views there are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.calibration import ConfidenceCalibration, MatchFeatures, match_features
from matcher.errors import InputError
from matcher.geometry.pixels import to_original
from matcher.matching import (
    MatchingOptions,
    merge_matches,
    reciprocal_matches,
    reciprocal_points,
    refine_patches,
    refine_subpixel,
    top_k_rows,
)
from matcher.neighbourhoods import LocalMotion, local_motion
from matcher.pointmaps import Pointmaps
from matcher.structures import GridMatches, ImageSize, Matches, PairPrediction, View

__all__ = [
    "BothWays",
    "CropMode",
    "MatchEvidence",
    "PairOptions",
    "Precision",
    "TurnMode",
    "ViewMatches",
    "credible_matches",
    "keep_best",
    "match_evidence",
    "match_views",
    "pointmaps_of",
]

CropMode = Literal["auto", "always", "never"]
Precision = Literal["auto", "float32", "bfloat16"]
TurnMode = Literal["auto", "never"]
_SMALLEST_CONFIDENCE = 1e-6
_FEW_RIGHT = 0.15
# Of pairs of different places 94 in 100 score less; of common places, turned, 95 in 100 more.
_LIKELY_OVERLAP = 0.05


@dataclass(frozen=True, slots=True)
class PairOptions:
    """How a pair is matched.

    Attributes:
        matching: the reciprocal search and the choice among its matches; ``matching.symmetric``
            also runs the decoder in both orders, so that the order of the photographs is all one.
        max_size: long side of the network's view, pixels.
        crops: match again in crops about the first matches, warped so that both show the surface
            alike: ``auto`` where the photographs are larger than the view or few matches are
            right; ``always`` or ``never``. Where few are right although a common place is likely,
            the photographs are first looked at as a whole again, either one larger.
        max_crops: most crop pairs; half as many come before them where few matches are right and
            the warp makes up for much.
        turns: ``auto``: where both photographs show a common place and few matches are credible,
            photograph 1 is also tried on its sides and upside down, and the best is taken.
            Networks without a calibrated confidence cannot tell, and never try.
        subpixel: move each match between the pixels of image 1, to where the patches fit best.
        precision: of the network's products; descriptors, pointmaps and the search stay float32.
            ``auto`` takes bfloat16 where the processor multiplies it faster (CUDA from capability
            8.0 on; Intel AMX): name one where answers of different machines shall be the same.
    """

    matching: MatchingOptions = field(default_factory=MatchingOptions)
    max_size: int = 512
    crops: CropMode = "auto"
    max_crops: int = 8
    turns: TurnMode = "auto"
    subpixel: bool = True
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        if self.max_size < 32:
            raise InputError("max_size", "at least 32 pixels", f"{self.max_size}")
        for name, choices in (("crops", CropMode), ("turns", TurnMode), ("precision", Precision)):
            if getattr(self, name) not in get_args(choices):
                raise InputError(name, " or ".join(get_args(choices)), f"{getattr(self, name)!r}")
        if self.max_crops < 1:
            raise InputError("max_crops", "at least 1", f"{self.max_crops}")

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairOptions:
        """Options from plain values; raises ``InputError`` for an unknown name or bad value."""
        parts = dict(values)
        known = {entry.name for entry in dataclasses.fields(cls)}
        unknown = sorted(set(parts) - known)
        if unknown:
            raise InputError("options", f"names among {', '.join(sorted(known))}", unknown[0])
        if "matching" in parts:
            parts["matching"] = MatchingOptions.from_dict(parts["matching"])
        return cls(**parts)


@dataclass(frozen=True, slots=True, eq=False)
class BothWays:
    """A prediction, and for symmetric matching the one with the photographs swapped."""

    forward: PairPrediction
    backward: PairPrediction | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ViewMatches:
    """Matches in original pixels, and how surely both views show a common place.

    Attributes:
        matches: all of them, credible or not.
        overlap_score: probability of a common place; ``None`` without a calibration.
        num_seeds: how many pixels the search started from.
    """

    matches: Matches
    overlap_score: float | None
    num_seeds: int

    @property
    def expected_right(self) -> float:
        """How many matches are right, if their confidence is a probability."""
        return float(self.matches.confidence.double().sum())

    @property
    def has_few_right(self) -> bool:
        """Whether so few of the seeds led to a right match that the pair is hard."""
        return self.expected_right < _FEW_RIGHT * self.num_seeds

    @property
    def is_worth_another_try(self) -> bool:
        """Whether a common place is likely, and few matches for it."""
        if self.overlap_score is None or self.overlap_score < _LIKELY_OVERLAP:
            return False
        return self.has_few_right


@dataclass(frozen=True, slots=True, eq=False)
class MatchEvidence:
    """Matches between network pixels and what speaks for them.

    Attributes:
        matches: M matches.
        features: of each of them, and of the pair.
    """

    matches: GridMatches
    features: MatchFeatures


def match_views(
    view0: View,
    view1: View,
    prediction: BothWays,
    options: PairOptions,
    calibration: ConfidenceCalibration | None,
) -> ViewMatches:
    """Matches of two views, in original pixels.

    Args:
        view0: what the network saw of photograph 0.
        view1: the same of photograph 1.
        prediction: of the network, both ways for symmetric matching.
        options: how the pair is matched.
        calibration: of the checkpoint, or ``None``.
    """
    found = _match_prediction(view0, view1, prediction.forward, options, calibration)
    if prediction.backward is None:
        return found
    mirrored = _match_prediction(view1, view0, prediction.backward, options, calibration)
    swapped = mirrored.matches
    other_way = Matches(swapped.keypoints1, swapped.keypoints0, swapped.confidence)
    # Sub-pixel refinement moves the end in the second image: a match found both ways is the
    # same within a pixel, not to the digit.
    cells = tuple(1.5 * max(view.original_px, 1.0) for view in (view0, view1))
    joined = _join_both_ways(found.matches, other_way)
    scores = [part.overlap_score for part in (found, mirrored) if part.overlap_score is not None]
    return ViewMatches(
        merge_matches([joined], cell_px=(cells[0], cells[1])),
        sum(scores) / len(scores) if scores else None,
        found.num_seeds,
    )


def _match_prediction(
    view0: View,
    view1: View,
    prediction: PairPrediction,
    options: PairOptions,
    calibration: ConfidenceCalibration | None,
) -> ViewMatches:
    """Reciprocal matches of two dense outputs, mapped to original pixels."""
    found = _search(view0, view1, prediction, options)
    keypoints1 = found.matches.pixels1.float()
    motion = local_motion(found.matches.pixels0.float(), keypoints1)
    overlap = None
    is_probability = calibration is not None and found.has_descriptors
    if calibration is not None and found.has_descriptors:
        features = match_features(found.matches, motion, found.sure0, found.sure1)
        confidence = calibration.match_probability(features)
        overlap = calibration.pair_probability(features)
    else:
        confidence = _confidence(found.matches, found.sure0, found.sure1)
    if options.subpixel and found.has_descriptors:
        least = options.matching.least_confidence(is_probability=is_probability)
        keypoints1 = _finer_ends(found, motion, confidence >= least)
    matches = Matches(
        _original(found.matches.pixels0.float(), view0),
        _original(keypoints1, view1),
        confidence.float().cpu(),
    )
    return ViewMatches(matches, overlap, found.matches.num_seeds)


def match_evidence(
    view0: View, view1: View, prediction: PairPrediction, options: PairOptions
) -> MatchEvidence:
    """Matches of two views with the features that a calibration is fitted to.

    Raises:
        InputError: a network without descriptors.
    """
    if prediction.output0.descriptors is None or prediction.output1.descriptors is None:
        raise InputError("prediction", "descriptors", "pointmaps alone")
    found = _search(view0, view1, prediction, options)
    motion = local_motion(found.matches.pixels0.float(), found.matches.pixels1.float())
    features = match_features(found.matches, motion, found.sure0, found.sure1)
    return MatchEvidence(found.matches, features)


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """Matches between network pixels and the (H, W, ...) maps they come from."""

    matches: GridMatches
    maps: tuple[Tensor, Tensor]
    sure0: Tensor
    sure1: Tensor
    has_descriptors: bool


def _search(view0: View, view1: View, prediction: PairPrediction, options: PairOptions) -> _Found:
    output0, output1 = prediction.output0, prediction.output1
    mask0, mask1 = view0.matchable(), view1.matchable()
    search = options.matching
    has_descriptors = output0.descriptors is not None and output1.descriptors is not None
    if output0.descriptors is not None and output1.descriptors is not None:
        maps = output0.descriptors[0], output1.descriptors[0]
        found = reciprocal_matches(*maps, options=search, mask0=mask0, mask1=mask1)
        sure0, sure1 = output0.descriptor_confidence, output1.descriptor_confidence
        assert sure0 is not None
        assert sure1 is not None
    else:
        # DUSt3R has no descriptors: pixels match where their 3-D points are mutually closest.
        (points0, confidence0), (points1, confidence1) = output0.pointmap(), output1.pointmap()
        maps = points0[0], points1[0]
        found = reciprocal_points(*maps, options=search, mask0=mask0, mask1=mask1)
        sure0, sure1 = confidence0 - 1, confidence1 - 1
    return _Found(found, maps, sure0[0], sure1[0], has_descriptors)


def _finer_ends(found: _Found, motion: LocalMotion, credible: Tensor) -> Tensor:
    """(M, 2) float32 pixels of map 1, between the whole ones."""
    ends = refine_subpixel(found.matches, *found.maps).keypoints1
    # Patches cost more and need a map around the match: for those that will be kept.
    rows = torch.nonzero(credible)[:, 0]
    finer = refine_patches(found.matches.select(rows), *found.maps, motion.view1_from_view0[rows])
    ends[rows[finer.refined]] = finer.keypoints1[finer.refined]
    return ends


def _join_both_ways(found: Matches, other_way: Matches) -> Matches:
    """Both in an order that does not depend on which photograph came first."""
    keypoints0 = torch.cat([found.keypoints0, other_way.keypoints0])
    keypoints1 = torch.cat([found.keypoints1, other_way.keypoints1])
    joined = Matches(keypoints0, keypoints1, torch.cat([found.confidence, other_way.confidence]))
    return joined.select(torch.argsort((keypoints0 + keypoints1).double().sum(1), stable=True))


def _confidence(found: GridMatches, sure0: Tensor, sure1: Tensor) -> Tensor:
    """(M,) in (0, 1]: the two ends' geometric mean c, which is > 0, as c / (1 + c)."""
    x0, y0 = found.pixels0.unbind(1)
    x1, y1 = found.pixels1.unbind(1)
    together = (sure0[y0, x0].double() * sure1[y1, x1].double()).clamp_min(0).sqrt()
    share = torch.where(together.isinf(), torch.ones_like(together), together / (1 + together))
    return share.nan_to_num(0).clamp(_SMALLEST_CONFIDENCE, 1).float()


def _original(keypoints: Tensor, view: View) -> Tensor:
    mapped = to_original(keypoints.cpu().numpy().astype(np.float64), view.original_from_network)
    # Sub-pixel refinement may step into the padding: every keypoint lies on the photograph.
    last = np.array([view.original_size.width - 1, view.original_size.height - 1])
    return torch.from_numpy(mapped.clip(0, last).astype(np.float32))


def credible_matches(
    matches: Matches, options: MatchingOptions, *, is_probability: bool
) -> Matches:
    """Apply ``min_confidence``."""
    least = options.least_confidence(is_probability=is_probability)
    return matches.select(matches.confidence >= least)


def keep_best(
    matches: Matches, size0: ImageSize, options: MatchingOptions, *, is_probability: bool
) -> Matches:
    """Apply ``min_confidence``, then ``top_k`` spread over photograph 0 of size ``size0``."""
    matches = credible_matches(matches, options, is_probability=is_probability)
    if options.top_k is None or len(matches) <= options.top_k:
        return matches
    rows = top_k_rows(
        matches.keypoints0, matches.confidence, options.top_k, size0, balance=options.balance
    )
    return matches.select(rows)


def pointmaps_of(view0: View, view1: View, both: BothWays) -> Pointmaps:
    """Both pointmaps without their padding, and image 1's own where it was computed."""
    rows0, columns0 = view0.content_size.height, view0.content_size.width
    rows1, columns1 = view1.content_size.height, view1.content_size.width

    def cut(points: Tensor, rows: int, columns: int) -> npt.NDArray[np.float32]:
        return points[0, :rows, :columns].float().cpu().numpy()

    points0, confidence0 = both.forward.output0.pointmap()
    points1, confidence1 = both.forward.output1.pointmap()
    own1 = None if both.backward is None else both.backward.output0.pointmap()[0]
    return Pointmaps(
        cut(points0, rows0, columns0),
        cut(points1, rows1, columns1),
        cut(confidence0, rows0, columns0),
        cut(confidence1, rows1, columns1),
        view0.original_from_network,
        view1.original_from_network,
        None if own1 is None else cut(own1, rows1, columns1),
    )
