"""From the matches of one reference with its neighbours to points that several of them confirm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from benchmarks.core.protocols import EstimatorOptions
from benchmarks.core.samples import FloatArray, MultiViewTruth
from benchmarks.core.tasks import Answered
from benchmarks.tasks.pairs import resized_keypoints
from matcher.errors import InputError
from matcher.geometry.camera import resize_camera, unproject
from matcher.geometry.pnp import reprojection_errors_px
from matcher.geometry.triangulation import triangulate, triangulation_angles_deg
from matcher.structures import Camera, Pose

__all__ = ["FusionOptions", "fuse_reference"]


@dataclass(frozen=True, slots=True)
class FusionOptions(EstimatorOptions):
    """What a triangulated match must fulfil; the one threshold is its reprojection error.

    Attributes:
        min_angle_deg: between the two viewing rays.
        min_neighbours: of one reference that must agree on the depth of a pixel.
        max_depth_difference: from the median depth of the pixel, as a share of it.
    """

    min_angle_deg: float = 1.0
    min_neighbours: int = 2
    max_depth_difference: float = 0.01

    def __post_init__(self) -> None:
        # The zero-argument form loses its class where slots make the decorator build a new one.
        EstimatorOptions.__post_init__(self)
        if len(self.thresholds) != 1 or self.repeats != 1:
            raise InputError("multiview", "one threshold and one repeat", f"{self}")

    @classmethod
    def of(cls, options: EstimatorOptions) -> FusionOptions:
        """The defaults with a plain estimator's threshold."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(options)})


def fuse_reference(answers: Sequence[Answered], options: FusionOptions) -> FloatArray:
    """Points of one reference.

    Args:
        answers: pairs whose photograph 0 is that reference.
        options: what counts.

    Returns:
        (N, 3) in the world's frame.
    """
    pixels, depths = [np.zeros((0, 2))], [np.zeros(0)]
    for answered in answers:
        pixel, depth = _triangulated(answered, options)
        # One neighbour has one vote for a pixel, however many matches end there.
        _, first = np.unique(np.rint(pixel), axis=0, return_index=True)
        pixels.append(pixel[first])
        depths.append(depth[first])
    pixel, depth = _agreed(np.concatenate(pixels), np.concatenate(depths), options)
    truth = _truth(answers[0])
    camera0, _ = _cameras(answers[0])
    in_camera = unproject(pixel, depth, camera0)
    return Pose.from_matrix(truth.cam0_from_world).inverse.transform(in_camera)


def _triangulated(answered: Answered, options: FusionOptions) -> tuple[FloatArray, FloatArray]:
    """(M, 2) pixels of the resized reference and (M,) depths of the matches that hold."""
    truth = _truth(answered)
    keypoints0, keypoints1 = resized_keypoints(answered)
    if not len(keypoints0):
        return np.zeros((0, 2)), np.zeros(0)
    camera0, camera1 = _cameras(answered)
    cam1_from_cam0 = (
        Pose.from_matrix(truth.cam1_from_world) @ Pose.from_matrix(truth.cam0_from_world).inverse
    )
    ends = (keypoints0, keypoints1, camera0, camera1, cam1_from_cam0)
    points = triangulate(*ends)
    angles = triangulation_angles_deg(*ends)
    errors = np.maximum(
        reprojection_errors_px(keypoints0, points, camera0, Pose.identity()),
        reprojection_errors_px(keypoints1, points, camera1, cam1_from_cam0),
    )
    # Comparisons with NaN (behind a camera) are false.
    holds = (errors <= options.thresholds[0]) & (angles >= options.min_angle_deg)
    return keypoints0[holds], points[holds, 2]


def _agreed(
    pixels: FloatArray, depths: FloatArray, options: FusionOptions
) -> tuple[FloatArray, FloatArray]:
    """One mean pixel and depth for each pixel at whose depth enough neighbours agree."""
    if not len(depths):
        return pixels, depths
    cells = np.rint(pixels).astype(np.int64)
    order = np.lexsort((depths, cells[:, 1], cells[:, 0]))
    cells, pixels, depths = cells[order], pixels[order], depths[order]
    starts = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
    counts = np.diff(np.r_[starts, len(depths)])
    median = np.repeat(depths[starts + (counts - 1) // 2], counts)
    votes = (np.abs(depths - median) <= options.max_depth_difference * median).astype(np.float64)
    total = np.add.reduceat(votes, starts)
    enough = total >= options.min_neighbours
    mean_depth = np.add.reduceat(depths * votes, starts) / total
    mean_pixel = np.add.reduceat(pixels * votes[:, None], starts, axis=0) / total[:, None]
    return mean_pixel[enough], mean_depth[enough]


def _cameras(answered: Answered) -> tuple[Camera, Camera]:
    """Of the resized photographs."""
    truth, frame = _truth(answered), answered.frame
    return (
        resize_camera(Camera.from_matrix(truth.k0), frame.resized0, frame.stored0),
        resize_camera(Camera.from_matrix(truth.k1), frame.resized1, frame.stored1),
    )


def _truth(answered: Answered) -> MultiViewTruth:
    truth = answered.sample.truth
    assert isinstance(truth, MultiViewTruth)
    return truth
