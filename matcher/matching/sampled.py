"""Nearest neighbours by a sample: compare with one pixel of every square, then around the best.

Descriptors change over a pixel or two, so beside the most similar pixel of a map stands one of the
sample that is nearly as similar. That is likely, not certain: this search is not exact.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

from matcher.matching.nearby import NearbyNearest
from matcher.matching.nearest import TorchNearest
from matcher.matching.seeds import seed_pixels

__all__ = ["SampledNearest"]

_SPACING = 2
_AROUND = 2
# Of a complete sample so many places are looked at closer: the most similar pixel of the sample
# need not stand at the place of the most similar of all.
_PLACES = 3


class SampledNearest:
    """Comparison with the sharpest pixel of every 2 x 2 square, then with the 5 x 5 around it.

    The candidates are the best of the sample in the most promising stretches of the map, or with a
    reach the best one within it; see :class:`NearbyNearest`.

    Args:
        grid: (H, W, D) float32 descriptors, finite where allowed.
        allowed: (H, W) bool, which pixels may be found.
        sharpness: (H, W), see ``descriptor_sharpness``.
        reach_px: how far from its own place a query is searched, pixels; ``None``: everywhere.

    Raises:
        InputError: no pixel allowed, or a reach that is not positive.
    """

    def __init__(
        self, grid: Tensor, allowed: Tensor, sharpness: Tensor, reach_px: float | None = None
    ) -> None:
        self._rows = grid.flatten(0, 1)
        self._allowed = allowed.flatten()
        self._height, self._width = allowed.shape
        sample = torch.zeros_like(self._allowed)
        sample[seed_pixels(allowed, _SPACING, sharpness)] = True
        self._search: TorchNearest | NearbyNearest = (
            TorchNearest(self._rows, sample)
            if reach_px is None
            else NearbyNearest(grid, sample.view_as(allowed), "dot", reach_px)
        )
        steps = torch.arange(-_AROUND, _AROUND + 1, device=grid.device)
        self._steps = torch.cartesian_prod(steps, steps).unbind(1)

    def query(self, queries: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        """Find a most similar pixel for each query.

        Args:
            queries: (M, D) float32, finite.
            places: (M, 2) their pixels in the other map, x then y; for a search with a reach.

        Returns:
            (M,) int64 raster indexes and (M,) float32 dot products.
        """
        if isinstance(self._search, NearbyNearest):
            candidates = [self._search.query(queries, places)[0]]
        else:
            candidates = self._search.best_of_blocks(queries, _PLACES)
        found = [self._best_around(queries, pixels) for pixels in candidates]
        index, similarity = (torch.stack(part) for part in zip(*found, strict=True))
        best, place = similarity.max(dim=0)
        return index.gather(0, place[None])[0], best

    def _best_around(self, queries: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """The most similar allowed pixel around each of (M,) allowed raster indexes."""
        y = (pixels // self._width)[:, None] + self._steps[0]
        x = (pixels % self._width)[:, None] + self._steps[1]
        inside = (y >= 0) & (y < self._height) & (x >= 0) & (x < self._width)
        index = y.clamp(0, self._height - 1) * self._width + x.clamp(0, self._width - 1)
        may_be_found = inside & self._allowed[index]
        scores = torch.bmm(embedding(index, self._rows), queries[:, :, None])[:, :, 0]
        best, place = scores.masked_fill(~may_be_found, -torch.inf).max(dim=1)
        return index.gather(1, place[:, None])[:, 0], best
