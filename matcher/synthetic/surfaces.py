"""Where rays landed: geometry, texture coordinates and finish of what they met."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from matcher.synthetic.holes import enter_openings
from matcher.synthetic.rays import Rays, gather_rows, unit, worth_it
from matcher.synthetic.scene import FACES, Scene
from matcher.synthetic.tables import RayTables
from matcher.synthetic.triangles import meet_mesh

__all__ = ["PARTS", "Surface", "add_mesh", "land"]

PARTS = 4
"""Parts of a face with labels of their own: the wall, the frame of an opening, its back, sides."""
_GEOMETRY = [9, 3, 3, 9]
_PLAIN, _FINISHED = [6, 3, 1, 1], [1, 1, 9]
_STEEPEST = 0.02  # cosine; flatter footprints are not longer
_SIDE_SHADE = 0.62  # light that reaches the sides and back of an opening


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """What rays (B, N) met.

    Attributes:
        travel: (B, N) along the ray: the z-depth of primary rays.
        label: (B, N) int64, ``(6 * primitive + face) * PARTS + part``.
        texture: (B, N) int32; uv: (B, N, 2); lod: (B, N); tint: (B, N, 3).
        point: (B, N, 3) metres; normal, direction: (B, N, 3) unit; all in the camera's frame,
            the normal towards where the ray came from.
        specular, mirror, emission: (B, N).
        backdrop, passing: (B, N) bool.
    """

    travel: Tensor
    label: Tensor
    texture: Tensor
    uv: Tensor
    lod: Tensor
    tint: Tensor
    point: Tensor
    normal: Tensor
    direction: Tensor
    specular: Tensor
    mirror: Tensor
    emission: Tensor
    backdrop: Tensor
    passing: Tensor

    @property
    def depth(self) -> Tensor:
        """(B, N) z-depth of what stays where it is; 0 on backdrops and passers-by."""
        return torch.where(self.backdrop | self.passing, 0.0, self.travel)


@dataclass(frozen=True, slots=True, eq=False)
class _Hit:
    """Geometry in the primitive's own frame, axes in metres.

    face (B, N): face row. metres, half (B, N, 2): along the face. local_normal (B, N, 3). slope
    (B, N, 3): metres for each unit of travel. first, second, axis (B, N, 1): axes of the face.
    """

    face: Tensor
    metres: Tensor
    half: Tensor
    local_normal: Tensor
    slope: Tensor
    first: Tensor
    second: Tensor
    axis: Tensor
    sign: Tensor
    to_camera: Tensor


def _hit(tables: RayTables, rays: Rays, travel: Tensor, owner: Tensor) -> _Hit:
    geometry = torch.cat(
        (
            tables.local_from_pixel.flatten(2),
            tables.origin,
            tables.half_size,
            tables.cam_from_metric.flatten(2),
        ),
        -1,
    )
    rows = gather_rows(geometry, owner)
    matrix, origin, half, to_camera = torch.split(rows, _GEOMETRY, -1)
    matrix = matrix.reshape(*owner.shape, 3, 3)
    direction = (matrix * rays.direction.mT[:, :, None]).sum(-1)
    if rays.start is not None:
        origin = origin + (matrix * rays.start.mT[:, :, None]).sum(-1)
    point = origin + travel[..., None] * direction

    counts = tables.counts
    first_ball, first_tube = counts.boxes, counts.boxes + counts.ellipsoids
    first_panel, room = first_tube + counts.cylinders, counts.total - 1
    is_ball = (owner >= first_ball) & (owner < first_tube)
    is_tube = (owner >= first_tube) & (owner < first_panel)
    radial = point[..., :2].square().sum(-1).sqrt()
    on_side = is_tube & (radial > point[..., 2].abs())
    on_z = is_tube & ~on_side
    if counts.panels:
        on_z = on_z | ((owner >= first_panel) & (owner < room))
        # On a panel z is 0 but for rounding: the side that the ray comes from counts.
        towards = torch.where((owner >= first_panel) & (owner < room), -direction[..., 2], 0.0)
        third = torch.where(towards == 0, point[..., 2], towards)
    else:
        third = point[..., 2]
    zero = torch.zeros_like(radial)
    probe = torch.where(on_z[..., None], torch.stack((zero, zero, third), -1), point)
    size, axis = probe.abs().max(-1)
    sign = probe.gather(-1, axis[..., None])[..., 0]
    face = torch.where(on_side, 0, 2 * axis + (sign > 0).long())

    spread = torch.where(is_ball, size, 1.0)[..., None]  # cube-map: project on the cube around
    metric = point / spread * half
    first = torch.where(axis == 0, 1, 0)[..., None]
    second = torch.where(axis == 2, 1, 2)[..., None]
    metres = torch.cat((metric.gather(-1, first), metric.gather(-1, second)), -1)
    around = torch.atan2(point[..., 1], point[..., 0]) * 0.5 * (half[..., 0] + half[..., 1])
    metres = torch.where(on_side[..., None], torch.stack((around, metric[..., 2]), -1), metres)

    flat = torch.nn.functional.one_hot(axis, 3).to(point.dtype) * sign.sign()[..., None]
    flat = torch.where((owner == room)[..., None], -flat, flat)
    flatten_z = point.new_tensor([1.0, 1.0, 0.0])
    curved = torch.where(is_ball[..., None], point, point * flatten_z) / half
    normal = torch.where((is_ball | on_side)[..., None], curved, flat)
    normal = unit(normal)
    face_half = torch.cat((half.gather(-1, first), half.gather(-1, second)), -1)
    return _Hit(
        owner * FACES + face,
        metres,
        face_half,
        normal,
        direction * half,
        first,
        second,
        axis[..., None],
        sign.sign(),
        to_camera,
    )


def _rotated(rotation: Tensor, vector: Tensor) -> Tensor:
    """Rotation (B, N, 9) times vector (B, N, 3)."""
    return (rotation.reshape(*vector.shape, 3) * vector[..., None, :]).sum(-1)


@dataclass(frozen=True, slots=True, eq=False)
class _Shown:
    """What a hit shows, before it is turned into the camera's frame; names as in ``Surface``."""

    travel: Tensor
    label: Tensor
    texture: Tensor
    uv: Tensor
    per_metre: Tensor
    tint: Tensor
    normal: Tensor
    mirror: Tensor
    emission: Tensor


