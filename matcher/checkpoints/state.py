"""Weights into networks and onto the disk, strictly and all or nothing."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from matcher.errors import CheckpointError, InputError
from matcher.model.config import CroCoConfig, ModelConfig
from matcher.model.croco import CroCoNetwork
from matcher.model.network import TwoViewNetwork

__all__ = [
    "check_names_and_shapes",
    "file_sha256",
    "fill",
    "one_line",
    "shapes_of",
    "unfilled",
    "write_atomically",
]

_HASH_BLOCK = 1 << 20
_SHOWN = 10
_LONGEST_MESSAGE = 200
# Far beyond any real network: a forged configuration must not keep the machine busy.
_DEEPEST, _WIDEST = 512, 1 << 16
_STORABLE = (torch.float32, torch.float16, torch.bfloat16)

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def unfilled(config: ModelConfig | CroCoConfig) -> TwoViewNetwork | CroCoNetwork:
    """The network of ``config`` on the meta device: names and shapes, no memory, no start values.

    Raises:
        CheckpointError: sizes beyond reason, or refused by the heads.
    """
    for stack in (config.encoder, config.decoder):
        if stack.depth > _DEEPEST or stack.embed_dim > _WIDEST:
            raise CheckpointError(f"the configuration builds no network of sane size: {stack}")
    try:
        with torch.device("meta"):
            return (
                TwoViewNetwork(config) if isinstance(config, ModelConfig) else CroCoNetwork(config)
            )
    except ValueError as error:
        raise CheckpointError(f"the configuration builds no network: {one_line(error)}") from None


def shapes_of(network: nn.Module) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything in a network's state."""
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def check_names_and_shapes(
    expected: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], path: Path
) -> None:
    """Raise ``CheckpointError`` unless ``tensors`` are exactly the expected ones, all of floats."""
    problems = []
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in tensors if name not in expected]
    if missing:
        problems.append(f"{len(missing)} missing: {_some(missing)}")
    if unexpected:
        problems.append(f"{len(unexpected)} unexpected: {_some(unexpected)}")
    if not problems:
        wrong = [
            f"{name} is {tuple(tensors[name].shape)}, not {shape}"
            for name, shape in expected.items()
            if tuple(tensors[name].shape) != shape
        ]
        if wrong:
            problems.append(f"{len(wrong)} of another shape: {_some(wrong)}")
        strange = [name for name, tensor in tensors.items() if tensor.dtype not in _STORABLE]
        if strange:
            problems.append(
                f"{len(strange)} that are not float32, float16 or bfloat16: {_some(strange)}"
            )
    if problems:
        raise CheckpointError(
            f"{path}: the tensors do not fit the configuration: {'; '.join(problems)}"
        )


def fill(network: NetworkT, tensors: Mapping[str, Tensor]) -> NetworkT:
    """Make checked tensors, as float32, the state of a network built on the meta device."""
    state = {name: tensor.detach().to(torch.float32) for name, tensor in tensors.items()}
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval()


def write_atomically(path: Path, write: Callable[[Path], None]) -> None:
    """Write through a temporary neighbour that is renamed at the end: no half-written file.

    Raises:
        InputError: the folder is missing or not writable.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch(exist_ok=False)
        permissions = stat.S_IMODE(temporary.stat().st_mode)
        write(temporary)
        # Some writers make files that nobody else may read, whatever the user's mask.
        temporary.chmod(permissions)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        raise InputError("path", "a writable file in an existing folder", one_line(error)) from None
    finally:
        temporary.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_HASH_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def one_line(error: object) -> str:
    """The message of an error of someone else's, on one line of bounded length."""
    text = " ".join(str(error).split())
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 3]}..."


def _some(names: Iterable[str]) -> str:
    names = list(names)
    rest = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {rest} more" if rest > 0 else "")
