"""The rotations of all cameras from those of pairs, some of which are wrong.

Three pairs among three photographs form a circle: their rotations, one after the other, must lead
back. Pairs that disagree with the circles they are in lose weight, the heaviest spanning tree of
what remains is the start, and a robust average over all pairs follows (the linearised one of
Chatterjee and Govindu, 2013, with Geman and McClure's weights).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import spsolve
from scipy.spatial.transform import Rotation

from matcher.alignment.graph import spanning_tree
from matcher.structures import FloatArray

__all__ = ["AveragedRotations", "average_rotations", "circle_support"]

_CIRCLE_TOLERANCE_DEG = 6.0
_SCALES_DEG = (20.0, 10.0, 5.0, 3.0)
_STEPS_PER_SCALE = 6
_UNSUPPORTED_WEIGHT = 0.05
"""A pair that no circle confirms counts so much of its inliers: it may be all there is."""


@dataclass(frozen=True, slots=True, eq=False)
class AveragedRotations:
    """Rotations of N cameras, and how far each of E pairs is from them.

    Attributes:
        rotations: (N, 3, 3), cam_from_world.
        errors_deg: (E,) angle between a pair's rotation and that of its two cameras.
    """

    rotations: FloatArray
    errors_deg: FloatArray


def circle_support(
    num: int, ends: npt.NDArray[np.int64], rotations: FloatArray, weights: FloatArray
) -> FloatArray:
    """(E,) share in [0, 1] of each pair's circles of three that lead back, by weight.

    Args:
        num: number of photographs.
        ends: (E, 2) their indices.
        rotations: (E, 3, 3) rotation of the second camera from the first.
        weights: (E,) > 0; a circle weighs as much as the weaker of its other two pairs.

    Returns:
        the share, and ``-1`` for pairs that are in no circle.
    """
    edge_of = np.full((num, num), -1, dtype=np.int64)
    edge_of[ends[:, 0], ends[:, 1]] = edge_of[ends[:, 1], ends[:, 0]] = np.arange(len(ends))
    support = np.full(len(ends), -1.0)
    for edge, (i, j) in enumerate(ends):
        thirds = np.flatnonzero((edge_of[i] >= 0) & (edge_of[j] >= 0))
        if not len(thirds):
            continue
        k_from_i = _directed(rotations, ends, edge_of[i, thirds], int(i))
        j_from_k = np.swapaxes(_directed(rotations, ends, edge_of[j, thirds], int(j)), 1, 2)
        loop = np.swapaxes(j_from_k @ k_from_i, 1, 2) @ rotations[edge]
        closes = _angles_deg(loop) < _CIRCLE_TOLERANCE_DEG
        weight = np.minimum(weights[edge_of[i, thirds]], weights[edge_of[j, thirds]])
        support[edge] = float(weight[closes].sum() / weight.sum())
    return support


def average_rotations(
    num: int,
    ends: npt.NDArray[np.int64],
    rotations: FloatArray,
    weights: FloatArray,
    known: dict[int, FloatArray] | None = None,
) -> AveragedRotations:
    """Rotations of cameras that pairs connect.

    Args:
        num: number of cameras; the pairs must connect them all.
        ends: (E, 2) indices of the two cameras of each pair.
        rotations: (E, 3, 3) rotation of the second camera from the first.
        weights: (E,) > 0, how much evidence a pair has (inliers).
        known: rotations that are given, by camera; without any, the first camera gets identity.
    """
    support = circle_support(num, ends, rotations, weights)
    trusted = weights * np.maximum(support, _UNSUPPORTED_WEIGHT)
    known = dict(known or {0: np.eye(3)})
    absolute = _along_tree(num, ends, rotations, trusted, known)
    fixed = np.array([camera in known for camera in range(num)])
    for scale in _SCALES_DEG:
        for _ in range(_STEPS_PER_SCALE):
            residuals = _residuals(absolute, ends, rotations)
            angle = np.degrees(np.linalg.norm(residuals, axis=1)) / scale
            # The residual of edge (i, j) is what R_i must turn less R_j: a graph Laplacian.
            step = _solve(num, ends, trusted / (1 + angle**2) ** 2, residuals, fixed)
            absolute = absolute @ Rotation.from_rotvec(step).as_matrix()
    errors = np.degrees(np.linalg.norm(_residuals(absolute, ends, rotations), axis=1))
    return AveragedRotations(absolute, errors)


def _along_tree(
    num: int,
    ends: npt.NDArray[np.int64],
    rotations: FloatArray,
    weights: FloatArray,
    known: dict[int, FloatArray],
) -> FloatArray:
    """Rotations carried along the heaviest tree, from the cameras that are known."""
    edge_of = {(int(i), int(j)): edge for edge, (i, j) in enumerate(ends)}
    weighted = np.column_stack([ends, weights])
    tree = spanning_tree(num, [(int(i), int(j), float(weight)) for i, j, weight in weighted])
    neighbours: list[list[int]] = [[] for _ in range(num)]
    for i, j in tree:
        neighbours[i].append(j)
        neighbours[j].append(i)
    absolute = np.broadcast_to(np.eye(3), (num, 3, 3)).copy()
    for camera, rotation in known.items():
        absolute[camera] = rotation
    reached = set(known)
    waiting = deque(known)
    while waiting:
        camera = waiting.popleft()
        for other in neighbours[camera]:
            if other in reached:
                continue
            forward = (camera, other) in edge_of
            edge = edge_of[(camera, other) if forward else (other, camera)]
            relative = rotations[edge] if forward else rotations[edge].T
            absolute[other] = relative @ absolute[camera]
            reached.add(other)
            waiting.append(other)
    return absolute


def _residuals(
    absolute: FloatArray, ends: npt.NDArray[np.int64], rotations: FloatArray
) -> FloatArray:
    """(E, 3) what is left of each pair's rotation between its cameras, world axes, radians."""
    left = np.swapaxes(absolute[ends[:, 1]], 1, 2) @ rotations @ absolute[ends[:, 0]]
    return np.asarray(Rotation.from_matrix(left).as_rotvec())


