"""Rays against triangle meshes, exactly, without a tree.

With triangle corners P0, P1, P2 in the camera's frame and a ray q, the three numbers
``q . (Pj x Pk) / (P0 . (P1 x P2))`` are the barycentric coordinates of the hit divided by its
z-depth: the ray meets the triangle where none is negative, and their sum is the inverse depth.
All of it is one matrix product; on a CPU small tiles of the image skip the triangles that are
elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.synthetic.scene import SceneMesh

__all__ = ["MeshHits", "MeshTables", "build_mesh_tables", "meet_mesh"]

_TILE = 16
_FACES_AT_ONCE = 64
_NEAREST = 1e-3
_FLAT = 1e-14  # m^3; six times the volume between the camera and a triangle seen edge-on
# A ray through a shared edge must not slip between its two triangles.
_EDGE_SLACK = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class MeshTables:
    """Per view (B) what a ray needs to know of each triangle (F).

    Attributes:
        forms: (B, 4, F, 3) float32: three scaled barycentric forms and their sum, of pixels.
        low, high: (B, F, 2) float32, pixels between which a triangle lies.
        corners: (B, F, 3, 3) float32, in the camera's frame, metres.
        uv: (B, F, 3, 2); texture: (B, F).
    """

    forms: Tensor
    low: Tensor
    high: Tensor
    corners: Tensor
    uv: Tensor
    texture: Tensor

    def rows(self, start: int, stop: int) -> MeshTables:
        """Some of the views."""
        return MeshTables(
            self.forms[start:stop],
            self.low[start:stop],
            self.high[start:stop],
            self.corners[start:stop],
            self.uv[start:stop],
            self.texture[start:stop],
        )


@dataclass(frozen=True, slots=True, eq=False)
class MeshHits:
    """Rays (R) that meet the mesh before anything else.

    Attributes:
        view, ray: (R,) int64, which ray.
        depth: (R,) z-depth.
        uv: (R, 2) texture coordinates; texture: (R,) int32.
        normal: (R, 3) in the camera's frame, towards the camera.
        per_metre: (R,) texture lengths in a metre.
    """

    view: Tensor
    ray: Tensor
    depth: Tensor
    uv: Tensor
    texture: Tensor
    normal: Tensor
    per_metre: Tensor


def build_mesh_tables(mesh: SceneMesh, k: Tensor, cam_from_world: Tensor) -> MeshTables:
    """Tables for S scenes seen by cameras (S, V)."""
    views = k.shape[1]
    rotation, shift = cam_from_world[..., :3, :3], cam_from_world[..., :3, 3]
    flat = mesh.triangles.flatten(1, 2)[:, None]
    corners = (flat @ rotation.mT + shift[:, :, None]).reshape(-1, *mesh.triangles.shape[1:])
    p0, p1, p2 = corners.unbind(-2)
    edges = torch.stack(
        (torch.linalg.cross(p1, p2), torch.linalg.cross(p2, p0), torch.linalg.cross(p0, p1)), 1
    )
    volume = (p0 * edges[:, 0]).sum(-1)[:, None, :, None]
    usable = volume.abs() > _FLAT
    inverse_k = torch.linalg.inv(k).flatten(0, 1)[:, None]
    scaled = torch.where(usable, edges / torch.where(usable, volume, 1.0), 0.0)
    # Written as forms of (u, v, 1): q = K^-1 (u, v, 1).
    forms = scaled @ inverse_k
    total = forms.sum(1, keepdim=True)

    depth = corners[..., 2]
    pixel = corners @ k.flatten(0, 1)[:, None].mT
    place = pixel[..., :2] / depth.clamp(min=_NEAREST)[..., None]
    crossing = (depth < _NEAREST).any(-1)[..., None]
    behind = ((depth < _NEAREST).all(-1) | ~usable[:, 0, :, 0])[..., None]
    low = torch.where(crossing, -torch.inf, place.amin(-2))
    high = torch.where(crossing, torch.inf, place.amax(-2))
    low, high = torch.where(behind, torch.inf, low), torch.where(behind, -torch.inf, high)
    return MeshTables(
        torch.cat((forms, total), 1).float(),
        low.float(),
        high.float(),
        corners.float(),
        mesh.uv.repeat_interleave(views, 0),
        mesh.texture.repeat_interleave(views, 0),
    )


def _nearest_face(forms: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Largest inverse depth (N,), 0 for none, and its face; forms (4, F, 3), pixels (3, N)."""
    values = (forms.reshape(-1, 3) @ pixels).reshape(4, -1, pixels.shape[1])
    inverse_depth = values[3]
    inside = values[:3].amin(0) >= -_EDGE_SLACK * inverse_depth
    return torch.where(inside, inverse_depth, 0.0).max(0)


