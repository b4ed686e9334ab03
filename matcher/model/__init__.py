"""The networks: configuration, two-view network, CroCo."""

from __future__ import annotations

from matcher.model.builders import two_view_from_croco
from matcher.model.config import CroCoConfig, ModelConfig, TransformerConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import EncodedViews, TwoViewNetwork

__all__ = [
    "CroCoConfig",
    "CroCoNetwork",
    "EncodedViews",
    "ModelConfig",
    "TransformerConfig",
    "TwoViewNetwork",
    "two_view_from_croco",
]
