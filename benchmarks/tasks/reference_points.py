"""From pixels of a reference photograph to points of the world, and the other way round.

A map comes as depth images, as the sparse points of structure from motion, or as scans with a point
behind every pixel; localization needs one question answered by each of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
from scipy.io import loadmat
from scipy.spatial import KDTree

from benchmarks.core.samples import DepthReference, FloatArray, PointmapReference, PointReference
from matcher.errors import DatasetError
from matcher.geometry.camera import unproject
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["Reference", "sample_reference", "world_points"]

Reference: TypeAlias = DepthReference | PointReference | PointmapReference


def world_points(reference: Reference, keypoints: FloatArray, size: ImageSize) -> FloatArray:
    """The points that a reference photograph shows at some pixels.

    Args:
        reference: the photograph's part of the map.
        keypoints: (M, 2) pixels of the stored photograph.
        size: of the stored photograph.

    Returns:
        (M, 3) in the world's frame, metres; NaN where the map knows nothing.

    Raises:
        DatasetError: the map's file is absent, broken, or of another size than the photograph.
    """
    if not len(keypoints):
        return np.zeros((0, 3))
    if isinstance(reference, PointReference):
        return _nearest_points(reference, keypoints)
    if isinstance(reference, PointmapReference):
        return _scanned_points(reference, keypoints, size)
    return _unprojected_points(reference, keypoints, size)


def sample_reference(
    reference: Reference, size: ImageSize, count: int, random: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """At most ``count`` pixels of a reference about which the map knows something.

    Returns:
        (M, 2) pixels and (M, 3) points of the world.
    """
    if isinstance(reference, PointReference):
        rows = random.permutation(len(reference.points))[:count]
        # Through the search like a match, since of two keypoints at one place one is found.
        keypoints = reference.keypoints[rows]
    else:
        flat = random.choice(size.height * size.width, min(4 * count, size.height * size.width))
        y, x = np.divmod(flat, size.width)
        keypoints = np.stack([x, y], axis=1).astype(np.float64)
    points = world_points(reference, keypoints, size)
    known = np.flatnonzero(np.isfinite(points).all(axis=1))[:count]
    return keypoints[known], points[known]


def _nearest_points(reference: PointReference, keypoints: FloatArray) -> FloatArray:
    points = np.full((len(keypoints), 3), np.nan)
    if not len(reference.keypoints):
        return points
    # The bound is exclusive.
    reach = np.nextafter(reference.max_distance_px, np.inf)
    distance, nearest = KDTree(reference.keypoints).query(keypoints, distance_upper_bound=reach)
    near = np.isfinite(distance)
    points[near] = reference.points[nearest[near]]
    return points


def _unprojected_points(
    reference: DepthReference, keypoints: FloatArray, size: ImageSize
) -> FloatArray:
    stored = _read_depth(reference.depth)
    camera = Camera.from_matrix(reference.k)
    looked_up = keypoints
    if reference.depth_k is not None:
        depth_from_photograph = reference.depth_k @ np.linalg.inv(reference.k)
        looked_up = keypoints @ depth_from_photograph[:2, :2].T + depth_from_photograph[:2, 2]
    elif stored.shape != (size.height, size.width):
        raise DatasetError(
            f"{reference.depth}: expected a depth for each of {size.width} x {size.height} pixels, "
            f"got {stored.shape[1]} x {stored.shape[0]}"
        )
    values, inside = _nearest_pixel(stored[..., None], looked_up)
    value = values[:, 0]
    known = inside & np.isfinite(value) & (value > 0)
    if reference.invalid:
        known &= value != reference.invalid
    depth = np.where(known, value / reference.depth_scale, np.nan)
    in_camera = unproject(keypoints, depth, camera)
    return Pose.from_matrix(reference.cam_from_world).inverse.transform(in_camera)


def _scanned_points(
    reference: PointmapReference, keypoints: FloatArray, size: ImageSize
) -> FloatArray:
    try:
        scan = np.asarray(loadmat(reference.points, variable_names=["XYZcut"])["XYZcut"])
    # NotImplementedError is SciPy's answer to MATLAB 7.3 files, which are HDF5.
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = " ".join(str(error).split())
        raise DatasetError(f"{reference.points}: cannot read XYZcut ({reason})") from None
    if scan.shape != (size.height, size.width, 3):
        raise DatasetError(
            f"{reference.points}: XYZcut: expected shape {(size.height, size.width, 3)}, "
            f"got {scan.shape}"
        )
    points, inside = _nearest_pixel(scan, keypoints)
    points[~inside] = np.nan
    transform = reference.world_from_points
    world: FloatArray = points @ transform[:3, :3].T + transform[:3, 3]
    return world


def _nearest_pixel(
    grid: np.ndarray[tuple[int, ...], np.dtype[np.generic]], keypoints: FloatArray
) -> tuple[FloatArray, np.ndarray[tuple[int, ...], np.dtype[np.bool_]]]:
    """(M, C) float64 values of a (H, W, C) grid at the nearest pixels, and which lie inside."""
    # Not interpolated: between a near and a far surface there is no surface.
    column, row = np.floor(keypoints + 0.5).astype(np.int64).T
    height, width = grid.shape[:2]
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    values = np.full((len(keypoints), grid.shape[2]), np.nan)
    values[inside] = grid[row[inside], column[inside]]
    return values, inside


def _read_depth(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.generic]]:
    if not path.is_file():
        raise DatasetError(f"no depth image at {path}")
    stored = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.ndim != 2:
        raise DatasetError(f"{path}: expected a depth image of one channel")
    return np.asarray(stored)
