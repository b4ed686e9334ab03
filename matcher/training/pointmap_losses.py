"""Pointmap regression: distance between normalised predicted and true points."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.training.masking import keep_where, lengths, precise, require

__all__ = [
    "Normalization",
    "PointmapErrors",
    "PointmapLossOptions",
    "PointmapTargets",
    "distance_errors",
    "mean_distance",
    "pointmap_errors",
    "ray_errors",
]

Normalization = Literal["mean_distance_unless_metric", "mean_distance", "shift_and_scale"]

_SMALLEST_SCALE = 1e-8
_SMALLEST_DISTANCE = 1e-4
"""A predicted point at the camera itself must not send its gradient to infinity."""


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
            require(f"points{view}", len(shape) == 4 and shape[3] == 3, "(B, H, W, 3)", shape)
            for name, mask in ((f"valid{view}", valid), (f"sky{view}", sky)):
                if mask is not None:
                    found = f"{mask.dtype} {tuple(mask.shape)}"
                    fits = mask.dtype == torch.bool and mask.shape == shape[:3]
                    require(name, fits, f"bool {shape[:3]}", found)
        batch = (self.points0.shape[0],)
        require("points1", self.points1.shape[:1] == batch, f"{batch[0]} pairs", len(self.points1))
        found = f"{self.is_metric.dtype} {tuple(self.is_metric.shape)}"
        fits = self.is_metric.dtype == torch.bool and self.is_metric.shape == batch
        require("is_metric", fits, f"bool {batch}", found)


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
        ray_weight: weight of the mean error of view 0's rays (``ray_errors``), whatever the
            confidence. Where depth is uncertain the distance of points says little about their
            direction, and the focal length read off a pointmap grows too long.
        distance_weight: weight of the mean error of both views' log distances
            (``distance_errors``), whatever the confidence. A distance of points is dominated by
            what lies far away and is not sure; relative depth counts near and far alike.
    """

    normalization: Normalization = "mean_distance_unless_metric"
    keep_target_scale: bool = False
    log_space: bool = False
    sky_error: float = 2.0
    alpha: float = 0.2
    ray_weight: float = 0.0
    distance_weight: float = 0.0

    def __post_init__(self) -> None:
        known = ("mean_distance_unless_metric", "mean_distance", "shift_and_scale")
        require(
            "normalization", self.normalization in known, " or ".join(known), self.normalization
        )
        require("sky_error", 0 <= self.sky_error < math.inf, "a number >= 0", self.sky_error)
        for name in ("alpha", "ray_weight", "distance_weight"):
            weight = getattr(self, name)
            require(name, 0 <= weight < math.inf, "a number >= 0", weight)


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
    points, valid = _joined(points0, valid0, points1, valid1)
    return _mean_length(points, valid)


def _joined(
    points0: Tensor, valid0: Tensor, points1: Tensor, valid1: Tensor
) -> tuple[Tensor, Tensor]:
    """Both views as (B, K, 3) points, 0 where not valid, and (B, K) bool."""
    points = torch.cat([precise(points0).flatten(1, 2), precise(points1).flatten(1, 2)], 1)
    valid = torch.cat([valid0.flatten(1), valid1.flatten(1)], 1)
    return keep_where(points, valid), valid


def _apart(values: Tensor, targets: PointmapTargets) -> tuple[Tensor, Tensor]:
    """(B, K) of both views joined -> (B, H, W) and (B, H1, W1)."""
    in_view0 = targets.valid0[0].numel()
    return (
        values[:, :in_view0].reshape_as(targets.valid0),
        values[:, in_view0:].reshape_as(targets.valid1),
    )


