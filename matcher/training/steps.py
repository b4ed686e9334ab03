"""One step of a run: learning rate, forward pass, losses, update, average."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from heads import HeadConfig, RawMaps
from heads.activations import confidence_from_raw, dense_output, unit_descriptors
from matcher.model.network import TwoViewNetwork
from matcher.training.config import RunConfig, Stage, TrainConfig
from matcher.training.losses import (
    LossOptions,
    LossTerms,
    MatchingLossOptions,
    Normalization,
    PixelFeatures,
    PointmapLossOptions,
    PointmapTargets,
    matching_loss,
    total_loss,
)
from matcher.training.masking import MaskedMean, masked_mean
from matcher.training.samples import TrainingBatch
from matcher.training.state import TrainingState

__all__ = [
    "RawForward",
    "compute_loss",
    "features_at",
    "learning_rate_at",
    "loss_options",
    "set_learning_rate",
    "step_precision",
    "update",
]

_POINT_STRIDE = 4
_GPU_BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH)
RawTensors = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


def learning_rate_at(config: RunConfig, step: int, progress: float) -> float:
    """Linear warm-up over steps, then a cosine over the run down to 1 %."""
    warm = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * warm * decay


def set_learning_rate(state: TrainingState[Any], config: RunConfig, progress: float) -> float:
    """Give every group of parameters its rate; returns the one that most have."""
    rate = learning_rate_at(config, state.step, progress)
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group["scale"]
    return rate


@contextmanager
def step_precision(device: str, config: RunConfig) -> Iterator[None]:
    """The precision and the attention of a step's forward pass."""
    with (
        sdpa_kernel(list(_GPU_BACKENDS)),
        torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"),
    ):
        yield


class RawForward(nn.Module):
    """A two-view network's raw maps as plain tensors: what is shared and compiled in a step."""

    def __init__(self, network: TwoViewNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, pixels0: Tensor, pixels1: Tensor, features: bool = True, points: bool = True
    ) -> RawTensors:
        """Points and features of both views; see ``TwoViewNetwork.forward_raw``."""
        maps0, maps1 = self.network.forward_raw(pixels0, pixels1, features=features, points=points)
        return maps0.points, maps0.features, maps1.points, maps1.features


def loss_options(config: TrainConfig, stage: Stage | None = None) -> LossOptions:
    """The losses of a run, or of one of its stages."""

    def weight(name: str) -> float:
        own = None if stage is None else getattr(stage, name)
        value: float = getattr(config, name) if own is None else own
        return value

    # A network whose pointmaps have no scale is not asked for that of its training scenes.
    normalization: Normalization = (
        "mean_distance_unless_metric" if config.model.is_metric else "mean_distance"
    )
    return LossOptions(
        pointmap=PointmapLossOptions(
            normalization=normalization,
            ray_weight=weight("ray_weight"),
            distance_weight=weight("distance_weight"),
        ),
        matching=MatchingLossOptions(
            temperature=config.temperature,
            alpha=config.match_alpha,
            duplicate_radius_px=2.0,
            plain_descriptors=True,
        ),
        pointmap_weight=weight("pointmap_weight"),
        matching_weight=weight("matching_weight"),
    )


def compute_loss(
    network: TwoViewNetwork,
    batch: TrainingBatch,
    config: TrainConfig,
    *,
    stage: Stage | None = None,
    forward: Callable[..., RawTensors] | None = None,
    mean: MaskedMean = masked_mean,
) -> LossTerms:
    """Forward pass of one batch in the configured precision, and its losses in float32.

    Only the pixels that a loss looks at are activated: descriptors at the correspondences and
    their negatives, points on every fourth pixel. That spares a third of a step on a CPU.

    Args:
        network: what learns.
        batch: on its device.
        config: of the run.
        stage: whose weights hold; ``None``: those of the run.
        forward: ``RawForward`` of the network, shared or compiled; ``None``: as it is.
        mean: how the losses of pixels and matches are averaged.
    """
    call = RawForward(network) if forward is None else forward
    options, head, pairs = loss_options(config, stage), config.model.head, batch.correspondences
    descriptors_rest = stage is not None and stage.learns_points_alone
    wants_features = options.matching_weight > 0 or not descriptors_rest
    wants_points = stage is None or not stage.leaves_points
    with step_precision(batch.pixels0.device.type, config):
        points0, features0, points1, features1 = call(
            batch.pixels0, batch.pixels1, wants_features, wants_points
        )
    maps0, maps1 = RawMaps(points0, features0), RawMaps(points1, features1)
    if points0 is None or points1 is None:  # a stage of descriptors alone
        terms = LossTerms.nothing(batch.pixels0.device)
    else:
        terms = total_loss(
            dense_output(_thin(points0.float(), -2), None, head),
            dense_output(_thin(points1.float(), -2), None, head),
            _thin_targets(batch.targets),
            None,
            options,
            mean=mean,
        )
    if features0 is None:  # DUSt3R, or a stage of pointmaps alone
        return terms
    matching, matching_error = matching_loss(
        features_at(maps0, pairs.pixels0, pairs.negatives0, head),
        features_at(maps1, pairs.pixels1, pairs.negatives1, head),
        pairs,
        options.matching,
        mean=mean,
    )
    return dataclasses.replace(
        terms,
        total=terms.total + options.matching_weight * matching,
        matching=matching.detach(),
        matching_error=matching_error.detach(),
        num_matches=pairs.valid.sum(),
    )


def _thin(maps: Tensor, row_dim: int) -> Tensor:
    """Every fourth row and column; ``row_dim`` is the dimension of the rows, columns follow."""
    keep = slice(_POINT_STRIDE // 2, None, _POINT_STRIDE)
    return maps[..., keep, keep] if row_dim == -2 else maps[:, keep, keep]


def _thin_targets(targets: PointmapTargets) -> PointmapTargets:
    return PointmapTargets(
        _thin(targets.points0, 1),
        _thin(targets.points1, 1),
        _thin(targets.valid0, 1),
        _thin(targets.valid1, 1),
        targets.is_metric,
    )


def features_at(
    maps: RawMaps, pixels: Tensor, negatives: Tensor | None, head: HeadConfig
) -> PixelFeatures:
    """Unit descriptors and confidences at (B, N, 2) pixels and (B, M, 2) negatives, float32."""
    assert maps.features is not None
    width = maps.features.shape[3]
    everything = pixels if negatives is None else torch.cat([pixels, negatives], dim=1)
    index = everything[..., 1] * width + everything[..., 0]
    flat = maps.features.flatten(2)
    raw = flat.gather(2, index[:, None].expand(-1, flat.shape[1], -1)).mT.float()
    descriptors = unit_descriptors(raw[..., : head.descriptor_dim])
    count = pixels.shape[1]
    confidence = None
    if head.separate_descriptor_confidence:
        confidence = confidence_from_raw(
            raw[:, :count, head.descriptor_dim], head.descriptor_confidence_activation
        )
    return PixelFeatures(
        descriptors[:, :count], confidence, None if negatives is None else descriptors[:, count:]
    )


def update(state: TrainingState[Any], loss: Tensor, config: RunConfig) -> bool:
    """One optimiser step; a step whose gradient is not finite is left out."""
    state.optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(state.network.parameters(), config.gradient_clip)
    if not bool(torch.isfinite(norm)):
        return False
    state.optimizer.step()
    decay = min(config.ema_decay, (1 + state.step) / (10 + state.step))
    with torch.no_grad():
        torch._foreach_lerp_(
            list(state.average.parameters()), list(state.network.parameters()), 1 - decay
        )
    return True
