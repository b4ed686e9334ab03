"""The configuration of a network: everything needed to build it, nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from heads import ActivationRange, HeadConfig
from matcher.errors import InputError

__all__ = ["CroCoConfig", "ModelConfig", "TransformerConfig"]


def _check_keys(cls: type, values: Mapping[str, Any]) -> None:
    known = {entry.name for entry in dataclasses.fields(cls)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise InputError(
            f"{cls.__name__}", f"keys among {', '.join(sorted(known))}", ", ".join(unknown)
        )


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """Width and depth of a stack of transformer blocks."""

    embed_dim: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0

    def __post_init__(self) -> None:
        if min(self.embed_dim, self.num_heads) < 1 or self.depth < 0:
            raise InputError("transformer config", "positive sizes", f"{self}")
        if self.embed_dim % (4 * self.num_heads):
            raise InputError(
                "embed_dim",
                f"a multiple of 4 * num_heads = {4 * self.num_heads} (2-D rotary positions)",
                f"{self.embed_dim}",
            )
        if self.mlp_ratio <= 0:
            raise InputError("mlp_ratio", "a positive number", f"{self.mlp_ratio}")


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A two-view network (DUSt3R 3.1, MASt3R 3.2).

    Attributes:
        encoder, decoder: the transformers.
        head: the dense heads.
        patch_size: pixels a token stands for, along one side.
        stem: ``patch`` (one strided projection, as released) or ``convolutional`` (inverted
            residuals down to 1/16, whose maps a fused head reads).
        share_views: one decoder and one head serve both views, told apart by a learned embedding;
            the released networks have two of each.
        rope_base: base of the rotary frequencies.
        is_metric: whether its pointmaps are in metres.
        points_depth: how many of the last decoder blocks the pointmaps have to themselves, with
            their own way up to pixels (a fused head and shared views only); 0: one trunk for both.
            What descriptors and pointmaps want of a trunk differs, and its parts then learn apart.
    """

    encoder: TransformerConfig
    decoder: TransformerConfig
    head: HeadConfig = field(default_factory=HeadConfig)
    patch_size: int = 16
    stem: Literal["patch", "convolutional"] = "patch"
    share_views: bool = False
    rope_base: float = 100.0
    is_metric: bool = False
    points_depth: int = 0

    def __post_init__(self) -> None:
        if self.stem not in ("patch", "convolutional"):
            raise InputError("stem", "'patch' or 'convolutional'", f"{self.stem!r}")
        if self.stem == "convolutional" and self.patch_size != 16:
            raise InputError("patch_size", "16 with a convolutional stem", f"{self.patch_size}")
        if self.head.points == "fused" and self.stem != "convolutional":
            raise InputError(
                "head",
                "a fused head with a convolutional stem only",
                f"{self.head.points} head, {self.stem} stem",
            )
        if self.rope_base <= 0:
            raise InputError("rope_base", "a positive number", f"{self.rope_base}")
        if not 0 <= self.points_depth < max(1, self.decoder.depth):
            raise InputError(
                "points_depth",
                f"fewer blocks than the decoder's {self.decoder.depth}, at least 0",
                f"{self.points_depth}",
            )
        if self.points_depth and (self.head.points != "fused" or not self.share_views):
            raise InputError(
                "points_depth",
                "0 without a fused head and shared views",
                f"{self.points_depth}, {self.head.points} head, share_views={self.share_views}",
            )

    @property
    def shared_depth(self) -> int:
        """How many decoder blocks descriptors and pointmaps have in common."""
        return self.decoder.depth - self.points_depth

    @classmethod
    def small(cls) -> ModelConfig:
        """The bundled model's network: about 20 M parameters."""
        return cls(
            encoder=TransformerConfig(embed_dim=384, depth=4, num_heads=6),
            decoder=TransformerConfig(embed_dim=256, depth=6, num_heads=4),
            head=HeadConfig(points="fused", local_features="fused", point_places=True),
            stem="convolutional",
            share_views=True,
            points_depth=4,
        )

    @classmethod
    def tiny(cls) -> ModelConfig:
        """A network for tests: it runs everything in milliseconds."""
        return cls(
            encoder=TransformerConfig(embed_dim=32, depth=1, num_heads=2),
            decoder=TransformerConfig(embed_dim=32, depth=2, num_heads=2),
            head=HeadConfig(
                points="fused",
                local_features="fused",
                fused_dims=(16, 16, 16, 16),
                point_places=True,
            ),
            stem="convolutional",
            share_views=True,
            points_depth=1,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold (infinities as strings)."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """The inverse of ``to_dict``; raises ``InputError`` on an unknown key or value."""
        _check_keys(cls, values)
        parts = dict(values)
        try:
            for name in ("encoder", "decoder"):
                _check_keys(TransformerConfig, parts[name])
                parts[name] = TransformerConfig(**parts[name])
            if "head" in parts:
                parts["head"] = _head_from_dict(parts["head"])
            return cls(**parts)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError("model config", "a complete configuration", repr(error)) from None


@dataclass(frozen=True, slots=True)
class CroCoConfig:
    """A CroCo network for masked cross-view completion (CroCo 3, CroCo v2 3).

    Attributes:
        encoder, decoder: the transformers.
        image_size: (height, width) in pixels; only the additive positions depend on it.
        positions: ``rope`` (CroCo v2) or ``cosine`` (additive, CroCo v1).
        mask_ratio: share of the first view's patches that is hidden.
    """

    encoder: TransformerConfig
    decoder: TransformerConfig
    image_size: tuple[int, int] = (224, 224)
    patch_size: int = 16
    positions: Literal["rope", "cosine"] = "rope"
    rope_base: float = 100.0
    mask_ratio: float = 0.9

    def __post_init__(self) -> None:
        if self.positions not in ("rope", "cosine"):
            raise InputError("positions", "'rope' or 'cosine'", f"{self.positions!r}")
        if not 0 < self.mask_ratio < 1:
            raise InputError("mask_ratio", "a share in (0, 1)", f"{self.mask_ratio}")
        if any(side < 1 or side % self.patch_size for side in self.image_size):
            raise InputError("image_size", f"multiples of {self.patch_size}", f"{self.image_size}")
        object.__setattr__(self, "image_size", tuple(self.image_size))

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CroCoConfig:
        """The inverse of ``to_dict``; raises ``InputError`` on an unknown key or value."""
        _check_keys(cls, values)
        parts = dict(values)
        try:
            for name in ("encoder", "decoder"):
                _check_keys(TransformerConfig, parts[name])
                parts[name] = TransformerConfig(**parts[name])
            return cls(**parts)
        except (KeyError, TypeError) as error:
            raise InputError("CroCo config", "a complete configuration", repr(error)) from None


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return value


def _head_from_dict(values: Mapping[str, Any]) -> HeadConfig:
    _check_keys(HeadConfig, values)
    parts = dict(values)
    for name in ("depth", "confidence", "descriptor_confidence"):
        key = f"{name}_activation"
        if key in parts:
            _check_keys(ActivationRange, parts[key])
            bounds = {
                side: float(parts[key][side]) for side in ("low", "high") if side in parts[key]
            }
            parts[key] = ActivationRange(parts[key]["kind"], **bounds)
    try:
        return HeadConfig(**parts)
    except ValueError as error:
        raise InputError("head config", "a valid configuration", str(error)) from None
