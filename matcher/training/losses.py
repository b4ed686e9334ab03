"""What training minimises: pointmap regression, matching and masked-patch losses.

Every function is pure, takes batches, computes in float32 at least (also inside an autocast region)
and never needs to know on the host how many pixels are valid, so nothing waits for the device.
What is invalid is replaced before any arithmetic: NaN there reaches neither value nor gradient.
Without a valid pixel or correspondence a loss is 0, still attached to the graph.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.errors import InputError

__all__ = [
    "Correspondences",
    "LossOptions",
    "LossTerms",
    "LossValues",
    "MatchConfidenceMode",
    "MatchingLossOptions",
    "Normalization",
    "PointmapErrors",
    "PointmapLossOptions",
    "PointmapTargets",
    "SoftmaxMode",
    "confidence_weighted",
    "confidence_weighted_matching",
    "gather_pixels",
    "info_nce",
    "masked_mean",
    "masked_patch_mse",
    "mean_distance",
    "near_duplicates",
    "pointmap_errors",
    "total_loss",
]

Normalization = Literal["mean_distance_unless_metric", "mean_distance", "shift_and_scale"]
SoftmaxMode = Literal["proper", "all", "dual"]
MatchConfidenceMode = Literal["mean", "prod"]

_SMALLEST_SCALE = 1e-8
_SMALLEST_CONFIDENCE = 1e-10
_PATCH_VARIANCE_OFFSET = 1e-6
# Finite, so that a row without any term keeps a finite log-sum-exp and gradient.
_EXCLUDED_LOGIT = -1e30


def _require(argument: str, holds: bool, expected: str, actual: object) -> None:
    if not holds:
        raise InputError(argument, expected, str(actual))


@dataclass(frozen=True, slots=True, eq=False)
class PointmapTargets:
    """Ground truth for the two pointmaps of a batch of pairs.

    Attributes:
        points0: (B, H, W, 3) points seen by view 0, camera 0's frame, metres where metric.
        points1: (B, H1, W1, 3) points seen by view 1, also in camera 0's frame.
        valid0: (B, H, W) bool, where ``points0`` is known; elsewhere it may hold anything.
        valid1: (B, H1, W1) bool, the same for ``points1``.
        is_metric: (B,) bool, whether the pair's units are metres.
        sky0: (B, H, W) bool, pixels that see the sky, or ``None``.
        sky1: (B, H1, W1) bool, the same for view 1.
    """

    points0: Tensor
    points1: Tensor
    valid0: Tensor
    valid1: Tensor
    is_metric: Tensor
    sky0: Tensor | None = None
    sky1: Tensor | None = None

    def __post_init__(self) -> None:
        views = (
            (0, self.points0, self.valid0, self.sky0),
            (1, self.points1, self.valid1, self.sky1),
        )
        for view, points, valid, sky in views:
            shape = tuple(points.shape)
            _require(f"points{view}", len(shape) == 4 and shape[3] == 3, "(B, H, W, 3)", shape)
            for name, mask in ((f"valid{view}", valid), (f"sky{view}", sky)):
                if mask is not None:
                    found = f"{mask.dtype} {tuple(mask.shape)}"
                    fits = mask.dtype == torch.bool and mask.shape == shape[:3]
                    _require(name, fits, f"bool {shape[:3]}", found)
        batch = (self.points0.shape[0],)
        _require("points1", self.points1.shape[:1] == batch, f"{batch[0]} pairs", len(self.points1))
        found = f"{self.is_metric.dtype} {tuple(self.is_metric.shape)}"
        fits = self.is_metric.dtype == torch.bool and self.is_metric.shape == batch
        _require("is_metric", fits, f"bool {batch}", found)


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """Pixels that show the same scene point, and pixels that have no counterpart.

    Attributes:
        pixels0: (B, N, 2) int64, x then y, in view 0.
        pixels1: (B, N, 2) int64, the counterpart of each in view 1.
        valid: (B, N) bool; the other rows are padding (any pixel inside the image).
        negatives0: (B, M, 2) int64 pixels of view 0 without a counterpart, or ``None``.
        negatives1: (B, M1, 2) int64 pixels of view 1 without a counterpart, or ``None``.
        negatives0_valid: (B, M) bool, which ``negatives0`` are not padding; ``None``: all.
        negatives1_valid: (B, M1) bool, the same for ``negatives1``.
    """

    pixels0: Tensor
    pixels1: Tensor
    valid: Tensor
    negatives0: Tensor | None = None
    negatives1: Tensor | None = None
    negatives0_valid: Tensor | None = None
    negatives1_valid: Tensor | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.valid.shape)
        _require("valid", len(shape) == 2 and self.valid.dtype == torch.bool, "bool (B, N)", shape)
        for name, pixels in (("pixels0", self.pixels0), ("pixels1", self.pixels1)):
            fits = pixels.shape == (*shape, 2)
            _require(name, fits, f"shape {(*shape, 2)}", tuple(pixels.shape))


@dataclass(frozen=True, slots=True)
class PointmapLossOptions:
    """How a predicted pointmap is compared with the true one.

    Attributes:
        normalization: ``mean_distance`` divides prediction and truth each by its own mean distance
            to the origin (DUSt3R, section 3.2); ``mean_distance_unless_metric`` divides the
            prediction of a metric pair by the true mean distance (MASt3R, section 3.1);
            ``shift_and_scale`` removes the median depth and divides by the median distance to the
            median point, so that neither depth offset nor scale counts.
        keep_target_scale: leave the truth in its own units. A prediction that is divided by its own
            mean distance is then compared with unnormalised truth (as the released systems do);
            in ``shift_and_scale`` it is brought to the scale of the truth.
        log_space: replace each normalised point ``x`` by ``x / |x| * log(1 + |x|)``.
        sky_error: constant error of sky pixels without a point, which lowers their confidence;
            0 leaves them out.
        alpha: weight of the reward for confidence.
    """

    normalization: Normalization = "mean_distance_unless_metric"
    keep_target_scale: bool = False
    log_space: bool = False
    sky_error: float = 2.0
    alpha: float = 0.2

    def __post_init__(self) -> None:
        known = ("mean_distance_unless_metric", "mean_distance", "shift_and_scale")
        _require(
            "normalization", self.normalization in known, " or ".join(known), self.normalization
        )
        _require("sky_error", 0 <= self.sky_error < math.inf, "a number >= 0", self.sky_error)
        _require("alpha", 0 <= self.alpha < math.inf, "a number >= 0", self.alpha)


@dataclass(frozen=True, slots=True)
class MatchingLossOptions:
    """How descriptors are compared.

    Attributes:
        temperature: divisor of the similarities; a learned one is passed to ``total_loss`` instead.
        mode: see ``info_nce``.
        confidence: see ``confidence_weighted_matching``.
        alpha: weight of the reward for confidence.
        duplicate_radius_px: no negative lies within this many pixels of the positive, in either
            image; negative: not even the same pixel is spared (as the released systems do).
        padding_is_negative: see ``info_nce``.
        probability_floor: see ``info_nce``.
    """

    temperature: float = 0.07
    mode: SoftmaxMode = "proper"
    confidence: MatchConfidenceMode = "mean"
    alpha: float = 10.0
    duplicate_radius_px: float = 1.5
    padding_is_negative: bool = False
    probability_floor: float = 0.0

    def __post_init__(self) -> None:
        _require("temperature", 0 < self.temperature < math.inf, "a number > 0", self.temperature)
        _require("mode", self.mode in ("proper", "all", "dual"), "proper, all or dual", self.mode)
        _require("confidence", self.confidence in ("mean", "prod"), "mean or prod", self.confidence)
        _require("alpha", 0 <= self.alpha < math.inf, "a number >= 0", self.alpha)
        floor = self.probability_floor
        _require("probability_floor", 0 <= floor < 1, "a number in [0, 1)", floor)


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
            _require(name, 0 <= weight < math.inf, "a number >= 0", weight)


@dataclass(frozen=True, slots=True, eq=False)
class PointmapErrors:
    """Errors of single pixels.

    Attributes:
        error0: (B, H, W) distance between normalised prediction and truth; 0 where not counted.
        error1: (B, H1, W1) the same for view 1.
        counted0: (B, H, W) bool, pixels that enter the loss.
        counted1: (B, H1, W1) bool, the same for view 1.
    """

    error0: Tensor
    error1: Tensor
    counted0: Tensor
    counted1: Tensor


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
        pointmap: confidence-weighted pointmap loss, before its weight.
        matching: confidence-weighted matching loss, before its weight.
        pointmap_error: mean pixel error of view 0 plus that of view 1, not weighted.
        matching_error: mean InfoNCE of the correspondences, not weighted.
        num_pixels: pixels counted in both views.
        num_matches: valid correspondences.
    """

    total: Tensor
    pointmap: Tensor
    matching: Tensor
    pointmap_error: Tensor
    matching_error: Tensor
    num_pixels: Tensor
    num_matches: Tensor

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


