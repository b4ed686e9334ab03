"""Nearest neighbours by complete comparison: torch and FAISS behind one small protocol."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import faiss
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.errors import InputError

__all__ = ["FaissNearest", "Metric", "NearestNeighbour", "TorchNearest"]

Metric = Literal["dot", "l2"]

# Products of this shape (2 MiB of float32) stay in a core's second-level cache; larger ones make
# every similarity a trip to memory, which costs five times the multiplication.
_CPU_BLOCK_QUERIES = 512
_CPU_BLOCK_ROWS = 1024
_GPU_BLOCK_ELEMENTS = 1 << 28
# |x|^2 - 2 q.x cancels badly for coordinates in metres; few dimensions are subtracted instead.
_DIRECT_DISTANCE_DIMENSIONS = 8
_FAISS_LOCK = threading.Lock()


class NearestNeighbour(Protocol):
    """A map made ready to be searched.

    A row of the map that must never be found is left out when it is built. Among equals, the
    lowest index wins. "Exact" means: up to the rounding of float32 dot products.
    """

    def query(self, queries: Tensor, lower_bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the most similar row of the map for each query.

        Args:
            queries: (M, D) float32, finite.
            lower_bound: (M,) similarity that some row is known to reach; a search may use it to
                skip work, the answer does not depend on it.

        Returns:
            (M,) int64 indexes into the rows the map was built from, and (M,) float32 similarities:
            the dot product, or minus the squared distance.
        """
        ...


