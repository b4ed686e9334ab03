"""Accuracy and completeness of a point cloud against a measured surface, as DTU defines them.

Both clouds are in millimetres. The cloud under test is thinned so that no two of its points are
nearer than 0.2 mm, which keeps a method from being rewarded for repeating its sure points.
Accuracy is the mean distance from its points, where the scanner could see, to the surface;
completeness the mean distance from the surface, above the table, to its points. Distances beyond
20 mm are left out of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from benchmarks.core.samples import FloatArray
from matcher.errors import InputError

__all__ = [
    "ObservedVolume",
    "SurfaceOptions",
    "SurfaceScore",
    "above_plane",
    "clipped_mean",
    "score_surface",
    "thin",
]

_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class SurfaceOptions:
    """Millimetres.

    Attributes:
        spacing: no two points of the cloud are nearer than this.
        max_distance: larger distances are left out of the means.
        patch: nothing is searched further away than this.
        precision_at: a point counts as right within this distance.
        seed: of the order in which points are thinned.
    """

    spacing: float = 0.2
    max_distance: float = 20.0
    patch: float = 60.0
    precision_at: tuple[float, ...] = (1.0, 5.0)
    seed: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class ObservedVolume:
    """Where the scanner could see.

    Attributes:
        mask: (X, Y, Z) bool.
        origin: (3,) of the centre of the first cell.
        cell: side of a cell.
    """

    mask: npt.NDArray[np.bool_]
    origin: FloatArray
    cell: float

    def contains(self, points: FloatArray) -> npt.NDArray[np.bool_]:
        """(N,) whether the scanner could see the nearest cell of (N, 3) points."""
        cells = np.rint((points - self.origin) / self.cell).astype(np.int64)
        inside: npt.NDArray[np.bool_] = np.all((cells >= 0) & (cells < self.mask.shape), axis=1)
        seen = np.zeros(len(points), dtype=np.bool_)
        seen[inside] = self.mask[tuple(cells[inside].T)]
        return seen


@dataclass(frozen=True, slots=True)
class SurfaceScore:
    """Of one scan, millimetres; infinite where there is nothing to measure.

    Attributes:
        accuracy, completeness: mean distances.
        precision: share of the cloud's points within each distance of ``precision_at``.
        num_points: of the thinned cloud where the scanner could see.
    """

    accuracy: float
    completeness: float
    precision: tuple[float, ...]
    num_points: int

    @property
    def overall(self) -> float:
        """The mean of accuracy and completeness."""
        return (self.accuracy + self.completeness) / 2


def score_surface(
    points: npt.ArrayLike,
    surface: npt.ArrayLike,
    volume: ObservedVolume,
    plane: npt.ArrayLike,
    options: SurfaceOptions | None = None,
) -> SurfaceScore:
    """Score a cloud.

    Args:
        points: (N, 3) under test.
        surface: (M, 3) measured.
        volume: where the scanner could see; points elsewhere do not count.
        plane: (4,) of the table; the surface counts where ``plane @ (x, y, z, 1) > 0``.
        options: distances.
    """
    options = options or SurfaceOptions()
    cloud = thin(_as_cloud("points", points), options.spacing, options.seed)
    measured = _as_cloud("surface", surface)
    nothing = SurfaceScore(math.inf, math.inf, (0.0,) * len(options.precision_at), 0)
    if not len(cloud) or not len(measured):
        return nothing
    judged = cloud[volume.contains(cloud)]
    wanted = measured[above_plane(measured, plane)]
    to_surface = _distances(judged, measured, options.patch)
    to_cloud = _distances(wanted, cloud, options.patch)
    return SurfaceScore(
        clipped_mean(to_surface, options.max_distance),
        clipped_mean(to_cloud, options.max_distance),
        tuple(
            float(np.mean(to_surface <= distance)) if len(judged) else 0.0
            for distance in options.precision_at
        ),
        len(judged),
    )


def thin(points: npt.ArrayLike, spacing: float, seed: int = 0) -> FloatArray:
    """Points of a cloud, in random order, each at least ``spacing`` from those before it.

    Args:
        points: (N, 3).
        spacing: in their unit; 0 keeps all.
        seed: of the order.
    """
    cloud = _as_cloud("points", points)
    cloud = cloud[np.random.default_rng(seed).permutation(len(cloud))]
    if spacing <= 0 or not len(cloud):
        return cloud
    tree = KDTree(cloud)
    kept = np.ones(len(cloud), dtype=np.bool_)
    for start in range(0, len(cloud), _CHUNK):
        rows = np.flatnonzero(kept[start : start + _CHUNK]) + start
        for row, near in zip(rows, tree.query_ball_point(cloud[rows], spacing), strict=True):
            if kept[row] and len(near) > 1:
                # All of them come later: an earlier one still kept would have removed this row.
                kept[near] = False
                kept[row] = True
    return cloud[kept]


def above_plane(points: FloatArray, plane: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(N,) whether (N, 3) points lie on the positive side of a (4,) plane."""
    coefficients = np.asarray(plane, dtype=np.float64).reshape(-1)
    if coefficients.shape != (4,):
        raise InputError("plane", "4 numbers", f"{coefficients.shape}")
    above: npt.NDArray[np.bool_] = points @ coefficients[:3] + coefficients[3] > 0
    return above


def clipped_mean(distances: npt.ArrayLike, limit: float) -> float:
    """Mean of the (N,) distances below ``limit``; infinite where there is none."""
    values = np.asarray(distances, dtype=np.float64)
    near = values[values < limit]
    return float(near.mean()) if len(near) else math.inf


def _distances(points: FloatArray, others: FloatArray, reach: float) -> FloatArray:
    """(N,) distances to the nearest of ``others``; infinite beyond ``reach``."""
    if not len(points):
        return np.zeros(0)
    distances, _ = KDTree(others).query(points, distance_upper_bound=reach)
    return np.asarray(distances, dtype=np.float64)


def _as_cloud(name: str, value: npt.ArrayLike) -> FloatArray:
    cloud = np.asarray(value, dtype=np.float64)
    if cloud.ndim != 2 or cloud.shape[1] != 3 or not np.isfinite(cloud).all():
        raise InputError(name, "finite numbers of shape (N, 3)", f"{cloud.shape}")
    return cloud