def _precise(values: Tensor) -> Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _keep(values: Tensor, mask: Tensor, otherwise: float = 0.0) -> Tensor:
    """``values`` (*mask.shape, ...) where ``mask``, a constant elsewhere, without its gradient."""
    wide = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return torch.where(wide, _precise(values), otherwise)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (same shape) holds, (); 0 where it never does."""
    return _keep(values, mask).sum() / mask.sum().clamp(min=1)


def mean_distance(points0: Tensor, valid0: Tensor, points1: Tensor, valid1: Tensor) -> Tensor:
    """Mean distance to the origin over the valid points of both views (DUSt3R, section 3.2).

    Args:
        points0: (B, H, W, 3).
        valid0: (B, H, W) bool.
        points1: (B, H1, W1, 3), in the same frame.
        valid1: (B, H1, W1) bool.

    Returns:
        (B,) in the units of the points; 0 for a pair without a valid point.
    """
    distance0 = torch.linalg.vector_norm(_keep(points0, valid0), dim=-1).flatten(1).sum(1)
    distance1 = torch.linalg.vector_norm(_keep(points1, valid1), dim=-1).flatten(1).sum(1)
    count = valid0.flatten(1).sum(1) + valid1.flatten(1).sum(1)
    return (distance0 + distance1) / count.clamp(min=1)


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """Lower median over dim 1 of (B, K) or (B, K, C); 0 for a pair without a valid value."""
    median: Tensor = torch.nanmedian(_keep(values, valid, math.nan), dim=1).values
    return median.nan_to_num(0.0)


def _without_shift(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, 3) points at median depth 0, and (B,) their median distance to the median point."""
    depth = _median(points[..., 2], valid)
    shifted = points - torch.stack([torch.zeros_like(depth)] * 2 + [depth], -1)[:, None]
    centre = _median(shifted, valid)
    spread = torch.linalg.vector_norm(_keep(shifted - centre[:, None], valid), dim=-1)
    return shifted, _median(spread, valid).clamp(min=_SMALLEST_SCALE)


