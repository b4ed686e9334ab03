"""What training minimises: pointmap regression, matching and masked-patch losses.

Every function is pure, takes batches, computes in float32 at least (also inside an autocast region)
and never needs to know on the host how many pixels are valid, so nothing waits for the device.
What is invalid is replaced before any arithmetic: NaN there reaches neither value nor gradient.
Without a valid pixel or correspondence a loss is 0, still attached to the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.errors import InputError
from matcher.training.masking import (
    MaskedMean,
    confidence_weighted,
    keep_where,
    masked_mean,
    precise,
    require,
)
from matcher.training.matching_losses import (
    Correspondences,
    MatchConfidenceMode,
    MatchingLossOptions,
    SoftmaxMode,
    confidence_weighted_matching,
    gather_pixels,
    info_nce,
    near_duplicates,
)
from matcher.training.pointmap_losses import (
    Normalization,
    PointmapErrors,
    PointmapLossOptions,
    PointmapTargets,
    distance_errors,
    mean_distance,
    pointmap_errors,
    ray_errors,
)

__all__ = [
    "Correspondences",
    "LossOptions",
    "LossTerms",
    "LossValues",
    "MatchConfidenceMode",
    "MatchingLossOptions",
    "Normalization",
    "PixelFeatures",
    "PointmapErrors",
    "PointmapLossOptions",
    "PointmapTargets",
    "SoftmaxMode",
    "confidence_weighted",
    "confidence_weighted_matching",
    "distance_errors",
    "gather_pixels",
    "info_nce",
    "masked_mean",
    "masked_patch_mse",
    "matching_loss",
    "mean_distance",
    "near_duplicates",
    "pointmap_errors",
    "ray_errors",
    "total_loss",
]

_PATCH_VARIANCE_OFFSET = 1e-6


@dataclass(frozen=True, slots=True)
class LossOptions:
    """The whole training loss: pointmaps plus ``matching_weight`` times matching."""

    pointmap: PointmapLossOptions = field(default_factory=PointmapLossOptions)
    matching: MatchingLossOptions = field(default_factory=MatchingLossOptions)
    pointmap_weight: float = 1.0
    matching_weight: float = 0.075

    def __post_init__(self) -> None:
        for name in ("pointmap_weight", "matching_weight"):
            weight = getattr(self, name)
            require(name, 0 <= weight < math.inf, "a number >= 0", weight)


@dataclass(frozen=True, slots=True, eq=False)
class PixelFeatures:
    """What the matching loss needs of one view.

    Attributes:
        descriptors: (B, N, D) unit descriptors at the correspondences.
        confidence: (B, N) their confidence, > 0, or ``None``.
        negatives: (B, M, D) unit descriptors of further negatives, or ``None``.
    """

    descriptors: Tensor
    confidence: Tensor | None = None
    negatives: Tensor | None = None


@dataclass(frozen=True, slots=True)
class LossValues:
    """The numbers of ``LossTerms``, for a log."""

    total: float
    pointmap: float
    matching: float
    pointmap_error: float
    matching_error: float
    num_pixels: int
    num_matches: int


@dataclass(frozen=True, slots=True, eq=False)
class LossTerms:
    """The loss of a batch and its parts, all scalars; only ``total`` carries a gradient.

    Attributes:
        total: what to minimise.
        pointmap: confidence-weighted pointmap loss and those of rays and distances, before its
            weight.
        matching: confidence-weighted matching loss, before its weight.
        pointmap_error: mean pixel error of view 0 plus that of view 1, not weighted.
        matching_error: mean InfoNCE of the correspondences, not weighted.
        num_pixels: pixels counted in both views.
        num_matches: valid correspondences.
        JUDGED_ON: which of the counts weighs a part where steps are averaged.
    """

    JUDGED_ON: ClassVar[Mapping[str, str]] = {
        "pointmap": "num_pixels",
        "pointmap_error": "num_pixels",
        "matching": "num_matches",
        "matching_error": "num_matches",
    }

    total: Tensor
    pointmap: Tensor
    matching: Tensor
    pointmap_error: Tensor
    matching_error: Tensor
    num_pixels: Tensor
    num_matches: Tensor

    @classmethod
    def nothing(cls, device: torch.device) -> LossTerms:
        """No pixel and no match counted yet."""
        none = torch.zeros((), device=device)
        count = torch.zeros((), dtype=torch.int64, device=device)
        return cls(none, none, none, none, none, count, count)

    def values(self) -> LossValues:
        """The same as plain numbers; waits for the device once."""
        parts = (self.total, self.pointmap, self.matching, self.pointmap_error, self.matching_error)
        counts = (self.num_pixels, self.num_matches)
        total, pointmap, matching, pointmap_error, matching_error, pixels, matches = torch.stack(
            [part.detach().double() for part in (*parts, *counts)]
        ).tolist()
        return LossValues(
            total, pointmap, matching, pointmap_error, matching_error, int(pixels), int(matches)
        )


def total_loss(
    output0: DenseOutput,
    output1: DenseOutput,
    targets: PointmapTargets,
    correspondences: Correspondences | None,
    options: LossOptions | None = None,
    temperature: Tensor | None = None,
    mean: MaskedMean = masked_mean,
) -> LossTerms:
    """The training loss of a batch of pairs (MASt3R, section 3.2).

    Args:
        output0: prediction for view 0.
        output1: prediction for view 1, points in camera 0's frame.
        targets: true pointmaps.
        correspondences: true matches; ``None`` trains the pointmaps alone.
        options: weights and variants.
        temperature: learned temperature (), > 0, instead of the one in ``options``.
        mean: over pixels and matches; several processes divide by what all of them count.

    Raises:
        InputError: shapes disagree, or correspondences without descriptors to train.
    """
    options = options or LossOptions()
    errors = pointmap_errors(output0, output1, targets, options.pointmap)
    alpha = options.pointmap.alpha
    views = (
        (errors.error0, output0.pointmap()[1], errors.counted0),
        (errors.error1, output1.pointmap()[1], errors.counted1),
    )
    pointmap = mean(_weighted(*views[0], alpha), errors.counted0)
    pointmap = pointmap + mean(_weighted(*views[1], alpha), errors.counted1)
    if options.pointmap.ray_weight:
        rays = mean(ray_errors(output0, targets), targets.valid0)
        pointmap = pointmap + options.pointmap.ray_weight * rays
    if options.pointmap.distance_weight:
        distances = distance_errors(output0, output1, targets)
        far = mean(distances[0], targets.valid0) + mean(distances[1], targets.valid1)
        pointmap = pointmap + options.pointmap.distance_weight * far
    error = mean(errors.error0, errors.counted0) + mean(errors.error1, errors.counted1)
    total = options.pointmap_weight * pointmap
    matching = matching_error = torch.zeros_like(total)
    num_matches = torch.zeros((), dtype=torch.int64, device=total.device)
    if correspondences is not None:
        matching, matching_error = matching_loss(
            _features_at(output0, correspondences.pixels0, correspondences.negatives0),
            _features_at(output1, correspondences.pixels1, correspondences.negatives1),
            correspondences,
            options.matching,
            temperature,
            mean,
        )
        total = total + options.matching_weight * matching
        num_matches = correspondences.valid.sum()
    return LossTerms(
        total,
        pointmap.detach(),
        matching.detach(),
        error.detach(),
        matching_error.detach(),
        errors.counted0.sum() + errors.counted1.sum(),
        num_matches,
    )


def matching_loss(
    features0: PixelFeatures,
    features1: PixelFeatures,
    pairs: Correspondences,
    options: MatchingLossOptions,
    temperature: Tensor | None = None,
    mean: MaskedMean = masked_mean,
) -> tuple[Tensor, Tensor]:
    """Confidence-weighted and plain mean InfoNCE, both ().

    Args:
        features0: features at ``pairs.pixels0`` and ``pairs.negatives0``.
        features1: features at ``pairs.pixels1`` and ``pairs.negatives1``.
        pairs: true matches.
        options: how descriptors are compared.
        temperature: learned temperature (), > 0, instead of the one in ``options``.
        mean: over the correspondences, see ``total_loss``.
    """
    ignore = None
    radius = options.duplicate_radius_px
    if radius is not None:
        ignore = near_duplicates(pairs.pixels0, radius) | near_duplicates(pairs.pixels1, radius)
    loss = info_nce(
        features0.descriptors,
        features1.descriptors,
        pairs.valid,
        options.temperature if temperature is None else temperature,
        options.mode,
        negatives0=features0.negatives,
        negatives1=features1.negatives,
        negatives0_valid=pairs.negatives0_valid,
        negatives1_valid=pairs.negatives1_valid,
        ignore=ignore,
        padding_is_negative=options.padding_is_negative,
        probability_floor=options.probability_floor,
    )
    plain = mean(loss, pairs.valid)
    if features0.confidence is None or features1.confidence is None:
        return plain, plain
    weighted = confidence_weighted_matching(
        loss.detach() if options.plain_descriptors else loss,
        features0.confidence,
        features1.confidence,
        pairs.valid,
        options.alpha,
        options.confidence,
    )
    total = mean(weighted, pairs.valid)
    return total + plain if options.plain_descriptors else total, plain


def _features_at(output: DenseOutput, pixels: Tensor, negatives: Tensor | None) -> PixelFeatures:
    dense = output.descriptors
    if dense is None:
        raise InputError("correspondences", "outputs with descriptors", "outputs without")
    sure = output.descriptor_confidence
    return PixelFeatures(
        gather_pixels(dense, pixels),
        None if sure is None else gather_pixels(sure, pixels),
        None if negatives is None else gather_pixels(dense, negatives),
    )


def _weighted(error: Tensor, confidence: Tensor, counted: Tensor, alpha: float) -> Tensor:
    return confidence_weighted(error, keep_where(confidence, counted, 1.0), alpha)


def masked_patch_mse(
    prediction: Tensor, target: Tensor, mask: Tensor | None, normalize: bool = True
) -> Tensor:
    """Mean squared error of reconstructed patches, () (CroCo, section 3).

    Args:
        prediction: (B, N, P) predicted values of every patch.
        target: (B, N, P) true values.
        mask: (B, N) bool, the hidden patches, which alone count; ``None``: all count.
        normalize: compare with each true patch at mean 0 and (unbiased) variance 1.
    """
    prediction, target = precise(prediction), precise(target)
    if normalize:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + _PATCH_VARIANCE_OFFSET).sqrt()
    error = (prediction - target).square().mean(-1)
    return error.mean() if mask is None else masked_mean(error, mask)
