"""Flat primitives with holes, and openings sunk into faces: thin and repeated structure, exactly.

Both are closed formulas of where a ray meets a plane, so that a fence of a hundred bars or a wall
of a hundred windows costs one primitive.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.synthetic.finish import INSET_COLUMNS

__all__ = ["Openings", "enter_openings", "solid_fence", "solid_leaves"]

_PARALLEL = 1e-9  # far below any slope of a ray that matters


def solid_fence(pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where bars are (B, N) at unit coordinates x, y (B, N); pattern (B, 8)."""
    across, across_share, start_x, up, up_share, start_y, sag, lean = pattern[..., None].unbind(1)
    slanted_x = x + lean * y
    slanted_y = y - lean * x + sag * (1 - x * x)
    bar_x = (0.5 * across * (slanted_x + 1) + start_x).remainder(1.0) - 0.5
    bar_y = (0.5 * up * (slanted_y + 1) + start_y).remainder(1.0) - 0.5
    return (bar_x.abs() < 0.5 * across_share) | (bar_y.abs() < 0.5 * up_share)


def solid_leaves(pattern: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Where foliage is (B, N): islands of a sum of warped waves, sparser towards the rim."""
    waves, fill, _, p0, p1, p2, p3, p4 = pattern[..., None].unbind(1)
    u, v = waves * x, waves * y
    warped_u = u + 1.1 * torch.sin(0.83 * v + p0)
    warped_v = v + 1.1 * torch.sin(0.71 * u + p1)
    value = torch.sin(warped_u + p2) * torch.sin(warped_v + p3)
    value = value + 0.7 * torch.sin(1.9 * warped_u - 1.3 * warped_v + p4)
    radius = x * x + y * y
    return (value + fill > 1.6 * radius * radius - 0.3) & (radius < 1)


@dataclass(frozen=True, slots=True, eq=False)
class Openings:
    """What rays (B, N) meet in or beside an opening of the face they landed on.

    Attributes:
        inside: the ray goes into an opening.
        on_back: it meets the back, not a side.
        travel: (B, N) further z-depth to what it meets.
        side_axis: (B, N) int64, 0 or 1: which of the face's axes a side is across.
        side_sign: (B, N) the side's end of that axis, 1 or -1.
        place: (B, N, 2) position on the back, the opening being [0, 1).
        extent: (B, N, 2) metres of the opening.
        cell: (B, N) random number in [0, 1) of the cell.
        framed: (B, N) on the wall close to an opening.
    """

    inside: Tensor
    on_back: Tensor
    travel: Tensor
    side_axis: Tensor
    side_sign: Tensor
    place: Tensor
    extent: Tensor
    cell: Tensor
    framed: Tensor


def enter_openings(
    columns: Tensor, at: Tensor, half: Tensor, slope: Tensor, inward: Tensor
) -> Openings:
    """Follow rays into the openings of faces.

    An opening is convex and has one way in, so the first of its back and four sides that the ray
    leaves through is what it shows.

    Args:
        columns: (B, N, 9) as ``finish.inset`` makes them; no opening where the depth is 0.
        at: (B, N, 2) where the ray meets the face, metres from its centre.
        half: (B, N, 2) half size of the face, metres.
        slope: (B, N, 2) metres along the face for each unit of z-depth.
        inward: (B, N) metres into the face for each unit of z-depth, positive.
    """
    assert columns.shape[-1] == INSET_COLUMNS
    count, share, depth = columns[..., 0:2].clamp(min=1), columns[..., 2:4], columns[..., 4]
    cell_size = 2 * half / count
    index = ((at + half) / cell_size).floor()
    index = torch.minimum(index.clamp(min=0), count - 1)
    local = at - (index + 0.5) * cell_size + half
    reach = 0.5 * share * cell_size
    has = depth > 0
    inside = (local.abs() < reach).all(-1) & has
    margin = 0.12 * reach.amin(-1, keepdim=True) + 0.04 * cell_size.amin(-1, keepdim=True)
    framed = (local.abs() < reach + margin).all(-1) & has & ~inside
    to_side = (torch.where(slope > 0, reach - local, -reach - local)) / torch.where(
        slope.abs() > _PARALLEL, slope, torch.full_like(slope, _PARALLEL)
    )
    to_side = torch.where(slope.abs() > _PARALLEL, to_side, torch.inf)
    side, side_axis = to_side.min(-1)
    back = depth / inward.clamp(min=_PARALLEL)
    on_back = inside & (back <= side)
    travel = torch.where(inside, torch.minimum(back, side), torch.zeros_like(back))
    met = local + travel[..., None] * slope
    noise = torch.sin(index[..., 0] * 12.9898 + index[..., 1] * 78.233 + count[..., 0]) * 437.585
    return Openings(
        inside,
        on_back,
        travel,
        side_axis,
        slope.gather(-1, side_axis[..., None])[..., 0].sign(),
        0.5 + 0.5 * met / reach.clamp(min=_PARALLEL),
        2 * reach,
        noise.remainder(1.0),
        framed,
    )
