"""Focals and principal points from pointmaps.

A pointmap in its own camera's frame holds, at every pixel, a 3-D point that projects onto that
very pixel: ``u - cx = f * x / z``. Both estimators solve that equation for ``f`` over all pixels
and both axes, robustly: DUSt3R (arXiv:2312.14132), section 3.3, minimises the sum of the pixel
errors with Weiszfeld's iteration.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.pixels import image_center
from matcher.structures import Camera, FloatArray, ImageSize

__all__ = ["FocalMethod", "estimate_camera", "estimate_focal", "focal_from_field_of_view"]

FocalMethod = Literal["weiszfeld", "median"]

_WEISZFELD_STEPS = 10
_INTRINSICS_STEPS = 30
_SMALLEST_ERROR_PX = 1e-8
_MIN_POINTS = 16
_REFERENCE_FIELD_OF_VIEW_DEG = 60.0


def focal_from_field_of_view(size: ImageSize, field_of_view_deg: float = 60.0) -> float:
    """Focal in pixels of an image whose long side spans ``field_of_view_deg``."""
    if not 0 < field_of_view_deg < 180:
        raise InputError("field_of_view_deg", "an angle in (0, 180)", f"{field_of_view_deg}")
    return max(size.height, size.width) / (2 * float(np.tan(np.radians(field_of_view_deg) / 2)))


def estimate_focal(
    pointmap: npt.ArrayLike,
    principal_point: tuple[float, float] | None = None,
    *,
    method: FocalMethod = "weiszfeld",
    min_ratio: float = 0.0,
    max_ratio: float = np.inf,
) -> float | None:
    """The one focal (square pixels) that explains a pointmap.

    Args:
        pointmap: (H, W, 3) points in the frame of the camera whose pixels they belong to.
        principal_point: (cx, cy) pixels; the middle of the image where ``None``.
        method: ``"weiszfeld"`` minimises the sum of the pixel errors; ``"median"`` takes the lower
            median of the focals that each pixel and axis votes for by itself (a pixel of depth 0
            votes 0).
        min_ratio: the answer is clipped to at least this multiple of the focal at which the long
            side spans 60 degrees.
        max_ratio: and to at most this multiple.

    Returns:
        Pixels of the pointmap's grid, or ``None`` if the pointmap says nothing (fewer than 16
        finite points, or a focal that is not positive).
    """
    points = _as_pointmap(pointmap)
    size = ImageSize(*points.shape[:2])
    offsets = _pixel_offsets(size, principal_point or image_center(size))
    flat = points.reshape(-1, 3)
    if np.count_nonzero(np.isfinite(flat).all(axis=1)) < _MIN_POINTS:
        return None
    if method == "weiszfeld":
        focal = _weiszfeld_focal(flat, offsets)
    elif method == "median":
        focal = _median_focal(flat, offsets)
    else:
        raise InputError("method", "weiszfeld or median", repr(method))
    if not (np.isfinite(focal) and focal > 0):
        return None
    reference = focal_from_field_of_view(size, _REFERENCE_FIELD_OF_VIEW_DEG)
    return float(np.clip(focal, min_ratio * reference, max_ratio * reference))


def estimate_camera(
    pointmap: npt.ArrayLike, confidence: npt.ArrayLike | None = None
) -> Camera | None:
    """Focal and principal point of a pointmap together.

    Minimises the confidence-weighted sum of the pixel errors over (f, cx, cy) by iteratively
    reweighted least squares: the equation is linear in all three.

    Args:
        pointmap: (H, W, 3) points in the frame of the camera whose pixels they belong to.
        confidence: (H, W) weights >= 0, or ``None``: all 1.

    Returns:
        A pinhole camera with square pixels, or ``None`` if the pointmap says nothing.
    """
    points = _as_pointmap(pointmap)
    size = ImageSize(*points.shape[:2])
    flat = points.reshape(-1, 3)
    usable = np.isfinite(flat).all(axis=1) & (flat[:, 2] > 0)
    weights = np.ones(len(flat))
    if confidence is not None:
        weights = np.asarray(confidence, dtype=np.float64).reshape(-1)
        if weights.shape != usable.shape:
            raise InputError("confidence", f"shape {points.shape[:2]}", f"{np.shape(confidence)}")
        usable &= np.isfinite(weights) & (weights > 0)
    if np.count_nonzero(usable) < _MIN_POINTS:
        return None
    rays = flat[usable, :2] / flat[usable, 2:]
    pixels = _pixel_offsets(size, (0.0, 0.0))[usable]
    focal, center = _reweighted_intrinsics(rays, pixels, weights[usable])
    if not (np.isfinite([focal, *center]).all() and focal > 0):
        return None
    return Camera.pinhole(focal, focal, float(center[0]), float(center[1]), size)


def _median_focal(points: FloatArray, offsets: FloatArray) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        votes = (offsets * points[:, 2:]) / points[:, :2]
    voted = votes[~np.isnan(votes)]
    return float(np.quantile(voted, 0.5, method="lower")) if len(voted) else float("nan")


def _weiszfeld_focal(points: FloatArray, offsets: FloatArray) -> float:
    usable = np.isfinite(points).all(axis=1) & (points[:, 2] != 0)
    rays, pixels = points[usable, :2] / points[usable, 2:], offsets[usable]
    ray_dot_pixel, ray_dot_ray = np.sum(rays * pixels, axis=1), np.sum(rays * rays, axis=1)
    if not ray_dot_ray.sum() > 0:
        return float("nan")
    focal = ray_dot_pixel.sum() / ray_dot_ray.sum()
    for _ in range(_WEISZFELD_STEPS):
        errors = np.linalg.norm(pixels - focal * rays, axis=1)
        weights = 1 / np.maximum(errors, _SMALLEST_ERROR_PX)
        focal = (weights @ ray_dot_pixel) / (weights @ ray_dot_ray)
    return float(focal)


def _reweighted_intrinsics(
    rays: FloatArray, pixels: FloatArray, confidence: FloatArray
) -> tuple[float, FloatArray]:
    weights = confidence
    focal, center = float("nan"), np.full(2, np.nan)
    for _ in range(_INTRINSICS_STEPS):
        # With the weighted means taken away the two axes share one unknown: the focal.
        share = weights / weights.sum()
        mean_ray, mean_pixel = share @ rays, share @ pixels
        centered = rays - mean_ray
        spread = float(share @ np.sum(centered**2, axis=1))
        if not spread > 0:
            return float("nan"), center
        focal = float(share @ np.sum(centered * (pixels - mean_pixel), axis=1)) / spread
        center = mean_pixel - focal * mean_ray
        errors = np.linalg.norm(pixels - focal * rays - center, axis=1)
        weights = confidence / np.maximum(errors, _SMALLEST_ERROR_PX)
    return focal, center


def _pixel_offsets(size: ImageSize, principal_point: tuple[float, float]) -> FloatArray:
    """(H * W, 2) x and y of every pixel relative to the principal point."""
    y, x = np.mgrid[: size.height, : size.width].astype(np.float64)
    return np.stack([x - principal_point[0], y - principal_point[1]], axis=-1).reshape(-1, 2)


def _as_pointmap(pointmap: npt.ArrayLike) -> FloatArray:
    points = np.asarray(pointmap, dtype=np.float64)
    if points.ndim != 3 or points.shape[2] != 3 or 0 in points.shape:
        raise InputError("pointmap", "shape (H, W, 3)", f"{points.shape}")
    return points
