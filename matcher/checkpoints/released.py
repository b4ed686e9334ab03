"""The released ``.pth`` files of DUSt3R, MASt3R and CroCo, read safely and written back.

Such a file is a pickled dictionary: ``model`` (tensors), and ``args.model`` (the constructor's
text) or, for CroCo v2, ``croco_kwargs``; CroCo v1 has neither. Only tensors, plain values and
``argparse.Namespace`` are unpickled.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from heads import HeadConfig
from matcher.checkpoints.constructor import config_from_constructor, constructor_from_config
from matcher.checkpoints.info import CheckpointInfo
from matcher.checkpoints.names import kept_name, released_names, unused_shapes, with_aliases
from matcher.checkpoints.released_config import (
    class_of_config,
    config_from_keywords,
    keywords_from_config,
)
from matcher.checkpoints.state import (
    check_names_and_shapes,
    file_sha256,
    fill,
    one_line,
    unfilled,
    write_atomically,
)
from matcher.errors import CheckpointError, InputError
from matcher.model.config import CroCoConfig, ModelConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = [
    "ASSUMED_LICENCE_NOTE",
    "RELEASED_LICENCE",
    "ReleasedCheckpoint",
    "network_from_released_state",
    "read_released",
    "released_state",
    "write_released",
]

RELEASED_LICENCE = "CC BY-NC-SA 4.0"
ASSUMED_LICENCE_NOTE = "licence assumed from the layout: the file does not state one"

_SECOND_DECODER = re.compile(r"^dec_blocks\.")
_CROCO_ONLY = "prediction_head."


@dataclass(frozen=True, slots=True, eq=False)
class ReleasedCheckpoint:
    """A network from a released layout, with what is needed to write the same file again.

    Attributes:
        network: the network, in evaluation mode, float32, on the CPU.
        info: what is known about it.
        constructor: the stored constructor, verbatim; empty when the file had none.
        unused: released name -> tensor, what the file holds and no forward pass reads.
    """

    network: TwoViewNetwork | CroCoNetwork
    info: CheckpointInfo
    constructor: str = ""
    unused: Mapping[str, Tensor] = field(default_factory=dict)


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a ``.pth`` file in the released layout.

    Raises:
        CheckpointError: truncated, foreign, holding code, of an unknown layout, or with tensors
            that do not fit the constructor.
    """
    content = _unpickle(path)
    state, constructor, config = _describe(content, path)
    args = content.get("args")
    network, unused = network_from_released_state(
        _with_metric(config, _says_metric(args, path)), state, path
    )
    stated = getattr(args, "licence", None)
    info = CheckpointInfo(
        name=path.stem,
        licence=stated if isinstance(stated, str) else RELEASED_LICENCE,
        layout="released",
        is_metric=isinstance(network, TwoViewNetwork) and network.config.is_metric,
        sha256=file_sha256(path),
        source=path.name,
        notes="" if isinstance(stated, str) else ASSUMED_LICENCE_NOTE,
    )
    return ReleasedCheckpoint(network, info, constructor, unused)


def write_released(
    path: str | Path,
    network: TwoViewNetwork | CroCoNetwork,
    *,
    licence: str,
    constructor: str = "",
    unused: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a ``.pth`` file in the released layout; what ``read_released`` read comes out equal.

    Args:
        path: the file to write, replaced at the end in one step.
        network: a network that the released classes can build.
        licence: stored in the file.
        constructor: the constructor to store; empty: one is made from the configuration.
        unused: tensors that no forward pass reads; zeros without them.

    Raises:
        InputError: a network without a released counterpart, a constructor that means another one,
            or a path that cannot be written.
    """
    state = with_aliases(released_state(network, unused or {}))
    content: dict[str, Any] = {"model": state, "epoch": 0}
    if isinstance(network, CroCoNetwork) and not constructor:
        keywords = keywords_from_config(network.config)
        content["croco_kwargs"] = keywords
        content["args"] = argparse.Namespace(licence=licence)
    else:
        text = constructor or constructor_from_config(network.config)
        _check_constructor(text, network)
        is_metric = isinstance(network, TwoViewNetwork) and network.config.is_metric
        content["args"] = argparse.Namespace(model=text, licence=licence, is_metric=is_metric)
    write_atomically(Path(path), lambda temporary: torch.save(content, temporary))


def released_state(
    network: TwoViewNetwork | CroCoNetwork, unused: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The state under its released names, on the CPU, with the tensors that nobody reads."""
    keywords_from_config(network.config)  # raises where there is no released counterpart
    ours = network.state_dict()
    state = {
        released: ours[name].detach().cpu() for name, released in released_names(network).items()
    }
    for name, shape in unused_shapes(network).items():
        state[name] = unused.get(name, torch.zeros(shape))
    return {**state, **{name: tensor for name, tensor in unused.items() if name not in state}}


def network_from_released_state(
    config: ModelConfig | CroCoConfig, state: Mapping[str, Tensor], path: Path
) -> tuple[TwoViewNetwork | CroCoNetwork, dict[str, Tensor]]:
    """A network from tensors with released names; also those tensors that it does not read.

    Second names of one tensor are accepted, a missing second decoder is a copy of the first (so
    does DUSt3R start from CroCo), the mask token and CroCo's pixel head are set aside. Anything
    else must fit exactly.

    Raises:
        CheckpointError: missing or unexpected tensors, or other shapes.
    """
    tensors = _without_aliases(state, path)
    unused: dict[str, Tensor] = {}
    if isinstance(config, ModelConfig):
        for name in list(tensors):
            if name == "mask_token" or name.startswith(_CROCO_ONLY):
                unused[name] = tensors.pop(name)
        if not any(name.startswith("dec_blocks2.") for name in tensors):
            copies = {
                _SECOND_DECODER.sub("dec_blocks2.", name): tensor.clone()
                for name, tensor in tensors.items()
                if _SECOND_DECODER.match(name)
            }
            tensors.update(copies)
        config = dataclasses.replace(config, head=_with_stored_widths(config, tensors))
    network = unfilled(config)
    names = released_names(network)
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    check_names_and_shapes(shapes, tensors, path)
    return fill(network, {ours: tensors[released] for ours, released in names.items()}), unused


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        # A stream, because torch.load looks at the extension of a path.
        with path.open("rb") as file, torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a hostile or damaged pickle provokes
        raise CheckpointError(f"{path}: {_why_unreadable(error)}") from None
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: unknown layout: a {type(content).__name__}, not a dictionary"
        )
    return content


