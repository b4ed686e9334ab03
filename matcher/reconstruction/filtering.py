"""From a reconstruction to the points worth showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.reconstruction.model import Reconstruction
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.surfaces import Surface, surfaces_of
from matcher.structures import FloatArray

__all__ = ["CloudOptions", "filtered_cloud", "pointmaps_hold"]

_SURER = 1.001
"""Confidences whose ratio is smaller say the same."""


@dataclass(frozen=True, slots=True)
class CloudOptions:
    """Which points stay.

    Attributes:
        max_disagreement: pointmaps are shown if their depths differ from those of the triangulated
            points by at most this share, in the median; a network whose pointmaps are rough leaves
            the triangulated points as the better picture. ``None``: pointmaps are always shown.
        min_confidence: of a pointmap's point; the network's confidences start at 1.
        least_confident_share: this share of all pointmap points goes, the least confident; none of
            them where the network is equally sure of everything.
        free_space_margin: a pointmap's point goes if a more confident surface of another
            photograph lies behind it by more than this share of its depth: that photograph looked
            through the place. ``None``: stays.
        max_depth_jump: a pointmap's point goes if its depth differs from that of a pixel beside it
            by more than this share: between a thing and what is behind it, the network paints
            points into the air. ``None``: stays.
        max_error_px: of a triangulated point, the mean over its observations.
        min_observations: of a triangulated point.
        outlier_factor: a point goes if it is further from the middle of the cloud than this many
            times the distance within which 90 % of the points lie. ``None``: stays.

    Raises:
        InputError: a number out of range.
    """

    max_disagreement: float | None = 0.02
    min_confidence: float = 0.0
    least_confident_share: float = 0.15
    free_space_margin: float | None = 0.03
    max_depth_jump: float | None = 0.1
    max_error_px: float = 4.0
    min_observations: int = 2
    outlier_factor: float | None = 3.0

    def __post_init__(self) -> None:
        for name, low in (
            ("max_disagreement", 0.0),
            ("min_confidence", 0.0),
            ("free_space_margin", 0.0),
            ("max_depth_jump", 0.0),
            ("max_error_px", 0.0),
            ("min_observations", 0),
            ("outlier_factor", 1.0),
        ):
            value = getattr(self, name)
            if value is not None and not value >= low:
                raise InputError(name, f"at least {low}", f"{value}")
        if not 0 <= self.least_confident_share < 1:
            raise InputError("least_confident_share", "[0, 1)", f"{self.least_confident_share}")


def filtered_cloud(
    reconstruction: Reconstruction, options: CloudOptions | None = None
) -> PointCloud:
    """Coloured points: of the pointmaps where these are any good, else the triangulated ones.

    Args:
        reconstruction: what to show.
        options: which points stay.

    Returns:
        The points, photograph by photograph, rows first; empty where nothing stays.
    """
    options = options or CloudOptions()
    if pointmaps_hold(reconstruction, options):
        surfaces = surfaces_of(reconstruction.images, _least_confidence(reconstruction, options))
        cloud = PointCloud.joined(_points_of(surface, surfaces, options) for surface in surfaces)
    else:
        cloud = _triangulated(reconstruction, options)
    if options.outlier_factor is None or not len(cloud):
        return cloud
    distances = np.linalg.norm(cloud.positions - np.median(cloud.positions, axis=0), axis=1)
    return cloud.select(distances <= options.outlier_factor * np.quantile(distances, 0.9))


def pointmaps_hold(reconstruction: Reconstruction, options: CloudOptions | None = None) -> bool:
    """Whether a cloud is made of pointmaps: there are some, and they agree with the points."""
    options = options or CloudOptions()
    surfaces = surfaces_of(reconstruction.images, 0.0)
    points, places = reconstruction.points, reconstruction.names
    if not surfaces or options.max_disagreement is None or not len(points):
        return bool(surfaces)
    differences = [np.zeros(0)]
    for surface in surfaces:
        seen = points.observation_image == places.index(surface.name)
        pixels, depth = surface.project(points.positions[points.observation_point[seen]])
        flat = surface.nearest(pixels)
        hit = flat >= 0
        differences.append(np.abs(surface.depth.reshape(-1)[flat[hit]] / depth[hit] - 1))
    known = np.concatenate(differences)
    return not len(known) or float(np.median(known)) <= options.max_disagreement


def _least_confidence(reconstruction: Reconstruction, options: CloudOptions) -> float:
    known = [
        image.dense.confidence[image.dense.confidence > 0]
        for image in reconstruction.images
        if image.dense is not None
    ]
    if not known or not sum(map(len, known)):
        return options.min_confidence
    quantile = float(np.quantile(np.concatenate(known), options.least_confident_share))
    return max(options.min_confidence, quantile / _SURER)


def _points_of(surface: Surface, surfaces: Sequence[Surface], options: CloudOptions) -> PointCloud:
    stays = surface.depth > 0
    if options.max_depth_jump is not None:
        stays &= _jumps(surface.depth) <= options.max_depth_jump
    cloud = PointCloud(
        surface.points[stays], surface.colors[stays], surface.confidence[stays].astype(np.float32)
    )
    if options.free_space_margin is None:
        return cloud
    for other in surfaces:
        if other is not surface:
            cloud = cloud.select(~_in_free_space(cloud, other, options.free_space_margin))
    return cloud


def _in_free_space(cloud: PointCloud, other: Surface, margin: float) -> npt.NDArray[np.bool_]:
    """(N,) whether a more confident surface of ``other`` is seen through each point."""
    pixels, depth = other.project(cloud.positions)
    flat = other.nearest(pixels)
    behind = other.depth.reshape(-1)[flat] * (1 - margin) > depth
    surer = other.confidence.reshape(-1)[flat] > cloud.confidence * _SURER
    through: npt.NDArray[np.bool_] = (flat >= 0) & behind & surer
    return through


def _jumps(depth: FloatArray) -> FloatArray:
    """(h, w) largest step to a pixel beside, as a share of the depth; 0 beside unknown ones."""
    padded = np.pad(depth, 1, mode="edge")
    middle = padded[1:-1, 1:-1]
    jump = np.zeros_like(depth)
    for before, after in (
        (padded[:-2, 1:-1], padded[2:, 1:-1]),
        (padded[1:-1, :-2], padded[1:-1, 2:]),
    ):
        known = (middle > 0) & (before > 0) & (after > 0)
        larger = np.maximum(np.abs(before - middle), np.abs(after - middle))
        step = np.divide(larger, middle, out=np.zeros_like(depth), where=known)
        jump = np.maximum(jump, step)
    return jump


def _triangulated(reconstruction: Reconstruction, options: CloudOptions) -> PointCloud:
    points = reconstruction.points
    lengths = points.track_lengths
    # A point without known error stays: NaN fails no comparison of this kind.
    stays = (lengths >= options.min_observations) & ~(points.errors_px > options.max_error_px)
    stays &= np.isfinite(points.positions).all(axis=1)
    return PointCloud(
        points.positions[stays], points.colors[stays], lengths[stays].astype(np.float32)
    )
