"""A still picture of a point cloud and its cameras.

Points are painted as discs into a depth buffer; what lies behind its surroundings is shaded by how
far (eye-dome lighting), which lets shapes be read without normals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.images import RgbArray
from matcher.reconstruction.model import RegisteredImage
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.scene_layout import (
    FRUSTUM_EDGES,
    Viewpoint,
    frustum_colors,
    frustum_corners,
    frustum_depth,
    three_quarter_view,
)
from matcher.structures import FloatArray, ImageSize

__all__ = ["draw_cloud"]

_OVERSAMPLED = 2
_BACKGROUND = ((250, 251, 252), (226, 230, 235))  # top, bottom
_LINE_STEPS, _LINE_PX = 1500, 2.2
_MOST_GROWTH = 2.0
_EDL_STRENGTH, _EDL_REACH = 4.0, 3
_MOST_POINTS = 3_000_000


@dataclass(slots=True, eq=False)
class _Canvas:
    """(H, W) depth, infinite where nothing is, and (H, W, 3) colours."""

    depth: npt.NDArray[np.float32]
    colors: RgbArray

    @classmethod
    def blank(cls, height: int, width: int) -> _Canvas:
        ramp = np.linspace(0, 1, height)[:, None, None]
        top, bottom = (np.array(color, dtype=np.float64) for color in _BACKGROUND)
        ground = np.broadcast_to(top + ramp * (bottom - top), (height, width, 3))
        return cls(
            np.full((height, width), np.inf, dtype=np.float32), ground.round().astype(np.uint8)
        )


def draw_cloud(
    cloud: PointCloud,
    images: Sequence[RegisteredImage] = (),
    *,
    size: ImageSize | None = None,
    viewpoint: Viewpoint | None = None,
    point_px: float | None = None,
) -> RgbArray:
    """Draw points and cameras.

    Args:
        cloud: the points.
        images: their cameras are drawn as wire frames, blue to red in their order.
        size: of the picture; 900 x 1200 by default.
        viewpoint: where to look from; by default from behind the cameras, above and to one side.
        point_px: diameter of a point; follows from their number by default.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: a diameter that is not positive.
    """
    size = size or ImageSize(900, 1200)
    if point_px is not None and not point_px > 0:
        raise InputError("point_px", "a positive number of pixels", f"{point_px}")
    view = viewpoint or three_quarter_view(images, cloud.positions, size.width / size.height)
    canvas = _Canvas.blank(size.height * _OVERSAMPLED, size.width * _OVERSAMPLED)
    cloud = cloud.thinned(_MOST_POINTS)
    diameter = point_px or float(np.clip(2600 / np.sqrt(len(cloud) + 1), 1.5, 5.0))
    _splat(canvas, view, cloud.positions, cloud.colors, diameter * _OVERSAMPLED, grows=True)
    _shade(canvas)
    if images:
        lines, colors = _wire_frames(images, cloud.positions)
        _splat(canvas, view, lines, colors, _LINE_PX * _OVERSAMPLED, grows=False)
    # OpenCV's types allow an output of any kind.
    return np.asarray(
        cv2.resize(canvas.colors, (size.width, size.height), interpolation=cv2.INTER_AREA),
        dtype=np.uint8,
    )


def _splat(
    canvas: _Canvas,
    view: Viewpoint,
    positions: FloatArray,
    colors: npt.NDArray[np.uint8],
    diameter: float,
    *,
    grows: bool,
) -> None:
    """Paint each point as a disc of so many pixels; the nearest wins in each pixel."""
    height, width = canvas.depth.shape
    in_view = (positions - view.eye) @ view.axes.T
    focal = height / 2 / np.tan(np.radians(view.field_of_view_deg) / 2)
    ahead = in_view[:, 2] > 1e-9
    z = in_view[ahead, 2]
    columns, rows = (
        np.rint(in_view[ahead, axis] / z * focal + (length - 1) / 2)
        for axis, length in enumerate((width, height))
    )
    near = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    # Far to near: where several points fall into one pixel, numpy keeps the last, the nearest.
    order = np.flatnonzero(near)[np.argsort(-z[near])]
    cells = (rows[order] * width + columns[order]).astype(np.int64)
    front = np.full(canvas.depth.size, -1, dtype=np.int64)
    front[cells] = order
    cells = np.flatnonzero(front >= 0)
    points = front[cells]
    # Nearer points look larger, as surfaces do; lines do not.
    usual = float(np.median(z[points])) if grows and len(points) else 0.0
    growth = np.clip(usual / z[points], 1.0, _MOST_GROWTH)
    radii = diameter / 2 * growth
    largest = np.argsort(-radii)
    chosen = points[largest]
    _spread(
        canvas, cells[largest], radii[largest], z[chosen].astype(np.float32), colors[ahead][chosen]
    )


def _spread(
    canvas: _Canvas,
    cells: npt.NDArray[np.int64],
    radii: FloatArray,
    depth: npt.NDArray[np.float32],
    colors: npt.NDArray[np.uint8],
) -> None:
    """Grow pixels to discs; the nearest wins in each pixel of the canvas.

    The pixels are all different and come by falling radius: moved by one offset they stay
    different, and those that reach so far come first.
    """
    height, width = canvas.depth.shape
    rows, columns = np.divmod(cells, width)
    flat_depth, flat_colors = canvas.depth.reshape(-1), canvas.colors.reshape(-1, 3)
    reach = int(radii[0]) if len(radii) else -1
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            count = int(np.searchsorted(-radii, -np.hypot(down, right), side="right"))
            x, y = columns[:count] + right, rows[:count] + down
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            places = np.where(inside, y * width + x, 0)
            wins = np.flatnonzero(inside & (depth[:count] < flat_depth[places]))
            flat_depth[places[wins]] = depth[wins]
            flat_colors[places[wins]] = colors[wins]


def _shade(canvas: _Canvas) -> None:
    """Darken what lies behind its neighbours, by the logarithm of their depths."""
    seen = np.isfinite(canvas.depth)
    if not seen.any():
        return
    log_depth = np.log(np.where(seen, canvas.depth, canvas.depth[seen].max()))
    padded = np.pad(log_depth, _EDL_REACH, mode="edge")
    height, width = log_depth.shape
    behind = np.zeros_like(log_depth)
    for down, right in ((0, 1), (1, 0), (0, -1), (-1, 0), (1, 1), (1, -1), (-1, 1), (-1, -1)):
        top, left = _EDL_REACH * (1 + down), _EDL_REACH * (1 + right)
        neighbour = padded[top : top + height, left : left + width]
        behind += np.clip(log_depth - neighbour, 0, 0.1)
    shade = np.exp(-_EDL_STRENGTH * behind)
    shaded = canvas.colors * np.where(seen, np.maximum(shade, 0.35), 1.0)[..., None]
    canvas.colors[:] = shaded.round().astype(np.uint8)


def _wire_frames(
    images: Sequence[RegisteredImage], positions: FloatArray
) -> tuple[FloatArray, npt.NDArray[np.uint8]]:
    """Points along the edges of all frustums, so close that they look like lines."""
    depth = frustum_depth(images, positions)
    along = np.linspace(0, 1, _LINE_STEPS)[:, None]
    lines = []
    for image in images:
        corners = image.cam_from_world.inverse.transform(frustum_corners(image, depth))
        lines += [
            corners[start] + along * (corners[end] - corners[start]) for start, end in FRUSTUM_EDGES
        ]
    colors = np.repeat(frustum_colors(len(images)), len(FRUSTUM_EDGES) * _LINE_STEPS, axis=0)
    return np.concatenate(lines), colors
