"""The light a place is photographed in, view by view: sun, sky, lamps, haze, who passes by.

Colours are linear light, not what a file stores. Light never moves a surface: depth and
correspondences do not depend on anything here but ``shown``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.finish import PASSERS_BY
from matcher.synthetic.scene import Scene

__all__ = ["Weather", "WeatherOptions", "sample_weather"]

_SUN_DISTANCE = 1e4  # metres; far enough for parallel light in any scene here
_ROOM_REACH = 2.2  # metres, where a room's light has its nominal brightness
_NIGHT = (0.03, 0.05, 0.11)


@dataclass(frozen=True, slots=True)
class WeatherOptions:
    """How much the light differs.

    Attributes:
        night: share of the views at night.
        changes: share of the scenes whose views are of different times and skies; the views of
            the others share one.
        passes_by: chance that a passer-by is there in a view.
        haze: most share of light lost to haze over 100 m of open air.
    """

    night: float = 0.25
    changes: float = 0.6
    passes_by: float = 0.3
    haze: float = 0.4

    def __post_init__(self) -> None:
        shares = (self.night, self.changes, self.passes_by, self.haze)
        if min(shares) < 0 or max(shares) > 1:
            raise InputError("weather options", "shares in [0, 1]", f"{self}")


@dataclass(frozen=True, slots=True, eq=False)
class Weather:
    """Light of V views of each of S scenes; colours (S, V, 3).

    Attributes:
        key_position: (S, V, 3) the light that casts shadows, world frame, metres.
        key_reach: (S, V) distance at which it has its colour's brightness, metres.
        key_colour, ambient: what it and the surroundings give.
        horizon, zenith: the sky.
        clouds: (S, V) in [0, 1]; cloud_shift: (S, V, 2) moves them.
        photo_sky: (S, V) 1 where the backdrop's texture is the sky, 0 where it is made here.
        lamps: colour of the scene's lamps, 0 when off; lamp_reach: (S, V) metres.
        glow: (S, V) brightness of surfaces that shine by themselves.
        haze: (S, V) share lost a metre.
        brightness: (S, V) mean brightness of the photograph, as stored, in [0, 1].
        shown: (S, V, 1 + passers-by) bool; the first column is what stays.
    """

    key_position: Tensor
    key_reach: Tensor
    key_colour: Tensor
    ambient: Tensor
    horizon: Tensor
    zenith: Tensor
    clouds: Tensor
    cloud_shift: Tensor
    photo_sky: Tensor
    lamps: Tensor
    lamp_reach: Tensor
    glow: Tensor
    haze: Tensor
    brightness: Tensor
    shown: Tensor

    def to(self, device: torch.device | str) -> Weather:
        """The same on another device."""
        return Weather(*(getattr(self, field.name).to(device) for field in fields(self)))

    def flattened(self) -> Weather:
        """Scenes and views in one dimension, (S * V, ...), as the ray tables have them."""
        return Weather(*(getattr(self, field.name).flatten(0, 1) for field in fields(self)))

    def rows(self, start: int, stop: int) -> Weather:
        """Some rows of the first dimension."""
        return Weather(*(getattr(self, field.name)[start:stop] for field in fields(self)))


class _Draw:
    """Draws (S, V, ...) that are the same for all views of scenes that do not change."""

    def __init__(self, generator: torch.Generator, scenes: int, views: int, changes: float) -> None:
        self.generator, self.shape = generator, (scenes, views)
        self.change = torch.rand(scenes, 1, generator=generator) < changes

    def uniform(self, low: float, high: float, *extra: int, always: bool = False) -> Tensor:
        """``always``: differs between the views of every scene."""
        draw = torch.rand(*self.shape, *extra, generator=self.generator)
        if not always:
            change = self.change.reshape(-1, 1, *([1] * len(extra)))
            draw = torch.where(change, draw, draw[:, :1])
        return low + (high - low) * draw

    def colour(self, warm: Tensor, spread: float = 0.06) -> Tensor:
        """(S, V, 3) around 1: red for ``warm`` 1, blue for -1."""
        tone = torch.stack((1 + 0.35 * warm, 1 + 0.03 * warm, 1 - 0.4 * warm), -1)
        return tone * (1 + self.uniform(-spread, spread, 3))


def _key_light(draw: _Draw, scene: Scene, open_air: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Position, reach and height in [0, 1] of the main light."""
    azimuth = draw.uniform(-math.pi, math.pi).double()
    azimuth = azimuth + draw.uniform(-0.05, 0.05, always=True)
    height = draw.uniform(0.12, 1.35).double()
    sun = torch.stack(
        (azimuth.cos() * height.cos(), azimuth.sin() * height.cos(), height.sin()), -1
    )
    center, half = scene.center[:, None, -1].cpu(), scene.half_size[:, None, -1].cpu()
    place = torch.cat((draw.uniform(-0.8, 0.8, 2), draw.uniform(0.1, 0.85, 1)), -1).double()
    position = torch.where(open_air[..., None], _SUN_DISTANCE * sun, center + place * half)
    reach = torch.where(open_air, _SUN_DISTANCE, _ROOM_REACH)
    return position, reach, height.sin().float()


