"""Light on surfaces: sun, lamps, sky, haze, highlights. Geometry is only read here.

Without weather a scene has one light and colours as stored. With it everything is linear light
until the exposure is chosen, view by view.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matcher.synthetic.rays import unit, worth_it
from matcher.synthetic.scene import Scene
from matcher.synthetic.surfaces import Surface
from matcher.synthetic.tables import LightTables, RayTables
from matcher.synthetic.textures import sample_atlas

__all__ = ["develop", "shade", "to_the_light"]

_SHININESS, _GLOSS = 24.0, 90.0
_SKY_GAIN = 1.1
_WHITE = 3.0  # scene brightness, relative to middle grey's, that becomes white
_SUN_SIZE = 600.0  # exponent of the glare around the sun


def _plain_light(tables: RayTables, surface: Surface, colour: Tensor) -> Tensor:
    """Colours as stored under the scene's own light."""
    toward = tables.camera_light[:, None]
    wrapped = 0.5 + 0.5 * (surface.normal * toward).sum(-1)
    ambient = tables.ambient[:, None]
    light = ambient + (1 - ambient) * wrapped
    half_way = unit(toward - surface.direction)
    highlight = (surface.normal * half_way).sum(-1).clamp(min=0) ** _SHININESS
    lit = colour * light[..., None] + (surface.specular * highlight)[..., None]
    return torch.where(surface.backdrop[..., None], colour, lit).clamp(0, 1)


def to_the_light(light: LightTables, surface: Surface) -> tuple[Tensor, Tensor]:
    """Unit direction (B, N, 3) from surfaces to the main light, and its distance (B, N)."""
    way = light.key[:, None] - surface.point
    distance = way.square().sum(-1).sqrt()
    return way / distance.clamp(min=1e-6)[..., None], distance


def sky(light: LightTables, direction: Tensor) -> Tensor:
    """Linear colour (B, N, 3) of the sky along unit directions (B, N, 3) of the camera's frame."""
    weather = light.weather
    world = direction @ light.world_from_cam.mT
    height = world[..., 2].clamp(min=0)
    blend = height.sqrt()[..., None]
    colour = weather.horizon[:, None] * (1 - blend) + weather.zenith[:, None] * blend
    # Clouds on a plane overhead: waves that bend each other, in four sizes.
    plane = world[..., :2] / (height + 0.18)[..., None]
    x, y = (plane + weather.cloud_shift[:, None]).unbind(-1)
    value, size = torch.zeros_like(x), 1.0
    for _ in range(4):
        warp = torch.sin(0.7 * y + 1.3 * value)
        value = value + size * torch.sin(x + 1.7 * warp) * torch.cos(y + 0.9 * x.sin())
        x, y, size = 1.9 * x + 1.1 * y + 2.1, 1.9 * y - 1.1 * x + 4.7, 0.55 * size
    cover = weather.clouds[:, None]
    density = (0.9 * value + 2.6 * cover - 1.5).clamp(0, 1) * (height * 12).clamp(0, 1)
    lit = 0.55 * weather.horizon + 0.4 * weather.horizon.mean(-1, keepdim=True)
    white = lit[:, None] * (1.15 - 0.35 * value.abs().clamp(max=1)[..., None])
    colour = colour + (density * (0.35 + 0.65 * cover))[..., None] * (white - colour)
    sun = unit(light.key)
    near = (direction * sun[:, None]).sum(-1).clamp(min=0) ** _SUN_SIZE
    return colour + (near * (1 - cover))[..., None] * weather.key_colour[:, None]


def _irradiance(light: LightTables, surface: Surface, lit: Tensor) -> tuple[Tensor, Tensor]:
    """Linear light (B, N, 3) that arrives, and the highlight (B, N, 3) of the main light."""
    weather = light.weather
    toward, distance = to_the_light(light, surface)
    square = weather.key_reach.square()[:, None]
    falloff = 1.3 * square / (distance.square() + 0.3 * square)
    key = weather.key_colour[:, None] * (falloff * lit)[..., None]
    facing = (surface.normal * toward).sum(-1).clamp(min=0)
    up = (surface.normal * light.up[:, None]).sum(-1)
    total = key * facing[..., None] + weather.ambient[:, None] * (0.7 + 0.3 * up)[..., None]
    half_way = unit(toward - surface.direction)
    highlight = (surface.normal * half_way).sum(-1).clamp(min=0) ** _GLOSS
    shine = key * (highlight * (facing > 0))[..., None]
    if light.lamps is not None and worth_it(weather.lamps > 0):
        reach = weather.lamp_reach.square()[:, None]
        for lamp in range(light.lamps.shape[1]):
            way = light.lamps[:, None, lamp] - surface.point
            far = way.square().sum(-1)
            cosine = (surface.normal * way).sum(-1) * torch.rsqrt(far.clamp(min=1e-6))
            strength = (0.25 + 0.75 * cosine.clamp(min=0)) * reach / (far + 0.25 * reach)
            total = total + weather.lamps[:, None] * strength[..., None]
    return total, shine


def shade(
    scene: Scene, tables: RayTables, surface: Surface, shadow: Tensor | None = None
) -> Tensor:
    """Colour (B, N, 3): linear light with weather, as stored in [0, 1] without.

    ``shadow`` (B, N) is the share of the main light that arrives; None: all of it.
    """
    colour = sample_atlas(scene.atlas, surface.texture, surface.uv, surface.lod) * surface.tint
    light = tables.light
    if light is None:
        return _plain_light(tables, surface, colour)
    weather = light.weather
    albedo = colour.square()
    arrives = torch.ones_like(surface.travel) if shadow is None else shadow
    irradiance, shine = _irradiance(light, surface, arrives)
    glow = surface.emission * weather.glow[:, None]
    lit = albedo * (irradiance + 3 * glow[..., None]) + 4 * surface.specular[..., None] * shine
    if not tables.has_sky:
        return lit
    if worth_it(weather.haze > 0):
        distance = surface.point.square().sum(-1).sqrt()
        lost = (1 - torch.exp(-weather.haze[:, None] * distance))[..., None]
        lit = lit + lost * (weather.horizon[:, None] - lit)
    if not worth_it(surface.backdrop):
        return lit
    above = sky(light, surface.direction)
    photo = weather.photo_sky[:, None, None]
    behind = _SKY_GAIN * albedo * weather.horizon.mean(-1)[:, None, None]
    above = above + photo * (behind - above)
    return torch.where(surface.backdrop[..., None], above, lit)


def develop(light: LightTables, linear: Tensor) -> Tensor:
    """Photographs (B, N, 3) in [0, 1] of linear light: exposed for their mean, then toned."""
    wanted = light.weather.brightness.square()[:, None, None]
    mean = linear.mean((1, 2), keepdim=True).clamp(min=1e-5)
    # Highlights that would burn out must not darken everything else.
    mean = linear.clamp(max=4 * mean).mean((1, 2), keepdim=True).clamp(min=1e-5)
    exposed = linear * (wanted / mean)
    toned = exposed * (1 + exposed / _WHITE**2) / (1 + 0.6 * exposed)
    return toned.clamp(0, 1).sqrt()
