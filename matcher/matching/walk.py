"""The walk from map to map, and the searches it uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching.cells import CellNearest
from matcher.matching.nearby import NearbyNearest
from matcher.matching.nearest import FaissNearest, Metric, NearestNeighbour, TorchNearest
from matcher.matching.options import SearchBackend
from matcher.matching.sampled import SampledNearest

__all__ = ["ReciprocalWalk", "SearchFactory", "build_search", "fixed_points", "raster_pixels"]

# (H, W, D) map, (H, W) bool of pixels that may be found, metric -> search over raster indexes.
SearchFactory = Callable[[Tensor, Tensor, Metric], NearestNeighbour]

_Search = NearestNeighbour | NearbyNearest | SampledNearest
_UNIT_TOLERANCE = 1e-3


def build_search(
    grid: Tensor, allowed: Tensor, metric: Metric = "dot", backend: SearchBackend = "auto"
) -> NearestNeighbour:
    """Make a dense map ready to be searched.

    Args:
        grid: (H, W, D) descriptors or points, finite where allowed.
        allowed: (H, W) bool, which pixels may be found.
        metric: ``dot`` (the largest dot product) or ``l2`` (the smallest distance).
        backend: ``auto`` and ``exact`` take cells on the CPU (torch if the vectors are not of
            unit length, for ``dot``) and torch on other devices. ``sampled`` needs more than a
            map: see :func:`matcher.matching.reciprocal_matches`.

    Raises:
        InputError: wrong shapes, no pixel allowed, ``sampled``, or cells asked for vectors that
            are not unit.
    """
    rows, flat = grid.reshape(-1, grid.shape[-1]), allowed.reshape(-1)
    if backend in ("auto", "exact"):
        on_cpu = grid.device.type == "cpu"
        backend = "cells" if on_cpu and (metric == "l2" or _is_unit(rows, flat)) else "torch"
    if backend == "sampled":
        raise InputError("backend", "sampled only for descriptors with min_sharpness", "without")
    if backend == "cells":
        return CellNearest(grid, allowed, metric)
    return (FaissNearest if backend == "faiss" else TorchNearest)(rows, flat, metric)


class ReciprocalWalk:
    """Two searchable maps, and what has been found in them so far: no pixel is searched twice.

    Args:
        grids: (H, W, D) maps.
        allowed: (H, W) bool, which pixels of each may be found.
        metric: ``dot`` or ``l2``.
        factory: makes a search of a map.
        reach_px: see :class:`NearbyNearest`, which then replaces the factory's search.
        sharpness: (H, W) of both maps: :class:`SampledNearest` is used, with the reach if there
            is one.
    """

    def __init__(
        self,
        grids: tuple[Tensor, Tensor],
        allowed: tuple[Tensor, Tensor],
        metric: Metric,
        factory: SearchFactory,
        *,
        reach_px: float | None = None,
        sharpness: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.metric: Metric = metric
        self.allowed = allowed
        self.is_empty = not (bool(allowed[0].any()) and bool(allowed[1].any()))
        self._grids = grids
        self.rows = tuple(grid.reshape(-1, grid.shape[-1]) for grid in grids)
        self._factory = factory
        self._reach_px = reach_px
        self._sharpness = sharpness
        self._searches: list[_Search | None] = [None, None]
        self._found = [torch.full((len(rows),), -1, device=rows.device) for rows in self.rows]
        # A pixel that some pixel of the other map chose is at least that similar to its neighbour.
        self._reached = [rows.new_full((len(rows),), -torch.inf) for rows in self.rows]
        self._chosen_by = [torch.full_like(found, -1) for found in self._found]

    def shape(self, side: int) -> tuple[int, int]:
        """Height and width of a map."""
        return int(self._grids[side].shape[0]), int(self._grids[side].shape[1])

    def neighbours(self, side: int, pixels: Tensor) -> Tensor:
        """Raster indexes in the other map of the nearest neighbours of pixels of map ``side``."""
        found = self._found[side]
        new = torch.unique(pixels[found[pixels] < 0])
        if len(new):
            found[new] = self._search(side, new)
        return found[pixels]

    def _search(self, side: int, pixels: Tensor) -> Tensor:
        other = 1 - side
        search = self._searches[other]
        if search is None:
            search = self._searches[other] = self._build(other)
        queries, places = self.rows[side][pixels], raster_pixels(pixels, self.shape(side)[1])
        if isinstance(search, NearbyNearest):
            return search.query(queries, places)[0]
        reached = self._reached[side][pixels]
        if isinstance(search, SampledNearest):
            index, similarity = search.query(queries, places)
            missed = reached > similarity
            index = torch.where(missed, self._chosen_by[side][pixels], index)
            self._remember(side, pixels, index, torch.maximum(similarity, reached))
            return index
        known = torch.isfinite(reached)
        index = torch.empty_like(pixels)
        for part, is_known in ((known, True), (~known, False)):
            if bool(part.any()):
                bound = reached[part] if is_known else None
                index[part], similarity = search.query(queries[part], bound)
                self._remember(side, pixels[part], index[part], similarity)
        return index

    def _remember(self, side: int, pixels: Tensor, index: Tensor, similarity: Tensor) -> None:
        reached = self._reached[1 - side]
        reached.scatter_reduce_(0, index, similarity, "amax")
        best = similarity == reached[index]
        self._chosen_by[1 - side][index[best]] = pixels[best]

    def _build(self, side: int) -> _Search:
        grid, allowed = self._grids[side], self.allowed[side]
        if self._sharpness is not None:
            return SampledNearest(grid, allowed, self._sharpness[side], self._reach_px)
        if self._reach_px is not None:
            return NearbyNearest(grid, allowed, self.metric, self._reach_px)
        return self._factory(grid, allowed, self.metric)


def raster_pixels(index: Tensor, width: int) -> Tensor:
    """(M, 2) pixels, x then y, of (M,) raster indexes."""
    return torch.stack([index % width, index // width], dim=1)


def fixed_points(
    walk: ReciprocalWalk, side: int, seeds: Tensor, max_iterations: int
) -> tuple[Tensor, Tensor]:
    """Raster indexes in maps 0 and 1 of the pairs that seeds in map ``side`` reach."""
    here = seeds
    there = torch.full_like(here, -1)
    ends_here, ends_there = [], []
    for _ in range(max_iterations):
        next_there = walk.neighbours(side, here)
        moved = next_there != there
        ends_here.append(here[~moved])
        ends_there.append(there[~moved])
        here, there = here[moved], next_there[moved]
        next_here = walk.neighbours(1 - side, there)
        moved = next_here != here
        ends_here.append(here[~moved])
        ends_there.append(there[~moved])
        here, there = next_here[moved], there[moved]
        if not len(here):
            break
    ends = torch.cat(ends_here), torch.cat(ends_there)
    return ends if side == 0 else (ends[1], ends[0])


def _is_unit(rows: Tensor, allowed: Tensor) -> bool:
    return bool(((rows[allowed].norm(dim=1) - 1).abs() <= _UNIT_TOLERANCE).all())