def _compress(points: Tensor) -> Tensor:
    length = torch.linalg.vector_norm(points, dim=-1, keepdim=True).clamp(min=_SMALLEST_SCALE)
    return points * (torch.log1p(length) / length)


def pointmap_errors(
    output0: DenseOutput,
    output1: DenseOutput,
    targets: PointmapTargets,
    options: PointmapLossOptions | None = None,
) -> PointmapErrors:
    """Distance between normalised predicted and true points, pixel by pixel.

    DUSt3R, section 3.2; MASt3R, section 3.1 for metric pairs.

    Args:
        output0: prediction for view 0, points (B, H, W, 3) in camera 0's frame.
        output1: prediction for view 1, points (B, H1, W1, 3) in camera 0's frame.
        targets: the truth.
        options: how to compare.
    """
    options = options or PointmapLossOptions()
    for view, points, true in (
        (0, output0.points, targets.points0),
        (1, output1.points, targets.points1),
    ):
        found, wanted = tuple(points.shape), tuple(true.shape)
        _require(f"output{view}.points", found == wanted, f"shape {wanted}", found)
    batch = targets.points0.shape[0]
    valid = torch.cat([targets.valid0.flatten(1), targets.valid1.flatten(1)], 1)

    def joined(points0: Tensor, points1: Tensor) -> Tensor:
        return _keep(torch.cat([points0.flatten(1, 2), points1.flatten(1, 2)], 1), valid)

    predicted = joined(_precise(output0.points), _precise(output1.points))
    true = joined(_precise(targets.points0), _precise(targets.points1))
    predicted, true = _normalised(predicted, true, valid, targets.is_metric, options)
    if options.log_space:
        predicted, true = _compress(predicted), _compress(true)
    error = _keep(torch.linalg.vector_norm(predicted - true, dim=-1), valid)

    split = targets.valid0[0].numel() if batch else 0
    error0 = error[:, :split].reshape(targets.valid0.shape)
    error1 = error[:, split:].reshape(targets.valid1.shape)
    error0, counted0 = _with_sky(error0, targets.valid0, targets.sky0, options.sky_error)
    error1, counted1 = _with_sky(error1, targets.valid1, targets.sky1, options.sky_error)
    return PointmapErrors(error0, error1, counted0, counted1)


