"""What kind of head a network has, and how its raw channels become outputs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

__all__ = ["ActivationRange", "HeadConfig", "LocalFeatureKind", "PointKind"]

PointKind = Literal["linear", "dpt", "fused"]
LocalFeatureKind = Literal["none", "mlp", "fused"]


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """How a raw channel becomes a value: ``kind`` and the interval it may take.

    Attributes:
        kind: ``exp``, ``sigmoid`` (confidences); ``exp``, ``square``, ``linear`` (points).
        low: lower bound.
        high: upper bound.
    """

    kind: Literal["exp", "sigmoid", "square", "linear"]
    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        if self.kind not in ("exp", "sigmoid", "square", "linear"):
            raise ValueError(
                f"activation kind: expected exp, sigmoid, square, linear, got {self.kind!r}"
            )
        if not self.low < self.high:
            raise ValueError(f"activation range: expected low < high, got {self.low}, {self.high}")


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Sizes and activations of the heads of one network.

    Attributes:
        points: kind of the pointmap head. ``linear`` and ``dpt`` are DUSt3R's; ``fused`` reads the
            convolutional pyramid.
        local_features: kind of the local-feature head. ``mlp`` is MASt3R's; ``fused`` reads the
            convolutional pyramid.
        descriptor_dim: D, channels of a descriptor.
        feature_dim, last_dim, layer_dims: widths inside the DPT head.
        hidden_dim_factor: hidden units of the MLP head, as a multiple of its input width.
        fused_dims: widths of the fused pyramid at 1/16, 1/8, 1/4 and 1/2 of the image.
        point_places: a fused head's pointmap is also told where each pixel lies: rotary positions
            are relative, and a ray is not.
        depth_activation, confidence_activation, descriptor_confidence_activation: output ranges.
        separate_descriptor_confidence: false: the descriptors share the pointmap's confidence.
    """

    points: PointKind = "dpt"
    local_features: LocalFeatureKind = "mlp"
    descriptor_dim: int = 24
    feature_dim: int = 256
    last_dim: int = 128
    layer_dims: tuple[int, int, int, int] = (96, 192, 384, 768)
    hidden_dim_factor: float = 4.0
    fused_dims: tuple[int, int, int, int] = (192, 128, 96, 64)
    point_places: bool = False
    depth_activation: ActivationRange = ActivationRange("exp")
    confidence_activation: ActivationRange = ActivationRange("exp", 1.0)
    descriptor_confidence_activation: ActivationRange = ActivationRange("exp", 0.0)
    separate_descriptor_confidence: bool = True

    def __post_init__(self) -> None:
        if self.points not in ("linear", "dpt", "fused"):
            raise ValueError(f"points: expected linear, dpt or fused, got {self.points!r}")
        if self.local_features not in ("none", "mlp", "fused"):
            raise ValueError(
                f"local_features: expected none, mlp or fused, got {self.local_features!r}"
            )
        if (self.points == "fused") != (self.local_features == "fused"):
            raise ValueError("points and local_features: expected both fused or neither")
        if self.point_places and self.points != "fused":
            raise ValueError(f"point_places: expected a fused head, got {self.points}")
        if self.descriptor_dim < 2:
            raise ValueError(f"descriptor_dim: expected at least 2, got {self.descriptor_dim}")
        for name in ("layer_dims", "fused_dims"):
            widths = tuple(getattr(self, name))
            if len(widths) != 4 or min(widths) < 1:
                raise ValueError(f"{name}: expected 4 positive widths, got {widths}")
            object.__setattr__(self, name, widths)

    @property
    def local_feature_channels(self) -> int:
        """Raw channels of the local-feature head: the descriptor and maybe its confidence."""
        return self.descriptor_dim + int(self.separate_descriptor_confidence)
