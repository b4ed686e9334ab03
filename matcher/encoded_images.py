"""A photograph that the encoder has seen: its tensors, how large they are, and as a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from matcher.images import RgbArray
from matcher.model.network import EncodedViews
from matcher.structures import ImageSize, View

__all__ = [
    "EncodedImage",
    "Payload",
    "load_payload",
    "moved",
    "num_bytes",
    "owned",
    "save_payload",
]

Payload: TypeAlias = EncodedViews | RgbArray
"""What is kept of a photograph: its encoding, or its own pixels (H, W, 3)."""

# Files keep the order of a tensor's memory in its name: convolutions round differently otherwise.
_CHANNELS_LAST = ".channels_last"


@dataclass(frozen=True, slots=True, eq=False)
class EncodedImage:
    """A photograph that the encoder has seen; give it to ``Matcher.match`` as often as you like.

    Attributes:
        image: (H, W, 3) uint8 RGB, the photograph, upright.
        view: what the network saw of it.
        encoded: the encoder's output.
        mask: (H, W) bool in original pixels, where matches are welcome, or ``None``.
    """

    image: RgbArray
    view: View
    encoded: EncodedViews
    mask: npt.NDArray[np.bool_] | None = None

    @property
    def size(self) -> ImageSize:
        """Size of the photograph."""
        return self.view.original_size


def owned(encoded: EncodedViews) -> EncodedViews:
    """Tensors that keep nothing but themselves alive: a row of a batch keeps the batch."""

    def own(tensor: Tensor) -> Tensor:
        whole = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
        return tensor if whole else tensor.clone()

    return _mapped(encoded, own)


def moved(encoded: EncodedViews, device: torch.device) -> EncodedViews:
    """The same on another device."""
    return _mapped(encoded, lambda tensor: tensor.to(device))


def _mapped(encoded: EncodedViews, change: Callable[[Tensor], Tensor]) -> EncodedViews:
    return EncodedViews(
        change(encoded.tokens),
        encoded.grid,
        tuple(change(level) for level in encoded.pyramid),
        None if encoded.pixels is None else change(encoded.pixels),
    )


def num_bytes(encoded: EncodedViews) -> int:
    """Memory that an encoding takes."""
    tensors = [encoded.tokens, *encoded.pyramid]
    if encoded.pixels is not None:
        tensors.append(encoded.pixels)
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def save_payload(path: Path, payload: Payload) -> None:
    """Write a payload as safetensors; raises what the system says of a full disk."""
    save_file(_as_tensors(payload), path)


def _as_tensors(payload: Payload) -> dict[str, Tensor]:
    if not isinstance(payload, EncodedViews):
        return {"photograph": torch.from_numpy(payload.copy())}
    named = {"tokens": payload.tokens, "grid": torch.tensor(payload.grid)}
    named |= {f"pyramid{level}": values for level, values in enumerate(payload.pyramid)}
    if payload.pixels is not None:
        named["pixels"] = payload.pixels
    tensors = {}
    for name, tensor in named.items():
        is_last = (
            tensor.ndim == 4
            and not tensor.is_contiguous()
            and tensor.is_contiguous(memory_format=torch.channels_last)
        )
        tensors[name + _CHANNELS_LAST * is_last] = tensor.contiguous()
    return tensors


def load_payload(path: Path) -> Payload:
    """Read what ``save_payload`` wrote: equal to the bit, and in the same order in memory."""
    tensors = {}
    for name, tensor in load_file(path).items():
        is_last = name.endswith(_CHANNELS_LAST)
        tensors[name.removesuffix(_CHANNELS_LAST)] = (
            tensor.contiguous(memory_format=torch.channels_last) if is_last else tensor
        )
    if "photograph" in tensors:
        image: RgbArray = tensors["photograph"].numpy()
        return image
    rows, columns = tensors["grid"].tolist()
    levels = sum(name.startswith("pyramid") for name in tensors)
    return EncodedViews(
        tensors["tokens"],
        (rows, columns),
        tuple(tensors[f"pyramid{level}"] for level in range(levels)),
        tensors.get("pixels"),
    )
