"""Nearest neighbours by pruning: compare with cells of the map first, exactly, by a bound.

Neighbouring pixels of a dense map are alike, so a square of 8 x 8 of them is well described by its
middle and its radius. For every query a first guess (the best pixel of the cell with the closest
middle, or a value the caller knows to be reached) gives a similarity to beat; cells which cannot
reach it are dropped, then quarters of the remaining cells, and only the pixels of what is left are
compared. The answer is that of the complete comparison, up to float32 rounding.

Both bounds are linear in features of the query and of the cell, so that testing every query
against every cell is one matrix product and a sign:

* ``dot``, unit vectors at angle ``t`` from the cell's middle direction ``c``, cell of angular
  radius ``r``, similarity to reach ``s = cos(g)``: a pixel can reach it only if ``t <= r + g``,
  that is ``q.c - s cos(r) + sqrt(1 - s^2) sin(r) >= 0``.
* ``l2``, middle ``c``, radius ``R``, distance to reach ``d``: ``|q - c| <= R + d``, squared.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from matcher.errors import InputError
from matcher.matching.nearest import Metric, TorchNearest

__all__ = ["CellNearest"]

_PARENT = 8
_CHILD = 4
_CHILDREN = (_PARENT // _CHILD) ** 2
_QUERY_BLOCK = 256
_PAIR_BLOCK = 1 << 15
_ARGMAX_GROUP = 32
# Beyond this share of the cells, looking at them one by one costs more than the plain product.
_MAX_CANDIDATE_SHARE = 1 / 16
_FEW_CELLS = 16
_MOSTLY = 0.8
_ROUNDING = 1e-5
# Near 1 a rounding error of a cosine is a large error of its angle: cosines are lowered by this.
_SLACK = 1e-6
_NORM_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class _Candidates:
    """Pairs (query, cell) that the bound could not exclude."""

    query: Tensor
    cell: Tensor


class CellNearest:
    """Exact search in a dense map, pruned by cells of 8 x 8 and 4 x 4 pixels.

    A query that the bound helps little (many similar cells: blank walls, noise) is compared with
    everything instead, so the worst case is that of :class:`TorchNearest` plus a few per cent.

    Args:
        grid: (H, W, D) float32, finite where allowed; of unit length where allowed, for ``dot``.
        allowed: (H, W) bool, which pixels may be found; ``None``: all.
        metric: ``dot`` or ``l2``.

    Raises:
        InputError: wrong shapes, no pixel allowed, or ``dot`` on vectors that are not unit.
    """

    def __init__(self, grid: Tensor, allowed: Tensor | None = None, metric: Metric = "dot") -> None:
        if grid.ndim != 3:
            raise InputError("grid", "shape (H, W, D)", f"{tuple(grid.shape)}")
        height, width, dimensions = grid.shape
        rows = grid.reshape(-1, dimensions)
        self._dimensions = dimensions
        self._metric = metric
        self._num_rows = len(rows)
        flat_allowed = None if allowed is None or bool(allowed.all()) else allowed.reshape(-1)
        self._complete = TorchNearest(rows, flat_allowed, metric)
        index = _cell_major_index(height, width).to(grid.device)
        if flat_allowed is not None:
            index = _without_forbidden(index, flat_allowed)
        pixels = rows[index].float()
        self._centre = pixels.new_zeros(dimensions)
        if metric == "dot":
            deviation = float((pixels.norm(dim=2) - 1).abs().max())
            if not deviation <= _NORM_TOLERANCE:
                raise InputError("grid", "vectors of unit length", f"deviation {deviation:.3g}")
            self._slack = _SLACK + deviation
            self._margin = _ROUNDING
        else:
            self._centre = pixels.mean(dim=(0, 1))
            pixels = pixels - self._centre
            self._margin = _ROUNDING * float(pixels.square().sum(2).max())
        self._parents = _cell_features(pixels, metric)
        by_child = pixels.view(-1, _CHILD**2, dimensions)
        children = _cell_features(by_child, metric)
        self._children = children.view(-1, _CHILDREN, children.shape[1])
        self._pixels = by_child
        self._pixel_index = index.view(-1, _CHILD**2)

    def query(self, queries: Tensor, lower_bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`~matcher.matching.nearest.NearestNeighbour`."""
        index = torch.empty(len(queries), dtype=torch.int64, device=queries.device)
        similarity = queries.new_empty(len(queries))
        hopeless = torch.ones(len(queries), dtype=torch.bool, device=queries.device)
        num_blocks = -(-len(queries) // _QUERY_BLOCK)
        for block in range(num_blocks):
            # Every block is a sample of all queries: if the bound helps few of it, it helps few.
            rows = slice(block, None, num_blocks)
            bound = None if lower_bound is None else lower_bound[rows]
            index[rows], similarity[rows], hopeless[rows] = self._query_block(queries[rows], bound)
            if float(hopeless[rows].float().mean()) > _MOSTLY:
                break
        # All at once: a complete comparison of a handful costs as much as one of a hundred.
        rest = torch.nonzero(hopeless)[:, 0]
        if len(rest):
            index[rest], similarity[rest] = self._complete.query(queries[rest])
        return index, similarity

    def _query_block(self, queries: Tensor, bound: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Index, similarity, and which queries were left out as better compared completely."""
        # Neither the length (dot) nor the origin (l2) of a query changes which pixel answers it.
        is_dot = self._metric == "dot"
        length = queries.norm(dim=1).clamp_min(1e-12) if is_dot else torch.ones_like(queries[:, 0])
        local = queries / length[:, None] if is_dot else queries - self._centre
        reached = self._first_guess(local) if bound is None else bound / length
        features = self._query_features(local, reached)
        pairs = torch.nonzero(features @ self._parents.T >= -self._margin)
        count = torch.bincount(pairs[:, 0], minlength=len(queries))
        hopeless = count > max(_MAX_CANDIDATE_SHARE * len(self._parents), _FEW_CELLS)
        if is_dot:
            # Two angles may add up to more than 180 degrees only if the similarity is negative.
            hopeless |= reached < 2 * self._slack
        if bool(hopeless.any()):
            pairs = pairs[~hopeless[pairs[:, 0]]]
        best, index = self._search_parents(local, features, pairs)
        return index, best * length, hopeless

    def _first_guess(self, local: Tensor) -> Tensor:
        """A similarity that some pixel reaches: the best of the cell with the closest middle."""
        middles = self._parents[:, : self._dimensions]
        score = local @ middles.T
        if self._metric == "l2":
            score = 2 * score - middles.square().sum(dim=1)
        cell = _argmax(score)
        pixels = self._pixels.view(len(self._parents), _PARENT**2, self._dimensions)[cell]
        return self._compare(pixels, local).amax(dim=1)

    def _query_features(self, local: Tensor, reached: Tensor) -> Tensor:
        if self._metric == "dot":
            cosine = (reached.clamp(-1, 1) - self._slack)[:, None]
            return torch.cat([local, -cosine, (1 - cosine.square()).sqrt()], dim=1)
        squared = (-reached).clamp_min(0)[:, None]
        constant = squared - local.square().sum(dim=1, keepdim=True)
        return torch.cat([2 * local, 2 * squared.sqrt(), constant, -torch.ones_like(squared)], 1)

    def _search_parents(
        self, local: Tensor, features: Tensor, pairs: Tensor
    ) -> tuple[Tensor, Tensor]:
        best = local.new_full((len(local),), -torch.inf)
        index = torch.full((len(local),), self._num_rows, device=local.device)
        for start in range(0, len(pairs), _PAIR_BLOCK):
            block = pairs[start : start + _PAIR_BLOCK]
            left = self._surviving_children(features, _Candidates(block[:, 0], block[:, 1]))
            for begin in range(0, len(left.query), _PAIR_BLOCK):
                part = slice(begin, begin + _PAIR_BLOCK)
                candidates = _Candidates(left.query[part], left.cell[part])
                self._compare_pixels(local, candidates, best, index)
        return best, index

    def _surviving_children(self, features: Tensor, parents: _Candidates) -> _Candidates:
        score = torch.bmm(self._children[parents.cell], features[parents.query][:, :, None])
        kept = torch.nonzero(score[:, :, 0] >= -self._margin)
        return _Candidates(
            parents.query[kept[:, 0]], parents.cell[kept[:, 0]] * _CHILDREN + kept[:, 1]
        )

    def _compare_pixels(
        self, local: Tensor, children: _Candidates, best: Tensor, index: Tensor
    ) -> None:
        """Improve ``best`` and ``index`` in place; among equals the lowest index wins."""
        if not len(children.query):
            return
        scores = self._compare(self._pixels[children.cell], local[children.query])
        value, position = scores.max(dim=1)
        before = best.clone()
        best.scatter_reduce_(0, children.query, value, "amax")
        index[best > before] = self._num_rows
        winner = value == best[children.query]
        pixel = self._pixel_index[children.cell[winner], position[winner]]
        index.scatter_reduce_(0, children.query[winner], pixel, "amin")

    def _compare(self, pixels: Tensor, local: Tensor) -> Tensor:
        """(P, K) similarities of (P, K, D) pixels with (P, D) queries."""
        if self._metric == "dot":
            return torch.bmm(pixels, local[:, :, None])[:, :, 0]
        return -(pixels - local[:, None]).square().sum(dim=2)


def _argmax(scores: Tensor) -> Tensor:
    """(M,) column of a largest score of each row: ten times as fast as ``argmax`` on the CPU.

    Maxima vectorise and their positions do not, so the maximum of each group of columns comes
    first. What is left over at the right does not take part: any good column will do.
    """
    groups = scores.shape[1] // _ARGMAX_GROUP
    if groups < 2:
        return scores.argmax(dim=1)
    grouped = scores[:, : groups * _ARGMAX_GROUP].reshape(len(scores), _ARGMAX_GROUP, groups)
    column = grouped.amax(dim=1).argmax(dim=1)
    inside = grouped.gather(2, column[:, None, None].expand(-1, _ARGMAX_GROUP, 1))[:, :, 0]
    return inside.argmax(dim=1) * groups + column


def _cell_major_index(height: int, width: int) -> Tensor:
    """(cells, 64) raster indexes: cell by cell, its quarters one after the other.

    Cells over the right or lower border repeat the last column or row: a repeated pixel carries
    its own index and changes no answer.
    """
    down, across = -(-height // _PARENT), -(-width // _PARENT)
    rows = torch.arange(down * _PARENT).clamp_max(height - 1)
    columns = torch.arange(across * _PARENT).clamp_max(width - 1)
    split = _PARENT // _CHILD
    index = (rows[:, None] * width + columns).view(down, split, _CHILD, across, split, _CHILD)
    return index.permute(0, 3, 1, 4, 2, 5).reshape(-1, _PARENT**2)


def _without_forbidden(index: Tensor, allowed: Tensor) -> Tensor:
    """Put the first allowed pixel of a cell in the place of forbidden ones; drop empty cells.

    The first in raster order, so that a repeated pixel never hides an equal one of lower index.
    """
    usable = allowed[index]
    first = torch.where(usable, index, len(allowed)).amin(dim=1)
    filled = torch.where(usable, index, first[:, None])
    return filled[first < len(allowed)]


def _cell_features(pixels: Tensor, metric: Metric) -> Tensor:
    """(cells, D + 2 or D + 3) features whose product with a query's is its test."""
    mean = pixels.mean(dim=1)
    if metric == "dot":
        middle = normalize(mean, dim=1)
        cosine = torch.bmm(pixels, middle[:, :, None])[:, :, 0].amin(dim=1)
        cosine = (cosine / pixels.norm(dim=2).amax(dim=1) - _SLACK)[:, None]
        sine = (1 - cosine.square()).clamp_min(0).sqrt()
        # A cell wider than a right angle excludes nothing; these features always pass.
        wide = cosine <= 0
        return torch.where(
            wide,
            torch.cat([torch.zeros_like(middle), -torch.ones_like(cosine), cosine * 0], dim=1),
            torch.cat([middle, cosine, sine], dim=1),
        )
    radius = (pixels - mean[:, None]).square().sum(dim=2).amax(dim=1).sqrt()[:, None]
    constant = mean.square().sum(dim=1, keepdim=True) - radius.square()
    return torch.cat([mean, radius, torch.ones_like(radius), constant], dim=1)
