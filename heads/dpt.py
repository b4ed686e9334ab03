"""The dense-prediction-transformer head: four token layers, reassembled and fused (DUSt3R 3.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from heads.config import HeadConfig
from heads.linear import tokens_to_map

__all__ = ["DPTPointHead", "default_hooks"]


def default_hooks(decoder_depth: int) -> tuple[int, int, int, int]:
    """Layers that feed the head: the encoder's output, 2/4, 3/4 and the end of the decoder."""
    return 0, decoder_depth * 2 // 4, decoder_depth * 3 // 4, decoder_depth


def _upsample(features: Tensor) -> Tensor:
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)


class _ResidualUnit(nn.Module):
    """x + conv(relu(conv(relu(x))))."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        update: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + update


class _Fusion(nn.Module):
    """Add a finer layer to the path, refine, double the resolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The coarsest fusion receives no finer layer and never calls ``lateral``; released files
        # carry its weights all the same.
        self.lateral = _ResidualUnit(channels)
        self.refine = _ResidualUnit(channels)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, path: Tensor, layer: Tensor | None = None) -> Tensor:
        if layer is not None:
            path = path + self.lateral(layer)
        fused: Tensor = self.out(_upsample(self.refine(path)))
        return fused


class DPTPointHead(nn.Module):
    """Four token layers -> (B, 4, H, W) raw xyz and confidence."""

    def __init__(
        self, encoder_dim: int, decoder_dim: int, decoder_depth: int, config: HeadConfig
    ) -> None:
        super().__init__()
        self.hooks = default_hooks(decoder_depth)
        width = config.feature_dim
        dims = config.layer_dims
        inputs = (encoder_dim, decoder_dim, decoder_dim, decoder_dim)
        self.project = nn.ModuleList(
            nn.Conv2d(source, dim, 1) for source, dim in zip(inputs, dims, strict=True)
        )
        self.resample = nn.ModuleList(
            [
                nn.ConvTranspose2d(dims[0], dims[0], 4, stride=4),
                nn.ConvTranspose2d(dims[1], dims[1], 2, stride=2),
                nn.Identity(),
                nn.Conv2d(dims[3], dims[3], 3, stride=2, padding=1),
            ]
        )
        self.reassemble = nn.ModuleList(
            nn.Conv2d(dim, width, 3, padding=1, bias=False) for dim in dims
        )
        self.fusions = nn.ModuleList(_Fusion(width) for _ in dims)
        self.smooth = nn.Conv2d(width, width // 2, 3, padding=1)
        self.last = nn.Conv2d(width // 2, config.last_dim, 3, padding=1)
        self.out = nn.Conv2d(config.last_dim, 4, 1)

    def forward(self, layers: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """``layers``: encoder output, then every decoder block's tokens; ``grid``: (rows, cols)."""
        maps = [
            reassemble(resample(project(tokens_to_map(layers[hook], grid))))
            for hook, project, resample, reassemble in zip(
                self.hooks, self.project, self.resample, self.reassemble, strict=True
            )
        ]
        path = self.fusions[3](maps[3])
        # An odd grid makes the coarsest path one row or column too large.
        path = path[:, :, : maps[2].shape[2], : maps[2].shape[3]]
        for level in (2, 1, 0):
            path = self.fusions[level](path, maps[level])
        path = _upsample(self.smooth(path))
        raw: Tensor = self.out(F.relu(self.last(path)))
        return raw
