"""Nearest neighbours among the pixels of a map that lie near the query's own place."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching.nearest import Metric, TorchNearest

__all__ = ["NearbyNearest"]

# Smaller squares are many, and a loop goes over them.
_SMALLEST_SIDE = 16


class NearbyNearest:
    """Complete comparison with the pixels around one place.

    The plane is divided into squares as wide as the reach. A query is compared with the pixels of
    its own square and of those around it: all that lie within the reach, and some up to twice as
    far; a reach below 16 pixels counts as 16. Whether two places may meet is the same in both
    directions. Only a query with no pixel around it that may be found is compared with all.

    Args:
        grid: (H, W, D) float32, finite where allowed.
        allowed: (H, W) bool, which pixels may be found.
        metric: ``dot`` or ``l2``.
        reach_px: positive, pixels.

    Raises:
        InputError: no pixel allowed, or a reach that is not positive.
    """

    def __init__(self, grid: Tensor, allowed: Tensor, metric: Metric, reach_px: float) -> None:
        if not reach_px > 0:
            raise InputError("reach_px", "a positive number of pixels", f"{reach_px}")
        if not bool(allowed.any()):
            raise InputError("allowed", "at least one pixel that may be found", "none")
        self._grid = grid
        self._allowed = allowed
        self._metric = metric
        self._side = max(_SMALLEST_SIDE, math.ceil(reach_px))
        self._everywhere: TorchNearest | None = None
        raster = torch.nonzero(allowed.flatten())[:, 0]
        width = grid.shape[1]
        across = -(-width // self._side)
        square = (raster // width // self._side) * across + raster % width // self._side
        kept, counts = torch.unique(square, return_counts=True)
        self._squares = torch.stack([kept % across, kept // across], dim=1)
        self._raster = raster[torch.argsort(square, stable=True)]
        rows = grid.flatten(0, 1)[self._raster].float()
        self._rows = torch.split(rows, counts.tolist())
        self._starts = torch.cumsum(counts, 0) - counts

    def query(self, queries: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Find the most similar pixel around each query.

        Args:
            queries: (M, D) float32, finite.
            places: (M, 2) their pixels in the other map, x then y.

        Returns:
            (M,) int64 raster indexes and (M,) float32 similarities: the dot product, or minus the
            squared distance. Of equals in one square the first in raster order is taken.
        """
        best = queries.new_full((len(queries),), -torch.inf)
        square = torch.zeros(len(queries), dtype=torch.int64, device=queries.device)
        apart = (places // self._side)[:, None] - self._squares
        meets = apart.abs().amax(dim=2) <= 1
        for number, (near, rows) in enumerate(zip(meets.T, self._rows, strict=True)):
            asked = torch.nonzero(near)[:, 0]
            if len(asked):
                # Maxima vectorise, their positions do not: those are looked up in the end.
                reached = self._score(queries[asked], rows).amax(dim=1)
                better = asked[reached > best[asked]]
                best[asked] = torch.maximum(best[asked], reached)
                square[better] = number
        index = self._raster[self._starts[square] + self._positions(queries, square)]
        alone = torch.nonzero(~meets.any(dim=1))[:, 0]
        if len(alone):
            index[alone], best[alone] = self._complete().query(queries[alone])
        return index, best

    def _complete(self) -> TorchNearest:
        if self._everywhere is None:
            rows, allowed = self._grid.flatten(0, 1), self._allowed.flatten()
            self._everywhere = TorchNearest(rows, allowed, self._metric)
        return self._everywhere

    def _positions(self, queries: Tensor, square: Tensor) -> Tensor:
        """(M,) where in its square the most similar pixel of each query stands."""
        order = torch.argsort(square, stable=True)
        counts = torch.bincount(square, minlength=len(self._rows)).tolist()
        position = torch.empty_like(square)
        for members, rows in zip(torch.split(order, counts), self._rows, strict=True):
            if len(members):
                position[members] = self._score(queries[members], rows).argmax(dim=1)
        return position

    def _score(self, queries: Tensor, rows: Tensor) -> Tensor:
        if self._metric == "dot":
            return queries @ rows.T
        mode = "donot_use_mm_for_euclid_dist"
        return -torch.cdist(queries, rows, compute_mode=mode).square()
