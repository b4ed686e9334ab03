"""Pairs of rendered views whose pointmaps are exact up to a scale, a frame and chosen noise."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from matcher.geometry.camera import project, resize_camera, unproject
from matcher.geometry.pixels import resize_transform, to_original
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.structures import Camera, ImageSize, Matches, Pose
from tests.benchmarks.miniature import MiniView, render_views

MAP_SIZE = ImageSize(60, 80)
PHOTO_SIZE = ImageSize(120, 160)
ORIGINAL_FROM_NETWORK = resize_transform(MAP_SIZE, PHOTO_SIZE)
ANGLES = (0.0, 10.0, 20.0, 32.0, 45.0)


def views(angles: Sequence[float] = ANGLES, seed: int = 0) -> tuple[MiniView, ...]:
    """Views of one place, at the size of the pointmaps."""
    return render_views(seed, tuple(angles), MAP_SIZE.height, MAP_SIZE.width)


def camera_of(view: MiniView) -> Camera:
    """In the pixels of the photograph, which is twice as large as its pointmap."""
    return resize_camera(Camera.from_matrix(view.k, MAP_SIZE), PHOTO_SIZE)


def pose_of(view: MiniView) -> Pose:
    return Pose.from_matrix(view.cam_from_world)


def own_points(view: MiniView) -> npt.NDArray[np.float64]:
    """(h, w, 3) in the camera's frame; far away where there is only sky."""
    y, x = np.mgrid[: MAP_SIZE.height, : MAP_SIZE.width].astype(np.float64)
    depth = np.where(view.depth > 0, view.depth, 50.0).astype(np.float64)
    points = unproject(
        np.stack([x.ravel(), y.ravel()], 1), depth.ravel(), Camera.from_matrix(view.k)
    )
    return points.reshape(*view.depth.shape, 3)


def exact_matches(view0: MiniView, view1: MiniView, most: int = 300) -> Matches:
    """Every pixel of view 1 that view 0 sees too, thinned, in pixels of the photographs."""
    y, x = np.mgrid[: MAP_SIZE.height, : MAP_SIZE.width]
    pixels1 = np.stack([x.ravel(), y.ravel()], 1).astype(np.float64)
    in_camera0 = (pose_of(view0) @ pose_of(view1).inverse).transform(own_points(view1))
    in_camera0 = in_camera0.reshape(-1, 3)
    pixels0 = np.nan_to_num(project(in_camera0, Camera.from_matrix(view0.k)), nan=-1e6)
    nearest = np.rint(pixels0).astype(np.int64)
    inside = ((nearest >= 0) & (nearest < [MAP_SIZE.width, MAP_SIZE.height])).all(axis=1)
    column, row = nearest[inside].T
    seen = view0.depth[row, column]
    rows = np.flatnonzero(inside)[np.abs(seen / in_camera0[inside, 2] - 1) < 0.02]
    rows = rows[view1.depth.ravel()[rows] > 0]
    rows = rows[:: max(1, len(rows) // most)]
    keypoints = [
        torch.from_numpy(to_original(pixels[rows], ORIGINAL_FROM_NETWORK)).float()
        for pixels in (pixels0, pixels1)
    ]
    return Matches(keypoints[0], keypoints[1], torch.full((len(rows),), 0.9))


def exact_records(
    scene: Sequence[MiniView],
    *,
    names: Sequence[str] | None = None,
    pairs: Sequence[tuple[int, int]] | None = None,
    noise: float = 0.0,
    symmetric: bool = True,
    seed: int = 0,
) -> list[PairRecord]:
    """All pairs of the views.

    Args:
        scene: the views.
        names: of the photographs; their number by default.
        pairs: which pairs; all by default.
        noise: standard deviation of a point's distance, as a share of it.
        symmetric: whether image 1's pointmap in its own frame is there.
        seed: of the scale of each network run, and of the noise.
    """
    generator = np.random.default_rng(seed)
    names = names or [f"{index}.jpg" for index in range(len(scene))]

    def seen(points: npt.NDArray[np.float64], scale: float) -> npt.NDArray[np.float32]:
        factor = scale * (1 + noise * generator.standard_normal((*points.shape[:2], 1)))
        return np.asarray(points * factor, dtype=np.float32)

    def sure(view: MiniView) -> npt.NDArray[np.float32]:
        varied = 3 + generator.random(view.depth.shape)
        return np.where(view.depth > 0, varied, 1.0).astype(np.float32)

    records = []
    for i, j in pairs or itertools.combinations(range(len(scene)), 2):
        camera0_from_camera1 = pose_of(scene[i]) @ pose_of(scene[j]).inverse
        scale = generator.uniform(0.6, 1.6)
        maps = Pointmaps(
            seen(own_points(scene[i]), scale),
            seen(camera0_from_camera1.transform(own_points(scene[j])), scale),
            sure(scene[i]),
            sure(scene[j]),
            ORIGINAL_FROM_NETWORK,
            ORIGINAL_FROM_NETWORK,
            seen(own_points(scene[j]), generator.uniform(0.6, 1.6)) if symmetric else None,
        )
        records.append(
            PairRecord(
                names[i],
                names[j],
                exact_matches(scene[i], scene[j]),
                PHOTO_SIZE,
                PHOTO_SIZE,
                overlap_score=0.9,
                pointmaps=maps,
            )
        )
    return records