def _mean_length(points: Tensor, valid: Tensor) -> Tensor:
    return lengths(points).sum(1) / valid.sum(1).clamp(min=1)


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
        (0, output0.pointmap()[0], targets.points0),
        (1, output1.pointmap()[0], targets.points1),
    ):
        found, wanted = tuple(points.shape), tuple(true.shape)
        require(f"output{view}.points", found == wanted, f"shape {wanted}", found)
    valid0, valid1 = targets.valid0, targets.valid1
    predicted, valid = _joined(output0.pointmap()[0], valid0, output1.pointmap()[0], valid1)
    true, _ = _joined(targets.points0, valid0, targets.points1, valid1)
    predicted, true = _normalised(predicted, true, valid, targets.is_metric, options)
    if options.log_space:
        predicted, true = _compress(predicted), _compress(true)
    error = keep_where(lengths(predicted - true), valid)

    error0, error1 = _apart(error, targets)
    error0, counted0 = _with_sky(error0, valid0, targets.sky0, options.sky_error)
    error1, counted1 = _with_sky(error1, valid1, targets.sky1, options.sky_error)
    return PointmapErrors(error0, error1, counted0, counted1)


def ray_errors(output0: DenseOutput, targets: PointmapTargets) -> Tensor:
    """Distance between the unit rays of predicted and true points of view 0.

    Only the lens decides where these rays point: not the scene, its scale or the other view.

    Args:
        output0: prediction for view 0, points (B, H, W, 3) in its own frame.
        targets: the truth.

    Returns:
        (B, H, W) in [0, 2]; 0 where ``valid0`` is false.
    """
    predicted = precise(keep_where(output0.pointmap()[0], targets.valid0))
    true = precise(keep_where(targets.points0, targets.valid0))
    return lengths(_unit(predicted) - _unit(true))


def distance_errors(
    output0: DenseOutput, output1: DenseOutput, targets: PointmapTargets
) -> tuple[Tensor, Tensor]:
    """How far the log of points' distances from camera 0 is off, up to one scale for the pair.

    Args:
        output0: prediction for view 0, points in camera 0's frame.
        output1: prediction for view 1, in the same frame.
        targets: the truth; its pixels at the camera itself do not count.

    Returns:
        (B, H, W) and (B, H1, W1) absolute differences of natural logarithms, less the pair's median
        difference; 0 where not valid.
    """
    views = (output0.pointmap()[0], targets.valid0, output1.pointmap()[0], targets.valid1)
    predicted, valid = _joined(*views)
    true, _ = _joined(targets.points0, targets.valid0, targets.points1, targets.valid1)
    distance = lengths(true)
    valid = valid & (distance > _SMALLEST_SCALE)
    logs = lengths(predicted).clamp(min=_SMALLEST_DISTANCE).log()
    logs = logs - distance.clamp(min=_SMALLEST_SCALE).log()
    error = keep_where((logs - _median(logs.detach(), valid)[:, None]).abs(), valid)
    return _apart(error, targets)


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
        predicted_scale = _mean_length(predicted, valid)
        true_scale = _mean_length(true, valid)
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


def _median(values: Tensor, valid: Tensor) -> Tensor:
    """Lower median over dim 1 of (B, K) or (B, K, C); 0 for a pair without a valid value."""
    median: Tensor = torch.nanmedian(keep_where(values, valid, math.nan), dim=1).values
    return median.nan_to_num(0.0)


def _without_shift(points: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, 3) points at median depth 0, and (B,) their median distance to the median point."""
    depth = _median(points[..., 2], valid)
    shifted = points - torch.stack([torch.zeros_like(depth)] * 2 + [depth], -1)[:, None]
    centre = _median(shifted, valid)
    spread = lengths(keep_where(shifted - centre[:, None], valid))
    return shifted, _median(spread, valid).clamp(min=_SMALLEST_SCALE)


def _unit(points: Tensor) -> Tensor:
    return points / lengths(points)[..., None].clamp(min=_SMALLEST_SCALE)


def _compress(points: Tensor) -> Tensor:
    length = lengths(points)[..., None].clamp(min=_SMALLEST_SCALE)
    return points * (torch.log1p(length) / length)