class TorchNearest:
    """Complete comparison in blocks that stay in the cache, on any device torch knows.

    Only row maxima are taken (``amax``): they vectorise, their positions do not. The position is
    looked up once for each query, in the one block that holds its best row.

    Args:
        rows: (N, D) float32, finite where allowed.
        allowed: (N,) bool, which rows may be found; ``None``: all.
        metric: ``dot`` or ``l2``.

    Raises:
        InputError: no row is allowed, or wrong shapes.
    """

    def __init__(self, rows: Tensor, allowed: Tensor | None = None, metric: Metric = "dot") -> None:
        self._rows, self._row_index = _allowed_rows(rows, allowed)
        self._metric = metric
        self._direct = metric == "l2" and rows.shape[1] <= _DIRECT_DISTANCE_DIMENSIONS
        self._centre = torch.zeros_like(self._rows[0])
        if metric == "l2" and not self._direct:
            # The distance does not change when the origin moves; its rounding error does.
            self._centre = self._rows.mean(dim=0)
            centred = self._rows - self._centre
            self._scored = torch.cat([2 * centred, -centred.square().sum(1, keepdim=True)], dim=1)
        else:
            self._scored = self._rows

    def query(self, queries: Tensor, lower_bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`NearestNeighbour`; ``lower_bound`` is not used."""
        if not len(queries):
            return queries.new_zeros(0, dtype=torch.int64), queries.new_zeros(0)
        row = self._best_rows(self._query_features(queries))
        winners = self._rows[row]
        if self._metric == "l2":
            similarity = -(queries - winners).square().sum(dim=1)
        else:
            similarity = (queries * winners).sum(dim=1)
        return (row if self._row_index is None else self._row_index[row]), similarity

    def best_of_blocks(self, queries: Tensor, count: int) -> list[Tensor]:
        """The best row of each of the best blocks of the map, on the CPU 1,024 rows each.

        Args:
            queries: (M, D) float32, finite.
            count: of how many blocks; fewer where the map has no more.

        Returns:
            (M,) int64 indexes, as of ``query``, the best of all first.
        """
        if not len(queries):
            return [queries.new_zeros(0, dtype=torch.int64)]
        features = self._query_features(queries)
        blocks = torch.split(self._scored, self._block_shape()[1])
        maxima = self._block_maxima(features, blocks)
        best = maxima.topk(min(count, len(blocks)), dim=0).indices
        rows = [self._rows_in(blocks, features, block) for block in best]
        return [row if self._row_index is None else self._row_index[row] for row in rows]

    def _query_features(self, queries: Tensor) -> Tensor:
        if self._metric == "dot" or self._direct:
            return queries
        return torch.cat([queries - self._centre, torch.ones_like(queries[:, :1])], dim=1)

    def _block_shape(self) -> tuple[int, int]:
        if self._rows.device.type != "cpu":
            return max(1, _GPU_BLOCK_ELEMENTS // len(self._rows)), len(self._rows)
        return _CPU_BLOCK_QUERIES, _CPU_BLOCK_ROWS

    def _score(self, queries: Tensor, block: Tensor) -> Tensor:
        if self._direct:
            return -torch.cdist(queries, block, compute_mode="donot_use_mm_for_euclid_dist")
        return queries @ block.T

    def _best_rows(self, queries: Tensor) -> Tensor:
        """(M,) the first of the best rows for each query."""
        block_queries, block_rows = self._block_shape()
        parts, blocks = torch.split(queries, block_queries), torch.split(self._scored, block_rows)
        if len(blocks) == 1:
            return torch.cat([self._score(part, blocks[0]).argmax(dim=1) for part in parts])
        best = self._block_maxima(queries, blocks)
        return self._rows_in(blocks, queries, best.argmax(dim=0))

    def _block_maxima(self, queries: Tensor, blocks: Sequence[Tensor]) -> Tensor:
        """(B, M) how similar the best row of each block is to each query."""
        best = queries.new_empty(len(blocks), len(queries))
        size = self._block_shape()[0]
        parts, columns = torch.split(queries, size), torch.split(best, size, dim=1)
        for part, maxima in zip(parts, columns, strict=True):
            for block, maximum in zip(blocks, maxima, strict=True):
                torch.amax(self._score(part, block), dim=1, out=maximum)
        return best

    def _rows_in(self, blocks: Sequence[Tensor], queries: Tensor, block: Tensor) -> Tensor:
        """(M,) the first of the best rows of the block that is given for each query."""
        order = torch.argsort(block)
        counts = torch.bincount(block, minlength=len(blocks)).tolist()
        row = torch.empty_like(block)
        for number, members in enumerate(torch.split(order, counts)):
            if len(members):
                inside = self._score(queries[members], blocks[number]).argmax(dim=1)
                row[members] = inside + number * len(blocks[0])
        return row


class FaissNearest:
    """Complete comparison by FAISS's flat indexes; on the GPU when faiss-gpu is installed.

    Args:
        rows: (N, D) float32, finite where allowed; on CUDA, with faiss-gpu, the index lives there.
        allowed: (N,) bool, which rows may be found; ``None``: all.
        metric: ``dot`` or ``l2``.

    Raises:
        InputError: no row is allowed, or wrong shapes.
    """

    def __init__(self, rows: Tensor, allowed: Tensor | None = None, metric: Metric = "dot") -> None:
        kept, row_index = _allowed_rows(rows, allowed)
        flat = faiss.IndexFlatIP if metric == "dot" else faiss.IndexFlatL2
        index: Any = flat(int(rows.shape[1]))
        self._metric = metric
        # Below the threshold FAISS compares directly: slow, but without cancellation.
        direct = metric == "l2" and rows.shape[1] <= _DIRECT_DISTANCE_DIMENSIONS
        self._blas_threshold = np.iinfo(np.int32).max if direct else 1
        self._resources = None
        if rows.is_cuda and hasattr(faiss, "StandardGpuResources"):
            self._resources = faiss.StandardGpuResources()
            index = faiss.index_cpu_to_gpu(self._resources, rows.device.index or 0, index)
        array = kept.detach().cpu().contiguous().numpy()
        index.add(array)
        self._index = index
        # FAISS returns any one of several equal rows.
        first = torch.from_numpy(_first_equal_row(array)).to(rows.device)
        self._row_index = first if row_index is None else row_index[first]

    def query(self, queries: Tensor, lower_bound: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """See :class:`NearestNeighbour`; ``lower_bound`` is not used."""
        array = queries.detach().cpu().contiguous().numpy()
        if not len(array):
            return queries.new_zeros(0, dtype=torch.int64), queries.new_zeros(0)
        with _faiss_blas_threshold(self._blas_threshold):
            scores, rows = self._index.search(array, 1)
        similarity = torch.from_numpy(scores[:, 0]).to(queries.device)
        row = torch.from_numpy(rows[:, 0]).to(queries.device)
        if self._metric == "l2":
            similarity = -similarity
        return self._row_index[row], similarity


@contextmanager
def _faiss_blas_threshold(threshold: int) -> Iterator[None]:
    """FAISS multiplies matrices only from so many query numbers on; set that, and put it back.

    The default sends a few thousand queries of 24 numbers down a path five times slower. The
    variable belongs to the process: our own searches take turns, and a search elsewhere in the
    process that runs at the same moment may see our value, which changes its speed, not its answer.
    """
    with _FAISS_LOCK:
        before = faiss.cvar.distance_compute_blas_threshold
        faiss.cvar.distance_compute_blas_threshold = threshold
        try:
            yield
        finally:
            faiss.cvar.distance_compute_blas_threshold = before


def _first_equal_row(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """(N,) for each row, the index of the first row with the same numbers, by a 64-bit hash."""
    generator = np.random.default_rng(0)
    factors: list[int] = [int(generator.integers(1, 2**63)) for _ in range(rows.shape[1])]
    bits = (rows + np.float32(0)).view(np.uint32)  # adding 0 turns -0.0 into 0.0
    hashes = np.zeros(len(rows), dtype=np.uint64)
    for channel, factor in enumerate(factors):
        hashes += bits[:, channel] * np.uint64(factor)
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    result: npt.NDArray[np.int64] = first[inverse]
    return result


def _allowed_rows(rows: Tensor, allowed: Tensor | None) -> tuple[Tensor, Tensor | None]:
    if rows.ndim != 2 or not rows.is_floating_point():
        raise InputError("rows", "floating point of shape (N, D)", f"{tuple(rows.shape)}")
    kept, index = rows, None
    if allowed is not None and not bool(allowed.all()):
        if allowed.shape != rows.shape[:1]:
            raise InputError("allowed", f"shape ({len(rows)},)", f"{tuple(allowed.shape)}")
        index = torch.nonzero(allowed)[:, 0]
        kept = rows[index]
    if not len(kept):
        raise InputError("rows", "at least one row that may be found", "none")
    return kept.float().contiguous(), index
