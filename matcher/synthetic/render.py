"""The batched ray-caster: exact intersections, mip-mapped textures, diffuse and specular light.

A ray through pixel (u, v) is K^-1 (u, v, 1); it is left at z = 1, so the ray parameter is the
z-depth. All kinds of primitives are met in their own unit frame, where a ray is ``o + t d``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.scene import FACES, Cameras, Scene, ShapeCounts
from matcher.synthetic.textures import sample_atlas
from matcher.synthetic.triangles import MeshTables, build_mesh_tables, meet_mesh

__all__ = ["RenderOptions", "RenderedViews", "cast_depth", "cast_pixels", "render"]

_NEAREST = 1e-3  # metres; closer surfaces are behind the glass of the lens
_NOT_ZERO = 1e-12  # far below any direction that matters; keeps 1 / direction finite
_SHININESS = 24.0
# Rotated-grid positions of the four extra rays of an edge pixel.
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How to render.

    Attributes:
        edge_share: share of the pixels, those on outlines, whose colour is the mean of 4 rays;
            0 turns it off. Depth is always that of the pixel centre.
        anisotropy: 0 chooses mip levels for the small side of a footprint (aliases on slanted
            surfaces), 1 for its long side (blurs them).
        views_at_once: how many views are traced together; None: one on a CPU, where small
            tensors stay in its cache, all elsewhere.
        cull: skip primitives where they cannot be seen; this reads positions back from the
            device, so None means only on a CPU.
    """

    edge_share: float = 0.12
    anisotropy: float = 0.8
    views_at_once: int | None = None
    cull: bool | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.edge_share <= 1 or not 0 <= self.anisotropy <= 1:
            raise InputError("render options", "shares in [0, 1]", f"{self}")
        if self.views_at_once is not None and self.views_at_once < 1:
            raise InputError("views_at_once", "at least 1", f"{self.views_at_once}")

    def culls(self, like: Tensor) -> bool:
        """Whether to cull for tensors such as ``like``."""
        return like.device.type == "cpu" if self.cull is None else self.cull

    def step(self, like: Tensor) -> int:
        """How many of the views, rows of ``like``, to trace together."""
        total = int(like.shape[0])
        return self.views_at_once or (1 if like.device.type == "cpu" else total)


@dataclass(frozen=True, slots=True, eq=False)
class RenderedViews:
    """What V cameras see of S scenes.

    Attributes:
        image: (S, V, 3, H, W) float32 RGB in [0, 1].
        depth: (S, V, H, W) float32 z-depth, metres, at pixel centres; 0: nothing there.
        cameras: the cameras.
    """

    image: Tensor
    depth: Tensor
    cameras: Cameras