def _normalised(
    predicted: Tensor, true: Tensor, valid: Tensor, is_metric: Tensor, options: PointmapLossOptions
) -> tuple[Tensor, Tensor]:
    """Bring (B, K, 3) prediction and truth to comparable scales."""
    if options.normalization == "shift_and_scale":
        predicted, predicted_scale = _without_shift(predicted, valid)
        true, true_scale = _without_shift(true, valid)
        if options.keep_target_scale:
            predicted_scale, true_scale = predicted_scale / true_scale, torch.ones_like(true_scale)
    else:
        count = valid.sum(1).clamp(min=1)
        predicted_scale = torch.linalg.vector_norm(predicted, dim=-1).sum(1) / count
        true_scale = torch.linalg.vector_norm(true, dim=-1).sum(1) / count
        if options.keep_target_scale:
            true_scale = torch.ones_like(true_scale)
        if options.normalization == "mean_distance_unless_metric":
            predicted_scale = torch.where(is_metric, true_scale, predicted_scale)
    return (
        predicted / predicted_scale.clamp(min=_SMALLEST_SCALE)[:, None, None],
        true / true_scale.clamp(min=_SMALLEST_SCALE)[:, None, None],
    )


def _with_sky(
    error: Tensor, valid: Tensor, sky: Tensor | None, sky_error: float
) -> tuple[Tensor, Tensor]:
    if sky is None or sky_error == 0:
        return error, valid
    return torch.where(sky & ~valid, sky_error, error), valid | sky


def confidence_weighted(error: Tensor, confidence: Tensor, alpha: float) -> Tensor:
    """``confidence * error - alpha * log(confidence)``, elementwise (DUSt3R, section 3.2)."""
    sure = _precise(confidence).clamp(min=_SMALLEST_CONFIDENCE)
    return sure * _precise(error) - alpha * sure.log()


def _weighted_view(error: Tensor, confidence: Tensor, counted: Tensor, alpha: float) -> Tensor:
    weighted = confidence_weighted(error, _keep(confidence, counted, 1.0), alpha)
    return masked_mean(weighted, counted)


def near_duplicates(keypoints: Tensor, radius_px: float) -> Tensor:
    """(B, N, N) bool: other keypoints of the same image at most ``radius_px`` pixels away.

    Args:
        keypoints: (B, N, 2), x then y, pixels.
        radius_px: radius, pixels; 0 finds repeated pixels, a negative one nothing.
    """
    x, y = keypoints.detach().float().unbind(-1)
    squared = (x[:, :, None] - x[:, None]).square() + (y[:, :, None] - y[:, None]).square()
    same = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    if radius_px < 0:
        return torch.zeros_like(squared, dtype=torch.bool)
    return (squared <= radius_px**2) & ~same


