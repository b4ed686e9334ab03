"""Whether the pointmaps of a pair can be believed: do they put its matches where they are?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from matcher.alignment.views import PixelGrid
from matcher.geometry.camera import camera_from_focal, project
from matcher.geometry.pixels import image_center, transform_keypoints
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.structures import Camera, FloatArray

__all__ = ["NO_AGREEMENT", "agreement"]

NO_AGREEMENT = "its pointmaps contradict its matches"
"""Why a pair is left out."""

_TOLERANCE = 0.025
"""Share of the diagonal of photograph 0 by which a pointmap may miss a match.

By chance 0.4 % of the matches come that close in a photograph of 4:3. Pointmaps that are exact but
for 5 % of the depth miss by up to 1.5 % of the diagonal when the camera turned by 20 degrees.
"""

_FOCAL_POINTS = 3_000


def agreement(record: PairRecord, camera0: Camera | None = None) -> float:
    """Share of the matches that the points of photograph 1 fall on in photograph 0.

    The points of image 1 are in the frame of camera 0, so its intrinsics alone say where they fall;
    this needs both the rays and the relative pose in the pointmaps to be about right, and the
    matches too.

    Args:
        record: a pair with pointmaps.
        camera0: intrinsics of photograph 0; from its pointmap where ``None``.

    Returns:
        0 to 1; 0 where there is no match, or the pointmap holds no focal.
    """
    maps = record.pointmaps
    if maps is None or not len(record):
        return 0.0
    if camera0 is None:
        camera0 = _camera0(record, maps)
        if camera0 is None:
            return 0.0
    points = _points1_at(maps, record.matches.keypoints1.numpy().astype(np.float64))
    fallen = project(points, camera0)  # NaN behind the camera: no agreement
    errors = np.linalg.norm(fallen - record.matches.keypoints0.numpy(), axis=1)
    return float(np.mean(errors <= _TOLERANCE * record.size0.diagonal))


def _camera0(record: PairRecord, maps: Pointmaps) -> Camera | None:
    shape = (maps.confidence0.shape[0], maps.confidence0.shape[1])
    grid = PixelGrid(record.name0, record.size0, shape, maps.original0_from_network)
    grid = grid.thinned(_FOCAL_POINTS)
    points = np.nan_to_num(grid.sampled(maps.points0), nan=0.0, posinf=0.0, neginf=0.0)
    focal = grid.estimate_focal(points, image_center(record.size0))
    return None if focal is None else camera_from_focal(focal, record.size0)


def _points1_at(maps: Pointmaps, keypoints1: npt.NDArray[np.float64]) -> FloatArray:
    """(M, 3) points of image 1 at the pixels of its pointmap nearest to the keypoints."""
    pixels = transform_keypoints(np.linalg.inv(maps.original1_from_network), keypoints1)
    height, width = maps.confidence1.shape
    x, y = np.rint(pixels).astype(np.int64).clip(0, [width - 1, height - 1]).T
    points: FloatArray = maps.points1[y, x].astype(np.float64)
    return points
