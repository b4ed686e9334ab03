"""How the neighbours of a match moved: the affine map around it, and how many it explains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

__all__ = ["LocalMotion", "local_motion", "nearest_neighbours"]

_NEIGHBOURS = 16
_SCALE_PX = 4.0
_ROUNDS = 4
_SUPPORTED = 0.4


@dataclass(frozen=True, slots=True, eq=False)
class LocalMotion:
    """What the matches around each match say.

    Attributes:
        view1_from_view0: (M, 2, 2) float32, the linear part of the affine map around each match;
            the identity where too few matches have support.
        support: (M, 3) float32 in [0, 1], the share of a match's neighbours that this map explains,
            the lower of both directions. First among all matches; then among those with support;
            then among those with support there. Where most of a pair is wrong, the neighbours of
            a right match are wrong as well, and say nothing about it until they are out of the
            way.
    """

    view1_from_view0: Tensor
    support: Tensor


def local_motion(ends0: Tensor, ends1: Tensor) -> LocalMotion:
    """The motion around every match.

    A small patch of a surface moves by an affine map: right matches agree on it, wrong ones do
    not. It is fitted robustly (Cauchy weights) from view 0 to view 1 and back; the lower of the two
    shares counts, because many matches that end in one place agree on shrinking to it.

    Args:
        ends0: (M, 2) float32 pixels of view 0.
        ends1: (M, 2) float32 pixels of view 1; row i matches row i.
    """
    among = torch.ones(len(ends0), dtype=torch.bool, device=ends0.device)
    supports = []
    for _ in range(3):
        maps, support = _fit_around(ends0, ends1, among)
        supports.append(support)
        among = support >= _SUPPORTED
    return LocalMotion(maps, torch.stack(supports, dim=1))


def nearest_neighbours(ends: Tensor, count: int, among: Tensor) -> tuple[Tensor, Tensor]:
    """(M, count) distances and rows of the nearest other matches in one view.

    Args:
        ends: (M, 2) pixels.
        count: how many.
        among: (M,) bool, who may be a neighbour: more than ``count`` of them.
    """
    points = ends.detach().cpu().double().numpy()
    candidates = np.flatnonzero(among.cpu().numpy())
    distances, found = KDTree(points[candidates]).query(points, k=count + 1)
    rows = candidates[found]
    # A candidate is no neighbour of its own; for all others the farthest is one too many.
    own = rows == np.arange(len(rows))[:, None]
    surplus = np.where(own.any(axis=1), own.argmax(axis=1), count)
    kept = np.arange(count + 1) != surplus[:, None]
    shape = (len(rows), count)
    return (
        torch.from_numpy(distances[kept].reshape(shape)).to(ends),
        torch.from_numpy(rows[kept].reshape(shape)).to(ends.device),
    )


def _fit_around(ends0: Tensor, ends1: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """(M, 2, 2) maps and (M,) supports, in the word of ``among`` alone, (M,) bool."""
    if int(among.sum()) <= _NEIGHBOURS:
        return torch.eye(2, device=ends0.device).expand(len(ends0), 2, 2), ends0.new_zeros(
            len(ends0)
        )
    maps, forth = _fit_one_way(ends0, ends1, among)
    _, back = _fit_one_way(ends1, ends0, among)
    return maps, torch.minimum(forth, back)


def _fit_one_way(ends0: Tensor, ends1: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    _, rows = nearest_neighbours(ends0, _NEIGHBOURS, among)
    around0, around1 = ends0[rows] - ends0[:, None], ends1[rows] - ends1[:, None]
    weights = torch.ones(rows.shape, device=ends0.device)
    little = 0.1 * torch.eye(2, device=ends0.device)  # neighbours on one line leave the map open
    for _ in range(_ROUNDS):
        weighted = around0 * weights[..., None]
        spread = weighted.transpose(1, 2) @ around0 + little
        mixed = weighted.transpose(1, 2) @ around1
        transposed = torch.linalg.solve(spread, mixed)
        apart = (around1 - around0 @ transposed).norm(dim=2)
        weights = 1 / (1 + (apart / _SCALE_PX).square())
    return transposed.transpose(1, 2), weights.mean(dim=1)