def info_nce(
    descriptors0: Tensor,
    descriptors1: Tensor,
    valid: Tensor,
    temperature: float | Tensor = 0.07,
    mode: SoftmaxMode = "proper",
    *,
    negatives0: Tensor | None = None,
    negatives1: Tensor | None = None,
    negatives0_valid: Tensor | None = None,
    negatives1_valid: Tensor | None = None,
    ignore: Tensor | None = None,
    padding_is_negative: bool = False,
    probability_floor: float = 0.0,
) -> Tensor:
    """InfoNCE of matching descriptors, a value per correspondence (MASt3R, section 3.2).

    With ``p`` the exponential of similarity over temperature, the probability of a correspondence
    is ``p_ii / sum_k p_ik`` in its row and ``p_ii / sum_k p_ki`` in its column. ``proper`` and
    ``dual`` add minus the logarithms of both (they differ in the floor only: each factor, or the
    product); ``all`` is minus the logarithm of ``p_ii`` over the sum of all pairs.

    Args:
        descriptors0: (B, N, D) unit descriptors in view 0.
        descriptors1: (B, N, D), row i matches row i.
        valid: (B, N) bool, rows that are correspondences.
        temperature: divisor of the similarities, > 0; a tensor () may be learned.
        mode: as above.
        negatives0: (B, M, D) further negatives of view 0.
        negatives1: (B, M1, D) further negatives of view 1.
        negatives0_valid: (B, M) bool, which to use.
        negatives1_valid: (B, M1) bool, which to use.
        ignore: (B, N, N) bool, entries [i, k] that are no negative; the diagonal is kept.
        padding_is_negative: rows that are not ``valid`` are negatives of the others (they must then
            be pixels without a counterpart) instead of being left out.
        probability_floor: probabilities below it cost no more, and get no gradient.

    Returns:
        (B, N); 0 where not valid.
    """
    if not padding_is_negative:
        descriptors0, descriptors1 = _keep(descriptors0, valid), _keep(descriptors1, valid)
    logits = _logits(descriptors0, descriptors1, temperature)
    positive = logits.diagonal(dim1=1, dim2=2)
    excluded = _excluded(valid, ignore, padding_is_negative)
    if excluded is not None:
        logits = logits.masked_fill(excluded, _EXCLUDED_LOGIT)

    right = _extra_logits(descriptors0, negatives1, negatives1_valid, temperature)
    below = _extra_logits(descriptors1, negatives0, negatives0_valid, temperature)
    if mode == "all":
        total = _log_sum(logits.flatten(1))
        for extra in (right, below):
            total = total if extra is None else torch.logaddexp(total, _log_sum(extra.flatten(1)))
        log_probabilities = [positive - total[:, None]]
    else:
        in_row, in_column = _log_sum(logits), _log_sum(logits.mT)
        in_row = in_row if right is None else torch.logaddexp(in_row, _log_sum(right))
        in_column = in_column if below is None else torch.logaddexp(in_column, _log_sum(below))
        log_probabilities = [positive - in_row, positive - in_column]
    if mode == "dual":
        log_probabilities = [log_probabilities[0] + log_probabilities[1]]
    if probability_floor > 0:
        log_floor = math.log(probability_floor)
        log_probabilities = [value.clamp(min=log_floor) for value in log_probabilities]
    return _keep(-sum(log_probabilities[1:], start=log_probabilities[0]), valid)


def _log_sum(logits: Tensor) -> Tensor:
    return torch.logsumexp(logits, dim=-1)


def _logits(rows: Tensor, columns: Tensor, temperature: float | Tensor) -> Tensor:
    # Autocast would run this product in bfloat16, too coarse to be divided by the temperature.
    with torch.autocast(rows.device.type, enabled=False):
        return (_precise(rows) @ _precise(columns).mT) / temperature


def _extra_logits(
    rows: Tensor, negatives: Tensor | None, valid: Tensor | None, temperature: float | Tensor
) -> Tensor | None:
    if negatives is None or negatives.shape[1] == 0:
        return None
    if valid is None:
        return _logits(rows, negatives, temperature)
    logits = _logits(rows, _keep(negatives, valid), temperature)
    return logits.masked_fill(~valid[:, None], _EXCLUDED_LOGIT)


def _excluded(valid: Tensor, ignore: Tensor | None, padding_is_negative: bool) -> Tensor | None:
    excluded = None
    if ignore is not None:
        excluded = ignore & ~torch.eye(valid.shape[1], dtype=torch.bool, device=valid.device)
    if not padding_is_negative:
        padding = ~(valid[:, :, None] & valid[:, None])
        excluded = padding if excluded is None else excluded | padding
    return excluded


def confidence_weighted_matching(
    loss: Tensor,
    confidence0: Tensor,
    confidence1: Tensor,
    valid: Tensor,
    alpha: float = 10.0,
    mode: MatchConfidenceMode = "mean",
) -> Tensor:
    """Confidence-aware form of a matching loss, (B, N); 0 where not valid (MASt3R, section 3.2).

    Args:
        loss: (B, N) loss of each correspondence.
        confidence0: (B, N) descriptor confidence in view 0, > 0.
        confidence1: (B, N) the same at the counterpart.
        valid: (B, N) bool.
        alpha: weight of the reward for confidence.
        mode: the confidence of a match is the mean or the product of its two ends'.
    """
    ends = _keep(confidence0, valid, 1.0), _keep(confidence1, valid, 1.0)
    confidence = ends[0] * ends[1] if mode == "prod" else (ends[0] + ends[1]) / 2
    return _keep(confidence_weighted(_keep(loss, valid), confidence, alpha), valid)