def _with_openings(hit: _Hit, shown: _Shown, columns: Tensor, back_texture: Tensor) -> _Shown:
    """Let rays go into the openings of the faces they met; columns (B, N, 9)."""
    inward = -hit.sign * hit.slope.gather(-1, hit.axis)[..., 0]
    slope = torch.cat((hit.slope.gather(-1, hit.first), hit.slope.gather(-1, hit.second)), -1)
    opening = enter_openings(columns, hit.metres, hit.half, slope, inward)
    back, side = opening.on_back, opening.inside & ~opening.on_back
    side_axis = torch.where(opening.side_axis[..., None] == 0, hit.first, hit.second)
    side_normal = torch.zeros_like(shown.normal).scatter(
        -1, side_axis, -opening.side_sign[..., None]
    )
    vary, glass, lit, frame = columns[..., 5:9].unbind(-1)
    back_uv = torch.stack(
        (opening.place[..., 0] + vary * opening.cell, 1 - opening.place[..., 1]), -1
    )
    per_metre = torch.rsqrt(opening.extent.prod(-1).clamp(min=1e-6))
    shade = torch.where(opening.framed, frame, 1.0)
    shade = torch.where(side, _SIDE_SHADE * frame.clamp(min=0.8), shade)
    # Curtains, blinds, dark rooms: no two windows look the same.
    varied = 0.55 + 0.75 * (7.3 * opening.cell).remainder(1.0)
    shade = torch.where(back & (glass > 0), varied, shade)
    shines = (back & (opening.cell < lit)).to(shade.dtype)
    part = torch.where(opening.framed, 1, 0) + torch.where(back, 2, 0) + torch.where(side, 3, 0)
    return _Shown(
        shown.travel + opening.travel,
        shown.label + part,
        torch.where(back, back_texture, shown.texture),
        torch.where(back[..., None], back_uv, shown.uv),
        torch.where(back, per_metre, shown.per_metre),
        torch.where(back[..., None], 1.0, shown.tint) * shade[..., None],
        torch.where(side[..., None], side_normal, shown.normal),
        torch.where(opening.inside, torch.where(back, glass, 0.0), shown.mirror),
        torch.where(opening.inside, shines, shown.emission),
    )


