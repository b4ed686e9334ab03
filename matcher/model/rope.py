"""Positions of patches: rotary in 2-D (CroCo v2 3.1) and additive sine-cosine (CroCo)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RotaryTables", "grid_positions", "rotary_tables", "rotate", "sincos_table"]

RotaryTables = tuple[Tensor, Tensor]


def grid_positions(rows: int, columns: int, device: torch.device | None = None) -> Tensor:
    """(rows * columns, 2) int64 patch positions, y then x, in raster order."""
    y, x = torch.meshgrid(
        torch.arange(rows, device=device), torch.arange(columns, device=device), indexing="ij"
    )
    return torch.stack([y, x], dim=-1).reshape(-1, 2)


def rotary_tables(positions: Tensor, head_dim: int, base: float) -> RotaryTables:
    """Cosines and sines for ``rotate``, computed once for all the blocks of a forward pass.

    The first half of the head's channels turns with y, the second half with x; inside a half, with
    Q = head_dim / 4 frequencies ``base ** (-i / Q)``, channel i pairs with channel i + Q.

    Args:
        positions: (..., N, 2) patch positions, y then x.
        head_dim: channels of one attention head, a multiple of 4.
        base: base of the frequencies.

    Returns:
        cosines and sines, each (..., 1, N, head_dim) float32.
    """
    quarter = head_dim // 4
    steps = torch.arange(quarter, device=positions.device, dtype=torch.float32) / quarter
    angles = positions[..., None].float() * base**-steps
    angles = torch.cat([angles, angles], dim=-1).flatten(-2).unsqueeze(-3)
    return angles.cos(), angles.sin()


def rotate(tokens: Tensor, tables: RotaryTables) -> Tensor:
    """Turn (B, heads, N, head_dim) queries or keys to their positions."""
    cosines, sines = tables
    halves = tokens.reshape(*tokens.shape[:-1], 2, 2, -1)
    turned = torch.stack([-halves[..., 1, :], halves[..., 0, :]], dim=-2).flatten(-3)
    return tokens * cosines.to(tokens.dtype) + turned * sines.to(tokens.dtype)


def sincos_table(rows: int, columns: int, dim: int) -> Tensor:
    """(rows * columns, dim) float32 additive positions: x in the first half, y in the second."""
    quarter = dim // 4
    frequencies = 10000.0 ** -(torch.arange(quarter, dtype=torch.float64) / quarter)
    positions = grid_positions(rows, columns).double()

    def encode(values: Tensor) -> Tensor:
        angles = values[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1)

    return torch.cat([encode(positions[:, 1]), encode(positions[:, 0])], dim=-1).float()
