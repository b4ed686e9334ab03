"""How sure a match is: features of a match and of its pair, and a fitted mapping to probability.

A network's own confidence orders the matches of one pair; it does not say how many of them are
right, and it is as high for photographs of different places. What tells them apart is how similar
the two descriptors are, whether the neighbours of a match went the same way, and how the whole pair
looks. A logistic mapping over these, fitted on pairs with known truth, is stored with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.neighbourhoods import LocalMotion, nearest_neighbours
from matcher.structures import GridMatches

__all__ = [
    "MATCH_FEATURES",
    "PAIR_FEATURES",
    "ConfidenceCalibration",
    "LogisticMapping",
    "MatchFeatures",
    "match_features",
]

# A mapping may use some of them only: one fitted before a feature was thought of stays good.
MATCH_FEATURES = (
    "similarity",
    "log_descriptor_confidence",
    "stretch",
    "support",
    "support_again",
    "support_at_last",
    "pair_similarity",
    "pair_log_share",
    "pair_stretch",
    "pair_support",
)
PAIR_FEATURES = (
    "pair_similarity",
    "pair_log_share",
    "pair_stretch",
    "pair_support",
    "pair_similarity_top",
)

_STRETCH_NEIGHBOURS = 8
_LARGEST_STRETCH = 3.0
_SMALLEST = 1e-6


@dataclass(frozen=True, slots=True)
class LogisticMapping:
    """``sigmoid(bias + sum weights * (features - means) / scales)``.

    Attributes:
        features: their names, in order.
        means, scales: of the features where the mapping was fitted; scales > 0.
        weights: of the standardised features.
        bias: of the whole.
    """

    features: tuple[str, ...]
    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    bias: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        for name in ("means", "scales", "weights"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != len(self.features) or not all(map(math.isfinite, values)):
                raise InputError(
                    f"calibration {name}", f"{len(self.features)} finite numbers", f"{values}"
                )
            object.__setattr__(self, name, values)
        if min(self.scales, default=1.0) <= 0 or not math.isfinite(self.bias):
            raise InputError("calibration", "positive scales and a finite bias", f"{self}")

    def probability(self, features: Tensor) -> Tensor:
        """(M,) in (0, 1] from (M, F) features, float32."""
        values = features.double()
        means, scales, weights = (
            values.new_tensor(entry) for entry in (self.means, self.scales, self.weights)
        )
        logit = ((values - means) / scales) @ weights + self.bias
        return torch.sigmoid(logit).clamp(_SMALLEST, 1).float()


@dataclass(frozen=True, slots=True)
class ConfidenceCalibration:
    """What a checkpoint knows about its own matches.

    Attributes:
        match: probability that a match is right (within ``radius_px`` of the truth).
        pair: probability that two photographs show a common place.
        radius_px: pixels of the network's view.
    """

    match: LogisticMapping
    pair: LogisticMapping
    radius_px: float = 5.0

    def __post_init__(self) -> None:
        for name, known in (("match", MATCH_FEATURES), ("pair", PAIR_FEATURES)):
            mapping = getattr(self, name)
            if not set(mapping.features) <= set(known):
                raise InputError(
                    f"calibration {name}", f"features among {known}", f"{mapping.features}"
                )

    def match_probability(self, features: MatchFeatures) -> Tensor:
        """(M,) in (0, 1], that each match is right."""
        columns = [MATCH_FEATURES.index(name) for name in self.match.features]
        return self.match.probability(features.match[:, columns])

    def pair_probability(self, features: MatchFeatures) -> float:
        """In (0, 1], that the pair shows a common place."""
        columns = [PAIR_FEATURES.index(name) for name in self.pair.features]
        return float(self.pair.probability(features.pair[None, columns])[0])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ConfidenceCalibration:
        """The inverse of ``to_dict``; raises ``InputError`` for anything else."""
        try:
            known = {entry.name for entry in fields(cls)}
            if set(values) - known:
                raise InputError("calibration", f"entries {sorted(known)}", f"{sorted(values)}")
            match, pair = (LogisticMapping(**dict(values[name])) for name in ("match", "pair"))
            return cls(match, pair, float(values["radius_px"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("calibration", "a complete mapping", str(error)) from None


@dataclass(frozen=True, slots=True, eq=False)
class MatchFeatures:
    """What speaks for the matches of a pair, and for the pair.

    Attributes:
        match: (M, F) float32, the columns of ``MATCH_FEATURES``.
        pair: (F,) float32, the columns of ``PAIR_FEATURES``.
    """

    match: Tensor
    pair: Tensor


def match_features(
    matches: GridMatches, motion: LocalMotion, sure0: Tensor, sure1: Tensor
) -> MatchFeatures:
    """The features of one pair of views.

    Args:
        matches: M matches, with the number of seeds of their search.
        motion: of what lies around them.
        sure0: (H0, W0) descriptor confidence of view 0, > 0.
        sure1: (H1, W1) the same of view 1.
    """
    x0, y0 = matches.pixels0.unbind(1)
    x1, y1 = matches.pixels1.unbind(1)
    together = sure0[y0, x0].double() * sure1[y1, x1].double()
    log_confidence = 0.5 * together.clamp(1e-12, 1e12).log()
    ends0, ends1 = matches.pixels0.float(), matches.pixels1.float()
    stretch = _stretch(ends0, ends1).double()
    support = motion.support.double()
    similarity = matches.similarity.double()
    pair = _pair_features(similarity, stretch, support[:, 0], matches.num_seeds)
    own = torch.stack([similarity, log_confidence, stretch], dim=1)
    shared = pair[:4].double().expand(len(matches), 4)
    return MatchFeatures(torch.cat([own, support, shared], dim=1).float(), pair)


def _pair_features(similarity: Tensor, stretch: Tensor, support: Tensor, num_seeds: int) -> Tensor:
    """(F,) float32 from the (M,) features of the matches."""
    count = len(similarity)
    if not count:
        none = [0.0, math.log(_SMALLEST), _LARGEST_STRETCH, 0.0, 0.0]
        return similarity.new_tensor(none).float()
    share = min(1.0, count / max(1, num_seeds))
    return torch.stack(
        [
            similarity.median(),
            similarity.new_tensor(math.log(max(share, _SMALLEST))),
            stretch.median(),
            support.median(),
            similarity.quantile(0.9),
        ]
    ).float()


def _stretch(ends0: Tensor, ends1: Tensor) -> Tensor:
    """(M,) how differently the neighbours of a match lie in the two views, float32.

    The ratio of distances to the nearest matches, view 1 over view 0, against the pair's usual
    ratio, as a logarithm without its sign: 0 where neighbours moved along, cut at 3.
    """
    count = len(ends0)
    if count <= _STRETCH_NEIGHBOURS:
        return torch.full((count,), _LARGEST_STRETCH, device=ends0.device)
    everyone = torch.ones(count, dtype=torch.bool, device=ends0.device)
    apart0, rows = nearest_neighbours(ends0, _STRETCH_NEIGHBOURS, everyone)
    apart1 = (ends1[rows] - ends1[:, None]).norm(dim=2).clamp_min(0.5)
    ratio: Tensor = (apart1 / apart0.clamp_min(0.5)).log().median(dim=1).values
    return (ratio - ratio.median()).abs().clamp_max(_LARGEST_STRETCH)