def _why_unreadable(error: Exception) -> str:
    text = one_line(error)
    forbidden = re.search(r"(?i)unsupported (?:global: global|global|class) (\S+)", str(error))
    if forbidden is not None:
        return (
            f"the pickle asks for code to be run ({forbidden.group(1)[:80]}); only tensors and "
            f"plain values are loaded"
        )
    if "Weights only load failed" in text:
        text = one_line(str(error).split("Error:")[-1])
    return f"truncated, damaged or not written by torch.save ({text})"


def _describe(
    content: dict[str, Any], path: Path
) -> tuple[dict[str, Tensor], str, ModelConfig | CroCoConfig]:
    state, args = content.get("model"), content.get("args")
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(
            f"{path}: unknown layout: no tensors under 'model' "
            f"(keys: {one_line(', '.join(map(str, list(content)[:10])))})"
        )
    constructor = getattr(args, "model", "")
    keywords = content.get("croco_kwargs")
    try:
        if isinstance(constructor, str) and constructor:
            return state, constructor, config_from_constructor(constructor)
        if isinstance(keywords, dict):
            return state, "", config_from_keywords("CroCoNet", keywords)
        if "prediction_head.weight" in state and "enc_pos_embed" in state:
            return state, "", config_from_keywords("CroCoNet", {})
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    raise CheckpointError(
        f"{path}: unknown layout: neither args.model nor croco_kwargs, and not CroCo v1"
    )


def _with_metric(config: ModelConfig | CroCoConfig, is_metric: bool) -> ModelConfig | CroCoConfig:
    if isinstance(config, CroCoConfig):
        return config
    return dataclasses.replace(config, is_metric=is_metric)


def _says_metric(args: object, path: Path) -> bool:
    """Whether a file is of a metric model: it says so, or was trained to be, or is named so."""
    stated = getattr(args, "is_metric", None)
    if isinstance(stated, bool):
        return stated
    # A question mark before the normalisation means: metric where the data are (MASt3R 3.2).
    criterion = str(getattr(args, "train_criterion", "")).replace('"', "'")
    return "norm_mode='?" in criterion or path.stem.endswith("metric")


def _without_aliases(state: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    kept: dict[str, Tensor] = {}
    for name, tensor in state.items():
        known = kept.setdefault(kept_name(name), tensor)
        if known is not tensor and not torch.equal(known, tensor):
            raise CheckpointError(f"{path}: {name} and {kept_name(name)} should be the same tensor")
    return kept


def _with_stored_widths(config: ModelConfig, tensors: Mapping[str, Tensor]) -> HeadConfig:
    """Widths inside the heads: the released constructor does not say them, the tensors do.

    Each width shows in several tensors, so that a wrong one is still found by the strict check.
    """

    def size(name: str, axis: int, otherwise: int) -> int:
        tensor = tensors.get(f"downstream_head1.{name}")
        is_sized = tensor is not None and tensor.ndim > axis and tensor.shape[axis] > 0
        return int(tensor.shape[axis]) if tensor is not None and is_sized else otherwise

    head = config.head
    width = config.encoder.embed_dim + config.decoder.embed_dim
    hidden = size("head_local_features.fc1.weight", 0, int(head.hidden_dim_factor * width))
    factor = hidden / width
    first, second, third, fourth = (
        size(f"dpt.scratch.layer{level + 1}_rn.weight", 1, dim)
        for level, dim in enumerate(head.layer_dims)
    )
    return dataclasses.replace(
        head,
        feature_dim=size("dpt.scratch.layer1_rn.weight", 0, head.feature_dim),
        last_dim=size("dpt.head.2.weight", 0, head.last_dim),
        layer_dims=(first, second, third, fourth),
        # Half a unit up where rounding down would lose the last one.
        hidden_dim_factor=factor if int(factor * width) == hidden else (hidden + 0.5) / width,
    )


def _check_constructor(text: str, network: TwoViewNetwork | CroCoNetwork) -> None:
    """Refuse a constructor that would build something else than ``network``."""
    try:
        config = config_from_constructor(text)
    except CheckpointError as error:
        raise InputError("constructor", "a released constructor", str(error)) from None
    # Keywords hold all that a constructor says, and nothing else.
    if class_of_config(config) != class_of_config(network.config) or (
        keywords_from_config(config) != keywords_from_config(network.config)
    ):
        raise InputError("constructor", "one that builds the network", "one for another network")