def _meet_tiles(tables: MeshTables, view: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """``_nearest_face`` for one view, tile by tile."""
    found = torch.zeros_like(pixels[0])
    face = torch.zeros_like(pixels[0], dtype=torch.int64)
    low, high = tables.low[view], tables.high[view]
    first, last = low.amin(0) - 1, high.amax(0) + 1
    u, v = pixels[0], pixels[1]
    near = ((u >= first[0]) & (u <= last[0]) & (v >= first[1]) & (v <= last[1])).nonzero()[:, 0]
    if not len(near):
        return found, face
    column = torch.div(u[near], _TILE, rounding_mode="floor").long()
    row = torch.div(v[near], _TILE, rounding_mode="floor").long()
    number = (row - row.min()) * 100_000 + (column - column.min())
    order = number.argsort(stable=True)
    counts = torch.unique_consecutive(number[order], return_counts=True)[1].tolist()
    for rays in torch.split(near[order], counts):
        tile = pixels[:, rays]
        (left, top), (right, bottom) = tile[:2].amin(1), tile[:2].amax(1)
        here = (high[:, 0] >= left) & (low[:, 0] <= right)
        here &= (high[:, 1] >= top) & (low[:, 1] <= bottom)
        faces = here.nonzero()[:, 0]
        if len(faces):
            value, index = _nearest_face(tables.forms[view][:, faces], tile)
            found[rays], face[rays] = value, faces[index]
    return found, face


def _meet_all(tables: MeshTables, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """``_nearest_face`` (B, N) for all rays and triangles, without looking at positions."""
    views = tables.forms.shape[0]
    expanded = pixels.expand(views, -1, -1)
    best = torch.zeros(views, pixels.shape[-1], device=pixels.device)
    owner = torch.zeros_like(best, dtype=torch.int64)
    for start in range(0, tables.forms.shape[2], _FACES_AT_ONCE):
        forms = tables.forms[:, :, start : start + _FACES_AT_ONCE]
        values = (forms.flatten(1, 2) @ expanded).reshape(views, 4, -1, pixels.shape[-1])
        inverse_depth = values[:, 3]
        inside = values[:, :3].amin(1) >= -_EDGE_SLACK * inverse_depth
        value, index = torch.where(inside, inverse_depth, 0.0).max(1)
        closer = value > best
        best = torch.where(closer, value, best)
        owner = torch.where(closer, index + start, owner)
    return best, owner


def meet_mesh(tables: MeshTables, pixels: Tensor, depth: Tensor, by_tiles: bool) -> MeshHits:
    """Rays of pixels (B or 1, 3, N) that meet a triangle before ``depth`` (B, N)."""
    if by_tiles:
        rows = [
            _meet_tiles(tables, view, pixels[min(view, len(pixels) - 1)])
            for view in range(len(depth))
        ]
        inverse_depth = torch.stack([value for value, _ in rows])
        face = torch.stack([index for _, index in rows])
    else:
        inverse_depth, face = _meet_all(tables, pixels)
    hit = (inverse_depth * depth > 1) & (inverse_depth * _NEAREST < 1)
    view, ray = hit.nonzero(as_tuple=True)
    chosen = face[view, ray]
    z = 1 / inverse_depth[view, ray]
    q = pixels.expand(len(depth), -1, -1)[view, :, ray]
    forms = tables.forms[view, :3, chosen]
    weights = (forms * q[:, None]).sum(-1) * z[:, None]
    uv, corners = tables.uv[view, chosen], tables.corners[view, chosen]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = torch.linalg.vector_norm(normal, dim=-1)
    facing = -(normal * corners[:, 0]).sum(-1).sign()
    side_a, side_b = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    uv_area = (side_a[:, 0] * side_b[:, 1] - side_a[:, 1] * side_b[:, 0]).abs()
    return MeshHits(
        view,
        ray,
        z,
        (weights[..., None] * uv).sum(1),
        tables.texture[view, chosen],
        normal / area.clamp(min=1e-20)[:, None] * facing[:, None],
        torch.sqrt(uv_area / area.clamp(min=1e-20)),
    )