@dataclass(frozen=True, slots=True, eq=False)
class _Tables:
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

    def rows(self, start: int, stop: int) -> _Tables:
        return _Tables(
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


def _build_tables(scene: Scene, cameras: Cameras) -> _Tables:
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
    return _Tables(
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


def _meet(tables: _Tables, index: int, pixels: Tensor) -> tuple[Tensor, Tensor]:
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
    tables: _Tables, index: int, pixels: Tensor, nearest: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """Let one primitive take the rays it stops first."""
    enter, leave = _meet(tables, index, pixels)
    closer = (enter < torch.minimum(leave, nearest)) & (enter > _NEAREST)
    return torch.where(closer, enter, nearest), torch.where(closer, index, owner)


def _trace(
    tables: _Tables, pixels: Tensor, shapes: Sequence[int] | None = None
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


def _bounding_boxes(tables: _Tables, size: ImageSize) -> list[list[int]]:
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


def _trace_grid(tables: _Tables, size: ImageSize) -> tuple[Tensor, Tensor]:
    """``_trace`` for all pixels of the image, trying each primitive only where it may be."""
    grid = _grid(size, tables.origin)
    nearest, owner = _trace(tables, grid, ())
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


def _gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, N) of a table (B, R, C), as (B, N, C)."""
    batch = torch.arange(table.shape[0], device=table.device)[:, None] * table.shape[1]
    return table.flatten(0, 1)[(rows + batch).flatten()].reshape(*rows.shape, table.shape[-1])


@dataclass(frozen=True, slots=True, eq=False)
class _Surface:
    """Where rays landed: face row (B, N), face metres (B, N, 2), unit normal and direction."""

    face: Tensor
    metres: Tensor
    normal: Tensor
    direction: Tensor
    light: Tensor


def _land(tables: _Tables, pixels: Tensor, depth: Tensor, owner: Tensor) -> _Surface:
    """Local geometry of the hits."""
    shapes = torch.cat(
        (tables.local_from_pixel.flatten(2), tables.origin, tables.half_size, tables.light), -1
    )
    rows = _gather_rows(shapes, owner)
    matrix, origin, half, light = torch.split(rows, [9, 3, 3, 3], -1)
    homogeneous = pixels.transpose(1, 2)
    direction = (matrix.reshape(*owner.shape, 3, 3) * homogeneous[:, :, None]).sum(-1)
    point = origin + depth[..., None] * direction

    counts = tables.counts
    is_ball = (owner >= counts.boxes) & (owner < counts.boxes + counts.ellipsoids)
    is_tube = (owner >= counts.boxes + counts.ellipsoids) & (owner < counts.total - 1)
    radial = point[..., :2].square().sum(-1).sqrt()
    on_side = is_tube & (radial > point[..., 2].abs())
    zero = torch.zeros_like(radial)
    cap_probe = torch.stack((zero, zero, point[..., 2]), -1)
    probe = torch.where((is_tube & ~on_side)[..., None], cap_probe, point)
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
    flat = torch.where((owner == counts.total - 1)[..., None], -flat, flat)
    flatten_z = point.new_tensor([1.0, 1.0, 0.0])
    curved = torch.where(is_ball[..., None], point, point * flatten_z) / half
    normal = torch.where((is_ball | on_side)[..., None], curved, flat)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    metric_direction = torch.nn.functional.normalize(direction * half, dim=-1)
    return _Surface(owner * FACES + face, metres, normal, metric_direction, light)


def _shade(
    scene: Scene, tables: _Tables, surface: _Surface, depth: Tensor, options: RenderOptions
) -> tuple[Tensor, Tensor]:
    """Colour (B, N, 3) and whether the hit is a backdrop (B, N)."""
    face = _gather_rows(tables.faces, surface.face)
    affine, tint, specular, backdrop = torch.split(face, [6, 3, 1, 1], -1)
    texture = _gather_rows(tables.texture[..., None], surface.face)[..., 0]
    u = (affine[..., 0:2] * surface.metres).sum(-1) + affine[..., 2]
    v = (affine[..., 3:5] * surface.metres).sum(-1) + affine[..., 5]
    per_metre = torch.sqrt(
        (affine[..., 0] * affine[..., 4] - affine[..., 1] * affine[..., 3]).abs()
    )
    cosine = -(surface.normal * surface.direction).sum(-1)
    slant = cosine.abs().clamp(min=0.02)
    footprint = depth / tables.focal[:, None] * per_metre * scene.atlas.size
    lod = torch.log2(footprint.clamp(min=1e-6)) - options.anisotropy * torch.log2(slant)
    colour = sample_atlas(scene.atlas, texture, torch.stack((u, v), -1), lod) * tint

    wrapped = 0.5 + 0.5 * (surface.normal * surface.light).sum(-1)
    ambient = tables.ambient[:, None]
    light = ambient + (1 - ambient) * wrapped
    half_way = torch.nn.functional.normalize(surface.light - surface.direction, dim=-1)
    highlight = (surface.normal * half_way).sum(-1).clamp(min=0) ** _SHININESS
    is_backdrop = backdrop[..., 0] > 0.5
    lit = colour * light[..., None] + specular * highlight[..., None]
    return torch.where(is_backdrop[..., None], colour, lit).clamp(0, 1), is_backdrop


@dataclass(frozen=True, slots=True, eq=False)
class _Seen:
    """What rays (B, N) see: colour (B, N, 3), z-depth (0: backdrop), and a number per surface."""

    colour: Tensor
    depth: Tensor
    label: Tensor


def _add_mesh(
    scene: Scene,
    tables: _Tables,
    pixels: Tensor,
    depth: Tensor,
    seen: _Seen,
    options: RenderOptions,
) -> _Seen:
    """Draw the mesh over what it hides; ``depth`` counts backdrops."""
    if tables.mesh is None:
        return seen
    hits = meet_mesh(tables.mesh, pixels, depth, options.culls(depth))
    ray = pixels.expand(len(depth), -1, -1)[hits.view, :, hits.ray]
    direction = (tables.inverse_k[hits.view] @ ray[..., None])[..., 0]
    direction = torch.nn.functional.normalize(direction, dim=-1)
    slant = -(hits.normal * direction).sum(-1).clamp(max=-0.02)
    footprint = hits.depth / tables.focal[hits.view] * hits.per_metre * scene.atlas.size
    lod = torch.log2(footprint.clamp(min=1e-6)) - options.anisotropy * torch.log2(slant)
    colour = sample_atlas(scene.atlas, hits.texture, hits.uv, lod)
    wrapped = 0.5 + 0.5 * (hits.normal * tables.camera_light[hits.view]).sum(-1)
    ambient = tables.ambient[hits.view]
    lit = (colour * (ambient + (1 - ambient) * wrapped)[:, None]).clamp(0, 1)
    where = (hits.view, hits.ray)
    return _Seen(
        seen.colour.index_put(where, lit),
        seen.depth.index_put(where, hits.depth),
        seen.label.index_put(where, seen.label.new_tensor(tables.counts.total * FACES)),
    )


def _look(
    scene: Scene,
    tables: _Tables,
    pixels: Tensor,
    nearest: tuple[Tensor, Tensor],
    options: RenderOptions,
) -> _Seen:
    """Colour and depth of rays whose nearest primitives are known."""
    depth, owner = nearest
    surface = _land(tables, pixels, depth, owner)
    colour, is_backdrop = _shade(scene, tables, surface, depth, options)
    seen = _Seen(colour, torch.where(is_backdrop, 0.0, depth), surface.face)
    return _add_mesh(scene, tables, pixels, depth, seen, options)


def _grid(size: ImageSize, like: Tensor) -> Tensor:
    """(1, 3, H * W) homogeneous pixel centres."""
    y, x = torch.meshgrid(
        torch.arange(size.height, device=like.device, dtype=like.dtype),
        torch.arange(size.width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((x.flatten(), y.flatten(), torch.ones_like(x).flatten()))[None]


def _edge_pixels(label: Tensor, size: ImageSize, share: float) -> tuple[Tensor, Tensor]:
    """(B, E) indices of pixels on outlines, and which of them are (others fill up the number)."""
    label = label.reshape(-1, size.height, size.width)
    score = torch.zeros_like(label, dtype=torch.float32)
    across = (label[:, :, 1:] != label[:, :, :-1]).float()
    down = (label[:, 1:] != label[:, :-1]).float()
    score[:, :, 1:] += across
    score[:, :, :-1] += across
    score[:, 1:] += down
    score[:, :-1] += down
    count = max(1, int(share * size.height * size.width))
    best = score.flatten(1).topk(count, dim=1, sorted=False)
    return best.indices, best.values > 0


def _smooth_edges(
    scene: Scene, tables: _Tables, seen: _Seen, size: ImageSize, options: RenderOptions
) -> Tensor:
    """Colours (B, N, 3) where those of pixels on outlines are the mean of four rays."""
    chosen, on_outline = _edge_pixels(seen.label, size, options.edge_share)
    shapes: list[int] | None = None
    if options.culls(seen.label):
        visible = torch.unique(torch.div(seen.label, FACES, rounding_mode="floor"))
        shapes = [index for index in visible.tolist() if index < tables.counts.total]
    x, y = (chosen % size.width).float(), (chosen // size.width).float()
    offsets = seen.colour.new_tensor(_SUBPIXELS)
    sub_x = (x[:, None] + offsets[:, 0, None]).flatten(1)
    sub_y = (y[:, None] + offsets[:, 1, None]).flatten(1)
    pixels = torch.stack((sub_x, sub_y, torch.ones_like(sub_x)), 1)
    samples = _look(scene, tables, pixels, _trace(tables, pixels, shapes), options).colour
    mean = samples.reshape(len(chosen), len(_SUBPIXELS), -1, 3).mean(1)
    where = chosen[..., None].expand(-1, -1, 3)
    smooth = torch.where(on_outline[..., None], mean, seen.colour.gather(1, where))
    return seen.colour.scatter(1, where, smooth)


def _render_rows(
    scene: Scene, tables: _Tables, size: ImageSize, options: RenderOptions
) -> tuple[Tensor, Tensor]:
    pixels = _grid(size, tables.origin)
    culls = options.culls(pixels)
    nearest = _trace_grid(tables, size) if culls else _trace(tables, pixels)
    seen = _look(scene, tables, pixels, nearest, options)
    if options.edge_share > 0:
        return _smooth_edges(scene, tables, seen, size, options), seen.depth
    return seen.colour, seen.depth


def render(
    scene: Scene, cameras: Cameras, size: ImageSize, options: RenderOptions | None = None
) -> RenderedViews:
    """Render every camera of every scene.

    Args:
        scene: S scenes.
        cameras: (S, V) cameras, on the same device.
        size: size of the images.
        options: sampling of edges and textures.

    Returns:
        images and z-depth; backdrop and sky have depth 0.

    Raises:
        InputError: as many camera rows as scenes are needed.
    """
    options = options or RenderOptions()
    tables = _build_tables(scene, cameras)
    total = int(tables.origin.shape[0])
    step = options.step(tables.origin)
    parts = [
        _render_rows(scene, tables.rows(start, start + step), size, options)
        for start in range(0, total, step)
    ]
    views = cameras.k.shape[:2]
    shape = (*views, size.height, size.width)
    image = torch.cat([colour for colour, _ in parts]).reshape(*shape, 3)
    depth = torch.cat([part for _, part in parts]).reshape(shape)
    return RenderedViews(image.permute(0, 1, 4, 2, 3).contiguous(), depth, cameras)


def _cast(tables: _Tables, pixels: Tensor) -> Tensor:
    """z-depth (B, N) of pixels (B or 1, 3, N), 0 on backdrops."""
    depth, owner = _trace(tables, pixels)
    face = _land(tables, pixels, depth, owner).face
    backdrop = _gather_rows(tables.faces[..., 10:11], face)[..., 0] > 0.5
    visible = torch.where(backdrop, 0.0, depth)
    if tables.mesh is None:
        return visible
    hits = meet_mesh(tables.mesh, pixels, depth, RenderOptions().culls(depth))
    return visible.index_put((hits.view, hits.ray), hits.depth)


def cast_depth(scene: Scene, cameras: Cameras, size: ImageSize) -> Tensor:
    """Only the z-depth (S, V, H, W), metres, 0 on backdrops; much cheaper than ``render``."""
    tables = _build_tables(scene, cameras)
    depth = _cast(tables, _grid(size, tables.origin))
    return depth.reshape(*cameras.k.shape[:2], size.height, size.width)


def cast_pixels(scene: Scene, cameras: Cameras, pixels: Tensor) -> Tensor:
    """z-depth (S, V, N), metres, 0 on backdrops, at pixels (S, V, N, 2), x then y."""
    tables = _build_tables(scene, cameras)
    homogeneous = torch.cat((pixels, torch.ones_like(pixels[..., :1])), -1).flatten(0, 1).mT
    return _cast(tables, homogeneous.to(tables.origin)).reshape(pixels.shape[:-1])
