"""Where a search starts: on a grid, or where a place can be told from the pixels beside it.

A pixel on a plain wall or along an edge resembles its neighbours: its partner is found somewhere
near the right place, or along the edge. The pixels whose descriptors change fast in every direction
are the ones whose matches are right and exact (the criterion of Shi and Tomasi, "Good features to
track", with descriptors in the place of brightness).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.errors import InputError

__all__ = ["descriptor_sharpness", "is_sharp", "seed_pixels"]

_WINDOW_RADIUS = 2
_SHARP_QUANTILE = 0.9


def descriptor_sharpness(descriptors: Tensor) -> Tensor:
    """How fast descriptors change in the direction in which they change least.

    The smaller eigenvalue of the structure tensor: products of the derivatives, summed over the
    channels and averaged over windows of 5 x 5 pixels.

    Args:
        descriptors: (H, W, D).

    Returns:
        (H, W) float32, squared change of the descriptor a pixel; 0 where a derivative along it is
        not finite.

    Raises:
        InputError: another shape.
    """
    if descriptors.ndim != 3:
        raise InputError("descriptors", "shape (H, W, D)", f"{tuple(descriptors.shape)}")
    maps = descriptors.detach().float()
    along_x = (maps[:, 2:] - maps[:, :-2]) / 2
    along_y = (maps[2:] - maps[:-2]) / 2
    products = maps.new_zeros(3, *maps.shape[:2])
    products[0, :, 1:-1] = torch.linalg.vecdot(along_x, along_x)
    products[1, 1:-1, 1:-1] = torch.linalg.vecdot(along_x[1:-1], along_y[:, 1:-1])
    products[2, 1:-1] = torch.linalg.vecdot(along_y, along_y)
    width = 2 * _WINDOW_RADIUS + 1
    xx, xy, yy = F.avg_pool2d(products[:, None], width, 1, _WINDOW_RADIUS)[:, 0]
    least: Tensor = (xx + yy) / 2 - (((xx - yy) / 2).square() + xy.square()).sqrt()
    return least.nan_to_num(0, 0, 0).clamp_min(0)


def is_sharp(sharpness: Tensor, allowed: Tensor, least: float) -> Tensor:
    """Which pixels are sharp enough to be matched.

    Args:
        sharpness: (H, W), see :func:`descriptor_sharpness`.
        allowed: (H, W) bool, the pixels that count.
        least: share of their 90th percentile that a pixel must exceed.

    Returns:
        (H, W) bool, all of them allowed; where nothing is sharp at all, whatever is allowed.
    """
    values = sharpness[allowed]
    if not len(values):
        return allowed
    usual = values.kthvalue(min(len(values), int(_SHARP_QUANTILE * len(values)) + 1)).values
    sharp = allowed & (sharpness > least * usual)
    return sharp if bool(sharp.any()) else allowed


def seed_pixels(allowed: Tensor, spacing: int, sharpness: Tensor | None = None) -> Tensor:
    """One pixel of every square of the map: the middle one, or the sharpest.

    Args:
        allowed: (H, W) bool, which pixels may be taken. Without ``sharpness`` a square whose middle
            is not allowed has no seed; with it, one without any allowed pixel.
        spacing: side of the squares, pixels; 1 takes every allowed pixel.
        sharpness: (H, W), see :func:`descriptor_sharpness`; of equals the first in raster order.

    Returns:
        (S,) raster indexes, by rows of squares.
    """
    height, width = allowed.shape
    tall, wide = -(-height // spacing), -(-width // spacing)
    corner_rows = torch.arange(tall, device=allowed.device)[:, None] * spacing
    corner_columns = torch.arange(wide, device=allowed.device) * spacing
    if sharpness is None:
        rows, columns = corner_rows + spacing // 2, corner_columns + spacing // 2
        index = (rows * width + columns)[(rows < height) & (columns < width)]
        return index[allowed.reshape(-1)[index]]
    worth = torch.where(allowed, sharpness, -torch.ones_like(sharpness))
    worth = F.pad(worth, (0, wide * spacing - width, 0, tall * spacing - height), value=-1.0)
    squares = worth.view(tall, spacing, wide, spacing).transpose(1, 2).reshape(tall, wide, -1)
    best, place = squares.max(dim=2)
    rows, columns = corner_rows + place // spacing, corner_columns + place % spacing
    return (rows * width + columns)[best >= 0]
