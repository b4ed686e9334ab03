"""Height fields: rolling ground as a grid of triangles, so that every ray meets it exactly."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.meshes import MeshModel

__all__ = ["height_field"]

_OCTAVES = (3, 5, 9, 17)
"""Knots along a side of each layer of noise; each layer is half as high as the one before."""


def _heights(generator: torch.Generator, knots: int) -> Tensor:
    """(knots, knots) smooth noise between 0 and 1, both reached."""
    total = torch.zeros(knots, knots, dtype=torch.float64)
    for layer, coarse in enumerate(_OCTAVES):
        if coarse > knots:
            break
        noise = torch.rand(1, 1, coarse, coarse, generator=generator, dtype=torch.float64)
        smooth = F.interpolate(noise, size=(knots, knots), mode="bicubic", align_corners=True)
        total += smooth[0, 0] / 2**layer
    total -= total.amin()
    return total / total.amax()


def height_field(
    generator: torch.Generator, texture: Tensor, cells: int = 24, relief: float = 0.2
) -> MeshModel:
    """Random rolling ground over the unit square, to be placed with ``add_meshes``.

    The surface is linear inside each of its ``2 * cells ** 2`` triangles: what a ray hits is
    exact, not marched.

    Args:
        generator: source of all randomness, on the CPU.
        texture: (3, size, size) uint8, seen once over the whole square.
        cells: squares along a side.
        relief: height of the highest point over the lowest, which lies at 0, in sides of the
            square.

    Raises:
        InputError: another shape of texture, fewer than two cells, a relief outside (0, 1].
    """
    if texture.ndim != 3 or texture.shape[0] != 3 or texture.dtype != torch.uint8:
        raise InputError(
            "texture", "uint8 of shape (3, size, size)", f"{texture.dtype} {tuple(texture.shape)}"
        )
    if cells < 2:
        raise InputError("cells", "at least 2", f"{cells}")
    if not 0 < relief <= 1:
        raise InputError("relief", "a height in (0, 1]", f"{relief}")
    side = torch.linspace(0, 1, cells + 1, dtype=torch.float64)
    y, x = torch.meshgrid(side, side, indexing="ij")
    knots = torch.stack([x - 0.5, y - 0.5, relief * _heights(generator, cells + 1)], dim=-1)
    # The texture's v runs down, the ground's y runs up.
    places = torch.stack([x, 1 - y], dim=-1).float()

    def triangles(values: Tensor) -> Tensor:
        """(2 * cells ** 2, 3, C): two triangles a square, counter-clockwise seen from above."""
        corners = values[:-1, :-1], values[:-1, 1:], values[1:, 1:], values[1:, :-1]
        lower = torch.stack([corners[0], corners[1], corners[2]], dim=2)
        upper = torch.stack([corners[0], corners[2], corners[3]], dim=2)
        return torch.cat([lower.flatten(0, 1), upper.flatten(0, 1)])

    count = 2 * cells**2
    return MeshModel(
        triangles(knots),
        triangles(places),
        torch.zeros(count, dtype=torch.int64),
        texture[None],
        "height field",
    )
