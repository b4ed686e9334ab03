"""The released keywords of a network's constructor, and our configuration: both ways."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from heads import ActivationRange, HeadConfig
from matcher.checkpoints.state import one_line
from matcher.errors import CheckpointError, InputError
from matcher.model.config import CroCoConfig, ModelConfig, TransformerConfig

__all__ = ["class_of_config", "config_from_keywords", "keywords_from_config"]

_CROCO, _DUST3R, _MAST3R = "CroCoNet", "AsymmetricCroCo3DStereo", "AsymmetricMASt3R"

# What a keyword that is not given means, by class.
_CROCO_DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 16,
    "mask_ratio": 0.9,
    "enc_embed_dim": 768,
    "enc_depth": 12,
    "enc_num_heads": 12,
    "dec_embed_dim": 512,
    "dec_depth": 8,
    "dec_num_heads": 16,
    "mlp_ratio": 4,
    "norm_im2_in_dec": True,
    "pos_embed": "cosine",
}
_DUST3R_DEFAULTS: dict[str, Any] = {
    **_CROCO_DEFAULTS,
    "output_mode": "pts3d",
    "head_type": "linear",
    "depth_mode": ("exp", -math.inf, math.inf),
    "conf_mode": ("exp", 1, math.inf),
    "freeze": "none",
    "landscape_only": True,
    "patch_embed_cls": "PatchEmbedDust3R",
}
_MAST3R_DEFAULTS: dict[str, Any] = {
    **_DUST3R_DEFAULTS,
    "desc_mode": "norm",
    "two_confs": False,
    "desc_conf_mode": None,
}
_DEFAULTS = {_CROCO: _CROCO_DEFAULTS, _DUST3R: _DUST3R_DEFAULTS, _MAST3R: _MAST3R_DEFAULTS}

# Choices that do not change what the network computes at inference: images keep their own
# orientation here, so both patch embeddings and both settings of ``landscape_only`` are the same.
_PATCH_EMBEDDINGS = ("PatchEmbedDust3R", "ManyAR_PatchEmbed")


def config_from_keywords(
    class_name: str | None, keywords: Mapping[str, Any]
) -> ModelConfig | CroCoConfig:
    """The configuration that keywords of a released class mean.

    Args:
        class_name: the class; ``None`` tells DUSt3R from MASt3R by the keywords, as a hub
            ``config.json`` needs.
        keywords: its keywords; those not given take the released defaults.

    Raises:
        CheckpointError: unknown class, unknown keyword, or a value that is not supported.
    """
    if class_name is None:
        has_descriptors = "desc" in str(keywords.get("output_mode", ""))
        class_name = _MAST3R if has_descriptors else _DUST3R
        # MASt3R's own keywords are written even when it has no descriptors to describe.
        defaults = _MAST3R_DEFAULTS
    elif class_name in _DEFAULTS:
        defaults = _DEFAULTS[class_name]
    else:
        raise CheckpointError(
            f"the constructor names {class_name[:60]!r}, expected one of {', '.join(_DEFAULTS)}"
        )
    unknown = sorted(set(keywords) - set(defaults))
    if unknown:
        raise CheckpointError(
            f"the constructor of {class_name} has unknown keywords: {', '.join(unknown[:10])}"
        )
    values = {**defaults, **keywords}
    try:
        return _croco_config(values) if class_name == _CROCO else _two_view_config(values)
    except InputError as error:
        raise CheckpointError(f"the constructor of {class_name} does not work: {error}") from None


def keywords_from_config(
    config: ModelConfig | CroCoConfig, image_size: tuple[int, int] = (512, 512)
) -> dict[str, Any]:
    """The keywords with which the released classes build the same network.

    Args:
        config: of a network with patch stem and unshared views, or of a CroCo network.
        image_size: (height, width) for a two-view network, which does not depend on it.

    Raises:
        InputError: no released class builds such a network.
    """
    if isinstance(config, ModelConfig) and (config.stem != "patch" or config.share_views):
        raise InputError(
            "network",
            "a patch stem and separate decoders, as released files have",
            f"stem {config.stem!r}, share_views={config.share_views}",
        )
    if config.encoder.mlp_ratio != config.decoder.mlp_ratio:
        raise InputError("network", "one mlp_ratio in encoder and decoder", "two different ones")
    is_additive = isinstance(config, CroCoConfig) and config.positions == "cosine"
    keywords: dict[str, Any] = {
        "pos_embed": "cosine" if is_additive else f"RoPE{config.rope_base:g}",
        "img_size": config.image_size if isinstance(config, CroCoConfig) else tuple(image_size),
        "patch_size": config.patch_size,
        "enc_embed_dim": config.encoder.embed_dim,
        "enc_depth": config.encoder.depth,
        "enc_num_heads": config.encoder.num_heads,
        "dec_embed_dim": config.decoder.embed_dim,
        "dec_depth": config.decoder.depth,
        "dec_num_heads": config.decoder.num_heads,
        "mlp_ratio": config.encoder.mlp_ratio,
    }
    if isinstance(config, CroCoConfig):
        return {**keywords, "mask_ratio": config.mask_ratio}
    return {**keywords, **_head_keywords(config.head)}


def class_of_config(config: ModelConfig | CroCoConfig) -> str:
    """The released class that builds such a network."""
    if isinstance(config, CroCoConfig):
        return _CROCO
    return _DUST3R if config.head.local_features == "none" else _MAST3R


def _head_keywords(head: HeadConfig) -> dict[str, Any]:
    def mode(activation: ActivationRange) -> tuple[str, float, float]:
        return activation.kind, activation.low, activation.high

    keywords: dict[str, Any] = {
        "head_type": head.points,
        "output_mode": "pts3d",
        "depth_mode": mode(head.depth_activation),
        "conf_mode": mode(head.confidence_activation),
        "landscape_only": False,
        "patch_embed_cls": "PatchEmbedDust3R",
    }
    if head.local_features == "none":
        return keywords
    if head.points != "dpt":
        raise InputError("network", "a dpt head beside the descriptors", f"a {head.points} head")
    return {
        **keywords,
        "head_type": "catmlp+dpt",
        "output_mode": f"pts3d+desc{head.descriptor_dim}",
        "desc_mode": "norm",
        "two_confs": head.separate_descriptor_confidence,
        "desc_conf_mode": mode(head.descriptor_confidence_activation),
    }


def _number(values: Mapping[str, Any], name: str, *, whole: bool = True) -> Any:
    value = values[name]
    kinds = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds):
        raise InputError(name, "a whole number" if whole else "a number", repr(value)[:60])
    return value


def _transformer(values: Mapping[str, Any], side: str) -> TransformerConfig:
    return TransformerConfig(
        embed_dim=_number(values, f"{side}_embed_dim"),
        depth=_number(values, f"{side}_depth"),
        num_heads=_number(values, f"{side}_num_heads"),
        mlp_ratio=float(_number(values, "mlp_ratio", whole=False)),
    )


def _rope_base(values: Mapping[str, Any]) -> float | None:
    """Base of the rotary positions; ``None`` for additive ones."""
    positions = str(values["pos_embed"])
    rotary = re.fullmatch(r"RoPE(\d+(?:\.\d+)?)", positions)
    if rotary is None and positions != "cosine":
        raise InputError("pos_embed", "'RoPE<base>' or 'cosine'", repr(positions)[:60])
    return None if rotary is None else float(rotary.group(1))


def _croco_config(values: Mapping[str, Any]) -> CroCoConfig:
    if values["norm_im2_in_dec"] is not True:
        raise InputError("norm_im2_in_dec", "True", repr(values["norm_im2_in_dec"])[:60])
    size = values["img_size"]
    if isinstance(size, list | tuple) and len(size) == 2:
        height, width = (_number({"img_size": side}, "img_size") for side in size)
    else:
        height = width = _number(values, "img_size")
    base = _rope_base(values)
    return CroCoConfig(
        encoder=_transformer(values, "enc"),
        decoder=_transformer(values, "dec"),
        image_size=(height, width),
        patch_size=_patch_size(values),
        positions="cosine" if base is None else "rope",
        rope_base=100.0 if base is None else base,
        mask_ratio=float(_number(values, "mask_ratio", whole=False)),
    )


def _two_view_config(values: Mapping[str, Any]) -> ModelConfig:
    base = _rope_base(values)
    if base is None:
        raise InputError("pos_embed", "'RoPE<base>' in a two-view network", "'cosine'")
    if values["norm_im2_in_dec"] is not True:
        raise InputError("norm_im2_in_dec", "True", repr(values["norm_im2_in_dec"])[:60])
    if values["patch_embed_cls"] not in _PATCH_EMBEDDINGS:
        raise InputError(
            "patch_embed_cls",
            " or ".join(_PATCH_EMBEDDINGS),
            repr(values["patch_embed_cls"])[:60],
        )
    return ModelConfig(
        encoder=_transformer(values, "enc"),
        decoder=_transformer(values, "dec"),
        head=_head_config(values),
        patch_size=_patch_size(values),
        rope_base=base,
    )


def _patch_size(values: Mapping[str, Any]) -> int:
    patch_size: int = _number(values, "patch_size")
    if patch_size < 1:
        raise InputError("patch_size", "at least 1", f"{patch_size}")
    return patch_size


def _head_config(values: Mapping[str, Any]) -> HeadConfig:
    kind, output = str(values["head_type"]), str(values["output_mode"])
    depth, confidence = _activation(values, "depth_mode"), _activation(values, "conf_mode")
    if kind in ("linear", "dpt") and output == "pts3d":
        return HeadConfig(
            points="linear" if kind == "linear" else "dpt",
            local_features="none",
            depth_activation=depth,
            confidence_activation=confidence,
        )
    described = re.fullmatch(r"pts3d\+desc(\d+)", output)
    if kind != "catmlp+dpt" or described is None:
        raise InputError(
            "head_type and output_mode",
            "'linear' or 'dpt' with 'pts3d', or 'catmlp+dpt' with 'pts3d+desc<dim>'",
            f"{kind!r} with {output!r}"[:80],
        )
    mode = values.get("desc_mode", "norm")
    if (mode[0] if isinstance(mode, list | tuple) and mode else mode) != "norm":
        raise InputError("desc_mode", "'norm'", repr(mode)[:60])
    own_range = values.get("desc_conf_mode") is not None
    try:
        return HeadConfig(
            points="dpt",
            local_features="mlp",
            descriptor_dim=int(described.group(1)),
            depth_activation=depth,
            confidence_activation=confidence,
            descriptor_confidence_activation=(
                _activation(values, "desc_conf_mode") if own_range else confidence
            ),
            separate_descriptor_confidence=bool(values.get("two_confs", False)),
        )
    except ValueError as error:
        raise InputError("output_mode", "a descriptor size that works", one_line(error)) from None


def _activation(values: Mapping[str, Any], name: str) -> ActivationRange:
    mode = values[name]
    try:
        kind, low, high = mode
        return ActivationRange(kind, float(low), float(high))
    except (TypeError, ValueError):
        raise InputError(name, "(kind, low, high)", repr(mode)[:60]) from None