def gather_pixels(dense: Tensor, pixels: Tensor) -> Tensor:
    """Values of a (B, H, W) or (B, H, W, D) map at (B, N, 2) int64 pixels (x, y): (B, N[, D])."""
    index = pixels[..., 1] * dense.shape[2] + pixels[..., 0]
    if dense.ndim == 3:
        return dense.flatten(1).gather(1, index)
    return dense.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, dense.shape[3]))


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
    prediction, target = _precise(prediction), _precise(target)
    if normalize:
        variance, mean = torch.var_mean(target, dim=-1, keepdim=True)
        target = (target - mean) / (variance + _PATCH_VARIANCE_OFFSET).sqrt()
    error = (prediction - target).square().mean(-1)
    return error.mean() if mask is None else masked_mean(error, mask)


def total_loss(
    output0: DenseOutput,
    output1: DenseOutput,
    targets: PointmapTargets,
    correspondences: Correspondences | None,
    options: LossOptions | None = None,
    temperature: Tensor | None = None,
) -> LossTerms:
    """The training loss of a batch of pairs (MASt3R, section 3.2).

    Args:
        output0: prediction for view 0.
        output1: prediction for view 1, points in camera 0's frame.
        targets: true pointmaps.
        correspondences: true matches; ``None`` trains the pointmaps alone.
        options: weights and variants.
        temperature: learned temperature (), > 0, instead of the one in ``options``.

    Raises:
        InputError: shapes disagree, or correspondences without descriptors to train.
    """
    options = options or LossOptions()
    errors = pointmap_errors(output0, output1, targets, options.pointmap)
    alpha = options.pointmap.alpha
    pointmap = _weighted_view(errors.error0, output0.confidence, errors.counted0, alpha)
    pointmap = pointmap + _weighted_view(errors.error1, output1.confidence, errors.counted1, alpha)
    error = masked_mean(errors.error0, errors.counted0) + masked_mean(
        errors.error1, errors.counted1
    )
    total = options.pointmap_weight * pointmap
    matching = matching_error = torch.zeros_like(total)
    num_matches = torch.zeros((), dtype=torch.int64, device=total.device)
    if correspondences is not None:
        matching, matching_error = _matching_loss(
            output0, output1, correspondences, options.matching, temperature
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


def _matching_loss(
    output0: DenseOutput,
    output1: DenseOutput,
    pairs: Correspondences,
    options: MatchingLossOptions,
    temperature: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Confidence-weighted and plain mean InfoNCE."""
    dense0, dense1 = output0.descriptors, output1.descriptors
    if dense0 is None or dense1 is None:
        raise InputError("correspondences", "outputs with descriptors", "outputs without")
    ignore = None
    if options.duplicate_radius_px >= 0:
        radius = options.duplicate_radius_px
        ignore = near_duplicates(pairs.pixels0, radius) | near_duplicates(pairs.pixels1, radius)
    loss = info_nce(
        gather_pixels(dense0, pairs.pixels0),
        gather_pixels(dense1, pairs.pixels1),
        pairs.valid,
        options.temperature if temperature is None else temperature,
        options.mode,
        negatives0=None if pairs.negatives0 is None else gather_pixels(dense0, pairs.negatives0),
        negatives1=None if pairs.negatives1 is None else gather_pixels(dense1, pairs.negatives1),
        negatives0_valid=pairs.negatives0_valid,
        negatives1_valid=pairs.negatives1_valid,
        ignore=ignore,
        padding_is_negative=options.padding_is_negative,
        probability_floor=options.probability_floor,
    )
    plain = masked_mean(loss, pairs.valid)
    sure0, sure1 = output0.descriptor_confidence, output1.descriptor_confidence
    if sure0 is None or sure1 is None:
        return plain, plain
    weighted = confidence_weighted_matching(
        loss,
        gather_pixels(sure0, pairs.pixels0),
        gather_pixels(sure1, pairs.pixels1),
        pairs.valid,
        options.alpha,
        options.confidence,
    )
    return masked_mean(weighted, pairs.valid), plain
