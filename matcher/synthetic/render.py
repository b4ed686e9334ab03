"""The batched renderer: exact depth, mip-mapped textures, light, shadows and reflections."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.rays import Rays, pixel_grid, trace, trace_grid
from matcher.synthetic.scene import FACES, Cameras, Scene
from matcher.synthetic.shading import develop, shade, to_the_light
from matcher.synthetic.surfaces import PARTS, Surface, add_mesh, land
from matcher.synthetic.tables import RayTables, build_tables
from matcher.synthetic.weather import Weather

__all__ = ["RenderOptions", "RenderedViews", "cast_depth", "cast_pixels", "render"]

# Rotated-grid positions of the four extra rays of an edge pixel.
_SUBPIXELS = ((-0.125, -0.375), (0.375, -0.125), (0.125, 0.375), (-0.375, 0.125))
_CLEAR = 2e-3  # share of its depth by which a ray off a surface starts above it
_FAINT = 0.02  # reflections below are left out
_SHADOW_STEP = 2


@dataclass(frozen=True, slots=True)
class RenderOptions:
    """How to render.

    Attributes:
        edge_share: share of the pixels, those on outlines, whose colour is the mean of 4 rays;
            0 turns it off. Depth is always that of the pixel centre.
        anisotropy: 0 chooses mip levels for the small side of a footprint (aliases on slanted
            surfaces), 1 for its long side (blurs them).
        shadows: whether the main light of a weather casts them.
        mirror_share: share of the pixels, the most reflecting, that show what they reflect.
        views_at_once: how many views are traced together; None: one on a CPU, where small
            tensors stay in its cache, all elsewhere.
        compiled: whether the ray-caster is compiled by ``torch.compile`` where it does not cull;
            the first call for each shape takes a minute.
        cull: skip primitives where they cannot be seen; this reads positions back from the
            device, so None means only on a CPU.
    """

    edge_share: float = 0.12
    anisotropy: float = 0.8
    shadows: bool = True
    mirror_share: float = 0.08
    compiled: bool = False
    views_at_once: int | None = None
    cull: bool | None = None

    def __post_init__(self) -> None:
        shares = (self.edge_share, self.anisotropy, self.mirror_share)
        if min(shares) < 0 or max(shares) > 1:
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
        depth: (S, V, H, W) float32 z-depth, metres, at pixel centres; 0: nothing that stays there
            (sky, passers-by).
        passing: (S, V, H, W) bool, what is in this view and may be gone in another.
        cameras: the cameras.
    """

    image: Tensor
    depth: Tensor
    passing: Tensor
    cameras: Cameras


def _see(
    scene: Scene,
    tables: RayTables,
    rays: Rays,
    nearest: tuple[Tensor, Tensor],
    options: RenderOptions,
) -> Surface:
    """What primary rays see, the mesh included."""
    surface = land(scene, tables, rays, *nearest, anisotropy=options.anisotropy)
    tiles = options.culls(surface.travel)
    return add_mesh(scene, tables, rays, surface, anisotropy=options.anisotropy, tiles=tiles)


def _taken(surface: Surface, chosen: Tensor) -> Surface:
    """The surface of some rays (B, M) only."""
    parts: dict[str, Tensor] = {}
    for name in Surface.__dataclass_fields__:
        value = getattr(surface, name)
        index = chosen if value.ndim == 2 else chosen[..., None].expand(-1, -1, value.shape[-1])
        parts[name] = value.gather(1, index)
    return Surface(**parts)


def _rays_from(tables: RayTables, surface: Surface, direction: Tensor) -> Rays:
    """Rays from just above surfaces along directions (B, N, 3) of the camera's frame."""
    lift = _CLEAR * surface.travel
    start = surface.point + lift[..., None] * surface.normal
    return Rays(tables.k @ direction.mT, tables.k @ start.mT)


def _shadow(tables: RayTables, surface: Surface, size: ImageSize, options: RenderOptions) -> Tensor:
    """(B, N) share of the main light that arrives, from a ray for every 2 x 2 pixels."""
    light = tables.light
    assert light is not None, "only a weather's light casts shadows"
    device = surface.travel.device
    rows = torch.arange(0, size.height, _SHADOW_STEP, device=device)
    columns = torch.arange(0, size.width, _SHADOW_STEP, device=device)
    chosen = (rows[:, None] * size.width + columns).flatten().expand(len(surface.travel), -1)
    coarse = _taken(surface, chosen)
    toward, distance = to_the_light(light, coarse)
    rays = _rays_from(tables, coarse, toward)
    shapes = None
    if options.culls(coarse.travel):
        facing = (coarse.normal * toward).sum(-1) > 0
        if not bool((facing & ~coarse.backdrop).any()):
            return torch.ones_like(surface.travel)
        shapes = _may_block(tables)
    travel, owner = trace(tables, rays, shapes, together=shapes is None, compiled=options.compiled)
    room = tables.counts.total - 1
    arrives = ((owner == room) | (travel > distance)).to(travel.dtype)
    grid = (len(travel), len(rows), len(columns))
    label = coarse.label.view(grid)
    return _spread(_softened(arrives.view(grid), label), label, surface, size)