def land(
    scene: Scene,
    tables: RayTables,
    rays: Rays,
    travel: Tensor,
    owner: Tensor,
    *,
    anisotropy: float,
    come_from: Tensor | None = None,
) -> Surface:
    """What rays met on primitives ``owner`` (B, N) after ``travel`` (B, N).

    Args:
        scene: the scenes, for the size of their textures.
        tables: of the views.
        rays: B x N of them.
        travel: to what they met first.
        owner: which primitive.
        anisotropy: 0 chooses mip levels for the short side of a footprint, 1 for the long one.
        come_from: (B, N) how far the light of a mirrored ray has travelled before.
    """
    hit = _hit(tables, rays, travel, owner)
    faces = gather_rows(tables.faces, hit.face)
    affine, tint, specular, backdrop = torch.split(faces[..., : sum(_PLAIN)], _PLAIN, -1)
    textures = gather_rows(tables.texture, hit.face)
    u = (affine[..., 0:2] * hit.metres).sum(-1) + affine[..., 2]
    v = (affine[..., 3:5] * hit.metres).sum(-1) + affine[..., 5]
    per_metre = torch.sqrt(
        (affine[..., 0] * affine[..., 4] - affine[..., 1] * affine[..., 3]).abs()
    )
    shown = _Shown(
        travel,
        hit.face * PARTS,
        textures[..., 0],
        torch.stack((u, v), -1),
        per_metre,
        tint,
        hit.local_normal,
        torch.zeros_like(travel),
        torch.zeros_like(travel),
    )
    if tables.faces.shape[-1] > sum(_PLAIN):
        emission, mirror, columns = torch.split(faces[..., sum(_PLAIN) :], _FINISHED, -1)
        shown = replace(shown, emission=emission[..., 0], mirror=mirror[..., 0])
        if tables.has_insets and worth_it(columns[..., 4] > 0):
            shown = _with_openings(hit, shown, columns, textures[..., 1])
    travel = shown.travel
    normal = _rotated(hit.to_camera, shown.normal)
    point = (tables.inverse_k @ rays.at(travel)).mT
    direction = unit((tables.inverse_k @ rays.direction).mT).expand_as(point)
    cosine = (normal * direction).sum(-1)
    distance = travel if come_from is None else travel + come_from
    footprint = distance / tables.focal[:, None] * shown.per_metre * scene.atlas.size
    slant = cosine.abs().clamp(min=_STEEPEST)
    passing = torch.zeros_like(shown.label, dtype=torch.bool)
    if tables.passing is not None:
        passing = gather_rows(tables.passing[..., None], owner)[..., 0]
    return Surface(
        travel=travel,
        label=shown.label,
        texture=shown.texture,
        uv=shown.uv,
        lod=torch.log2(footprint.clamp(min=1e-6)) - anisotropy * torch.log2(slant),
        tint=shown.tint,
        point=point,
        normal=normal,
        direction=direction,
        specular=specular[..., 0],
        mirror=shown.mirror,
        emission=shown.emission,
        backdrop=backdrop[..., 0] > 0.5,
        passing=passing,
    )


def add_mesh(
    scene: Scene, tables: RayTables, rays: Rays, surface: Surface, *, anisotropy: float, tiles: bool
) -> Surface:
    """The mesh over what it hides; ``rays`` are primary ones, ``tiles`` skips what is elsewhere."""
    if tables.mesh is None:
        return surface
    hits = meet_mesh(tables.mesh, rays.direction, surface.travel, tiles)
    where = (hits.view, hits.ray)
    direction = surface.direction[where]
    slant = -(hits.normal * direction).sum(-1).clamp(max=-_STEEPEST)
    footprint = hits.depth / tables.focal[hits.view] * hits.per_metre * scene.atlas.size
    lod = torch.log2(footprint.clamp(min=1e-6)) - anisotropy * torch.log2(slant)
    point = surface.point[where] * (hits.depth / surface.travel[where])[:, None]

    def put(value: Tensor, new: Tensor | float) -> Tensor:
        if not isinstance(new, Tensor):
            new = value.new_tensor(new)
        return value.index_put(where, new.to(value.dtype))

    return replace(
        surface,
        travel=put(surface.travel, hits.depth),
        label=put(surface.label, tables.counts.total * FACES * PARTS),
        texture=put(surface.texture, hits.texture),
        uv=put(surface.uv, hits.uv),
        lod=put(surface.lod, lod),
        tint=put(surface.tint, 1.0),
        point=put(surface.point, point),
        normal=put(surface.normal, hits.normal),
        specular=put(surface.specular, 0.0),
        mirror=put(surface.mirror, 0.0),
        emission=put(surface.emission, 0.0),
        backdrop=put(surface.backdrop, False),
        passing=put(surface.passing, False),
    )
