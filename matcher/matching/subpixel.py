"""Matches finer than a pixel, from the similarities around the matched pixel of map 1."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding

from matcher.errors import InputError
from matcher.structures import GridMatches

__all__ = ["SubpixelMatches", "refine_patches", "refine_soft_argmax", "refine_subpixel"]

_PATCH_RADIUS = 3
_PATCH_SIGMA = 1.8
_PATCH_STEPS = 5
_LARGEST_STEP = 1.0
_DAMPING = 0.01
_PATCH_CHUNK = 512


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


def refine_patches(
    matches: GridMatches,
    descriptors0: Tensor,
    descriptors1: Tensor,
    view1_from_view0: Tensor,
    *,
    max_offset: float = 1.5,
) -> SubpixelMatches:
    """Move each match to where the patches around its two ends fit best.

    Patches of 7 x 7 descriptors with Gaussian weights, that of map 1 under the affine map around
    the match; their squared distance is brought down by Gauss-Newton steps on the derivatives of
    the patch in map 0 (inverse compositional alignment, Baker and Matthews 2004). A patch averages
    what a single pixel says, so this is finer than :func:`refine_subpixel`, where the affine map is
    right. A match whose patches leave a map, that would move further than ``max_offset``, or whose
    numbers are not finite, stays where it is.

    Args:
        matches: M matches.
        descriptors0: (H0, W0, D).
        descriptors1: (H1, W1, D).
        view1_from_view0: (M, 2, 2) linear parts of the affine maps around the matches.
        max_offset: the longest move, pixels.

    Raises:
        InputError: ``max_offset`` is not positive, or the maps do not fit.
    """
    if not 0 < max_offset < float("inf"):
        raise InputError("max_offset", "a positive number of pixels", f"{max_offset}")
    _check_maps(descriptors0, descriptors1)
    if view1_from_view0.shape != (len(matches), 2, 2):
        raise InputError(
            "view1_from_view0", f"shape ({len(matches)}, 2, 2)", f"{tuple(view1_from_view0.shape)}"
        )
    parts = [
        _align_patches(
            matches.pixels0[start : start + _PATCH_CHUNK],
            matches.pixels1[start : start + _PATCH_CHUNK],
            descriptors0.detach(),
            descriptors1.detach(),
            view1_from_view0[start : start + _PATCH_CHUNK].float(),
        )
        for start in range(0, len(matches), _PATCH_CHUNK)
    ]
    if not parts:
        empty = matches.similarity.new_zeros(0, 2)
        return SubpixelMatches(matches, empty, torch.zeros(0, dtype=torch.bool))
    offsets = torch.cat([part[0] for part in parts])
    refined = torch.cat([part[1] for part in parts]) & (offsets.norm(dim=1) <= max_offset)
    offsets = torch.where(refined[:, None], offsets, torch.zeros_like(offsets))
    return SubpixelMatches(matches, offsets, refined)


def _align_patches(
    pixels0: Tensor,
    pixels1: Tensor,
    descriptors0: Tensor,
    descriptors1: Tensor,
    view1_from_view0: Tensor,
) -> tuple[Tensor, Tensor]:
    """(M, 2) offsets in map 1, and where the patches stayed inside both maps."""
    steps = torch.arange(-_PATCH_RADIUS, _PATCH_RADIUS + 1, device=pixels0.device)
    places = torch.cartesian_prod(steps, steps).flip(1)
    weights = (-places.square().sum(dim=1) / (2 * _PATCH_SIGMA**2)).exp()[:, None]
    inside = _is_inside(pixels0, descriptors0, _PATCH_RADIUS + 1)
    x, y = (pixels0[:, None] + places).unbind(2)
    wanted = _at_whole(descriptors0, x, y)
    along_x = (_at_whole(descriptors0, x + 1, y) - _at_whole(descriptors0, x - 1, y)) / 2
    along_y = (_at_whole(descriptors0, x, y + 1) - _at_whole(descriptors0, x, y - 1)) / 2
    weighted_x, weighted_y = weights * along_x, weights * along_y
    xx, xy, yy = (
        (first * second).sum(dim=(1, 2))
        for first, second in (
            (weighted_x, along_x),
            (weighted_x, along_y),
            (weighted_y, along_y),
        )
    )
    damping = _DAMPING * (xx + yy) / 2 + 1e-6
    xx, yy = xx + damping, yy + damping
    determinant = xx * yy - xy.square()
    around1 = places.float() @ view1_from_view0.transpose(1, 2)
    reach = around1.abs().amax(dim=(1, 2))
    start, offsets = pixels1.float(), torch.zeros_like(pixels1, dtype=torch.float32)
    for _ in range(_PATCH_STEPS):
        apart = _between(descriptors1, start[:, None] + around1 + offsets[:, None]) - wanted
        slope_x = (weighted_x * apart).sum(dim=(1, 2))
        slope_y = (weighted_y * apart).sum(dim=(1, 2))
        step_x = (yy * slope_x - xy * slope_y) / determinant
        step_y = (xx * slope_y - xy * slope_x) / determinant
        step = torch.stack([step_x, step_y], dim=1)
        step = step / (step.norm(dim=1, keepdim=True) / _LARGEST_STEP).clamp_min(1)
        offsets = offsets - (view1_from_view0 @ step[..., None])[..., 0]
    inside &= _is_inside(pixels1, descriptors1, reach + 1) & offsets.isfinite().all(dim=1)
    return offsets, inside


def _is_inside(pixels: Tensor, grid: Tensor, margin: Tensor | int) -> Tensor:
    height, width = grid.shape[:2]
    x, y = pixels.unbind(1)
    inside: Tensor = (x >= margin) & (y >= margin)
    return inside & (x <= width - 1 - margin) & (y <= height - 1 - margin)


def _at_whole(grid: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """(..., D) float32 of whole pixels; those outside take the nearest inside."""
    height, width = grid.shape[:2]
    index = y.clamp(0, height - 1) * width + x.clamp(0, width - 1)
    return embedding(index, grid.flatten(0, 1)).float()


def _between(grid: Tensor, places: Tensor) -> Tensor:
    """(..., D) float32, bilinear between the pixels, x then y."""
    whole = places.nan_to_num(0).floor()
    right, below = (places - whole).unsqueeze(-1).unbind(-2)
    x, y = whole.long().unbind(-1)
    above = torch.lerp(_at_whole(grid, x, y), _at_whole(grid, x + 1, y), right)
    under = torch.lerp(_at_whole(grid, x, y + 1), _at_whole(grid, x + 1, y + 1), right)
    return torch.lerp(above, under, below)


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
    _check_maps(descriptors0, descriptors1)
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


def _check_maps(descriptors0: Tensor, descriptors1: Tensor) -> None:
    for name, grid in (("descriptors0", descriptors0), ("descriptors1", descriptors1)):
        if grid.ndim != 3:
            raise InputError(name, "shape (H, W, D)", f"{tuple(grid.shape)}")
    if descriptors0.shape[2] != descriptors1.shape[2]:
        raise InputError(
            "descriptors1", f"{descriptors0.shape[2]} channels", f"{descriptors1.shape[2]}"
        )
