"""How raw channels become points, confidences and unit descriptors (DUSt3R 3.1, MASt3R 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from heads.config import ActivationRange, HeadConfig
from heads.outputs import DenseOutput

__all__ = ["confidence_from_raw", "dense_output", "points_from_raw", "unit_descriptors"]

_SMALLEST_NORM = 1e-8


def points_from_raw(raw: Tensor, activation: ActivationRange) -> Tensor:
    """Points (..., 3) from raw (..., 3): the direction is kept, the distance is activated.

    ``exp`` maps a raw distance d to ``expm1(d)``, ``square`` to ``d**2``, ``linear`` keeps it and
    clips every coordinate to the range.
    """
    if activation.kind == "linear":
        unbounded = activation.low == -torch.inf and activation.high == torch.inf
        return raw if unbounded else raw.clamp(activation.low, activation.high)
    distance: Tensor = raw.norm(dim=-1, keepdim=True)
    direction = raw / distance.clamp_min(_SMALLEST_NORM)
    if activation.kind == "exp":
        return direction * torch.expm1(distance)
    if activation.kind == "square":
        return direction * distance.square()
    raise ValueError(f"points: no activation {activation.kind!r}")


def confidence_from_raw(raw: Tensor, activation: ActivationRange) -> Tensor:
    """Confidence from a raw channel of any shape, inside ``activation``'s range."""
    low, high = activation.low, activation.high
    if activation.kind == "exp":
        return low + raw.exp().clamp_max(high - low)
    if activation.kind == "sigmoid":
        return low + (high - low) * torch.sigmoid(raw)
    raise ValueError(f"confidence: no activation {activation.kind!r}")


def unit_descriptors(raw: Tensor) -> Tensor:
    """Descriptors (..., D) of length 1; a zero vector stays zero instead of becoming NaN."""
    length: Tensor = raw.norm(dim=-1, keepdim=True)
    return raw / length.clamp_min(_SMALLEST_NORM)


def dense_output(
    point_channels: Tensor | None, feature_channels: Tensor | None, config: HeadConfig
) -> DenseOutput:
    """Turn raw maps into a ``DenseOutput``.

    Args:
        point_channels: (B, 4, H, W), xyz and confidence, or ``None``: no pointmap.
        feature_channels: (B, D + 1, H, W), descriptor and its confidence (or (B, D, H, W) when the
            confidence is shared), or ``None``.
        config: activations.
    """
    points = confidence = None
    if point_channels is not None:
        point_maps = point_channels.permute(0, 2, 3, 1)
        points = points_from_raw(point_maps[..., :3], config.depth_activation)
        confidence = confidence_from_raw(point_maps[..., 3], config.confidence_activation)
    if feature_channels is None:
        return DenseOutput(points, confidence)
    features = feature_channels.permute(0, 2, 3, 1)
    descriptors = unit_descriptors(features[..., : config.descriptor_dim])
    if config.separate_descriptor_confidence:
        descriptor_confidence = confidence_from_raw(
            features[..., config.descriptor_dim], config.descriptor_confidence_activation
        )
    elif confidence is not None:
        descriptor_confidence = confidence
    else:
        raise ValueError("point_channels: the descriptors share their confidence, got None")
    return DenseOutput(points, confidence, descriptors, descriptor_confidence)
