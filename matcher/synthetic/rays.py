"""Rays against primitives, exactly, in each primitive's own unit frame.

A ray through pixel (u, v) is K^-1 (u, v, 1); it is left at z = 1, so the ray parameter is the
z-depth. A shape is met in its unit frame, where the ray is ``o + t d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.scene import Cameras, Scene, ShapeCounts
from matcher.synthetic.triangles import MeshTables, build_mesh_tables

__all__ = ["RayTables", "build_tables", "gather_rows", "pixel_grid", "trace", "trace_grid"]

_NEAREST = 1e-3  # metres; closer surfaces are behind the glass of the lens
_NOT_ZERO = 1e-12  # far below any direction that matters; keeps 1 / direction finite


@dataclass(frozen=True, slots=True, eq=False)
class RayTables:
    """Per view (B) what a ray needs to know of each primitive (P) and face.

    local_from_pixel (B, P, 3, 3): unit-frame direction of the ray of a homogeneous pixel.
    origin (B, P, 3): camera centre in the unit frame.
    half_size, light (B, P, 3); faces (B, P * 6, 11): uv 6, tint 3, specular, backdrop.
    inverse_k (B, 3, 3) and camera_light (B, 3), in the camera's frame, serve the mesh.
    """

    counts: ShapeCounts
    local_from_pixel: Tensor
    origin: Tensor
    half_size: Tensor
    light: Tensor
    faces: Tensor
    texture: Tensor
    ambient: Tensor
    focal: Tensor
    inverse_k: Tensor
    camera_light: Tensor
    mesh: MeshTables | None

    def rows(self, start: int, stop: int) -> RayTables:
        """Some of the views."""
        return RayTables(
            self.counts,
            self.local_from_pixel[start:stop],
            self.origin[start:stop],
            self.half_size[start:stop],
            self.light[start:stop],
            self.faces[start:stop],
            self.texture[start:stop],
            self.ambient[start:stop],
            self.focal[start:stop],
            self.inverse_k[start:stop],
            self.camera_light[start:stop],
            None if self.mesh is None else self.mesh.rows(start, stop),
        )


def build_tables(scene: Scene, cameras: Cameras) -> RayTables:
    """Tables for the rays of cameras (S, V) into S scenes; the views of a scene in a row."""
    num_scenes, num_views = cameras.k.shape[:2]
    if num_scenes != len(scene):
        raise InputError("cameras", f"{len(scene)} scenes", f"{num_scenes}")
    world_from_cam = torch.linalg.inv(cameras.cam_from_world)
    world_from_pixel = world_from_cam[..., :3, :3] @ torch.linalg.inv(cameras.k)
    position = world_from_cam[..., :3, 3]
    unit_from_world = scene.rotation.transpose(-1, -2) / scene.half_size[..., None]
    local_from_pixel = unit_from_world[:, None] @ world_from_pixel[:, :, None]
    offset = position[:, :, None] - scene.center[:, None]
    origin = (unit_from_world[:, None] @ offset[..., None])[..., 0]
    light = (scene.rotation.transpose(-1, -2) @ scene.light_direction[:, None, :, None])[..., 0]
    faces = torch.cat(
        (
            scene.uv_from_local.flatten(-2),
            scene.tint,
            scene.specular[..., None],
            scene.is_backdrop[..., None].to(scene.tint.dtype),
        ),
        -1,
    ).flatten(1, 2)

    def per_view(value: Tensor) -> Tensor:
        return value.repeat_interleave(num_views, 0)

    focal = torch.sqrt(cameras.k[..., 0, 0] * cameras.k[..., 1, 1])
    rotation = cameras.cam_from_world[..., :3, :3]
    camera_light = (rotation @ scene.light_direction[:, None, :, None])[..., 0]
    mesh = None
    if scene.mesh is not None:
        mesh = build_mesh_tables(scene.mesh, cameras.k, cameras.cam_from_world)
    return RayTables(
        scene.counts,
        local_from_pixel.flatten(0, 1).float(),
        origin.flatten(0, 1).float(),
        per_view(scene.half_size.float()),
        per_view(light.float()),
        per_view(faces.float()),
        per_view(scene.texture.flatten(1, 2)),
        per_view(scene.ambient.float()),
        focal.flatten().float(),
        torch.linalg.inv(cameras.k).flatten(0, 1).float(),
        camera_light.flatten(0, 1).float(),
        mesh,
    )


def _meet_cube(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave (B, N) the unit cube; they miss unless enter < leave.

    origin (B, 3, 1), direction (B, 3, N).
    """
    inverse = 1.0 / (direction + _NOT_ZERO)
    middle = -origin * inverse
    reach = inverse.abs()
    return (middle - reach).amax(1), (middle + reach).amin(1)