def _solve(
    num: int,
    ends: npt.NDArray[np.int64],
    weights: FloatArray,
    residuals: FloatArray,
    fixed: npt.NDArray[np.bool_],
) -> FloatArray:
    """(N, 3) turns of all cameras that reduce the residuals most; none of the fixed ones."""
    free = np.flatnonzero(~fixed)
    step = np.zeros((num, 3))
    if not len(free):
        return step
    edges = np.arange(len(ends))
    incidence = sparse.csr_matrix(
        (
            np.concatenate([np.ones(len(ends)), -np.ones(len(ends))]),
            (np.concatenate([edges, edges]), np.concatenate([ends[:, 1], ends[:, 0]])),
        ),
        shape=(len(ends), num),
    )[:, free]
    weighted = incidence.T @ sparse.diags(weights)
    laplacian = (weighted @ incidence).tocsc() + 1e-9 * weights.max() * sparse.eye(len(free))
    step[free] = np.reshape(spsolve(laplacian.tocsc(), weighted @ residuals), (len(free), 3))
    return step


def _directed(
    rotations: FloatArray, ends: npt.NDArray[np.int64], edges: npt.NDArray[np.int64], start: int
) -> FloatArray:
    """(T, 3, 3) rotations of edges, from the camera ``start`` to the other one."""
    forward = ends[edges, 0] == start
    chosen = rotations[edges]
    return np.where(forward[:, None, None], chosen, np.swapaxes(chosen, 1, 2))


def _angles_deg(rotations: FloatArray | Sequence[FloatArray]) -> FloatArray:
    angles = Rotation.from_matrix(np.asarray(rotations)).magnitude()
    return np.asarray(np.degrees(np.atleast_1d(angles)))
