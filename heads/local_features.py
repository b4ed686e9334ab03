"""The local-feature head: the released MLP form (MASt3R 3.2), and a convolution-fused form.

Patch tokens alone learn pixel-accurate descriptors slowly. The fused form carries the decoder's
tokens up a small feature pyramid beside shallow convolutional features of the image, as a feature
pyramid network does, and reads descriptors and points off its top.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heads.config import HeadConfig
from heads.linear import tokens_to_map

__all__ = ["FusedHead", "MLPLocalFeatures"]


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


class FusedHead(nn.Module):
    """Tokens and the stem's pyramid -> raw points (B, 4, H, W) and features (B, D + 1, H, W).

    Args:
        encoder_dim, decoder_dim: token widths.
        pyramid_dims: channels of the stem's maps at 1/2, 1/4 and 1/8.
        config: ``fused_dims`` are the widths at 1/16, 1/8, 1/4, 1/2.
    """

    def __init__(
        self,
        encoder_dim: int,
        decoder_dim: int,
        pyramid_dims: Sequence[int],
        config: HeadConfig,
    ) -> None:
        super().__init__()
        coarse, eighth, quarter, half = config.fused_dims
        half_in, quarter_in, eighth_in = pyramid_dims
        self.tokens = nn.Linear(encoder_dim + decoder_dim, coarse)
        self.down = nn.ModuleList(
            [
                nn.Conv2d(coarse, eighth, 1),
                nn.Conv2d(eighth, quarter, 1),
                nn.Conv2d(quarter, half, 1),
            ]
        )
        self.lateral = nn.ModuleList(
            [
                nn.Conv2d(eighth_in, eighth, 1),
                nn.Conv2d(quarter_in, quarter, 1),
                nn.Conv2d(half_in, half, 1),
            ]
        )
        # The stem has already halved the image: full-resolution detail comes straight from it.
        self.detail = nn.Conv2d(12, half, 3, padding=1)
        self.refine = nn.ModuleList(
            [_RefineBlock(eighth), _RefineBlock(quarter), _RefineBlock(half)]
        )
        self.points_hidden = nn.Conv2d(quarter, quarter, 3, padding=1)
        self.points_places = (
            nn.Conv2d(2, quarter, 3, padding=1, bias=False) if config.point_places else None
        )
        self.points_out = nn.Conv2d(quarter, 4, 1)
        self.features_out = nn.Conv2d(half, 4 * config.local_feature_channels, 3, padding=1)

    def forward(
        self, layers: list[Tensor], grid: tuple[int, int], pyramid: Sequence[Tensor], pixels: Tensor
    ) -> tuple[Tensor, Tensor]:
        """``pyramid``: maps at 1/2, 1/4, 1/8; ``pixels``: (B, 3, H, W), the image itself."""
        tokens = torch.cat([layers[0], layers[-1]], dim=-1)
        path = tokens_to_map(self.tokens(tokens), grid)
        half, quarter, eighth = pyramid
        path = self._rise(0, path, self.lateral[0](eighth))
        quarter_path = self._rise(1, path, self.lateral[1](quarter))
        detail = self.lateral[2](half) + self.detail(F.pixel_unshuffle(pixels, 2))
        half_path = self._rise(2, quarter_path, detail)
        features = F.pixel_shuffle(self.features_out(half_path), 2)
        hidden = self.points_hidden(quarter_path)
        if self.points_places is not None:
            hidden = hidden + self.points_places(_places(quarter_path))
        points = self.points_out(F.relu(hidden))
        points = F.interpolate(points, scale_factor=4, mode="bilinear", align_corners=False)
        return points, features

    def _rise(self, level: int, path: Tensor, lateral: Tensor) -> Tensor:
        path = F.interpolate(
            self.down[level](path), scale_factor=2, mode="bilinear", align_corners=False
        )
        risen: Tensor = self.refine[level](path + lateral)
        return risen
