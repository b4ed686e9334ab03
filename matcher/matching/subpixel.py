"""Matches finer than a pixel, from the similarities around the matched pixel of map 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import GridMatches

__all__ = ["SubpixelMatches", "refine_soft_argmax", "refine_subpixel"]


@dataclass(frozen=True, slots=True, eq=False)
class SubpixelMatches:
    """Grid matches and where, between the pixels of map 1, each one really ends.

    Attributes:
        matches: M matches between whole pixels.
        offsets1: (M, 2) float32, x then y, to be added to ``matches.pixels1``, pixels.
        refined: (M,) bool, where an offset could be found; elsewhere it is 0.
    """

    matches: GridMatches
    offsets1: Tensor
    refined: Tensor

    @property
    def keypoints0(self) -> Tensor:
        """(M, 2) float32 pixels of map 0: the reference, whole numbers."""
        return self.matches.pixels0.float()

    @property
    def keypoints1(self) -> Tensor:
        """(M, 2) float32 pixels of map 1."""
        return self.matches.pixels1.float() + self.offsets1


def refine_subpixel(
    matches: GridMatches, descriptors0: Tensor, descriptors1: Tensor, *, max_offset: float = 1.0
) -> SubpixelMatches:
    """Move each match to the top of a paraboloid through the similarities of its 3 x 3 pixels.

    Least squares fit of all six coefficients; exact when the similarity is quadratic. A match at
    the border of map 1, with a neighbour that is not finite, or whose paraboloid has no top
    (a ridge, a saddle, a plateau) stays where it is.

    Args:
        matches: M matches.
        descriptors0: (H0, W0, D).
        descriptors1: (H1, W1, D).
        max_offset: tops further away than this along an axis are cut back to it, pixels: beyond a
            pixel the 3 x 3 neighbourhood says nothing.

    Raises:
        InputError: ``max_offset`` is not positive, or the maps do not fit.
    """
    if not 0 < max_offset < float("inf"):
        raise InputError("max_offset", "a positive number of pixels", f"{max_offset}")
    similarity, inside = _neighbourhood(matches, descriptors0, descriptors1, 1)
    # Subtracting the middle keeps the digits: similarities around a match differ by thousandths.
    # Double precision, since curvatures are differences of differences.
    z = similarity.double() - similarity[:, 1:2, 1:2].double()
    gradient_x = (z[:, :, 2] - z[:, :, 0]).sum(1) / 6
    gradient_y = (z[:, 2, :] - z[:, 0, :]).sum(1) / 6
    curve_x = (z[:, :, 0] - 2 * z[:, :, 1] + z[:, :, 2]).sum(1) / 3
    curve_y = (z[:, 0, :] - 2 * z[:, 1, :] + z[:, 2, :]).sum(1) / 3
    curve_xy = (z[:, 0, 0] - z[:, 0, 2] - z[:, 2, 0] + z[:, 2, 2]) / 4
    determinant = curve_x * curve_y - curve_xy.square()
    has_top = inside.flatten(1).all(dim=1)
    scale = z.abs().amax(dim=(1, 2))
    flat = 1e-9 + 1e-6 * scale
    has_top = has_top & (curve_x < -flat) & (curve_y < -flat)
    has_top = has_top & (determinant > 1e-6 * curve_x * curve_y)
    safe = torch.where(has_top, determinant, torch.ones_like(determinant))
    offset_x = (curve_xy * gradient_y - curve_y * gradient_x) / safe
    offset_y = (curve_xy * gradient_x - curve_x * gradient_y) / safe
    offsets = torch.stack([offset_x, offset_y], dim=1).clamp(-max_offset, max_offset)
    offsets = torch.where(has_top[:, None], offsets, torch.zeros_like(offsets))
    return SubpixelMatches(matches, offsets.float(), has_top)


def refine_soft_argmax(
    matches: GridMatches,
    descriptors0: Tensor,
    descriptors1: Tensor,
    *,
    radius: int = 2,
    temperature: float = 0.02,
) -> SubpixelMatches:
    """Move each match to the mean of its neighbourhood, weighted by ``exp(similarity / T)``.

    Calmer than :func:`refine_subpixel` on noisy descriptors, but pulled towards the middle of the
    window. Pixels outside map 1 or not finite have no weight; the window is shrunk to a symmetric
    one near the border of map 1, where a lopsided one would push inwards.

    Args:
        matches: M matches.
        descriptors0: (H0, W0, D).
        descriptors1: (H1, W1, D).
        radius: the window is ``2 * radius + 1`` pixels wide.
        temperature: small follows the best pixel, large averages.

    Raises:
        InputError: ``radius`` below 1, ``temperature`` not positive, or the maps do not fit.
    """
    if radius < 1:
        raise InputError("radius", "at least 1 pixel", f"{radius}")
    if not 0 < temperature < float("inf"):
        raise InputError("temperature", "a positive number", f"{temperature}")
    similarity, inside = _neighbourhood(matches, descriptors0, descriptors1, radius)
    inside = inside & inside.flip(1) & inside.flip(2) & inside.flip(1, 2)
    logits = torch.where(inside, similarity / temperature, -torch.inf).flatten(1)
    refined = inside[:, radius, radius]
    logits = torch.where(refined[:, None], logits, torch.zeros_like(logits))
    weights = logits.softmax(dim=1).view_as(similarity)
    steps = torch.arange(-radius, radius + 1, device=weights.device, dtype=weights.dtype)
    offsets = torch.stack(
        [(weights.sum(dim=1) * steps).sum(dim=1), (weights.sum(dim=2) * steps).sum(dim=1)], dim=1
    )
    offsets = torch.where(refined[:, None], offsets, torch.zeros_like(offsets))
    return SubpixelMatches(matches, offsets, refined)


def _neighbourhood(
    matches: GridMatches, descriptors0: Tensor, descriptors1: Tensor, radius: int
) -> tuple[Tensor, Tensor]:
    """(M, K, K) similarities around each match in map 1 (rows are y), and which of them exist."""
    for name, grid in (("descriptors0", descriptors0), ("descriptors1", descriptors1)):
        if grid.ndim != 3:
            raise InputError(name, "shape (H, W, D)", f"{tuple(grid.shape)}")
    if descriptors0.shape[2] != descriptors1.shape[2]:
        raise InputError(
            "descriptors1", f"{descriptors0.shape[2]} channels", f"{descriptors1.shape[2]}"
        )
    height, width = descriptors1.shape[:2]
    steps = torch.arange(-radius, radius + 1, device=descriptors1.device)
    x = matches.pixels1[:, 0, None, None] + steps[None, None, :]
    y = matches.pixels1[:, 1, None, None] + steps[None, :, None]
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    around = descriptors1.detach()[y.clamp(0, height - 1), x.clamp(0, width - 1)].float()
    reference = descriptors0.detach()[matches.pixels0[:, 1], matches.pixels0[:, 0]].float()
    similarity = torch.einsum("mijd,md->mij", around, reference)
    inside = inside & torch.isfinite(similarity)
    return torch.where(inside, similarity, torch.zeros_like(similarity)), inside
