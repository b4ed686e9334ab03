"""From matches with a reference photograph to 3-D points: what a map knows behind a pixel.

A reference knows its points as a depth map, as a pointmap, or as a few keypoints with triangulated
points (structure from motion). Each answers the same question, :meth:`PointSource.lift`: which
places of the query show which points of the world?
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from scipy.spatial import KDTree

from matcher.errors import InputError
from matcher.geometry.camera import unproject
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = [
    "DepthPoints",
    "Lifted",
    "MatchArrays",
    "PointSource",
    "PointmapPoints",
    "TrackedPoints",
    "check_aspect",
    "interpolate_surface",
]

# Between neighbours whose depths differ by more than this share there may be an edge, behind which
# a match that is half a pixel off would find another surface.
_SAME_SURFACE = 0.05
# Depth maps are cropped or rounded by a pixel or two where they are made smaller.
_ASPECT_TOLERANCE = 0.02
_NEIGHBOURS, _FEWEST_AROUND = 8, 4
_WORST_CONDITION = 1e8
_LARGEST_MISFIT_PX = 2.0
_LARGEST_SCALE = 3.5


@dataclass(frozen=True, slots=True, eq=False)
class MatchArrays:
    """M matches of a query with a reference, as float64 arrays.

    Attributes:
        query: (M, 2) pixels of the query, x then y.
        reference: (M, 2) pixels of the reference photograph.
        confidence: (M,) in (0, 1].
    """

    query: FloatArray
    reference: FloatArray
    confidence: FloatArray

    def __post_init__(self) -> None:
        rows = len(self.confidence)
        for name in ("query", "reference"):
            if getattr(self, name).shape != (rows, 2):
                raise InputError(name, f"shape ({rows}, 2)", f"{getattr(self, name).shape}")

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True, slots=True, eq=False)
class Lifted:
    """Matches whose point is known.

    Attributes:
        matches: K matches, in the pixels of both photographs.
        points: (K, 3) what they show, world frame.
    """

    matches: MatchArrays
    points: FloatArray

    def __len__(self) -> int:
        return len(self.points)

    @classmethod
    def empty(cls) -> Lifted:
        """Nothing known."""
        return cls(MatchArrays(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0)), np.zeros((0, 3)))


class PointSource(Protocol):
    """What a map knows about one reference photograph."""

    def lift(self, matches: MatchArrays) -> Lifted:
        """The matches whose 3-D point is known."""


@dataclass(frozen=True, slots=True, eq=False)
class DepthPoints:
    """A depth map.

    Attributes:
        depth: (h, w) float32 z-depth in the unit of the map; 0, negative or NaN: not measured. It
            may be smaller or larger than the photograph, at the same aspect.
        camera: of the photograph.
        cam_from_world: pose of the photograph.
        size: of the photograph.

    Raises:
        InputError: a depth map of another aspect than the photograph.
    """

    depth: npt.NDArray[np.float32]
    camera: Camera
    cam_from_world: Pose
    size: ImageSize

    def __post_init__(self) -> None:
        if self.depth.ndim != 2 or not self.depth.size:
            raise InputError("depth map", "shape (H, W)", f"{self.depth.shape}")
        check_aspect("depth map", ImageSize(*self.depth.shape), self.size)

    def lift(self, matches: MatchArrays) -> Lifted:
        """The matches whose depth is known, away from the edges of surfaces."""
        if not len(matches):
            return Lifted.empty()
        to_depth = resize_transform(self.size, ImageSize(*self.depth.shape))
        with np.errstate(divide="ignore"):
            # On a plane the inverse depth, not the depth, is linear in the pixels.
            inverse = np.where(self.depth > 0, 1 / self.depth, np.nan)[..., None]
        places = transform_keypoints(to_depth, matches.reference)
        depth = 1 / interpolate_surface(inverse, inverse[..., 0], places)[:, 0]
        points = self.cam_from_world.inverse.transform(
            unproject(matches.reference, depth, self.camera)
        )
        return _known(matches, points)


@dataclass(frozen=True, slots=True, eq=False)
class PointmapPoints:
    """A point behind every pixel.

    Attributes:
        points: (h, w, 3) float32, world frame; NaN where nothing is known.
        original_from_network: (3, 3), pixels of the pointmap to pixels of the photograph.
        center: (3,) where the photograph was taken, world frame.
    """

    points: npt.NDArray[np.float32]
    original_from_network: FloatArray
    center: FloatArray

    def lift(self, matches: MatchArrays) -> Lifted:
        """The matches whose point is known, away from the edges of surfaces."""
        if not len(matches):
            return Lifted.empty()
        places = transform_keypoints(np.linalg.inv(self.original_from_network), matches.reference)
        distance = np.linalg.norm(self.points - self.center, axis=-1)
        return _known(matches, interpolate_surface(self.points, distance, places))


@dataclass(frozen=True, slots=True, eq=False)
class TrackedPoints:
    """Keypoints of the photograph whose points were triangulated.

    Matches rarely hit a keypoint. The matches around one say, by the affine map that fits them
    best, where it lies in the query; a keypoint that too few matches surround takes the place of
    the nearest match, if that is close.

    Attributes:
        keypoints: (P, 2) pixels of the photograph.
        points: (P, 3) what they show, world frame.
        reach_px: matches further than this from a keypoint say nothing about it, pixels.
        snap_px: nor does a single match further than this.
    """

    keypoints: FloatArray
    points: FloatArray
    reach_px: float
    snap_px: float

    def lift(self, matches: MatchArrays) -> Lifted:
        """The keypoints that matches surround, each with its place in the query."""
        if not len(matches) or not len(self.points):
            return Lifted.empty()
        distance, nearest = KDTree(matches.reference).query(
            self.keypoints, k=_NEIGHBOURS, distance_upper_bound=np.nextafter(self.reach_px, np.inf)
        )
        near = np.isfinite(distance)
        rows = np.flatnonzero(near[:, 0])
        if not len(rows):
            return Lifted.empty()
        near, nearest = near[rows], np.where(near[rows], nearest[rows], 0)
        keypoints = self.keypoints[rows]
        places = _carried(keypoints, matches, nearest, near, self.reach_px)
        snapped = np.isnan(places[:, 0]) & (distance[rows, 0] <= self.snap_px)
        places[snapped] = matches.query[nearest[snapped, 0]]
        kept = np.isfinite(places).all(axis=1)
        return Lifted(
            MatchArrays(places[kept], keypoints[kept], matches.confidence[nearest[kept, 0]]),
            self.points[rows[kept]],
        )


def check_aspect(argument: str, size: ImageSize, photograph: ImageSize) -> None:
    """Refuse a map that is no resized copy of the photograph's frame.

    Raises:
        InputError: another aspect.
    """
    ratio = (size.width / size.height) / (photograph.width / photograph.height)
    if abs(np.log(ratio)) > _ASPECT_TOLERANCE:
        raise InputError(
            argument,
            f"the aspect of its photograph ({photograph.width} x {photograph.height})",
            f"{size.width} x {size.height}",
        )


def interpolate_surface(
    values: npt.NDArray[np.floating], distance: npt.NDArray[np.floating], places: FloatArray
) -> FloatArray:
    """Bilinear values of a (h, w, C) grid at (M, 2) places, but never across an edge.

    Args:
        values: (h, w, C); NaN where unknown.
        distance: (h, w), whatever jumps where one surface hides another: depth or its inverse.
        places: (M, 2) pixels of the grid, x then y.

    Returns:
        (M, C); NaN where one of the four pixels around is unknown or on another surface, and
        outside the grid.
    """
    height, width = distance.shape
    inside = np.all((places >= -0.5) & (places <= [width - 0.5, height - 0.5]), axis=1)
    x, y = np.clip(places, 0, [width - 1, height - 1]).T
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    corners = ((top, left), (top, right), (bottom, left), (bottom, right))
    across, down = x - left, y - top
    weights = ((1 - down) * (1 - across), (1 - down) * across, down * (1 - across), down * across)
    around = np.stack([distance[corner] for corner in corners])
    with np.errstate(invalid="ignore"):
        is_one_surface = around.max(axis=0) - around.min(axis=0) <= _SAME_SURFACE * np.abs(
            around
        ).min(axis=0)
    mixed = sum(
        weight[:, None] * values[corner].astype(np.float64)
        for weight, corner in zip(weights, corners, strict=True)
    )
    return np.where((inside & is_one_surface)[:, None], mixed, np.nan)


def _known(matches: MatchArrays, points: FloatArray) -> Lifted:
    known = np.isfinite(points).all(axis=1)
    return Lifted(
        MatchArrays(matches.query[known], matches.reference[known], matches.confidence[known]),
        points[known],
    )


def _carried(
    keypoints: FloatArray,
    matches: MatchArrays,
    nearest: npt.NDArray[np.int64],
    near: npt.NDArray[np.bool_],
    reach_px: float,
) -> FloatArray:
    """(R, 2) places in the query of (R, 2) keypoints of the reference, NaN where nothing fits.

    Args:
        keypoints: of the reference.
        matches: all of them.
        nearest: (R, N) rows of the matches around each keypoint.
        near: (R, N) which of them are within reach.
        reach_px: matches weigh less towards this distance.
    """
    offsets = matches.reference[nearest] - keypoints[:, None]
    weights = near * np.exp(-2 * (np.linalg.norm(offsets, axis=2) / reach_px) ** 2)
    targets = matches.query[nearest]
    # Around each keypoint: query = place + offset @ linear, by weighted least squares.
    design = np.concatenate([np.ones((*near.shape, 1)), offsets], axis=2)
    normal = np.einsum("rn,rni,rnj->rij", weights, design, design)
    right = np.einsum("rn,rni,rnj->rij", weights, design, targets)
    enough = (near.sum(axis=1) >= _FEWEST_AROUND) & (np.linalg.cond(normal) < _WORST_CONDITION)
    solution = np.full((len(keypoints), 3, 2), np.nan)
    solution[enough] = np.linalg.solve(normal[enough], right[enough])
    squares = np.sum((design @ solution - targets) ** 2, axis=2)
    misfit = np.sqrt((weights * squares).sum(axis=1) / weights.sum(axis=1).clip(1e-12))
    scale = np.linalg.norm(solution[:, 1:], axis=(1, 2)) / np.sqrt(2)
    # Matches around an edge go two ways: no affine map fits them, or only one that tears.
    with np.errstate(invalid="ignore"):
        good = (misfit <= _LARGEST_MISFIT_PX * scale.clip(1, 2)) & (scale <= _LARGEST_SCALE)
    return np.where(good[:, None], solution[:, 0], np.nan)
