"""Exact ground truth between two posed views with depth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError

__all__ = [
    "Correspondences",
    "correspondences",
    "overlap",
    "overlap_matrix",
    "points_in_camera0",
    "relative_pose",
    "sample_pairs",
    "unproject",
]

_MIN_DEPTH = 1e-6
_BORDER_SLACK = 1e-3  # pixels: rounding must not drop a pixel that maps onto the border


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """Where the pixels of view 0 are in view 1.

    Attributes:
        target: (..., H, W, 2) pixels of view 1, x then y; anything where not valid.
        valid: (..., H, W) bool, visible in both.
    """

    target: Tensor
    valid: Tensor


def _pixels(depth: Tensor) -> Tensor:
    """(H, W, 3) homogeneous pixel centres."""
    height, width = depth.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=depth.device, dtype=depth.dtype),
        torch.arange(width, device=depth.device, dtype=depth.dtype),
        indexing="ij",
    )
    return torch.stack((x, y, torch.ones_like(x)), -1)


def unproject(depth: Tensor, k: Tensor) -> Tensor:
    """Pointmap (..., H, W, 3) in the camera's frame from z-depth (..., H, W) and K (..., 3, 3)."""
    inverse: Tensor = torch.linalg.inv(k.double()).to(depth.dtype)
    return (_pixels(depth) @ inverse[..., None, :, :].mT) * depth[..., None]


def relative_pose(cam0_from_world: Tensor, cam1_from_world: Tensor) -> Tensor:
    """cam1_from_cam0 (..., 4, 4) of two cameras."""
    world_from_cam0: Tensor = torch.linalg.inv(cam0_from_world)
    return cam1_from_world @ world_from_cam0


def points_in_camera0(
    depth0: Tensor, k0: Tensor, depth1: Tensor, k1: Tensor, cam1_from_cam0: Tensor
) -> tuple[Tensor, Tensor]:
    """Pointmaps (..., H, W, 3) of both views in camera 0's frame, units of the depth.

    Args:
        depth0: (..., H, W) z-depth of view 0.
        k0: (..., 3, 3) intrinsics of view 0.
        depth1: (..., H, W) z-depth of view 1.
        k1: (..., 3, 3) intrinsics of view 1.
        cam1_from_cam0: (..., 4, 4) pose.
    """
    cam0_from_cam1 = torch.linalg.inv(cam1_from_cam0.double()).to(depth1.dtype)
    local = unproject(depth1, k1)
    rotated = local @ cam0_from_cam1[..., None, :3, :3].mT
    return unproject(depth0, k0), rotated + cam0_from_cam1[..., None, None, :3, 3]


