"""Names of parameters: ours, and those of the released DUSt3R, MASt3R and CroCo files.

Both directions come from one table of substitutions, applied to every name of a concrete network.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = ["LAYER_ALIASES", "kept_name", "released_names", "unused_shapes", "with_aliases"]


@dataclass(frozen=True, slots=True)
class _Rename:
    """A regular expression on our name, and what released files say instead."""

    ours: str
    released: str


# The four levels of the DPT head are counted from 0 in lists and from 1 in attribute names.
_LEVELS = range(4)

_SHARED = (
    _Rename(r"^encoder\.stem\.", "patch_embed."),
    _Rename(r"^encoder\.blocks\.", "enc_blocks."),
    _Rename(r"^encoder\.norm\.", "enc_norm."),
    _Rename(r"^decoder\.embed\.", "decoder_embed."),
    _Rename(r"^decoder\.norm\.", "dec_norm."),
    _Rename(r"\.cross_attn\.query\.", ".cross_attn.projq."),
    _Rename(r"\.cross_attn\.key\.", ".cross_attn.projk."),
    _Rename(r"\.cross_attn\.value\.", ".cross_attn.projv."),
    _Rename(r"\.norm_memory\.", ".norm_y."),
)

_TWO_VIEW = (
    *_SHARED,
    _Rename(r"^decoder\.blocks0\.", "dec_blocks."),
    _Rename(r"^decoder\.blocks1\.", "dec_blocks2."),
    _Rename(r"^head0\.", "downstream_head1."),
    _Rename(r"^head1\.", "downstream_head2."),
    _Rename(r"\.local_features\.", ".head_local_features."),
    _Rename(r"\.points\.proj\.", ".proj."),
    _Rename(r"\.points\.project\.(\d)\.", r".dpt.act_postprocess.\1.0."),
    _Rename(r"\.points\.resample\.(\d)\.", r".dpt.act_postprocess.\1.1."),
    *(_Rename(rf"\.points\.reassemble\.{i}\.", f".dpt.scratch.layer{i + 1}_rn.") for i in _LEVELS),
    *(_Rename(rf"\.points\.fusions\.{i}\.", f".dpt.scratch.refinenet{i + 1}.") for i in _LEVELS),
    _Rename(r"(\.refinenet\d)\.lateral\.", r"\1.resConfUnit1."),
    _Rename(r"(\.refinenet\d)\.refine\.", r"\1.resConfUnit2."),
    _Rename(r"(\.refinenet\d)\.out\.", r"\1.out_conv."),
    _Rename(r"\.points\.smooth\.", ".dpt.head.0."),
    _Rename(r"\.points\.last\.", ".dpt.head.2."),
    _Rename(r"\.points\.out\.", ".dpt.head.4."),
)

_CROCO = (
    *_SHARED,
    _Rename(r"^decoder\.mask_token$", "mask_token"),
    _Rename(r"^decoder\.blocks\.", "dec_blocks."),
    _Rename(r"^head\.proj\.", "prediction_head."),
    _Rename(r"^encoder_positions$", "enc_pos_embed"),
    _Rename(r"^decoder_positions$", "dec_pos_embed"),
)

LAYER_ALIASES = tuple((f".scratch.layer_rn.{i}.", f".scratch.layer{i + 1}_rn.") for i in _LEVELS)
"""Second names of one tensor in released ``.pth`` files: (alias, kept)."""


def released_names(network: TwoViewNetwork | CroCoNetwork) -> dict[str, str]:
    """Our name -> released name, for everything in the network's state."""
    table = _TWO_VIEW if isinstance(network, TwoViewNetwork) else _CROCO
    return {name: _rename(name, table) for name in network.state_dict()}


def unused_shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Released tensors that no forward pass of DUSt3R or MASt3R reads: name -> shape."""
    if isinstance(network, TwoViewNetwork):
        return {"mask_token": (1, 1, network.config.decoder.embed_dim)}
    return {}


def kept_name(name: str) -> str:
    """The name under which an aliased tensor is kept; other names come back as they are."""
    for alias, kept in LAYER_ALIASES:
        name = name.replace(alias, kept)
    return name


def with_aliases(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A released state with both names of every aliased tensor, as ``.pth`` files have them."""
    both = dict(state)
    for name, tensor in state.items():
        for alias, kept in LAYER_ALIASES:
            if kept in name:
                both[name.replace(kept, alias)] = tensor
    return both


def _rename(name: str, table: tuple[_Rename, ...]) -> str:
    for rename in table:
        name = re.sub(rename.ours, rename.released, name)
    return name