def _softened(arrives: Tensor, label: Tensor) -> Tensor:
    """Means over 3 x 3 neighbours on the same face (B, h, w): thin shadows do not break up."""
    total, weights = arrives, torch.ones_like(arrives)
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
        for sign in (1, -1):
            shift = (sign * down, sign * right)
            same = (label.roll(shift, (1, 2)) == label).to(arrives.dtype)
            total = total + same * arrives.roll(shift, (1, 2))
            weights = weights + same
    return total / weights


def _may_block(tables: RayTables) -> list[int]:
    """Primitives that are there in any of the views."""
    there = (tables.origin.abs().amax(-1) < 1e5).any(0) & (tables.half_size[..., 0] > 0.011).any(0)
    return [index for index in there.nonzero()[:, 0].tolist() if index < tables.counts.total - 1]


def _spread(arrives: Tensor, label: Tensor, surface: Surface, size: ImageSize) -> Tensor:
    """Values of a coarse grid (B, h, w) for all pixels, from neighbours on the same face."""
    y, x = torch.meshgrid(
        torch.arange(size.height, device=label.device),
        torch.arange(size.width, device=label.device),
        indexing="ij",
    )
    total = torch.zeros_like(surface.travel)
    weights = torch.full_like(surface.travel, 1e-6)
    height, width = label.shape[1:]
    for down in (0, 1):
        for right in (0, 1):
            row = (y // _SHADOW_STEP + down).clamp(max=height - 1)
            column = (x // _SHADOW_STEP + right).clamp(max=width - 1)
            index = (row * width + column).flatten()
            gap = (y % _SHADOW_STEP - down * _SHADOW_STEP).abs().flatten() / _SHADOW_STEP
            side = (x % _SHADOW_STEP - right * _SHADOW_STEP).abs().flatten() / _SHADOW_STEP
            weight = ((1 - gap) * (1 - side) + 1e-3) * (label.flatten(1)[:, index] == surface.label)
            total = total + weight * arrives.flatten(1)[:, index]
            weights = weights + weight
    alone = weights < 1e-4  # nobody on the same face: in the light as half of them are
    return torch.where(alone, 0.7, total / weights)


def _reflect(
    scene: Scene, tables: RayTables, surface: Surface, colour: Tensor, options: RenderOptions
) -> Tensor:
    """Mix what the most reflecting pixels reflect into their colour (B, N, 3)."""
    cosine = -(surface.normal * surface.direction).sum(-1)
    gloss = surface.mirror
    fresnel = gloss + (1 - gloss) * (1 - cosine.clamp(0, 1)) ** 5
    strength = torch.where(gloss > 0, fresnel, 0.0)
    culls = options.culls(colour)
    count = int(options.mirror_share * strength.shape[1])
    if culls:
        count = min(count, int((strength > _FAINT).sum(1).max()))
    if count < 1:
        return colour
    best = strength.topk(count, dim=1, sorted=False)
    chosen = _taken(surface, best.indices)
    along = (chosen.normal * chosen.direction).sum(-1, keepdim=True)
    rays = _rays_from(tables, chosen, chosen.direction - 2 * along * chosen.normal)
    travel, owner = trace(tables, rays, together=not culls, compiled=options.compiled)
    other = land(
        scene,
        tables,
        rays,
        travel,
        owner,
        anisotropy=options.anisotropy,
        come_from=chosen.travel,
    )
    seen = shade(scene, tables, other)
    where = best.indices[..., None].expand(-1, -1, 3)
    share = torch.where(best.values > _FAINT, best.values, 0.0)[..., None]
    return colour.scatter(1, where, (1 - share) * colour.gather(1, where) + share * seen)


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
    scene: Scene,
    tables: RayTables,
    surface: Surface,
    colour: Tensor,
    shadow: Tensor | None,
    size: ImageSize,
    options: RenderOptions,
) -> Tensor:
    """Colours (B, N, 3) where those of pixels on outlines are the mean of four rays."""
    chosen, on_outline = _edge_pixels(surface.label, size, options.edge_share)
    shapes: list[int] | None = None
    culls = options.culls(surface.label)
    if culls:
        visible = torch.unique(torch.div(surface.label, FACES * PARTS, rounding_mode="floor"))
        shapes = [index for index in visible.tolist() if index < tables.counts.total]
    x, y = (chosen % size.width).float(), (chosen // size.width).float()
    offsets = colour.new_tensor(_SUBPIXELS)
    sub_x = (x[:, None] + offsets[:, 0, None]).flatten(1)
    sub_y = (y[:, None] + offsets[:, 1, None]).flatten(1)
    rays = Rays(torch.stack((sub_x, sub_y, torch.ones_like(sub_x)), 1))
    nearest = trace(tables, rays, shapes, together=not culls, compiled=options.compiled)
    seen = _see(scene, tables, rays, nearest, options)
    near = None if shadow is None else shadow.gather(1, chosen).repeat(1, len(_SUBPIXELS))
    samples = shade(scene, tables, seen, near)
    mean = samples.reshape(len(chosen), len(_SUBPIXELS), -1, 3).mean(1)
    where = chosen[..., None].expand(-1, -1, 3)
    smooth = torch.where(on_outline[..., None], mean, colour.gather(1, where))
    return colour.scatter(1, where, smooth)


def _render_rows(
    scene: Scene, tables: RayTables, size: ImageSize, options: RenderOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Colour (B, N, 3), depth (B, N) and who passes by (B, N)."""
    rays = Rays(pixel_grid(size, tables.origin))
    culls = options.culls(rays.direction)
    if culls:
        nearest = trace_grid(tables, size)
    else:
        nearest = trace(tables, rays, together=True, compiled=options.compiled)
    surface = _see(scene, tables, rays, nearest, options)
    shadow = None
    if tables.light is not None and options.shadows:
        shadow = _shadow(tables, surface, size, options)
    colour = shade(scene, tables, surface, shadow)
    if options.edge_share > 0:
        colour = _smooth_edges(scene, tables, surface, colour, shadow, size, options)
    if tables.light is not None:
        if scene.finish is not None and options.mirror_share > 0:
            colour = _reflect(scene, tables, surface, colour, options)
        colour = develop(tables.light, colour)
    return colour, surface.depth, surface.passing


def render(
    scene: Scene,
    cameras: Cameras,
    size: ImageSize,
    options: RenderOptions | None = None,
    weather: Weather | None = None,
) -> RenderedViews:
    """Render every camera of every scene.

    Args:
        scene: S scenes.
        cameras: (S, V) cameras, on the same device.
        size: size of the images.
        options: sampling of edges and textures, shadows, reflections.
        weather: the light of every view; None: the scenes' own, the same in all views, and nobody
            passes by.

    Returns:
        images and z-depth; backdrop, sky and passers-by have depth 0.

    Raises:
        InputError: as many camera rows as scenes are needed.
    """
    options = options or RenderOptions()
    tables = build_tables(scene, cameras, weather)
    total = int(tables.origin.shape[0])
    step = options.step(tables.origin)
    parts = [
        _render_rows(scene, tables.rows(start, start + step), size, options)
        for start in range(0, total, step)
    ]
    shape = (*cameras.k.shape[:2], size.height, size.width)
    image, depth, passing = (torch.cat(part) for part in zip(*parts, strict=True))
    return RenderedViews(
        image.reshape(*shape, 3).permute(0, 1, 4, 2, 3).contiguous(),
        depth.reshape(shape),
        passing.reshape(shape),
        cameras,
    )


def _cast(scene: Scene, tables: RayTables, rays: Rays) -> Tensor:
    """z-depth (B, N), 0 on backdrops."""
    nearest = trace(tables, rays, together=rays.direction.device.type != "cpu")
    return _see(scene, tables, rays, nearest, RenderOptions()).depth


def cast_depth(scene: Scene, cameras: Cameras, size: ImageSize) -> Tensor:
    """Only the z-depth (S, V, H, W), metres, 0 on backdrops; much cheaper than ``render``."""
    tables = build_tables(scene, cameras)
    depth = _cast(scene, tables, Rays(pixel_grid(size, tables.origin)))
    return depth.reshape(*cameras.k.shape[:2], size.height, size.width)


def cast_pixels(scene: Scene, cameras: Cameras, pixels: Tensor) -> Tensor:
    """z-depth (S, V, N), metres, 0 on backdrops, at pixels (S, V, N, 2), x then y."""
    tables = build_tables(scene, cameras)
    homogeneous = torch.cat((pixels, torch.ones_like(pixels[..., :1])), -1).flatten(0, 1).mT
    rays = Rays(homogeneous.to(tables.origin))
    return _cast(scene, tables, rays).reshape(pixels.shape[:-1])
