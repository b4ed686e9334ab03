"""Weights and arrays of the reference networks.

The reference outputs were computed with weights that follow from their names: every tensor is
uniform noise seeded by the CRC-32 of its released name. So no weight file is needed.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from heads import HeadConfig
from matcher.checkpoints.names import kept_name, released_names
from matcher.checkpoints.state import fill, unfilled
from matcher.model import CroCoConfig, ModelConfig, TransformerConfig

Arrays = dict[str, Tensor]


def procedural_tensor(name: str, shape: tuple[int, ...], head_factor: float = 1.0) -> Tensor:
    generator = np.random.RandomState(zlib.crc32(kept_name(name).encode()))
    noise = generator.uniform(-1, 1, int(np.prod(shape))).astype(np.float32).reshape(shape)
    if len(shape) == 1:
        values = 1 + np.float32(0.25) * noise if name.endswith("weight") else 0.125 * noise
    else:
        values = noise * np.float32(np.sqrt(3 / np.prod(shape[1:])))
    if "dpt.head.4.weight" in name:
        values = values * np.float32(0.15)
    if name.endswith(("downstream_head1.proj.weight", "downstream_head2.proj.weight")):
        values = values * np.float32(0.5)
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def filled_procedurally(config: ModelConfig | CroCoConfig, **fixed: Tensor) -> Any:
    network = unfilled(config)
    names = released_names(network)
    return fill(
        network,
        {
            ours: fixed[names[ours]]
            if names[ours] in fixed
            else procedural_tensor(names[ours], tuple(tensor.shape))
            for ours, tensor in network.state_dict().items()
        },
    )


TINY_ENCODER = TransformerConfig(embed_dim=32, depth=3, num_heads=2)


def tiny_config(head: HeadConfig, decoder_depth: int = 12) -> ModelConfig:
    decoder = TransformerConfig(embed_dim=24, depth=decoder_depth, num_heads=3)
    return ModelConfig(encoder=TINY_ENCODER, decoder=decoder, head=head)


def tiny_head(**options: Any) -> HeadConfig:
    return HeadConfig(
        feature_dim=16, last_dim=8, layer_dims=(8, 12, 16, 20), hidden_dim_factor=0.75, **options
    )


@pytest.fixture(scope="session")
def fill_procedurally() -> Callable[..., Any]:
    return filled_procedurally


@pytest.fixture(scope="session")
def tiny_mast3r() -> Any:
    return filled_procedurally(tiny_config(tiny_head(points="dpt", local_features="mlp")))


@pytest.fixture(scope="session")
def tiny_dust3r_linear() -> Any:
    return filled_procedurally(tiny_config(HeadConfig(points="linear", local_features="none")))


@pytest.fixture(scope="session")
def tiny_dust3r_dpt() -> Any:
    return filled_procedurally(tiny_config(tiny_head(points="dpt", local_features="none"), 10))


@pytest.fixture(scope="session")
def tiny_croco_config() -> CroCoConfig:
    decoder = TransformerConfig(embed_dim=24, depth=4, num_heads=3)
    return CroCoConfig(encoder=TINY_ENCODER, decoder=decoder, image_size=(64, 64))


@pytest.fixture(scope="session")
def arrays(parity_data: Path) -> Callable[[str], Arrays]:
    def read(name: str) -> Arrays:
        with np.load(parity_data / f"{name}.npz") as file:
            return {key: torch.from_numpy(file[key]) for key in file}

    return read


@pytest.fixture(scope="session")
def inventories(parity_data: Path) -> dict[str, Any]:
    with gzip.open(parity_data / "released_inventories.json.gz", "rt") as file:
        content: dict[str, Any] = json.load(file)
    return content