def sample_weather(
    generator: torch.Generator, scene: Scene, views: int, options: WeatherOptions | None = None
) -> Weather:
    """Light for ``views`` photographs of each scene.

    Args:
        generator: source of all randomness, on the CPU.
        scene: S scenes.
        views: V.
        options: shares of night, of change, of passers-by.

    Returns:
        (S, V) on the scene's device.
    """
    options = options or WeatherOptions()
    if views < 1:
        raise InputError("views", "at least 1", f"{views}")
    draw = _Draw(generator, len(scene), views, options.changes)
    if scene.finish is None:
        open_air = scene.is_backdrop[:, -1].any(-1).cpu()
    else:
        open_air = scene.finish.open_air.cpu()
    open_air = open_air[:, None].expand(-1, views)
    position, reach, height = _key_light(draw, scene, open_air)
    night = draw.uniform(0, 1) < options.night
    overcast = (draw.uniform(0, 1) < 0.35) & ~night
    clouds = torch.where(overcast, draw.uniform(0.7, 1.0), draw.uniform(0.0, 0.75))

    strength = draw.uniform(1.2, 3.0) * torch.where(overcast, 0.08, 1.0)
    strength = torch.where(night, torch.where(open_air, 0.03, 0.5), strength)
    warm = torch.where(open_air, 0.9 - 1.6 * height, draw.uniform(-0.3, 0.9)).clamp(-0.2, 0.9)
    warm = torch.where(night & open_air, torch.full_like(warm, -0.5), warm)
    key_colour = strength[..., None] * draw.colour(warm)
    sky = draw.colour(torch.where(overcast, 0.05, draw.uniform(-0.9, -0.2)))
    indoors = draw.colour(draw.uniform(-0.2, 0.6))
    ambient = torch.where(open_air[..., None], sky, indoors) * draw.uniform(0.35, 0.9)[..., None]
    dark = ambient.new_tensor(_NIGHT) * draw.uniform(0.4, 2.0)[..., None]
    dark = torch.where(open_air[..., None], dark, 0.12 * indoors)
    ambient = torch.where(night[..., None], dark, ambient)

    dusk = (1 - 2.5 * height).clamp(0, 1)[..., None]
    zenith = sky * ambient.new_tensor((0.28, 0.5, 1.0)) * draw.uniform(0.6, 1.3)[..., None]
    horizon = (0.55 * zenith + 0.75) * draw.uniform(0.7, 1.2)[..., None]
    horizon = horizon * (1 - dusk) + dusk * ambient.new_tensor((1.5, 0.8, 0.45))
    grey = horizon.mean(-1, keepdim=True) * draw.colour(draw.uniform(-0.2, 0.1))
    zenith = torch.where(overcast[..., None], 0.85 * grey, zenith)
    horizon = torch.where(overcast[..., None], grey, horizon)
    black = ambient.new_tensor(_NIGHT)
    zenith, horizon = (
        torch.where(night[..., None], 0.25 * black, zenith),
        torch.where(night[..., None], black * draw.uniform(0.3, 1.5)[..., None], horizon),
    )
    lamps_on = night | (draw.uniform(0, 1) < torch.where(open_air, 0.05, 0.4))
    lamps = draw.colour(draw.uniform(0.0, 1.0)) * (lamps_on * draw.uniform(0.7, 2.0))[..., None]
    haze = options.haze * draw.uniform(0, 1) ** 3 / 100
    bright = torch.where(night, draw.uniform(0.14, 0.4), draw.uniform(0.4, 0.64))
    shown = draw.uniform(0, 1, 1 + PASSERS_BY, always=True) < options.passes_by
    shown[..., 0] = True
    return Weather(
        key_position=position,
        key_reach=reach,
        key_colour=key_colour,
        ambient=ambient,
        horizon=horizon,
        zenith=zenith,
        clouds=clouds,
        cloud_shift=draw.uniform(0, 100, 2),
        photo_sky=(draw.uniform(0, 1) < torch.where(night, 0.0, 0.15)).float(),
        lamps=lamps,
        lamp_reach=torch.where(open_air, 5.0, 1.3),
        glow=torch.where(lamps_on, draw.uniform(0.5, 1.5), torch.where(open_air, 0.05, 0.6)),
        haze=torch.where(open_air, haze, torch.zeros_like(haze)),
        brightness=bright,
        shown=shown,
    ).to(scene.center.device)
