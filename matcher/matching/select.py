"""Which of many matches to keep: confident ones, spread over the picture."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching.options import MatchingOptions
from matcher.structures import GridMatches, ImageSize

__all__ = ["select_matches", "top_k_rows"]


def select_matches(
    matches: GridMatches, confidence: Tensor, size0: ImageSize, options: MatchingOptions
) -> tuple[GridMatches, Tensor]:
    """Apply ``min_confidence``, then ``top_k`` with ``balance``.

    Args:
        matches: M matches.
        confidence: (M,) in (0, 1].
        size0: size of map 0, pixels.
        options: what to keep; without a ``min_confidence`` of their own nothing falls below.

    Returns:
        The kept matches in their order, and their confidences.

    Raises:
        InputError: ``confidence`` does not fit the matches.
    """
    if confidence.shape != (len(matches),):
        raise InputError("confidence", f"shape ({len(matches)},)", f"{tuple(confidence.shape)}")
    least = options.least_confidence(is_probability=False)
    rows = torch.nonzero(confidence >= least)[:, 0]
    if options.top_k is not None:
        pixels = matches.pixels0[rows]
        kept = top_k_rows(pixels, confidence[rows], options.top_k, size0, balance=options.balance)
        rows = rows[kept]
    return matches.select(rows), confidence[rows]


def top_k_rows(
    keypoints: Tensor, confidence: Tensor, top_k: int, size: ImageSize, *, balance: int
) -> Tensor:
    """Choose the most confident keypoints without letting one place crowd out the others.

    The picture is divided into ``balance`` x ``balance`` cells. Each cell that has keypoints may
    first place its fair share (``top_k`` over the number of such cells, rounded up) of its most
    confident ones; places that stay free go to the most confident of the rest. Equals keep their
    order, so the answer is always the same.

    Args:
        keypoints: (M, 2) pixels, x then y.
        confidence: (M,).
        top_k: how many to choose, at least 1.
        size: size of the picture, pixels.
        balance: cells along each side; 0 chooses by confidence alone.

    Returns:
        (min(M, top_k),) row numbers, increasing.

    Raises:
        InputError: a number out of its range.
    """
    if top_k < 1 or balance < 0:
        raise InputError("top_k, balance", "at least 1, at least 0", f"{top_k}, {balance}")
    if len(keypoints) <= top_k:
        return torch.arange(len(keypoints), device=keypoints.device)
    order = torch.argsort(confidence, descending=True, stable=True)
    if balance:
        rank = _rank_in_cell(_cells(keypoints[order], size, balance))
        occupied = int((rank == 0).sum())
        within_share = rank < math.ceil(top_k / occupied)
        # A stable sort: the shares first, each part still by confidence.
        order = order[torch.argsort((~within_share).to(torch.uint8), stable=True)]
    return order[:top_k].sort().values


def _cells(keypoints: Tensor, size: ImageSize, balance: int) -> Tensor:
    extent = torch.tensor([size.width, size.height], device=keypoints.device)
    cell = (keypoints * balance / extent).floor().to(torch.int64).clamp(0, balance - 1)
    return cell[:, 1] * balance + cell[:, 0]


def _rank_in_cell(cells: Tensor) -> Tensor:
    """How many earlier keypoints lie in the same cell."""
    order = torch.argsort(cells, stable=True)
    grouped = cells[order]
    position = torch.arange(len(cells), device=cells.device)
    is_start = torch.ones_like(grouped, dtype=torch.bool)
    is_start[1:] = grouped[1:] != grouped[:-1]
    start = torch.where(is_start, position, torch.zeros_like(position)).cummax(0).values
    rank = torch.empty_like(position)
    rank[order] = position - start
    return rank
