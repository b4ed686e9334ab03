"""Reciprocal matches between two dense maps (fast reciprocal matching, MASt3R paper, section 3.3).

A pixel goes to its nearest neighbour in the other map and from there back; pairs that point at
each other are fixed points of that walk and are the only ones kept. Starting from one pixel of
every square finds a spread subset of all reciprocal pairs; starting everywhere finds them all.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching.nearest import Metric, NearestNeighbour
from matcher.matching.options import MatchingOptions
from matcher.matching.seeds import descriptor_sharpness, is_sharp, seed_pixels
from matcher.matching.walk import (
    ReciprocalWalk,
    SearchFactory,
    build_search,
    fixed_points,
    raster_pixels,
)
from matcher.structures import GridMatches

__all__ = [
    "reciprocal_from_starts",
    "reciprocal_matches",
    "reciprocal_points",
    "union_matches",
]

_SMALLEST_NORM = 1e-6
_DEFAULT_OPTIONS = MatchingOptions()


def reciprocal_matches(
    descriptors0: Tensor,
    descriptors1: Tensor,
    *,
    options: MatchingOptions = _DEFAULT_OPTIONS,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    backend: SearchFactory | None = None,
) -> GridMatches:
    """Find pixels of two descriptor maps that are each other's most similar.

    Descriptors that are zero or not finite never match and never attract others. Of equally
    similar pixels the one first in raster order is taken (with ``reach``: in one square).

    Args:
        descriptors0: (H0, W0, D) descriptors of image 0, of unit length as a rule.
        descriptors1: (H1, W1, D) the same of image 1, on the same device.
        options: seeds, iterations, border, symmetry, and the search; with ``reach``, the search
            is that of :class:`NearbyNearest`, whatever the backend. By default the search on the
            CPU is :class:`SampledNearest`, which finds nearly all of these pixels. ``top_k`` and
            ``min_confidence`` need confidences: see :func:`matcher.matching.select_matches`.
        mask0: (H0, W0) bool, where matches are welcome in image 0; ``None``: everywhere.
        mask1: the same for image 1.
        backend: a search of the caller's own instead of ``options.backend``; not with ``reach``.

    Returns:
        Matches sorted by raster index in image 0, then 1; each pair once. Empty if there are none.

    Raises:
        InputError: wrong shapes or types.
    """
    _check_maps(descriptors0, descriptors1, "descriptors")
    allowed = _allowed(descriptors0, mask0, "dot", 0), _allowed(descriptors1, mask1, "dot", 1)
    sharpness = None
    if options.min_sharpness is not None:
        sharpness = descriptor_sharpness(descriptors0), descriptor_sharpness(descriptors1)
        allowed = (
            is_sharp(sharpness[0], allowed[0], options.min_sharpness),
            is_sharp(sharpness[1], allowed[1], options.min_sharpness),
        )
    walk = _walk(descriptors0, descriptors1, allowed, "dot", options, backend, sharpness)
    return _match_maps(walk, options, sharpness)


def reciprocal_points(
    points0: Tensor,
    points1: Tensor,
    *,
    options: MatchingOptions = _DEFAULT_OPTIONS,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    backend: SearchFactory | None = None,
) -> GridMatches:
    """Find pixels of two pointmaps, given in one frame, whose 3-D points are mutually closest.

    Arguments and order as in :func:`reciprocal_matches`, with (H, W, 3) points; ``similarity`` is
    minus the squared distance, in squared units of the points.
    """
    _check_maps(points0, points1, "points")
    allowed = _allowed(points0, mask0, "l2", 0), _allowed(points1, mask1, "l2", 1)
    return _match_maps(_walk(points0, points1, allowed, "l2", options, backend), options, None)


def reciprocal_from_starts(
    descriptors0: Tensor,
    descriptors1: Tensor,
    starts0: Tensor,
    *,
    tolerance_px: float = 0.0,
    options: MatchingOptions = _DEFAULT_OPTIONS,
    mask0: Tensor | None = None,
    mask1: Tensor | None = None,
    backend: SearchFactory | None = None,
) -> GridMatches:
    """Match given pixels of image 0, one way and back once.

    Args:
        descriptors0: (H0, W0, D), as in :func:`reciprocal_matches`.
        descriptors1: (H1, W1, D).
        starts0: (S, 2) integer pixels of image 0, x then y; duplicates count once.
        tolerance_px: 0 keeps the starts whose way back ends exactly on them; otherwise those
            whose way back ends closer than this, and the match is the start with its neighbour.
        options: only ``border``, ``reach`` and ``backend`` are used.
        mask0: (H0, W0) bool; starts outside are not matched.
        mask1: (H1, W1) bool.
        backend: as in :func:`reciprocal_matches`.

    Raises:
        InputError: wrong shapes or types, a start outside the map, a negative tolerance.
    """
    if not tolerance_px >= 0:
        raise InputError("tolerance_px", "a number of at least 0", f"{tolerance_px}")
    _check_maps(descriptors0, descriptors1, "descriptors")
    allowed = _allowed(descriptors0, mask0, "dot", 0), _allowed(descriptors1, mask1, "dot", 1)
    walk = _walk(descriptors0, descriptors1, allowed, "dot", options, backend)
    starts = _raster_starts(starts0, walk.shape(0), walk.allowed[0].device)
    if walk.is_empty:
        return _empty(walk)
    start = starts[walk.allowed[0].reshape(-1)[starts]]
    there = walk.neighbours(0, start)
    back = walk.neighbours(1, there)
    moved = (
        raster_pixels(back, walk.shape(0)[1]) - raster_pixels(start, walk.shape(0)[1])
    ).double()
    kept = moved.norm(dim=1) < max(tolerance_px, 0.5)
    return _finish(walk, start[kept], there[kept], options.border)


def union_matches(first: GridMatches, second: GridMatches, width0: int, width1: int) -> GridMatches:
    """Every pair of either set once, sorted by raster index in map 0, then 1.

    A pair in both keeps its higher similarity.

    Args:
        first: matches between two maps.
        second: other matches between the same maps, for instance from the descriptors of the
            network run with the images swapped.
        width0: width of map 0, pixels.
        width1: width of map 1, pixels.
    """
    pixels0 = torch.cat([first.pixels0, second.pixels0])
    pixels1 = torch.cat([first.pixels1, second.pixels1])
    similarity = torch.cat([first.similarity, second.similarity])
    keys = torch.stack([_raster(pixels0, width0), _raster(pixels1, width1)], dim=1)
    unique, inverse = torch.unique(keys, dim=0, return_inverse=True)
    best = similarity.new_full((len(unique),), -torch.inf)
    best.scatter_reduce_(0, inverse, similarity, "amax")
    return GridMatches(
        raster_pixels(unique[:, 0], width0),
        raster_pixels(unique[:, 1], width1),
        best,
        first.num_seeds + second.num_seeds,
    )


def _match_maps(
    walk: ReciprocalWalk, options: MatchingOptions, sharpness: tuple[Tensor, Tensor] | None
) -> GridMatches:
    if walk.is_empty:
        return _empty(walk)
    sides = (0, 1) if options.symmetric else (0,)
    seeds = [
        seed_pixels(
            walk.allowed[side], options.subsample, None if sharpness is None else sharpness[side]
        )
        for side in sides
    ]
    ends = [
        fixed_points(walk, side, start, options.max_iterations)
        for side, start in zip(sides, seeds, strict=True)
    ]
    found = _finish(
        walk,
        torch.cat([end[0] for end in ends]),
        torch.cat([end[1] for end in ends]),
        options.border,
    )
    return replace(found, num_seeds=sum(map(len, seeds)))


def _finish(walk: ReciprocalWalk, index0: Tensor, index1: Tensor, border: int) -> GridMatches:
    """Unique, sorted, away from the borders, with the similarity of each pair."""
    pairs = torch.unique(torch.stack([index0, index1], dim=1), dim=0)
    pixels0 = raster_pixels(pairs[:, 0], walk.shape(0)[1])
    pixels1 = raster_pixels(pairs[:, 1], walk.shape(1)[1])
    kept = _inside(pixels0, walk.shape(0), border) & _inside(pixels1, walk.shape(1), border)
    rows0, rows1 = walk.rows[0][pairs[kept, 0]], walk.rows[1][pairs[kept, 1]]
    if walk.metric == "dot":
        similarity = (rows0 * rows1).sum(dim=1)
    else:
        similarity = -(rows0 - rows1).square().sum(dim=1)
    return GridMatches(pixels0[kept], pixels1[kept], similarity)


def _check_maps(grid0: Tensor, grid1: Tensor, name: str) -> None:
    for side, grid in enumerate((grid0, grid1)):
        if grid.ndim != 3 or not grid.is_floating_point() or 0 in grid.shape:
            raise InputError(
                f"{name}{side}", "floating point of shape (H, W, D)", f"{tuple(grid.shape)}"
            )
    if grid0.shape[2] != grid1.shape[2] or grid0.device != grid1.device:
        raise InputError(
            f"{name}1",
            f"{grid0.shape[2]} channels on {grid0.device}, as {name}0",
            f"{grid1.shape[2]} on {grid1.device}",
        )


def _walk(
    grid0: Tensor,
    grid1: Tensor,
    allowed: tuple[Tensor, Tensor],
    metric: Metric,
    options: MatchingOptions,
    backend: SearchFactory | None,
    sharpness: tuple[Tensor, Tensor] | None = None,
) -> ReciprocalWalk:
    def factory(grid: Tensor, may_be_found: Tensor, measure: Metric) -> NearestNeighbour:
        return build_search(grid, may_be_found, measure, options.backend)

    if options.reach is not None and backend is not None:
        raise InputError("backend", "None with a reach", "a search of the caller's own")
    reach_px = None if options.reach is None else options.reach * max(grid0.shape[:2])
    # Matching has no gradient, and half precision would turn near neighbours into equals.
    grids = grid0.detach().float(), grid1.detach().float()
    is_sampled = options.backend == "sampled" or (options.backend == "auto" and grid0.is_cpu)
    if backend is not None or not is_sampled:
        sharpness = None
    return ReciprocalWalk(
        grids, allowed, metric, backend or factory, reach_px=reach_px, sharpness=sharpness
    )


def _allowed(grid: Tensor, mask: Tensor | None, metric: Metric, side: int) -> Tensor:
    squared = grid.detach().float().square().sum(dim=2)
    allowed: Tensor = torch.isfinite(squared)
    if metric == "dot":
        allowed &= squared > _SMALLEST_NORM**2
    if mask is not None:
        if mask.shape != allowed.shape or mask.dtype != torch.bool:
            raise InputError(
                f"mask{side}",
                f"bool of shape {tuple(allowed.shape)}",
                f"{mask.dtype} of shape {tuple(mask.shape)}",
            )
        allowed &= mask.to(allowed.device)
    return allowed


def _raster_starts(starts: Tensor, shape: tuple[int, int], device: torch.device) -> Tensor:
    if starts.ndim != 2 or starts.shape[1] != 2 or starts.is_floating_point():
        raise InputError("starts0", "integers of shape (S, 2)", f"{tuple(starts.shape)}")
    starts = starts.to(device=device, dtype=torch.int64)
    if not bool(_inside(starts, shape, 0).all()):
        raise InputError("starts0", f"pixels inside {shape[1]} x {shape[0]}", "some outside")
    index: Tensor = torch.unique(_raster(starts, shape[1]))
    return index


def _inside(pixels: Tensor, shape: tuple[int, int], border: int) -> Tensor:
    last = torch.tensor([shape[1], shape[0]], device=pixels.device) - border
    inside: Tensor = ((pixels >= border) & (pixels < last)).all(dim=1)
    return inside


def _raster(pixels: Tensor, width: int) -> Tensor:
    return pixels[:, 1] * width + pixels[:, 0]


def _empty(walk: ReciprocalWalk) -> GridMatches:
    rows = walk.rows[0][:0]
    pixels = torch.zeros(0, 2, dtype=torch.int64, device=rows.device)
    return GridMatches(pixels, pixels, rows.new_zeros(0))
