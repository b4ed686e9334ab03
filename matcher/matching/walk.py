"""The walk from map to map, and the searches it uses."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from matcher.matching.cells import CellNearest
from matcher.matching.nearby import NearbyNearest
from matcher.matching.nearest import FaissNearest, Metric, NearestNeighbour, TorchNearest
from matcher.matching.options import SearchBackend

__all__ = ["ReciprocalWalk", "SearchFactory", "build_search", "fixed_points", "raster_pixels"]

# (H, W, D) map, (H, W) bool of pixels that may be found, metric -> search over raster indexes.
SearchFactory = Callable[[Tensor, Tensor, Metric], NearestNeighbour]

_UNIT_TOLERANCE = 1e-3


def build_search(
    grid: Tensor, allowed: Tensor, metric: Metric = "dot", backend: SearchBackend = "auto"
) -> NearestNeighbour:
    """Make a dense map ready to be searched.

    Args:
        grid: (H, W, D) descriptors or points, finite where allowed.
        allowed: (H, W) bool, which pixels may be found.
        metric: ``dot`` (the largest dot product) or ``l2`` (the smallest distance).
        backend: ``auto`` takes cells on the CPU (torch if the vectors are not of unit length, for
            ``dot``) and torch on other devices.

    Raises:
        InputError: wrong shapes, no pixel allowed, or cells asked for vectors that are not unit.
    """
    rows, flat = grid.reshape(-1, grid.shape[-1]), allowed.reshape(-1)
    if backend == "auto":
        on_cpu = grid.device.type == "cpu"
        backend = "cells" if on_cpu and (metric == "l2" or _is_unit(rows, flat)) else "torch"
    if backend == "cells":
        return CellNearest(grid, allowed, metric)
    return (FaissNearest if backend == "faiss" else TorchNearest)(rows, flat, metric)


class ReciprocalWalk:
    """Two searchable maps, and what has been found in them so far: no pixel is searched twice."""

    def __init__(
        self,
        grids: tuple[Tensor, Tensor],
        allowed: tuple[Tensor, Tensor],
        metric: Metric,
        factory: SearchFactory,
        reach_px: float | None = None,
    ) -> None:
        self.metric: Metric = metric
        self.allowed = allowed
        self.is_empty = not (bool(allowed[0].any()) and bool(allowed[1].any()))
        self._grids = grids
        self.rows = tuple(grid.reshape(-1, grid.shape[-1]) for grid in grids)
        self._factory = factory
        self._reach_px = reach_px
        self._searches: list[NearestNeighbour | NearbyNearest | None] = [None, None]
        self._found = [torch.full((len(rows),), -1, device=rows.device) for rows in self.rows]
        # A pixel that some pixel of the other map chose is at least that similar to its neighbour.
        self._reached = [rows.new_full((len(rows),), -torch.inf) for rows in self.rows]

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
            search = self._build(self._grids[other], self.allowed[other])
            self._searches[other] = search
        if isinstance(search, NearbyNearest):
            places = raster_pixels(pixels, self.shape(side)[1])
            return search.query(self.rows[side][pixels], places)[0]
        reached = self._reached[side][pixels]
        known = torch.isfinite(reached)
        index = torch.empty_like(pixels)
        for part, is_known in ((known, True), (~known, False)):
            if bool(part.any()):
                bound = reached[part] if is_known else None
                index[part], similarity = search.query(self.rows[side][pixels[part]], bound)
                self._reached[other].scatter_reduce_(0, index[part], similarity, "amax")
        return index

    def _build(self, grid: Tensor, allowed: Tensor) -> NearestNeighbour | NearbyNearest:
        if self._reach_px is None:
            return self._factory(grid, allowed, self.metric)
        return NearbyNearest(grid, allowed, self.metric, self._reach_px)


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
