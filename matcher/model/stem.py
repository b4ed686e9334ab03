"""From pixels to tokens: one strided projection, or a convolutional pyramid.

The convolutional stem has the layer sizes of EfficientNet-Lite0 down to 1/16 of the image (Tan and
Le, 2019), with the normalisation folded into the convolutions, so that a pretrained trunk can
initialise it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PYRAMID_DIMS", "ConvolutionalStem", "PatchStem", "StemOutput"]

PYRAMID_DIMS = (16, 24, 40)
"""Channels of the convolutional stem's maps at 1/2, 1/4 and 1/8."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A run of inverted residuals; the first one may halve the map."""

    out_channels: int
    repeats: int
    kernel_size: int
    stride: int
    expansion: int


_FIRST_CHANNELS = 32
_STAGES = (
    _Stage(16, 1, 3, 1, 1),
    _Stage(24, 2, 3, 2, 6),
    _Stage(40, 2, 5, 2, 6),
    _Stage(80, 3, 3, 2, 6),
    _Stage(112, 3, 5, 1, 6),
)


@dataclass(frozen=True, slots=True, eq=False)
class StemOutput:
    """Tokens (B, N, C) of a (rows, columns) grid, and maps at 1/2, 1/4, 1/8 (maybe none)."""

    tokens: Tensor
    grid: tuple[int, int]
    pyramid: tuple[Tensor, ...] = ()


class PatchStem(nn.Module):
    """One strided convolution a patch, as in every released network."""

    def __init__(self, embed_dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, embed_dim, patch_size, stride=patch_size)

    def forward(self, pixels: Tensor) -> StemOutput:
        """``pixels``: (B, 3, H, W) in [-1, 1], H and W multiples of the patch size."""
        patches = self.proj(pixels)
        return StemOutput(patches.flatten(2).transpose(1, 2), tuple(patches.shape[2:]))


class SameConv(nn.Conv2d):
    """A convolution padded so that the output has ceil(size / stride), surplus at the end."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', ceil(H / stride), ceil(W / stride))."""
        size, stride = self.kernel_size[0], self.stride[0]
        if stride == 1:
            return F.conv2d(x, self.weight, self.bias, 1, size // 2, 1, self.groups)
        sides = []
        for length in (x.shape[3], x.shape[2]):
            surplus = max((-(-length // stride) - 1) * stride + size - length, 0)
            sides += [surplus // 2, surplus - surplus // 2]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, stride, 0, 1, self.groups)


class InvertedResidual(nn.Module):
    """Expand, filter every channel, project; a residual where the shape stays."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, stride: int, expansion: int
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = SameConv(in_channels, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(hidden, hidden, kernel_size, stride=stride, groups=hidden)
        self.project = SameConv(hidden, out_channels, 1)
        self.has_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        hidden = F.relu6(self.expand(x)) if isinstance(self.expand, SameConv) else x
        update: Tensor = self.project(F.relu6(self.depthwise(hidden)))
        return x + update if self.has_residual else update


class ConvolutionalStem(nn.Module):
    """Inverted residuals from the image down to 1/16."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.first = SameConv(3, _FIRST_CHANNELS, 3, stride=2)
        stages = []
        channels = _FIRST_CHANNELS
        for stage in _STAGES:
            blocks = []
            for index in range(stage.repeats):
                stride = stage.stride if index == 0 else 1
                blocks.append(
                    InvertedResidual(
                        channels, stage.out_channels, stage.kernel_size, stride, stage.expansion
                    )
                )
                channels = stage.out_channels
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.proj = nn.Conv2d(channels, embed_dim, 1)

    def forward(self, pixels: Tensor) -> StemOutput:
        """``pixels``: (B, 3, H, W) in [-1, 1], H and W multiples of 16."""
        path = F.relu6(self.first(pixels))
        maps = []
        for stage in self.stages:
            path = stage(path)
            maps.append(path)
        patches = self.proj(path)
        return StemOutput(
            patches.flatten(2).transpose(1, 2), tuple(patches.shape[2:]), tuple(maps[:3])
        )
