"""SIFT matches along known epipolar lines, at the depth of points that are already tracked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import kornia.feature
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import InputError
from matcher.geometry.pose import essential_from_pose
from matcher.structures import FloatArray
from matcher.training.colmap_sfm import read_gray
from matcher.training.manifest import PosedView

__all__ = [
    "Features",
    "GuidedOptions",
    "detect",
    "fundamental_matrix",
    "guided_matches",
    "symmetric_epipolar_distance",
]


@dataclass(frozen=True, slots=True)
class GuidedOptions:
    """How correspondences are added to those of the tracks, along known epipolar lines.

    Attributes:
        max_features: SIFT features an image.
        max_distance: largest distance to the epipolar line, in both images, pixels.
        ratio: largest ratio of the nearest to the second nearest descriptor distance, both ways,
            among the features in the band around the line.
        max_descriptor_distance: largest distance of two unit RootSIFT descriptors.
        max_depth_ratio: the triangulated depth of an added match must be within this factor of one
            of the ``neighbours`` nearest tracked points in image 0.
        neighbours: see ``max_depth_ratio``.
    """

    max_features: int = 2500
    max_distance: float = 1.5
    ratio: float = 0.9
    max_descriptor_distance: float = 0.6
    max_depth_ratio: float = 1.15
    neighbours: int = 5

    def __post_init__(self) -> None:
        if self.max_features < 1 or self.neighbours < 1:
            raise InputError(
                "guided options", "max_features and neighbours of at least 1", f"{self}"
            )
        if not 0 < self.ratio <= 1:
            raise InputError("ratio", "a number in (0, 1]", f"{self.ratio}")
        if self.max_distance <= 0 or self.max_depth_ratio <= 1:
            raise InputError(
                "guided options", "max_distance above 0, max_depth_ratio above 1", f"{self}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """SIFT pixels (N, 2) and unit RootSIFT descriptors (N, 128) of one image."""

    pixels: FloatArray
    descriptors: npt.NDArray[np.float32]


def detect(image: Path, max_features: int) -> Features:
    """The SIFT features of an image file."""
    sift = cv2.SIFT_create(nfeatures=max_features, contrastThreshold=0.02)  # type: ignore[attr-defined]
    keypoints, descriptors = sift.detectAndCompute(read_gray(image), None)
    if not keypoints:
        return Features(np.zeros((0, 2)), np.zeros((0, 128), dtype=np.float32))
    pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return Features(pixels, root.astype(np.float32))


def guided_matches(
    view0: PosedView,
    view1: PosedView,
    features0: Features,
    features1: Features,
    tracked0: FloatArray,
    tracked1: FloatArray,
    options: GuidedOptions,
) -> tuple[FloatArray, FloatArray]:
    """Mutual nearest features near each other's epipolar lines, at the depth of their tracks."""
    nothing = np.zeros((0, 2)), np.zeros((0, 2))
    if min(len(features0.pixels), len(features1.pixels)) < 2:
        return nothing
    fundamental = fundamental_matrix(view0, view1)
    distances = _banded_descriptor_distances(features0, features1, fundamental, options)
    first, second = torch.from_numpy(features0.descriptors), torch.from_numpy(features1.descriptors)
    _, rows = kornia.feature.match_smnn(first, second, options.ratio, distances)
    if len(rows) == 0:
        return nothing
    rows = rows[distances[rows[:, 0], rows[:, 1]] <= options.max_descriptor_distance]
    pixels0 = features0.pixels[rows[:, 0].numpy()]
    pixels1 = features1.pixels[rows[:, 1].numpy()]
    if len(pixels0) == 0:
        return nothing
    keep = _plausible_depth(view0, view1, (pixels0, pixels1), (tracked0, tracked1), options)
    return pixels0[keep], pixels1[keep]


