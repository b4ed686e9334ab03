"""The local-feature head: the released MLP form (MASt3R 3.2), and a convolution-fused form.

Patch tokens alone learn pixel-accurate descriptors slowly. The fused form carries the decoder's
tokens up a small feature pyramid beside shallow convolutional features of the image, as a feature
pyramid network does, and reads descriptors and points off its top.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.config import HeadConfig
from heads.linear import tokens_to_map

__all__ = ["FusedHead", "FusedPoints", "MLPLocalFeatures"]


class MLPLocalFeatures(nn.Module):
    """Encoder and decoder tokens -> (B, D + 1, H, W) raw descriptors and confidence."""

    def __init__(
        self, encoder_dim: int, decoder_dim: int, patch_size: int, config: HeadConfig
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        width = encoder_dim + decoder_dim
        channels = config.local_feature_channels
        self.fc1 = nn.Linear(width, int(config.hidden_dim_factor * width))
        self.fc2 = nn.Linear(self.fc1.out_features, channels * patch_size**2)

    def forward(self, layers: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """``layers``: token lists; the first (encoder) and the last (decoder) are used."""
        tokens = torch.cat([layers[0], layers[-1]], dim=-1)
        features = self.fc2(F.gelu(self.fc1(tokens)))
        return F.pixel_shuffle(tokens_to_map(features, grid), self.patch_size)


class _RefineBlock(nn.Module):
    """Two 3 x 3 convolutions around a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.conv2(F.relu(self.conv1(x)))
        return F.relu(x + update)


def _places(path: Tensor) -> Tensor:
    """(1, 2, H, W) x and y of every pixel from the middle, in halves of the long side."""
    height, width = path.shape[2:]
    x = torch.arange(width, device=path.device, dtype=path.dtype) - (width - 1) / 2
    y = torch.arange(height, device=path.device, dtype=path.dtype) - (height - 1) / 2
    columns, rows = torch.meshgrid(x, y, indexing="xy")
    return torch.stack([columns, rows])[None] * (2 / max(height, width))


class _FusedPyramid(nn.Module):
    """Tokens climb to 1/4 of the image beside the stem's maps; a pointmap may be read off there.

    Args:
        encoder_dim, decoder_dim: token widths.
        pyramid_dims: channels of the stem's maps at 1/2, 1/4 and 1/8.
        config: ``fused_dims`` are the widths at 1/16, 1/8, 1/4, 1/2.
        levels: how often the path doubles its resolution: 2 (to 1/4) or 3 (to 1/2).
        with_points: whether it has the layers of a pointmap.
    """

    def __init__(
        self,
        encoder_dim: int,
        decoder_dim: int,
        pyramid_dims: Sequence[int],
        config: HeadConfig,
        *,
        levels: int,
        with_points: bool,
    ) -> None:
        super().__init__()
        widths = config.fused_dims[: levels + 1]
        self.tokens = nn.Linear(encoder_dim + decoder_dim, widths[0])
        self.down = nn.ModuleList(
            nn.Conv2d(wide, narrow, 1) for wide, narrow in itertools.pairwise(widths)
        )
        self.lateral = nn.ModuleList(
            nn.Conv2d(given, width, 1)
            for given, width in zip(reversed(pyramid_dims), widths[1:], strict=False)
        )
        self.refine = nn.ModuleList(_RefineBlock(width) for width in widths[1:])
        self.points_hidden: nn.Conv2d | None = None
        self.points_places: nn.Conv2d | None = None
        self.points_out: nn.Conv2d | None = None
        if with_points:
            quarter = widths[2]
            self.points_hidden = nn.Conv2d(quarter, quarter, 3, padding=1)
            if config.point_places:
                self.points_places = nn.Conv2d(2, quarter, 3, padding=1, bias=False)
            self.points_out = nn.Conv2d(quarter, 4, 1)

    def _quarter_path(
        self, layers: list[Tensor], grid: tuple[int, int], pyramid: Sequence[Tensor]
    ) -> Tensor:
        tokens = torch.cat([layers[0], layers[-1]], dim=-1)
        path = tokens_to_map(self.tokens(tokens), grid)
        _, quarter, eighth = pyramid
        path = self._rise(0, path, self.lateral[0](eighth))
        return self._rise(1, path, self.lateral[1](quarter))

    def _rise(self, level: int, path: Tensor, lateral: Tensor) -> Tensor:
        path = F.interpolate(
            self.down[level](path), scale_factor=2, mode="bilinear", align_corners=False
        )
        risen: Tensor = self.refine[level](path + lateral)
        return risen

    def _points(self, quarter_path: Tensor) -> Tensor:
        assert self.points_hidden is not None
        assert self.points_out is not None
        hidden = self.points_hidden(quarter_path)
        if self.points_places is not None:
            hidden = hidden + self.points_places(_places(quarter_path))
        points = self.points_out(F.relu(hidden))
        return F.interpolate(points, scale_factor=4, mode="bilinear", align_corners=False)


class FusedPoints(_FusedPyramid):
    """A pointmap's own way up: tokens of its own decoder blocks -> raw points (B, 4, H, W).

    Args:
        encoder_dim, decoder_dim, pyramid_dims, config: see ``FusedHead``.
    """

    def __init__(
        self, encoder_dim: int, decoder_dim: int, pyramid_dims: Sequence[int], config: HeadConfig
    ) -> None:
        super().__init__(encoder_dim, decoder_dim, pyramid_dims, config, levels=2, with_points=True)

    def forward(
        self, layers: list[Tensor], grid: tuple[int, int], pyramid: Sequence[Tensor]
    ) -> Tensor:
        """``layers``: the first (encoder) and the last (own decoder) are used."""
        return self._points(self._quarter_path(layers, grid, pyramid))


class FusedHead(_FusedPyramid):
    """Tokens and the stem's pyramid -> raw points (B, 4, H, W) and features (B, D + 1, H, W).

    Args:
        encoder_dim, decoder_dim: token widths.
        pyramid_dims: channels of the stem's maps at 1/2, 1/4 and 1/8.
        config: ``fused_dims`` are the widths at 1/16, 1/8, 1/4, 1/2.
        with_points: whether the pointmap is read off this pyramid too; else ``FusedPoints`` has it.
    """

    def __init__(
        self,
        encoder_dim: int,
        decoder_dim: int,
        pyramid_dims: Sequence[int],
        config: HeadConfig,
        *,
        with_points: bool = True,
    ) -> None:
        super().__init__(
            encoder_dim, decoder_dim, pyramid_dims, config, levels=3, with_points=with_points
        )
        half = config.fused_dims[3]
        # The stem has already halved the image: full-resolution detail comes straight from it.
        self.detail = nn.Conv2d(12, half, 3, padding=1)
        self.features_out = nn.Conv2d(half, 4 * config.local_feature_channels, 3, padding=1)

    def forward(
        self, layers: list[Tensor], grid: tuple[int, int], pyramid: Sequence[Tensor], pixels: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Raw points (``None`` without their layers) and features.

        Args:
            layers: token lists; the first (encoder) and the last (decoder) are used.
            grid: (rows, columns) of the patch grid.
            pyramid: the stem's maps at 1/2, 1/4, 1/8.
            pixels: (B, 3, H, W), the image itself.
        """
        quarter_path = self._quarter_path(layers, grid, pyramid)
        detail = self.lateral[2](pyramid[0]) + self.detail(F.pixel_unshuffle(pixels, 2))
        half_path = self._rise(2, quarter_path, detail)
        features = F.pixel_shuffle(self.features_out(half_path), 2)
        return None if self.points_out is None else self._points(quarter_path), features
