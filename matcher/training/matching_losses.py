"""Matching of descriptors: InfoNCE over true correspondences, weighted by confidence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from matcher.training.masking import confidence_weighted, keep_where, precise, require

__all__ = [
    "Correspondences",
    "MatchConfidenceMode",
    "MatchingLossOptions",
    "SoftmaxMode",
    "confidence_weighted_matching",
    "gather_pixels",
    "info_nce",
    "near_duplicates",
]

SoftmaxMode = Literal["proper", "all", "dual"]
MatchConfidenceMode = Literal["mean", "prod"]

# Finite, so that a row without any term keeps a finite log-sum-exp and gradient.
_EXCLUDED_LOGIT = -1e30


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
        require("valid", len(shape) == 2 and self.valid.dtype == torch.bool, "bool (B, N)", shape)
        for name, pixels in (("pixels0", self.pixels0), ("pixels1", self.pixels1)):
            fits = pixels.shape == (*shape, 2)
            require(name, fits, f"shape {(*shape, 2)}", tuple(pixels.shape))
        negatives = (
            (0, self.negatives0, self.negatives0_valid),
            (1, self.negatives1, self.negatives1_valid),
        )
        for view, extra, mask in negatives:
            if mask is not None:
                wanted = None if extra is None else tuple(extra.shape[:2])
                found = tuple(mask.shape)
                require(f"negatives{view}_valid", found == wanted, f"shape {wanted}", found)


@dataclass(frozen=True, slots=True)
class MatchingLossOptions:
    """How descriptors are compared.

    Attributes:
        temperature: divisor of the similarities; a learned one is passed to ``total_loss`` instead.
        mode: see ``info_nce``.
        confidence: see ``confidence_weighted_matching``.
        alpha: weight of the reward for confidence.
        duplicate_radius_px: no negative lies within this many pixels of the positive, in either
            image; ``None``: any pixel may be a negative (as in the released systems).
        padding_is_negative: see ``info_nce``.
        probability_floor: see ``info_nce``.
        plain_descriptors: descriptors learn from the plain InfoNCE, and the confidence-aware form
            trains the confidences alone. Weighted by its confidence, an InfoNCE that starts high
            hardly moves the descriptors at first; short runs need this, the released recipe
            does not have it.
    """

    temperature: float = 0.07
    mode: SoftmaxMode = "proper"
    confidence: MatchConfidenceMode = "mean"
    alpha: float = 10.0
    duplicate_radius_px: float | None = 1.5
    padding_is_negative: bool = False
    probability_floor: float = 0.0
    plain_descriptors: bool = False

    def __post_init__(self) -> None:
        require("temperature", 0 < self.temperature < math.inf, "a number > 0", self.temperature)
        require("mode", self.mode in ("proper", "all", "dual"), "proper, all or dual", self.mode)
        require("confidence", self.confidence in ("mean", "prod"), "mean or prod", self.confidence)
        require("alpha", 0 <= self.alpha < math.inf, "a number >= 0", self.alpha)
        radius, floor = self.duplicate_radius_px, self.probability_floor
        require("duplicate_radius_px", radius is None or radius >= 0, "None or >= 0", radius)
        require("probability_floor", 0 <= floor < 1, "a number in [0, 1)", floor)


def gather_pixels(dense: Tensor, pixels: Tensor) -> Tensor:
    """Values of a (B, H, W) or (B, H, W, D) map at (B, N, 2) int64 pixels (x, y): (B, N[, D])."""
    index = pixels[..., 1] * dense.shape[2] + pixels[..., 0]
    if dense.ndim == 3:
        return dense.flatten(1).gather(1, index)
    return dense.flatten(1, 2).gather(1, index[..., None].expand(-1, -1, dense.shape[3]))


def near_duplicates(keypoints: Tensor, radius_px: float) -> Tensor:
    """(B, N, N) bool: other keypoints of the same image at most ``radius_px`` pixels away.

    Args:
        keypoints: (B, N, 2), x then y, pixels.
        radius_px: radius, pixels; 0 finds repeated pixels.
    """
    x, y = keypoints.detach().float().unbind(-1)
    squared = (x[:, :, None] - x[:, None]).square() + (y[:, :, None] - y[:, None]).square()
    same = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
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
        descriptors0 = keep_where(descriptors0, valid)
        descriptors1 = keep_where(descriptors1, valid)
    logits = _logits(descriptors0, descriptors1, temperature)
    positive = logits.diagonal(dim1=1, dim2=2)
    excluded = _excluded(valid, ignore, padding_is_negative)
    if excluded is not None:
        logits = logits.masked_fill(excluded, _EXCLUDED_LOGIT)

    anchors = torch.ones_like(valid) if padding_is_negative else valid
    right = _extra_logits(descriptors0, anchors, negatives1, negatives1_valid, temperature)
    below = _extra_logits(descriptors1, anchors, negatives0, negatives0_valid, temperature)
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
    return keep_where(-sum(log_probabilities[1:], start=log_probabilities[0]), valid)


def _log_sum(logits: Tensor) -> Tensor:
    return torch.logsumexp(logits, dim=-1)


def _logits(rows: Tensor, columns: Tensor, temperature: float | Tensor) -> Tensor:
    # Autocast would run this product in bfloat16, too coarse to be divided by the temperature.
    with torch.autocast(rows.device.type, enabled=False):
        return (precise(rows) @ precise(columns).mT) / temperature


def _extra_logits(
    descriptors: Tensor,
    anchors: Tensor,
    negatives: Tensor | None,
    valid: Tensor | None,
    temperature: float | Tensor,
) -> Tensor | None:
    """(B, N, M) logits of further negatives; excluded where anchor or negative is padding."""
    if negatives is None or negatives.shape[1] == 0:
        return None
    if valid is None:
        valid = torch.ones(negatives.shape[:2], dtype=torch.bool, device=negatives.device)
    logits = _logits(descriptors, keep_where(negatives, valid), temperature)
    return logits.masked_fill(~(anchors[:, :, None] & valid[:, None]), _EXCLUDED_LOGIT)


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
    ends = keep_where(confidence0, valid, 1.0), keep_where(confidence1, valid, 1.0)
    confidence = ends[0] * ends[1] if mode == "prod" else (ends[0] + ends[1]) / 2
    return keep_where(confidence_weighted(keep_where(loss, valid), confidence, alpha), valid)