def _meet_ball(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the unit ball, by the closest approach (stable far away)."""
    inverse_square = 1.0 / direction.square().sum(1)
    closest = -(origin * direction).sum(1) * inverse_square
    inside = 1.0 - (origin + closest[:, None] * direction).square().sum(1)
    reach = torch.sqrt(inside.clamp(min=0) * inverse_square)
    return closest - reach, closest + reach


def _meet_cylinder(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the unit cylinder along z, |z| <= 1."""
    enter_side, leave_side = _meet_ball(origin[:, :2], direction[:, :2] + _NOT_ZERO)
    inverse = 1.0 / (direction[:, 2] + _NOT_ZERO)
    middle, reach = -origin[:, 2] * inverse, inverse.abs()
    enter = torch.maximum(enter_side, middle - reach)
    return enter, torch.minimum(leave_side, middle + reach)


def _meet(tables: RayTables, index: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Where the rays of pixels (B or 1, 3, N) enter and leave (B, N) one primitive; z-depths."""
    origin = tables.origin[:, index, :, None]
    direction = tables.local_from_pixel[:, index] @ pixels
    kind = tables.counts.kinds[index]
    if kind == "ellipsoid":
        return _meet_ball(origin, direction)
    if kind == "cylinder":
        return _meet_cylinder(origin, direction)
    return _meet_cube(origin, direction)


def _closer(
    tables: RayTables, index: int, pixels: Tensor, nearest: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """Let one primitive take the rays it stops first."""
    enter, leave = _meet(tables, index, pixels)
    closer = (enter < torch.minimum(leave, nearest)) & (enter > _NEAREST)
    return torch.where(closer, enter, nearest), torch.where(closer, index, owner)


def trace(
    tables: RayTables, pixels: Tensor, shapes: Sequence[int] | None = None
) -> tuple[Tensor, Tensor]:
    """Nearest hit: z-depth (B, N) and primitive (B, N) int64; pixels (B or 1, 3, N).

    ``shapes``: the primitives to try; None: all.
    """
    last = tables.counts.total - 1
    _, nearest = _meet(tables, last, pixels)
    owner = torch.full_like(nearest, last, dtype=torch.int64)
    for index in range(last) if shapes is None else shapes:
        if index != last:
            nearest, owner = _closer(tables, index, pixels, nearest, owner)
    return nearest, owner


def _bounding_boxes(tables: RayTables, size: ImageSize) -> list[list[int]]:
    """Rows (top, bottom, left, right) of the pixels each primitive may cover in any view."""
    signs = torch.tensor([-1.0, 1.0], device=tables.origin.device)
    corners = torch.cartesian_prod(signs, signs, signs)
    rays = corners - tables.origin[:, :, None]
    seen = rays.double() @ torch.linalg.inv(tables.local_from_pixel.double()).mT
    z = seen[..., 2]
    # A shape behind the camera covers nothing, one that reaches through it may cover everything.
    behind, crossing = (z < _NEAREST).all(-1), (z < _NEAREST).any(-1)
    place = seen[..., :2] / z.clamp(min=_NEAREST)[..., None]
    low, high = place.amin(-2).floor() - 1, place.amax(-2).ceil() + 2
    limit = torch.tensor([size.width, size.height], dtype=low.dtype, device=low.device)
    low = torch.where(crossing[..., None], 0.0, low).clamp(min=0)
    high = torch.where(crossing[..., None], limit, torch.minimum(high, limit))
    nothing = (behind | (low >= high).any(-1))[..., None]
    low, high = torch.where(nothing, limit, low).amin(0), torch.where(nothing, 0.0, high).amax(0)
    box = torch.stack((low[:, 1], high[:, 1], low[:, 0], high[:, 0]), -1)
    return [[int(value) for value in row] for row in box.tolist()]


def trace_grid(tables: RayTables, size: ImageSize) -> tuple[Tensor, Tensor]:
    """``trace`` for all pixels of the image, trying each primitive only where it may be."""
    grid = pixel_grid(size, tables.origin)
    nearest, owner = trace(tables, grid, ())
    view = (-1, size.height, size.width)
    grid, nearest, owner = grid.view(1, 3, *view[1:]), nearest.view(view), owner.view(view)
    for index, (top, bottom, left, right) in enumerate(_bounding_boxes(tables, size)[:-1]):
        if top >= bottom or left >= right:
            continue
        window = (..., slice(top, bottom), slice(left, right))
        depth, shape = nearest[window], owner[window]
        found = _closer(tables, index, grid[window].flatten(2), depth.flatten(1), shape.flatten(1))
        nearest[window] = found[0].view_as(depth)
        owner[window] = found[1].view_as(shape)
    return nearest.flatten(1), owner.flatten(1)


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, N) of a table (B, R, C), as (B, N, C)."""
    batch = torch.arange(table.shape[0], device=table.device)[:, None] * table.shape[1]
    return table.flatten(0, 1)[(rows + batch).flatten()].reshape(*rows.shape, table.shape[-1])


def pixel_grid(size: ImageSize, like: Tensor) -> Tensor:
    """(1, 3, H * W) homogeneous pixel centres."""
    y, x = torch.meshgrid(
        torch.arange(size.height, device=like.device, dtype=like.dtype),
        torch.arange(size.width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((x.flatten(), y.flatten(), torch.ones_like(x).flatten()))[None]