def _take(depth: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Depth (..., H, W) at integer pixels (..., N), clamped to the image."""
    height, width = depth.shape[-2:]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return depth.flatten(-2).gather(-1, index)


def correspondences(
    depth0: Tensor,
    k0: Tensor,
    depth1: Tensor,
    k1: Tensor,
    cam1_from_cam0: Tensor,
    tolerance: float = 0.01,
) -> Correspondences:
    """Where each pixel of view 0 is seen in view 1, with exact occlusion.

    A pixel counts where its projection is inside image 1 and its depth there agrees with the
    depth map of view 1: with the inverse depth interpolated between the four pixels around (exact
    on planes), or with the nearest pixel (at outlines).

    Args:
        depth0: (..., H, W) z-depth of view 0, 0 where unknown.
        k0: (..., 3, 3) intrinsics of view 0.
        depth1: (..., H1, W1) z-depth of view 1, 0 where unknown.
        k1: (..., 3, 3) intrinsics of view 1.
        cam1_from_cam0: (..., 4, 4) pose.
        tolerance: largest relative difference of the depths.
    """
    if depth0.shape[:-2] != depth1.shape[:-2]:
        raise InputError("depth1", f"batch {tuple(depth0.shape[:-2])}", f"{tuple(depth1.shape)}")
    k0, k1, pose = k0.double(), k1.double(), cam1_from_cam0.double()
    matrix = (k1 @ pose[..., :3, :3] @ torch.linalg.inv(k0)).to(depth0.dtype)
    shift = (k1 @ pose[..., :3, 3:]).to(depth0.dtype)
    points = _pixels(depth0).flatten(0, 1).mT * depth0.flatten(-2)[..., None, :]
    x, y, z = (matrix @ points + shift).unbind(-2)
    in_front = (z > _MIN_DEPTH) & (depth0.flatten(-2) > _MIN_DEPTH)
    safe_z = torch.where(in_front, z, 1.0)
    u, v = x / safe_z, y / safe_z
    height, width = depth1.shape[-2:]
    slack = _BORDER_SLACK
    inside = (u >= -slack) & (u <= width - 1 + slack) & in_front
    inside &= (v >= -slack) & (v <= height - 1 + slack)
    u_in = torch.where(inside, u, 0.0).clamp(0, width - 1)
    v_in = torch.where(inside, v, 0.0).clamp(0, height - 1)

    left, top = u_in.floor(), v_in.floor()
    a, b = u_in - left, v_in - top
    column, row = left.long(), top.long()
    inverse = torch.zeros_like(u)
    known = torch.ones_like(inside)
    for dx, dy in ((0, 0), (1, 0), (0, 1), (1, 1)):
        weight = (a if dx else 1 - a) * (b if dy else 1 - b)
        corner = _take(depth1, column + dx, row + dy)
        known &= (corner > _MIN_DEPTH) | (weight == 0)
        inverse = inverse + weight / corner.clamp(min=_MIN_DEPTH)
    nearest = _take(depth1, u_in.round().long(), v_in.round().long())
    agrees = known & ((safe_z * inverse - 1).abs() < tolerance)
    agrees |= (nearest > _MIN_DEPTH) & ((nearest / safe_z - 1).abs() < tolerance)
    shape = depth0.shape
    return Correspondences(
        torch.stack((u, v), -1).reshape(*shape, 2), (inside & agrees).reshape(shape)
    )


def overlap(
    depth0: Tensor,
    k0: Tensor,
    depth1: Tensor,
    k1: Tensor,
    cam1_from_cam0: Tensor,
    tolerance: float = 0.01,
) -> tuple[Tensor, Tensor]:
    """Share (...) of the known pixels of view 0 seen in view 1, and the smaller of both ways."""
    forward = correspondences(depth0, k0, depth1, k1, cam1_from_cam0, tolerance)
    back_pose = torch.linalg.inv(cam1_from_cam0.double())
    backward = correspondences(depth1, k1, depth0, k0, back_pose, tolerance)
    share0 = forward.valid.sum((-2, -1)) / (depth0 > 0).sum((-2, -1)).clamp(min=1)
    share1 = backward.valid.sum((-2, -1)) / (depth1 > 0).sum((-2, -1)).clamp(min=1)
    return share0, torch.minimum(share0, share1)


def overlap_matrix(
    depth: Tensor, k: Tensor, cam_from_world: Tensor, tolerance: float = 0.01
) -> Tensor:
    """(S, V, V) share of the known pixels of view i that view j sees, for all pairs of views.

    Args:
        depth: (S, V, H, W) z-depth; a small version is enough.
        k: (S, V, 3, 3) intrinsics for the size of ``depth``.
        cam_from_world: (S, V, 4, 4) poses.
        tolerance: largest relative difference of depths.
    """
    num = depth.shape[1]
    poses = relative_pose(cam_from_world[:, :, None], cam_from_world[:, None])

    def of_row(value: Tensor) -> Tensor:
        return value[:, :, None].expand(-1, -1, num, *value.shape[2:]).contiguous()

    def of_column(value: Tensor) -> Tensor:
        return value[:, None].expand(-1, num, *value.shape[1:]).contiguous()

    found = correspondences(
        of_row(depth), of_row(k), of_column(depth), of_column(k), poses, tolerance
    )
    known = (depth > 0).sum((-2, -1)).clamp(min=1)
    return found.valid.sum((-2, -1)) / known[:, :, None]


def sample_pairs(
    generator: torch.Generator, overlaps: Tensor, count: int, low: float = 0.05, high: float = 1.0
) -> Tensor:
    """Pairs of views whose overlap is flat between ``low`` and ``high``.

    Args:
        generator: source of randomness, on the CPU.
        overlaps: (S, V, V) share of view i seen in view j.
        count: pairs a scene.
        low: smallest wanted overlap.
        high: largest wanted overlap.

    Returns:
        (S, count, 2) int64 views; never (i, i). The pair whose smaller overlap is nearest to a
        random aim is taken, so a scene without wanted overlaps still gives its nearest ones.
    """
    num = overlaps.shape[1]
    if num < 2:
        raise InputError("overlaps", "at least 2 views", f"{num}")
    smaller = torch.minimum(overlaps, overlaps.mT).cpu()
    rows, columns = torch.triu_indices(num, num, 1)
    values = smaller[:, rows, columns]
    aim = low + (high - low) * torch.rand(len(values), count, generator=generator)
    usable = torch.where(values >= low, values, -1e3)
    nearest = (usable[:, None] - aim[..., None]).abs().argmin(-1)
    swap = torch.rand(nearest.shape, generator=generator) < 0.5
    first, second = rows[nearest], columns[nearest]
    pairs = torch.stack((torch.where(swap, second, first), torch.where(swap, first, second)), -1)
    return pairs.to(overlaps.device)
