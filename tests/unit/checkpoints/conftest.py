"""Tiny networks in every layout."""

from __future__ import annotations

import pytest
import torch

from heads import HeadConfig
from matcher.checkpoints import registry
from matcher.model import CroCoConfig, CroCoNetwork, ModelConfig, TransformerConfig, TwoViewNetwork

TINY_HEAD = {
    "feature_dim": 8,
    "last_dim": 4,
    "layer_dims": (4, 6, 8, 10),
    "hidden_dim_factor": 0.25,
}


def tiny_config(kind: str) -> ModelConfig:
    heads = {
        "mast3r": HeadConfig(points="dpt", local_features="mlp", **TINY_HEAD),
        "dust3r_dpt": HeadConfig(
            points="dpt", local_features="none", **{**TINY_HEAD, "hidden_dim_factor": 4.0}
        ),
        "dust3r_linear": HeadConfig(points="linear", local_features="none"),
    }
    return ModelConfig(
        encoder=TransformerConfig(16, 1, 2), decoder=TransformerConfig(8, 2, 2), head=heads[kind]
    )


@pytest.fixture(params=["mast3r", "dust3r_dpt", "dust3r_linear"])
def released_network(request) -> TwoViewNetwork:
    torch.manual_seed(0)
    return TwoViewNetwork(tiny_config(request.param)).eval()


@pytest.fixture
def mast3r() -> TwoViewNetwork:
    torch.manual_seed(0)
    return TwoViewNetwork(tiny_config("mast3r")).eval()


@pytest.fixture
def dust3r() -> TwoViewNetwork:
    torch.manual_seed(0)
    return TwoViewNetwork(tiny_config("dust3r_linear")).eval()


@pytest.fixture(params=["rope", "cosine"])
def croco(request) -> CroCoNetwork:
    torch.manual_seed(0)
    return CroCoNetwork(
        CroCoConfig(
            encoder=TransformerConfig(16, 1, 2),
            decoder=TransformerConfig(8, 2, 2),
            image_size=(32, 32),
            positions=request.param,
        )
    ).eval()


@pytest.fixture(autouse=True)
def _licences_are_said_again():
    registry._say_licence.cache_clear()
