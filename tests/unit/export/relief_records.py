"""Exact matches of photographs that do not exist: cameras on an arc around a wavy wall."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from matcher.geometry.camera import project, unproject
from matcher.geometry.pose import axis_angle_to_rotation
from matcher.pair_records import PairRecord
from matcher.structures import Camera, FloatArray, ImageSize, Matches, Pose

SIZE = ImageSize(240, 320)
CAMERA = Camera.pinhole(300.0, 300.0, 159.5, 119.5, SIZE)
SEED_STEP = 10


def pose(index: int, step_deg: float = 8.0) -> Pose:
    """``cam_from_world`` of the camera of an index: on an arc of 5 units around (0, 0, 5)."""
    rotation = axis_angle_to_rotation(np.array([0.0, np.radians(step_deg * index), 0.0]))
    pivot = np.array([0.0, 0.0, 5.0])
    return Pose(rotation, pivot - rotation @ pivot)


def wall(x: FloatArray, y: FloatArray) -> FloatArray:
    """World z of the wall."""
    height: FloatArray = 5 + 0.5 * np.sin(1.7 * x) * np.cos(1.3 * y) + 0.2 * np.sin(3 * y)
    return height


def points_at(keypoints: FloatArray, cam_from_world: Pose) -> FloatArray:
    """(M, 3) world points of the wall that pixels show, by stepping along their rays."""
    directions = unproject(keypoints, np.ones(len(keypoints)), CAMERA)
    directions = directions @ cam_from_world.rotation
    start = cam_from_world.inverse.translation
    depth = np.full(len(keypoints), 5.0)
    for _ in range(60):
        points = start + depth[:, None] * directions
        depth += 0.7 * (wall(points[:, 0], points[:, 1]) - points[:, 2]) / directions[:, 2]
    return start + depth[:, None] * directions


def name(index: int) -> str:
    return f"sub/{index:02d}.jpg"


def record(
    index0: int,
    index1: int,
    *,
    rng: np.random.Generator,
    wrong: float = 0.0,
    noise_px: float = 0.0,
) -> PairRecord:
    """Seeds of a jittered grid in image 0, with their partners; the reverse direction as well."""
    halves = []
    for first, second in ((index0, index1), (index1, index0)):
        x, y = np.meshgrid(
            np.arange(4, SIZE.width, SEED_STEP), np.arange(4, SIZE.height, SEED_STEP)
        )
        seeds = np.stack([x, y], axis=-1).reshape(-1, 2) + rng.integers(-2, 3, (x.size, 2))
        seeds = seeds.astype(np.float64)
        partners = project(pose(second).transform(points_at(seeds, pose(first))), CAMERA)
        partners += noise_px * rng.standard_normal(partners.shape)
        inside = (partners > 0).all(1) & (partners < (SIZE.width - 1, SIZE.height - 1)).all(1)
        found = np.stack([seeds[inside], partners[inside]])
        halves.append(found if first == index0 else found[::-1])
    keypoints0, keypoints1 = np.concatenate(halves, axis=1)
    confidence = rng.uniform(0.5, 1.0, len(keypoints0))
    bad = rng.random(len(keypoints0)) < wrong
    keypoints1[bad] = rng.uniform((0, 0), (SIZE.width - 1, SIZE.height - 1), (bad.sum(), 2))
    matches = Matches(
        torch.from_numpy(keypoints0).float(),
        torch.from_numpy(keypoints1).float(),
        torch.from_numpy(confidence).float(),
    )
    return PairRecord(name(index0), name(index1), matches, SIZE, SIZE)


def records(
    count: int, *, seed: int = 0, wrong: float = 0.0, noise_px: float = 0.0
) -> list[PairRecord]:
    """All pairs of the first cameras."""
    rng = np.random.default_rng(seed)
    return [
        record(index0, index1, rng=rng, wrong=wrong, noise_px=noise_px)
        for index0, index1 in itertools.combinations(range(count), 2)
    ]


def empty_record(index0: int, index1: int, reason: str = "no overlap") -> PairRecord:
    return PairRecord(name(index0), name(index1), Matches.empty(), SIZE, SIZE, reason=reason)


def true_gaps(
    keypoints0: FloatArray, keypoints1: FloatArray, images: tuple[int, int]
) -> FloatArray:
    """(M,) pixels from keypoints of image 1 to where those of image 0 really are in it."""
    first, second = images
    expected = project(pose(second).transform(points_at(keypoints0, pose(first))), CAMERA)
    gaps: FloatArray = np.linalg.norm(keypoints1 - expected, axis=1)
    return gaps
