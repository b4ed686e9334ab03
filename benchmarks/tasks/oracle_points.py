"""True matches of a calibrated pair whose scene nobody knows: any point that both cameras see."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.core.samples import FloatArray, PoseTruth
from matcher.structures import ImageSize, Pose

__all__ = ["TrueMatches", "sample_true_matches"]

# Depths, in baselines: near enough for parallax, far enough for narrow pairs to share a view.
_LOG_DEPTHS = (math.log(0.3), math.log(10.0))
_TRIES_PER_MATCH = 40
# Views that share little or nothing get points beyond their frames, by at most so many images.
_MARGIN = 1.0
_NEAREST_DEPTH = 0.05


@dataclass(frozen=True, slots=True, eq=False)
class TrueMatches:
    """(M, 2) pixels of both stored photographs, (M, 3) points in camera 0's frame."""

    keypoints0: FloatArray
    keypoints1: FloatArray
    points0: FloatArray


def sample_true_matches(
    truth: PoseTruth,
    size0: ImageSize,
    size1: ImageSize,
    count: int,
    random: np.random.Generator,
) -> TrueMatches:
    """Random points in front of both cameras, and their exact projections.

    A random pixel of image 0 gets a random depth. Points that image 1 shows come first; where there
    are too few of them, as when the cameras look at each other, both images are taken to be larger
    than they are.

    Args:
        truth: the pose; depths count in baselines (or units, where there is none).
        size0: of stored photograph 0.
        size1: of stored photograph 1.
        count: at most so many.
        random: where they come from.

    Returns:
        As many as were found; none for cameras that look away from each other.
    """
    pose = Pose.from_matrix(truth.cam1_from_cam0)
    baseline = float(np.linalg.norm(pose.translation)) or 1.0
    found: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    missing = count
    for margin in (0.0, _MARGIN):
        tries = _TRIES_PER_MATCH * count
        share = random.uniform(-margin, 1 + margin, (tries, 2))
        pixels0 = share * [size0.width, size0.height] - 0.5
        depth = baseline * np.exp(random.uniform(*_LOG_DEPTHS, tries))
        homogeneous = np.column_stack([pixels0, np.ones(tries)])
        points0 = homogeneous @ np.linalg.inv(truth.k0).T * depth[:, None]
        points1 = pose.transform(points0)
        in_front = points1[:, 2] > _NEAREST_DEPTH * baseline
        projected = points1[in_front] @ truth.k1.T
        pixels1 = projected[:, :2] / projected[:, 2:]
        beyond = np.array([size1.width, size1.height]) * margin
        limits = np.array([size1.width, size1.height]) + beyond - 0.5
        inside = ((pixels1 >= -0.5 - beyond) & (pixels1 <= limits)).all(axis=1)
        rows = np.flatnonzero(in_front)[inside][:missing]
        found.append((pixels0[rows], pixels1[inside][:missing], points0[rows]))
        missing -= len(rows)
        if not missing:
            break
    keypoints0, keypoints1, points = (np.concatenate(column) for column in zip(*found, strict=True))
    return TrueMatches(keypoints0, keypoints1, points)
