"""Arithmetic on part of a tensor: what is masked out reaches neither value nor gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matcher.errors import InputError

__all__ = [
    "MaskedMean",
    "confidence_weighted",
    "keep_where",
    "lengths",
    "masked_mean",
    "precise",
    "require",
]

MaskedMean = Callable[[Tensor, Tensor], Tensor]
"""(values, mask of the same shape) -> the mean of the values where the mask holds, ()."""

_SMALLEST_CONFIDENCE = 1e-10


def require(argument: str, holds: bool, expected: str, actual: object) -> None:
    """Raise ``InputError`` unless ``holds``."""
    if not holds:
        raise InputError(argument, expected, str(actual))


def precise(values: Tensor) -> Tensor:
    """``values`` in float32, or in float64 if they are that already."""
    return values if values.dtype == torch.float64 else values.float()


def keep_where(values: Tensor, mask: Tensor, otherwise: float = 0.0) -> Tensor:
    """``values`` (*mask.shape, ...) where ``mask``, a constant elsewhere, without its gradient."""
    wide = mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim))
    return torch.where(wide, precise(values), otherwise)


def lengths(vectors: Tensor) -> Tensor:
    """Euclidean lengths of (..., C) vectors, (...); the gradient at a zero vector is 0."""
    result: Tensor = torch.linalg.vector_norm(vectors, dim=-1)
    return result


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of ``values`` where ``mask`` (same shape) holds, (); 0 where it never does."""
    return keep_where(values, mask).sum() / mask.sum().clamp(min=1)


def confidence_weighted(error: Tensor, confidence: Tensor, alpha: float) -> Tensor:
    """``confidence * error - alpha * log(confidence)``, elementwise (DUSt3R, section 3.2)."""
    sure = precise(confidence).clamp(min=_SMALLEST_CONFIDENCE)
    return sure * precise(error) - alpha * sure.log()
