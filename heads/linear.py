"""The linear pointmap head of DUSt3R: one projection a token, shuffled into its patch."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["LinearPointHead", "tokens_to_map"]


def tokens_to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, N, C) tokens in raster order -> (B, C, rows, columns)."""
    batch, _, channels = tokens.shape
    return tokens.transpose(1, 2).reshape(batch, channels, *grid)


class LinearPointHead(nn.Module):
    """Last decoder tokens -> (B, 4, H, W) raw xyz and confidence (DUSt3R 3.1)."""

    def __init__(self, decoder_dim: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = nn.Linear(decoder_dim, 4 * patch_size**2)

    def forward(self, layers: list[Tensor], grid: tuple[int, int]) -> Tensor:
        """``layers``: token lists (B, N, C), the last one is used; ``grid``: (rows, columns)."""
        return F.pixel_shuffle(tokens_to_map(self.proj(layers[-1]), grid), self.patch_size)
