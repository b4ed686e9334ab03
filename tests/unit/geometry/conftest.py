"""Exact two-view problems from random 3-D points; no images needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from matcher.geometry.camera import project, unproject
from matcher.geometry.pose import axis_angle_to_rotation
from matcher.structures import Camera, FloatArray, ImageSize, Pose

SIZE = ImageSize(480, 640)
CAMERA = Camera.pinhole(500.0, 500.0, 319.5, 239.5, SIZE)


@dataclass(frozen=True)
class TwoViews:
    keypoints0: FloatArray
    keypoints1: FloatArray
    points0: FloatArray
    cam1_from_cam0: Pose
    camera0: Camera
    camera1: Camera
    size0: ImageSize
    size1: ImageSize
    is_inlier: npt.NDArray[np.bool_]


MakeTwoViews = Callable[..., TwoViews]


def _make(
    seed: int = 0,
    matches: int = 300,
    rotation: tuple[float, float, float] = (0.1, -0.2, 0.05),
    translation: tuple[float, float, float] = (0.5, 0.1, 0.2),
    noise_px: float = 0.0,
    outliers: float = 0.0,
    camera0: Camera = CAMERA,
    camera1: Camera = CAMERA,
    plane: tuple[float, float, float] | None = None,
) -> TwoViews:
    rng = np.random.default_rng(seed)
    size0, size1 = camera0.size or SIZE, camera1.size or SIZE
    pose = Pose(axis_angle_to_rotation(rotation), np.array(translation))
    corner1 = np.array([size1.width - 1, size1.height - 1])
    keypoints0 = rng.uniform(0, [size0.width - 1, size0.height - 1], (8 * matches, 2))
    depths = rng.uniform(3, 8, len(keypoints0))
    if plane is not None:  # points X with plane . X = 1
        depths = 1 / (unproject(keypoints0, np.ones(len(keypoints0)), camera0) @ np.array(plane))
    points = unproject(keypoints0, depths, camera0)
    keypoints1 = project(pose.transform(points), camera1)
    seen = ((keypoints1 >= 0) & (keypoints1 <= corner1)).all(axis=1)
    rows = np.flatnonzero(seen)[:matches]
    assert len(rows) == matches
    keypoints0, keypoints1, points = keypoints0[rows], keypoints1[rows], points[rows]
    keypoints0 = keypoints0 + rng.normal(0, 1, keypoints0.shape) * noise_px
    keypoints1 = keypoints1 + rng.normal(0, 1, keypoints1.shape) * noise_px
    wrong = rng.permutation(matches) < round(outliers * matches)
    keypoints1[wrong] = rng.uniform(0, corner1, (int(wrong.sum()), 2))
    return TwoViews(keypoints0, keypoints1, points, pose, camera0, camera1, size0, size1, ~wrong)


@pytest.fixture
def make_two_views() -> MakeTwoViews:
    return _make
