"""Every parameter of every released model: its name and its shape, from its constructor alone."""

from __future__ import annotations

import pytest

from matcher.checkpoints.constructor import config_from_constructor, constructor_from_config
from matcher.checkpoints.names import LAYER_ALIASES, released_names, unused_shapes
from matcher.checkpoints.state import shapes_of, unfilled

MODELS = [
    "CroCo_V2_ViTBase_BaseDecoder",
    "CroCo_V2_ViTBase_SmallDecoder",
    "CroCo_V2_ViTLarge_BaseDecoder",
    "CroCo_v1",
    "DUSt3R_ViTLarge_BaseDecoder_224_linear",
    "DUSt3R_ViTLarge_BaseDecoder_512_dpt",
    "DUSt3R_ViTLarge_BaseDecoder_512_linear",
    "MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric",
]


def test_all_inventories_are_here(inventories):
    assert sorted(inventories) == MODELS


@pytest.mark.parametrize("model", MODELS)
def test_names_and_shapes(inventories, model):
    inventory = inventories[model]
    config = config_from_constructor(inventory["constructor"])
    network = unfilled(config)
    shapes = shapes_of(network)
    exported = {released: shapes[ours] for ours, released in released_names(network).items()}
    exported |= unused_shapes(network)
    for name in list(exported):
        for alias, kept in LAYER_ALIASES:
            if kept in name:
                exported[name.replace(kept, alias)] = exported[name]
                assert inventory["aliases"][name.replace(kept, alias)] == name
    assert exported == {name: tuple(shape) for name, shape in inventory["shapes"].items()}
    counted = sum(tensor.numel() for tensor in network.state_dict().values())
    unused = sum(shape[-1] for shape in unused_shapes(network).values())
    assert counted + unused == inventory["n_params"]
    assert config_from_constructor(constructor_from_config(config)) == config
