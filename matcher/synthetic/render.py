"""The batched renderer: exact depth, mip-mapped textures, diffuse and specular light."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.rays import (
    RayTables,
    build_tables,
    gather_rows,
    pixel_grid,
    trace,
    trace_grid,
)
from matcher.synthetic.scene import FACES, Cameras, Scene
from matcher.synthetic.textures import sample_atlas
from matcher.synthetic.triangles import meet_mesh

__all__ = ["RenderOptions", "RenderedViews", "cast_depth", "cast_pixels", "render"]

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
class _Surface:
    """Where rays landed: face row (B, N), face metres (B, N, 2), unit normal and direction."""

    face: Tensor
    metres: Tensor
    normal: Tensor
    direction: Tensor
    light: Tensor


def _land(tables: RayTables, pixels: Tensor, depth: Tensor, owner: Tensor) -> _Surface:
    """Local geometry of the hits."""
    shapes = torch.cat(
        (tables.local_from_pixel.flatten(2), tables.origin, tables.half_size, tables.light), -1
    )
    rows = gather_rows(shapes, owner)
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
    scene: Scene, tables: RayTables, surface: _Surface, depth: Tensor, options: RenderOptions
) -> tuple[Tensor, Tensor]:
    """Colour (B, N, 3) and whether the hit is a backdrop (B, N)."""
    face = gather_rows(tables.faces, surface.face)
    affine, tint, specular, backdrop = torch.split(face, [6, 3, 1, 1], -1)
    texture = gather_rows(tables.texture[..., None], surface.face)[..., 0]
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
    tables: RayTables,
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
    tables: RayTables,
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
    scene: Scene, tables: RayTables, seen: _Seen, size: ImageSize, options: RenderOptions
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
    samples = _look(scene, tables, pixels, trace(tables, pixels, shapes), options).colour
    mean = samples.reshape(len(chosen), len(_SUBPIXELS), -1, 3).mean(1)
    where = chosen[..., None].expand(-1, -1, 3)
    smooth = torch.where(on_outline[..., None], mean, seen.colour.gather(1, where))
    return seen.colour.scatter(1, where, smooth)


def _render_rows(
    scene: Scene, tables: RayTables, size: ImageSize, options: RenderOptions
) -> tuple[Tensor, Tensor]:
    pixels = pixel_grid(size, tables.origin)
    culls = options.culls(pixels)
    nearest = trace_grid(tables, size) if culls else trace(tables, pixels)
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
    tables = build_tables(scene, cameras)
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


def _cast(tables: RayTables, pixels: Tensor) -> Tensor:
    """z-depth (B, N) of pixels (B or 1, 3, N), 0 on backdrops."""
    depth, owner = trace(tables, pixels)
    face = _land(tables, pixels, depth, owner).face
    backdrop = gather_rows(tables.faces[..., 10:11], face)[..., 0] > 0.5
    visible = torch.where(backdrop, 0.0, depth)
    if tables.mesh is None:
        return visible
    hits = meet_mesh(tables.mesh, pixels, depth, RenderOptions().culls(depth))
    return visible.index_put((hits.view, hits.ray), hits.depth)


def cast_depth(scene: Scene, cameras: Cameras, size: ImageSize) -> Tensor:
    """Only the z-depth (S, V, H, W), metres, 0 on backdrops; much cheaper than ``render``."""
    tables = build_tables(scene, cameras)
    depth = _cast(tables, pixel_grid(size, tables.origin))
    return depth.reshape(*cameras.k.shape[:2], size.height, size.width)


def cast_pixels(scene: Scene, cameras: Cameras, pixels: Tensor) -> Tensor:
    """z-depth (S, V, N), metres, 0 on backdrops, at pixels (S, V, N, 2), x then y."""
    tables = build_tables(scene, cameras)
    homogeneous = torch.cat((pixels, torch.ones_like(pixels[..., :1])), -1).flatten(0, 1).mT
    return _cast(tables, homogeneous.to(tables.origin)).reshape(pixels.shape[:-1])
