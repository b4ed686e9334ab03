"""Matches of several views of two photographs as one set without near duplicates."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import Matches

__all__ = ["add_matches", "merge_matches"]


def merge_matches(
    matches: Sequence[Matches], cell_px: float | tuple[float, float] = 1.5
) -> Matches:
    """Matches of several crops as one set without near duplicates.

    The most confident match is kept first (the first one among equals); a later one is dropped if
    one of its ends falls into a cell of photograph 0, or of photograph 1, that a kept one has
    taken. So the photographs play the same part, and swapping them swaps the answer.

    Args:
        matches: in pixels of the two photographs.
        cell_px: side of a cell, pixels; or one for each photograph.

    Returns:
        The most confident first.

    Raises:
        InputError: a cell that is not positive.
    """
    sides = cell_px if isinstance(cell_px, tuple) else (cell_px, cell_px)
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise InputError("cell_px", "a positive number of pixels", f"{cell_px}")
    if not matches:
        return Matches.empty()
    together = Matches(
        torch.cat([part.keypoints0 for part in matches]),
        torch.cat([part.keypoints1 for part in matches]),
        torch.cat([part.confidence for part in matches]),
    )
    ordered = together.select(torch.argsort(together.confidence, descending=True, stable=True))
    cells = (
        _cell_numbers(ordered.keypoints0, sides[0]),
        _cell_numbers(ordered.keypoints1, sides[1]),
    )
    return ordered.select(_rows_without_common_cell(*cells))


def add_matches(fine: Matches, coarse: Matches, cell_px: float) -> Matches:
    """All of ``fine``, and those of ``coarse`` that have neither end near one of them.

    Args:
        fine: matches to be kept.
        coarse: further matches of the same photographs, less exact.
        cell_px: side of the cells, pixels: nothing is added where ``fine`` has taken a cell.

    Raises:
        InputError: a cell that is not positive.
    """
    if not (math.isfinite(cell_px) and cell_px > 0):
        raise InputError("cell_px", "a positive number of pixels", f"{cell_px}")
    count = len(fine)
    is_free = torch.ones(len(coarse), dtype=torch.bool, device=coarse.confidence.device)
    for ends in ((fine.keypoints0, coarse.keypoints0), (fine.keypoints1, coarse.keypoints1)):
        cells = _cell_numbers(torch.cat(ends), cell_px)
        is_free &= ~torch.isin(cells[count:], cells[:count])
    added = coarse.select(is_free)
    return Matches(
        torch.cat([fine.keypoints0, added.keypoints0]),
        torch.cat([fine.keypoints1, added.keypoints1]),
        torch.cat([fine.confidence, added.confidence]),
    )


def _cell_numbers(keypoints: Tensor, cell_px: float) -> Tensor:
    """(M,) number of the cell that each keypoint lies in, counting only cells that have one."""
    cells = torch.floor(keypoints.double() / cell_px).to(torch.int64)
    numbers: Tensor = torch.unique(cells, dim=0, return_inverse=True)[1]
    return numbers


def _rows_without_common_cell(cells0: Tensor, cells1: Tensor) -> Tensor:
    """Greedy choice, in order, of rows that share neither cell with a row chosen before."""
    chosen = torch.zeros(len(cells0), dtype=torch.bool, device=cells0.device)
    left = torch.arange(len(cells0), device=cells0.device)
    # What comes first in both of its cells is sure to be chosen; the first row left always does.
    while len(left):
        first = _is_first(cells0[left]) & _is_first(cells1[left])
        chosen[left[first]] = True
        taken0 = torch.isin(cells0[left], cells0[left[first]])
        taken1 = torch.isin(cells1[left], cells1[left[first]])
        left = left[~(taken0 | taken1)]
    return chosen.nonzero()[:, 0]


def _is_first(cells: Tensor) -> Tensor:
    """(M,) bool, whether no earlier row has the same number."""
    rows = torch.arange(len(cells), device=cells.device)
    first = torch.full((int(cells.max()) + 1,), len(cells), device=cells.device)
    return first.scatter_reduce_(0, cells, rows, "amin")[cells] == rows
