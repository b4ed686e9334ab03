"""The coarse stage: where every camera stands and how large its shape is, from 3-D distances.

MASt3R-SfM (arXiv:2409.19152), section 4.3, moves rigid canonical shapes until matched points meet
in space, by gradient descent from a chain of pairs. Here the rotations are known beforehand (they
were averaged over all pairs), and with them the matched points depend linearly on what is left:
a position and a size a camera. So the same objective, made robust by re-weighting, is a row of
small linear systems, and needs no first guess.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.alignment.anchors import Sightings
from matcher.geometry.camera import normalize
from matcher.structures import Camera, FloatArray

__all__ = ["CoarsePlaces", "place_cameras"]

_STEPS = 25
_RELATIVE_NOISE = 0.05
_SMALLEST_SIZE = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class CoarsePlaces:
    """Centres (N, 3) of the cameras in the world, and sizes (N,) of their shapes."""

    centers: FloatArray
    sizes: FloatArray


def place_cameras(
    sightings: Sightings,
    depth: FloatArray,
    rotations: FloatArray,
    cameras: Sequence[Camera],
    known_centers: dict[int, FloatArray] | None = None,
    same_place: Sequence[tuple[int, int]] = (),
) -> CoarsePlaces:
    """Positions and sizes for which matched points meet.

    Args:
        sightings: of the verified pairs; each match is used from one of its ends.
        depth: (A,) depths of anchors, in the own unit of each photograph.
        rotations: (N, 3, 3), cam_from_world.
        cameras: pinholes.
        known_centers: positions that are given. With two different ones the unit is theirs;
            otherwise the mean size is 1.
        same_place: pairs of cameras that no baseline was seen between.
    """
    num = len(cameras)
    known = dict(known_centers or {0: np.zeros(3)})
    rows = (
        (sightings.home < sightings.other)
        & np.isfinite(depth[sightings.anchor])
        & np.isfinite(depth[sightings.other_anchor])
    )
    part = sightings.select(rows)
    depth0 = depth[part.anchor] * part.ratio
    depth1 = depth[part.other_anchor] * part.other_ratio
    arms0 = _arms(part.home, part.pixel, rotations, cameras) * depth0[:, None]
    arms1 = _arms(part.other, part.seen, rotations, cameras) * depth1[:, None]
    sizes, centers = np.ones(num), np.zeros((num, 3))
    weights = np.ones(len(part))
    for step in range(_STEPS):
        # Errors of depths grow with the depth: the distance counts relative to it.
        unit = _RELATIVE_NOISE * np.sqrt(
            (sizes[part.home] * depth0) ** 2 + (sizes[part.other] * depth1) ** 2
        )
        system, right = _normal_equations(num, part, arms0, arms1, weights / unit**2)
        _tie(system, same_place)
        sizes, centers = _solve(system, right, num, known)
        if not (np.isfinite(sizes).all() and np.isfinite(centers).all()):
            return CoarsePlaces(np.zeros((num, 3)), np.ones(num))
        sizes = np.maximum(sizes, _SMALLEST_SIZE)
        gap = (
            sizes[part.home, None] * arms0
            + centers[part.home]
            - sizes[part.other, None] * arms1
            - centers[part.other]
        )
        distance = np.linalg.norm(gap, axis=1) / unit
        scale = max(1.0, 8.0 * 0.7**step)
        weights = 1 / (1 + (distance / scale) ** 2)
    return CoarsePlaces(centers, sizes)


def _arms(
    image: npt.NDArray[np.int64],
    pixels: FloatArray,
    rotations: FloatArray,
    cameras: Sequence[Camera],
) -> FloatArray:
    """(K, 3) viewing rays of depth 1 in world axes."""
    arms = np.empty((len(image), 3))
    for index in np.unique(image):
        rows = image == index
        rays = normalize(pixels[rows], cameras[index])
        arms[rows] = np.column_stack([rays, np.ones(len(rays))]) @ rotations[index]
    return arms


def _normal_equations(
    num: int, part: Sightings, arms0: FloatArray, arms1: FloatArray, weights: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(4N, 4N) matrix over (size, center) of every camera, and its right side (0)."""
    system = np.zeros((num, 4, num, 4))
    for first, arms_a, sign_a in ((part.home, arms0, 1.0), (part.other, arms1, -1.0)):
        for second, arms_b, sign_b in ((part.home, arms0, 1.0), (part.other, arms1, -1.0)):
            block = np.zeros((len(part), 4, 4))
            block[:, 0, 0] = np.sum(arms_a * arms_b, axis=1)
            block[:, 0, 1:] = arms_a
            block[:, 1:, 0] = arms_b
            block[:, [1, 2, 3], [1, 2, 3]] = 1
            block *= (weights * sign_a * sign_b)[:, None, None]
            flat = first * num + second
            summed = np.stack(
                [np.bincount(flat, column, num * num) for column in block.reshape(-1, 16).T], axis=1
            )
            system += summed.reshape(num, num, 4, 4).transpose(0, 2, 1, 3)
    return system.reshape(4 * num, 4 * num), np.zeros(4 * num)


def _tie(system: FloatArray, same_place: Sequence[tuple[int, int]]) -> None:
    """Hold the centers of pairs of cameras together, in the matrix of the normal equations."""
    strength = 1e-3 * max(float(np.diag(system).max()), 1.0)
    for i, j in same_place:
        for axis in range(1, 4):
            a, b = 4 * i + axis, 4 * j + axis
            system[a, a] += strength
            system[b, b] += strength
            system[a, b] -= strength
            system[b, a] -= strength


def _solve(
    system: FloatArray, right: FloatArray, num: int, known: dict[int, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """The unknowns at the minimum, with given centers kept and the scale fixed."""
    values = np.zeros(4 * num)
    fixed = np.zeros(4 * num, dtype=np.bool_)
    for camera, center in known.items():
        values[4 * camera + 1 : 4 * camera + 4] = center
        fixed[4 * camera + 1 : 4 * camera + 4] = True
    free = np.flatnonzero(~fixed)
    matrix = system[np.ix_(free, free)]
    vector = right[free] - system[np.ix_(free, np.flatnonzero(fixed))] @ values[fixed]
    matrix = matrix + 1e-9 * np.diag(np.maximum(np.diag(matrix), 1e-12))
    centers = np.array(list(known.values()))
    has_scale = len(centers) > 1 and bool(np.ptp(centers, axis=0).max() > 0)
    if has_scale:
        values[free] = np.linalg.lstsq(matrix, vector, rcond=None)[0]
    else:
        # One more equation, that the mean size is 1, with a Lagrange multiplier.
        sizes = (free % 4 == 0).astype(np.float64)
        scale = np.trace(matrix) / len(free)
        bordered = np.block(
            [[matrix, scale * sizes[:, None]], [scale * sizes[None], np.zeros((1, 1))]]
        )
        solution = np.linalg.lstsq(bordered, np.append(vector, scale * num), rcond=None)[0]
        values[free] = solution[:-1]
    table = values.reshape(num, 4)
    return table[:, 0].copy(), table[:, 1:].copy()