def _banded_descriptor_distances(
    features0: Features, features1: Features, fundamental: FloatArray, options: GuidedOptions
) -> torch.Tensor:
    """(N0, N1) distances of the descriptors, 2 (the largest possible) off the epipolar bands."""
    homogeneous0 = torch.from_numpy(_homogeneous(features0.pixels)).float()
    homogeneous1 = torch.from_numpy(_homogeneous(features1.pixels)).float()
    # Scale is free; without this, float32 would run short of exponents.
    matrix = torch.from_numpy(fundamental / np.linalg.norm(fundamental)).float()
    lines1, lines0 = homogeneous0 @ matrix.T, homogeneous1 @ matrix
    residual = (lines1 @ homogeneous1.T).abs_()
    limit1 = options.max_distance * lines1[:, :2].norm(dim=1, keepdim=True)
    limit0 = options.max_distance * lines0[:, :2].norm(dim=1)
    inside = (residual <= limit1) & (residual <= limit0)
    first, second = torch.from_numpy(features0.descriptors), torch.from_numpy(features1.descriptors)
    distances = (2.0 - 2.0 * first @ second.T).clamp_(min=0.0).sqrt_()
    return distances.masked_fill_(~inside, 2.0)


def _plausible_depth(
    view0: PosedView,
    view1: PosedView,
    pixels: tuple[FloatArray, FloatArray],
    tracked: tuple[FloatArray, FloatArray],
    options: GuidedOptions,
) -> npt.NDArray[np.bool_]:
    """Which matches lie in front of both cameras, at about the depth of a tracked neighbour."""
    depth0, depth1 = _triangulated_depths(view0, view1, *pixels)
    known, _ = _triangulated_depths(view0, view1, *tracked)
    offsets = np.linalg.norm(pixels[0][:, None] - tracked[0][None], axis=2)
    nearest = np.argsort(offsets, axis=1)[:, : options.neighbours]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.abs(np.log(depth0[:, None] / known[nearest]))
    # A feature that a track already uses adds nothing.
    new = offsets.min(axis=1) > 1.0
    agrees = (log_ratio <= np.log(options.max_depth_ratio)).any(axis=1)
    plausible: npt.NDArray[np.bool_] = new & (depth0 > 0) & (depth1 > 0) & agrees
    return plausible


def _triangulated_depths(
    view0: PosedView, view1: PosedView, pixels0: FloatArray, pixels1: FloatArray
) -> tuple[FloatArray, FloatArray]:
    relative = view1.cam_from_world @ view0.cam_from_world.inverse
    projection0 = view0.camera.matrix @ np.eye(3, 4)
    projection1 = view1.camera.matrix @ relative.matrix[:3]
    homogeneous = cv2.triangulatePoints(projection0, projection1, pixels0.T, pixels1.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (homogeneous[:3] / homogeneous[3]).T
    return points[:, 2], relative.transform(points)[:, 2]


def fundamental_matrix(view0: PosedView, view1: PosedView) -> FloatArray:
    """(3, 3) ``F`` of two pinhole views: ``x1.T @ F @ x0 = 0`` for homogeneous pixels."""
    essential = essential_from_pose(view1.cam_from_world @ view0.cam_from_world.inverse)
    inverse0, inverse1 = (np.linalg.inv(view.camera.matrix) for view in (view0, view1))
    fundamental: FloatArray = inverse1.T @ essential @ inverse0
    return fundamental


def symmetric_epipolar_distance(
    pixels0: FloatArray, pixels1: FloatArray, fundamental: FloatArray
) -> FloatArray:
    """The larger of the two distances to the epipolar lines, (N,) pixels.

    Args:
        pixels0: (N, 2) pixels in image 0.
        pixels1: (N, 2) pixels in image 1, row i matches row i.
        fundamental: (3, 3), ``x1.T @ fundamental @ x0 = 0``.
    """
    homogeneous0, homogeneous1 = _homogeneous(pixels0), _homogeneous(pixels1)
    lines1, lines0 = homogeneous0 @ fundamental.T, homogeneous1 @ fundamental
    residual = np.abs(np.sum(lines1 * homogeneous1, axis=1))
    norm1 = np.linalg.norm(lines1[:, :2], axis=1)
    norm0 = np.linalg.norm(lines0[:, :2], axis=1)
    distance: FloatArray = residual / np.maximum(np.minimum(norm0, norm1), 1e-12)
    return distance


def _homogeneous(pixels: FloatArray) -> FloatArray:
    return np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)
