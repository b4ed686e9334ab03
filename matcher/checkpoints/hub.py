"""The hub layout: a folder with ``config.json``, ``model.safetensors`` and a ``README.md``.

``config.json`` holds the keywords of the constructor, with infinities as the tokens ``Infinity``
and ``-Infinity``; the tensors have their released names, each one once.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from matcher.checkpoints.info import CheckpointInfo
from matcher.checkpoints.names import LAYER_ALIASES
from matcher.checkpoints.released import (
    ASSUMED_LICENCE_NOTE,
    RELEASED_LICENCE,
    ReleasedCheckpoint,
    network_from_released_state,
    released_state,
)
from matcher.checkpoints.released_config import config_from_keywords, keywords_from_config
from matcher.checkpoints.state import file_sha256, one_line, write_atomically
from matcher.errors import CheckpointError, InputError
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork

__all__ = ["CONFIG_FILE", "WEIGHTS_FILE", "read_hub", "write_hub"]

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
_CARD_FILE = "README.md"


def read_hub(folder: Path) -> ReleasedCheckpoint:
    """Read a folder in the hub layout.

    Raises:
        CheckpointError: files missing or damaged, unknown keywords, or tensors that do not fit.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder}: expected a folder with {CONFIG_FILE} and {WEIGHTS_FILE}, "
                f"there is no {name}"
            )
    config = _read_config(folder / CONFIG_FILE)
    card = _read_card(folder / _CARD_FILE)
    is_metric = card.get("is_metric", "") == "true" or folder.name.endswith("metric")
    network, unused = network_from_released_state(
        dataclasses.replace(config, is_metric=is_metric),
        _read_tensors(folder / WEIGHTS_FILE),
        folder / WEIGHTS_FILE,
    )
    info = CheckpointInfo(
        name=folder.name,
        licence=card.get("license", RELEASED_LICENCE),
        layout="hub",
        is_metric=is_metric,
        sha256=file_sha256(folder / WEIGHTS_FILE),
        source=folder.name,
        notes="" if "license" in card else ASSUMED_LICENCE_NOTE,
    )
    return ReleasedCheckpoint(network, info, "", unused)


def write_hub(
    folder: str | Path,
    network: TwoViewNetwork,
    *,
    licence: str,
    unused: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a folder in the hub layout, which the released classes load too.

    Args:
        folder: made if missing; its files are replaced one by one, each in one step.
        network: a network that the released classes can build.
        licence: goes into the folder's README.
        unused: tensors that no forward pass reads; zeros without them.

    Raises:
        InputError: a network without a released counterpart, or a folder that cannot be written.
    """
    target = Path(folder)
    # JSON writes tuples as lists and infinities as the tokens that this layout wants.
    config = json.dumps(keywords_from_config(network.config), indent=2, allow_nan=True)
    state = {
        name: tensor.contiguous() for name, tensor in released_state(network, unused or {}).items()
    }
    is_metric = str(network.config.is_metric).lower()
    card = f"---\nlicense: {licence}\nis_metric: {is_metric}\n---\n"
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("folder", "a folder that can be made", one_line(error)) from None
    metadata = {"format": "pt", **_alias_names(state)}
    write_atomically(target / _CARD_FILE, lambda path: _write_text(path, card))
    write_atomically(target / WEIGHTS_FILE, lambda path: save_file(state, path, metadata))
    write_atomically(target / CONFIG_FILE, lambda path: _write_text(path, config))


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _alias_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Left-out second name -> kept name, as this layout's metadata say."""
    return {
        name.replace(kept, alias): name
        for name in state
        for alias, kept in LAYER_ALIASES
        if kept in name
    }


def _read_config(path: Path) -> ModelConfig:
    try:
        keywords: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not a JSON file ({one_line(error)})") from None
    if not isinstance(keywords, dict):
        raise CheckpointError(f"{path}: expected a JSON object, got a {type(keywords).__name__}")
    try:
        config = config_from_keywords(None, keywords)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    assert isinstance(config, ModelConfig)
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged safetensors file ({one_line(error)})"
        ) from None


def _read_card(path: Path) -> dict[str, str]:
    """The plain ``key: value`` lines of a model card's front matter; empty without one."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    front = re.match(r"---\n(.*?)\n---", text, re.DOTALL)
    lines = front.group(1).splitlines() if front else []
    pairs = (line.partition(":") for line in lines if not line.startswith((" ", "-", "#")))
    return {key.strip(): value.strip() for key, _, value in pairs if value.strip()}
