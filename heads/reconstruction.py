"""The head of masked cross-view completion: pixels of every patch (CroCo 3.2)."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["PatchPixelHead"]


class PatchPixelHead(nn.Module):
    """Decoder tokens (B, N, C) -> (B, N, 3 * p * p) pixels, colour last inside a patch."""

    def __init__(self, decoder_dim: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Linear(decoder_dim, 3 * patch_size**2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Predict the pixels of every token's patch."""
        pixels: Tensor = self.proj(tokens)
        return pixels
