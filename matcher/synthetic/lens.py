"""What a lens and a sensor do to rendered views: focus, shake, vignetting, flicker, glare, noise.

Nothing here moves a surface. Depth of field needs the rendered depth and so belongs to the scenes;
``matcher.training.augment`` has the rest for photographs from files.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.render import RenderedViews

__all__ = ["LensOptions", "photograph"]

_BLURS = (1.1, 2.6)  # standard deviations, pixels at 256, between which focus is blended
_SHAKE_TAPS = 9


@dataclass(frozen=True, slots=True)
class LensOptions:
    """How many of the views show each effect.

    Attributes:
        focus: depth of field.
        shake: motion blur along a line.
        vignetting: darker corners.
        flicker: brightness that changes from row to row.
        glare: a spot of stray light.
        noise: of the sensor; more of it in dark views.
    """

    focus: float = 0.2
    shake: float = 0.12
    vignetting: float = 0.5
    flicker: float = 0.12
    glare: float = 0.08
    noise: float = 0.5

    def __post_init__(self) -> None:
        shares = (self.focus, self.shake, self.vignetting, self.flicker, self.glare, self.noise)
        if min(shares) < 0 or max(shares) > 1:
            raise InputError("lens options", "shares in [0, 1]", f"{self}")


class _Draw:
    """Draws (B,) for B views, on the CPU."""

    def __init__(self, generator: torch.Generator, num: int) -> None:
        self.generator, self.num = generator, num

    def uniform(self, low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(self.num, generator=self.generator)

    def sometimes(self, share: float, low: float, high: float) -> Tensor:
        """A strength between ``low`` and ``high`` in a share of the views, 0 in the others."""
        return torch.where(self.uniform(0, 1) < share, self.uniform(low, high), 0.0)


def _gaussian(image: Tensor, sigma: float) -> Tensor:
    reach = math.ceil(2.5 * sigma)
    place = torch.arange(-reach, reach + 1, device=image.device, dtype=image.dtype)
    weights = torch.exp(-0.5 * (place / sigma) ** 2)
    weights = weights / weights.sum()
    rows = image.reshape(-1, 1, *image.shape[-2:])
    rows = functional.conv2d(
        functional.pad(rows, (reach, reach, 0, 0), mode="replicate"), weights[None, None, None]
    )
    rows = functional.conv2d(
        functional.pad(rows, (0, 0, reach, reach), mode="replicate"), weights[None, None, :, None]
    )
    return rows.reshape(image.shape)


def _focus(draw: _Draw, image: Tensor, depth: Tensor, share: float) -> Tensor:
    """Blend with blurred copies by how far the inverse depth is from that in focus."""
    strength, place = draw.sometimes(share, 0.4, 2.2), draw.uniform(0.05, 0.95)
    which = strength.nonzero()[:, 0]
    if not len(which):
        return image
    strength, place = strength[which].to(image.device), place[which].to(image.device)
    which = which.to(image.device)
    sharp, depth = image[which], depth[which]
    inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-3), 0.0)
    middle = inverse.flatten(1).median(1).values.clamp(min=1e-3)
    low, high = inverse.flatten(1).amin(1), inverse.flatten(1).amax(1).clamp(max=1e2)
    focus = low + (torch.minimum(high, 3 * middle) - low) * place
    circle = ((inverse - focus[:, None, None]) / middle[:, None, None]).abs()
    circle = (strength[:, None, None] * (circle - 0.15).clamp(min=0))[:, None]
    scale = image.shape[-1] / 256
    near, far = _BLURS
    soft, softer = _gaussian(sharp, near * scale), _gaussian(sharp, far * scale)
    first, second = (circle / near).clamp(0, 1), ((circle - near) / (far - near)).clamp(0, 1)
    blurred = sharp + first * (soft - sharp) + second * (softer - soft)
    return image.index_copy(0, which, blurred)


def _shake(draw: _Draw, image: Tensor, share: float) -> Tensor:
    """Blur along a line, another one in each view that has it."""
    length = draw.sometimes(share, 1.5, 6.0) * image.shape[-1] / 256
    angle = draw.uniform(0, math.pi)
    which = length.nonzero()[:, 0]
    if not len(which):
        return image
    length, angle = length[which], angle[which]
    reach = max(1, math.ceil(float(length.max()) / 2))
    place = torch.arange(-reach, reach + 1, dtype=image.dtype)
    y, x = torch.meshgrid(place, place, indexing="ij")
    kernel = torch.zeros(len(which), *x.shape)
    for tap in torch.linspace(-0.5, 0.5, _SHAKE_TAPS).tolist():
        at_x, at_y = tap * length * angle.cos(), tap * length * angle.sin()
        weight_x = (1 - (x - at_x[:, None, None]).abs()).clamp(min=0)
        kernel = kernel + weight_x * (1 - (y - at_y[:, None, None]).abs()).clamp(min=0)
    kernel = (kernel / kernel.sum((1, 2), keepdim=True)).to(image.device)
    which = which.to(image.device)
    padded = functional.pad(image[which], (reach,) * 4, mode="replicate")
    views, colours, height, width = padded.shape
    blurred = functional.conv2d(
        padded.reshape(1, views * colours, height, width),
        kernel[:, None].repeat_interleave(colours, 0),
        groups=views * colours,
    )
    return image.index_copy(0, which, blurred.reshape(views, colours, *image.shape[-2:]))


def _light(draw: _Draw, image: Tensor, options: LensOptions) -> Tensor:
    """Vignetting, flicker and glare: smooth factors and a smooth addition."""
    height, width = image.shape[-2:]
    y = torch.linspace(-1, 1, height, device=image.device)[:, None]
    x = torch.linspace(-1, 1, width, device=image.device)[None]

    def wide(value: Tensor) -> Tensor:
        return value[:, None, None].to(image.device)

    dark = wide(draw.sometimes(options.vignetting, 0.05, 0.45))
    factor = 1 - dark * 0.5 * (x * x + y * y)
    bands, slope = draw.uniform(0.5, 5), draw.uniform(-1, 1)
    uneven = wide(draw.sometimes(options.flicker, 0.05, 0.3))
    wave = 0.6 * torch.sin(wide(bands) * math.pi * y + wide(6 * slope)) + 0.4 * wide(slope) * y
    factor = factor * (1 + uneven * wave)
    bright = wide(draw.sometimes(options.glare, 0.1, 0.5))
    far = (x - wide(draw.uniform(-1, 1))) ** 2 + (y - wide(draw.uniform(-1, 1))) ** 2
    glare = bright * (0.7 * torch.exp(-6 * far) + 0.3)
    return image * factor[:, None] + (glare[:, None] * (1 - image)).clamp(min=0)


def _noise(generator: torch.Generator, draw: _Draw, image: Tensor, share: float) -> Tensor:
    grain = draw.sometimes(share, 0.004, 0.03)
    own = torch.Generator(image.device)
    own.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
    mean = image.mean((1, 2, 3))
    # A dark view was amplified: its noise was too.
    level = (grain.to(image.device) * (0.12 / mean.clamp(min=0.05)).clamp(0.5, 2.0))[
        :, None, None, None
    ]
    random = torch.randn(image.shape, generator=own, device=image.device)
    return image + level * (0.4 + image.clamp(0, 1).sqrt()) * random


def photograph(
    generator: torch.Generator, views: RenderedViews, options: LensOptions | None = None
) -> RenderedViews:
    """The views as a camera would have taken them; depth and cameras stay as they are.

    Args:
        generator: source of all randomness, on the CPU.
        views: S x V rendered ones.
        options: how often each effect is there.
    """
    options = options or LensOptions()
    image = views.image.flatten(0, 1)
    draw = _Draw(generator, len(image))
    image = _focus(draw, image, views.depth.flatten(0, 1), options.focus)
    image = _shake(draw, image, options.shake)
    image = _light(draw, image, options)
    image = _noise(generator, draw, image, options.noise)
    return replace(views, image=image.clamp(0, 1).reshape(views.image.shape))
