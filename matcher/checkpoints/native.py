"""Our own format: one safetensors file whose metadata hold configuration, licence and model card.

The metadata have one entry ``widebase``, a JSON object with ``version``, ``kind`` (``two_view`` or
``croco``), ``config``, the fields of the model card, and ``calibration`` where one was fitted.
Names and shapes of the tensors must be exactly those of the network that ``config`` describes.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from matcher.calibration import ConfidenceCalibration
from matcher.checkpoints.info import CheckpointInfo
from matcher.checkpoints.state import (
    check_names_and_shapes,
    file_sha256,
    fill,
    one_line,
    shapes_of,
    unfilled,
    write_atomically,
)
from matcher.errors import CheckpointError, InputError
from matcher.model.config import CroCoConfig, ModelConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = ["METADATA_KEY", "read_native", "read_native_info", "save_native"]

METADATA_KEY = "widebase"
_VERSION = 1
_CARD_FIELDS = ("name", "licence", "source", "notes")
_CONFIGS: dict[str, type[ModelConfig] | type[CroCoConfig]] = {
    "two_view": ModelConfig,
    "croco": CroCoConfig,
}


def save_native(
    path: str | Path,
    network: TwoViewNetwork | CroCoNetwork,
    info: CheckpointInfo,
    *,
    dtype: torch.dtype = torch.float32,
) -> CheckpointInfo:
    """Write a network in our own format.

    Args:
        path: the file to write, replaced at the end in one step.
        network: what to write; its configuration goes along.
        info: name, licence, source, notes and calibration are stored; the other fields follow from
            the network and the file.
        dtype: of the stored tensors, ``float32``, ``float16`` or ``bfloat16``.

    Returns:
        ``info`` with its layout, hash and ``is_metric`` as they are now.

    Raises:
        InputError: another dtype, weights it cannot hold, or a path that cannot be written.
    """
    if dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise InputError("dtype", "torch.float32, float16 or bfloat16", f"{dtype}")
    tensors = {}
    for name, tensor in network.state_dict().items():
        stored = tensor.detach().to("cpu", dtype, copy=True).contiguous()
        if not bool(stored.isfinite().all()):
            raise InputError("network", f"weights that are finite as {dtype}", f"others in {name}")
        tensors[name] = stored
    card = {field: getattr(info, field) for field in _CARD_FIELDS}
    kind = "two_view" if isinstance(network, TwoViewNetwork) else "croco"
    header = {"version": _VERSION, "kind": kind, "config": network.config.to_dict(), **card}
    if info.calibration is not None:
        header["calibration"] = info.calibration.to_dict()
    metadata = {"format": "pt", METADATA_KEY: json.dumps(header, sort_keys=True)}
    target = Path(path)
    write_atomically(target, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    return dataclasses.replace(
        info, layout="native", is_metric=_is_metric(network.config), sha256=file_sha256(target)
    )


def read_native(path: Path) -> tuple[TwoViewNetwork | CroCoNetwork, CheckpointInfo]:
    """Read a file that ``save_native`` wrote; weights come back as float32 on the CPU.

    Raises:
        CheckpointError: unreadable, not ours, or names or shapes that do not fit the configuration.
    """
    header, tensors = _read(path, with_tensors=True)
    config = _config(header, path)
    network = unfilled(config)
    check_names_and_shapes(shapes_of(network), tensors, path)
    return fill(network, tensors), _info(header, config, path)


def read_native_info(path: Path) -> CheckpointInfo:
    """What a file that ``save_native`` wrote says about itself, without reading the weights."""
    header, _ = _read(path, with_tensors=False)
    return _info(header, _config(header, path), path)


def _read(path: Path, *, with_tensors: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            names = file.keys() if with_tensors else ()
            tensors = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: truncated or damaged safetensors file ({one_line(error)})"
        ) from None
    if METADATA_KEY not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file without a configuration of ours; of a released model, "
            f"pass the folder that holds config.json and model.safetensors"
        )
    try:
        header = json.loads(metadata[METADATA_KEY])
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: unreadable metadata ({one_line(error)})") from None
    if not isinstance(header, dict) or header.get("version") != _VERSION:
        raise CheckpointError(f"{path}: metadata of a version other than {_VERSION}")
    return header, tensors


def _config(header: dict[str, Any], path: Path) -> ModelConfig | CroCoConfig:
    kind, values = header.get("kind"), header.get("config")
    if not isinstance(kind, str) or kind not in _CONFIGS or not isinstance(values, dict):
        raise CheckpointError(f"{path}: metadata without a known kind and its configuration")
    try:
        return _CONFIGS[kind].from_dict(values)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: bad configuration: {one_line(error)}") from None


def _info(header: dict[str, Any], config: ModelConfig | CroCoConfig, path: Path) -> CheckpointInfo:
    card = {field: header.get(field, "") for field in _CARD_FIELDS}
    if not all(isinstance(value, str) for value in card.values()):
        raise CheckpointError(f"{path}: model card fields that are not text")
    stored = header.get("calibration")
    try:
        calibration = None if stored is None else ConfidenceCalibration.from_dict(stored)
    except InputError as error:
        raise CheckpointError(f"{path}: bad calibration: {one_line(error)}") from None
    return CheckpointInfo(
        **card,
        layout="native",
        is_metric=_is_metric(config),
        sha256=file_sha256(path),
        calibration=calibration,
    )


def _is_metric(config: ModelConfig | CroCoConfig) -> bool:
    return isinstance(config, ModelConfig) and config.is_metric
