"""A two-view network that starts from a pretrained CroCo (DUSt3R 3.3)."""

from __future__ import annotations

import copy

from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = ["two_view_from_croco"]

_STACKS = ("encoder", "decoder", "patch_size", "rope_base")


def two_view_from_croco(croco: CroCoNetwork, config: ModelConfig) -> TwoViewNetwork:
    """Build a two-view network whose encoder and decoders are CroCo's, and whose heads are new.

    Both decoders start from CroCo's one; the mask token and the pixel head are left behind.

    Args:
        croco: a pretrained network with rotary positions.
        config: the network to build; transformers, patch size and rotary base as ``croco`` has.

    Raises:
        InputError: the two configurations do not fit each other.
    """
    if croco.config.positions != "rope":
        raise InputError("croco", "rotary positions", f"{croco.config.positions} positions")
    if config.stem != "patch":
        raise InputError("config", "a patch stem", f"a {config.stem} stem")
    for name in _STACKS:
        if getattr(config, name) != getattr(croco.config, name):
            raise InputError(
                f"config {name}",
                f"{getattr(croco.config, name)}, as the CroCo network has",
                f"{getattr(config, name)}",
            )
    network = TwoViewNetwork(config)
    network.encoder.load_state_dict(croco.encoder.state_dict())
    network.decoder.embed.load_state_dict(croco.decoder.embed.state_dict())
    network.decoder.norm.load_state_dict(croco.decoder.norm.state_dict())
    network.decoder.blocks0 = copy.deepcopy(croco.decoder.blocks)
    if network.decoder.blocks1 is not None:
        network.decoder.blocks1 = copy.deepcopy(croco.decoder.blocks)
    return network
