"""The pointmap of one photograph as a surface that others can be held against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.geometry.camera import has_distortion, project
from matcher.reconstruction.model import RegisteredImage
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["Surface", "surfaces_of"]


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """What one photograph says about where things are; pixels are those of its pointmap.

    Attributes:
        name: of the photograph.
        points: (h, w, 3) float64, world frame.
        depth: (h, w) float64, z in the camera; 0 where nothing is known.
        confidence: (h, w) float32.
        colors: (h, w, 3) uint8 RGB.
        camera: intrinsics, original pixels.
        cam_from_world: pose.
        network_from_original: (3, 3), pixels of the photograph to pixels of the pointmap.
    """

    name: str
    points: FloatArray
    depth: FloatArray
    confidence: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]
    camera: Camera
    cam_from_world: Pose
    network_from_original: FloatArray

    def project(self, points: FloatArray) -> tuple[FloatArray, FloatArray]:
        """(N, 2) pixels, NaN behind the camera, and (N,) depths of (N, 3) world points."""
        in_camera = self.cam_from_world.transform(points)
        depth, affine = in_camera[:, 2], self.network_from_original
        if has_distortion(self.camera):
            original = project(in_camera, self.camera)
            return original @ affine[:2, :2].T + affine[:2, 2], depth
        # The common case, many times as fast: one matrix, no rows picked.
        homogeneous = in_camera @ (affine @ self.camera.matrix).T
        in_front = np.where(depth > 0, homogeneous[:, 2], np.nan)
        return homogeneous[:, :2] / in_front[:, None], depth

    def nearest(self, pixels: FloatArray) -> npt.NDArray[np.int64]:
        """(N,) flat index of the pixel that (N, 2) positions fall into; -1 outside or unknown."""
        height, width = self.depth.shape
        # NaN fails both comparisons.
        inside = (pixels > -0.5).all(axis=1) & (pixels < [width - 0.5, height - 0.5]).all(axis=1)
        cells = np.rint(pixels[inside]).astype(np.int64)
        flat = np.full(len(pixels), -1, dtype=np.int64)
        flat[inside] = cells[:, 1] * width + cells[:, 0]
        flat[inside] = np.where(self.depth.reshape(-1)[flat[inside]] > 0, flat[inside], -1)
        return flat


def surfaces_of(images: Iterable[RegisteredImage], min_confidence: float) -> list[Surface]:
    """The surface of every image that has a pointmap.

    Args:
        images: of a reconstruction.
        min_confidence: points below it, points of confidence 0, points that are not finite or not
            in front of their own camera are unknown.
    """
    surfaces = []
    for image in images:
        dense = image.dense
        if dense is None:
            continue
        points = dense.points.astype(np.float64)
        known = np.isfinite(points).all(axis=-1) & (dense.confidence > 0)
        known &= dense.confidence >= min_confidence
        points[~known] = 0.0
        depth = image.cam_from_world.transform(points)[..., 2]
        depth[~known | (depth <= 0)] = 0.0
        surfaces.append(
            Surface(
                image.name,
                points,
                depth,
                dense.confidence,
                dense.colors,
                image.camera,
                image.cam_from_world,
                np.asarray(np.linalg.inv(dense.original_from_network), dtype=np.float64),
            )
        )
    return surfaces
