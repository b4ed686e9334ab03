"""Descriptor maps for the tests of matching."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor


def unit_field(
    height: int, width: int, *, sigma: float = 3.0, seed: int = 0, channels: int = 24
) -> Tensor:
    """(height, width, channels) smooth unit vectors; sigma 0 is plain noise."""
    noise = np.random.default_rng(seed).standard_normal((height, width, channels))
    field = noise.astype(np.float32)
    if sigma:
        field = np.stack(
            [cv2.GaussianBlur(field[..., c], (0, 0), sigma) for c in range(channels)], axis=-1
        )
    return torch.nn.functional.normalize(torch.from_numpy(field), dim=2)


def noisy(field: Tensor, amount: float, seed: int = 1) -> Tensor:
    """The field with noise added, of unit length again."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(field.shape, generator=generator)
    return torch.nn.functional.normalize(field + amount * noise, dim=2)


def mutual_pairs(first: Tensor, second: Tensor) -> set[tuple[int, int]]:
    """All mutual nearest neighbours by the full table of similarities, raster indexes."""
    rows = first.reshape(-1, first.shape[2]).double(), second.reshape(-1, second.shape[2]).double()
    table = rows[0] @ rows[1].T
    there, back = table.argmax(dim=1), table.argmax(dim=0)
    return {(i, j) for i, j in enumerate(there.tolist()) if back[j] == i}
