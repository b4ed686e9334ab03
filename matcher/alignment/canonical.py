"""Canonical pointmaps: what all pairs of a photograph say about its own shape, as one pointmap.

MASt3R-SfM (arXiv:2409.19152), section 4.2. Every pair of a photograph holds a pointmap of it in
its own camera's frame; they differ a little. Their mean, weighted by confidence, is the canonical
pointmap. *Anchors* are the centres of square blocks of its pixels: from then on one depth an
anchor is the only unknown of the shape, and the pixels of a block keep their depth relative to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.geometry.focal import estimate_focal, focal_from_field_of_view
from matcher.geometry.pixels import image_center
from matcher.structures import FloatArray, ImageSize

__all__ = ["CanonicalSum", "CanonicalView", "block_centers"]

_CONFIDENCE_FLOOR = 0.999
"""Confidences are above 1: what exceeds this is the weight of a prediction, and never 0."""
_FOCAL_RATIOS = (0.5, 3.5)
"""Of the focal of a 60 degree view: what lies outside is no photograph, or no pointmap."""
_RAY_ERROR = 0.04
_SMALLEST_RATIO = 1e-2


@dataclass(frozen=True, slots=True, eq=False)
class CanonicalView:
    """The canonical pointmap of one photograph, at network resolution, in its camera's frame.

    Attributes:
        points: (h, w, 3) float32.
        confidence: (h, w) float32, the confidences of all pairs, the higher ones counting more.
        relative_depth: (h, w) float32, depth of a pixel over that of its block's anchor.
        original_from_network: (3, 3), pixels of the pointmap to pixels of the photograph.
        block_px: side of a block, pixels of the pointmap.
    """

    points: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    relative_depth: npt.NDArray[np.float32]
    original_from_network: FloatArray
    block_px: int

    @property
    def anchor_depth(self) -> FloatArray:
        """(h / block, w / block) depth at the anchors, rounded up to whole blocks."""
        rows, columns = block_centers(self.points.shape[:2], self.block_px)
        return self.points[np.ix_(rows, columns)][..., 2].astype(np.float64)

    def focal(self) -> float | None:
        """Focal in original pixels (Weiszfeld), or ``None`` where the pointmap shows none.

        It shows one if most of its points are about where a pinhole camera sees them.
        """
        low, high = (
            ratio * focal_from_field_of_view(ImageSize(*self.points.shape[:2]))
            for ratio in _FOCAL_RATIOS
        )
        focal = estimate_focal(self.points)
        if focal is None or not low < focal < high or self._ray_error(focal) > _RAY_ERROR:
            return None
        scale = self.original_from_network
        return float(focal * np.sqrt(scale[0, 0] * scale[1, 1]))

    def _ray_error(self, focal: float) -> float:
        """Median distance of points' projections from their pixels, in long sides."""
        height, width = self.points.shape[:2]
        center = np.array(image_center(ImageSize(height, width)))
        pixels = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            projected = focal * self.points[..., :2] / self.points[..., 2:] + center
        errors = np.linalg.norm(projected - pixels, axis=-1)
        return float(np.nanmedian(errors) / max(height, width))


def block_centers(
    shape: tuple[int, ...], block_px: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Rows and columns of the anchors of a map of (h, w) pixels; the last block may be cut."""
    rows, columns = (
        np.minimum(np.arange(-(-length // block_px)) * block_px + block_px // 2, length - 1)
        for length in shape[:2]
    )
    return rows, columns


class CanonicalSum:
    """Takes the pointmaps of one photograph, pair after pair, and keeps only their sums.

    Args:
        original_from_network: (3, 3) of the pointmaps.
        block_px: side of a block, pixels of the pointmap.
    """

    def __init__(self, original_from_network: FloatArray, block_px: int) -> None:
        self.original_from_network = original_from_network
        self.block_px = block_px
        self._count = 0

    def add(self, points: npt.NDArray[np.float32], confidence: npt.NDArray[np.float32]) -> None:
        """Add the (h, w, 3) pointmap in its own camera's frame, with its (h, w) confidence."""
        finite = np.isfinite(points).all(axis=-1) & np.isfinite(confidence)
        points = np.where(finite[..., None], points, 0).astype(np.float32)
        weight = np.where(finite, np.maximum(confidence - _CONFIDENCE_FLOOR, 1e-6), 0)
        if self._count == 0:
            self._weight = np.zeros(points.shape[:2])
            self._weight_squared = np.zeros(points.shape[:2])
            self._points = np.zeros(points.shape)
            self._slope = np.zeros(points.shape[:2])
            self._distance = np.zeros(points.shape[:2])
        offset = points - self._spread(points)
        distance = np.linalg.norm(offset[..., :2], axis=-1)
        # The slope between a pixel and its anchor, as an angle: a mean of ratios would follow the
        # one pointmap in which the anchor is almost at depth 0.
        self._weight += weight
        self._weight_squared += weight * weight
        self._points += weight[..., None] * points
        self._slope += weight * np.arctan2(offset[..., 2], distance)
        self._distance += distance
        self._count += 1

    def finish(self) -> CanonicalView | None:
        """The canonical view, or ``None`` if nothing was added."""
        if self._count == 0:
            return None
        total = np.maximum(self._weight, np.finfo(np.float64).tiny)
        points = self._points / total[..., None]
        anchor = self._spread(points)[..., 2]
        rise = np.tan(self._slope / total) * self._distance / self._count
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = 1 + rise / anchor
        ratio = np.where(np.isfinite(ratio), ratio, 1.0)
        return CanonicalView(
            points.astype(np.float32),
            (self._weight_squared / total).astype(np.float32),
            np.clip(ratio, _SMALLEST_RATIO, 1 / _SMALLEST_RATIO).astype(np.float32),
            self.original_from_network,
            self.block_px,
        )

    def _spread(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """At every pixel the point of its anchor."""
        rows, columns = block_centers(points.shape, self.block_px)
        by_row = np.repeat(rows, self.block_px)[: points.shape[0]]
        by_column = np.repeat(columns, self.block_px)[: points.shape[1]]
        return points[np.ix_(by_row, by_column)]
