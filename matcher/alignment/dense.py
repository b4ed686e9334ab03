"""Pointmaps at full size from depths that were optimised on a lattice of their pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from matcher.alignment.initialize import AlignmentState
from matcher.alignment.views import FrameView, PixelGrid, ViewStack
from matcher.geometry.camera import unproject
from matcher.reconstruction import DensePoints
from matcher.structures import Camera, FloatArray

__all__ = ["dense_points"]

_MOST_VIEWS = 8
_GREY = 128


def dense_points(
    stack: ViewStack, state: AlignmentState, image: int, camera: Camera
) -> DensePoints:
    """The pointmap of a photograph in the world.

    Its details are the confidence-weighted mean (of the logarithm of the depth) of the most
    confident views; a smooth factor brings it to the optimised depths on the lattice, where it
    equals them. No photograph is at hand here: every colour is grey.

    Args:
        stack: the views.
        state: after the optimisation, in the world of the result.
        image: which photograph.
        camera: its camera in the result.
    """
    grid = stack.grids[image]
    optimized = np.log(state.depth[image, : int(np.prod(grid.lattice_shape))])
    optimized = optimized.reshape(grid.lattice_shape)
    details, confidence = _details(stack, state, image)
    rows, columns = grid.lattice
    known = np.isfinite(details[rows, columns])
    factor = np.where(known, optimized - details[rows, columns], 0.0)
    smooth = _interpolated(factor, grid)
    depth = np.exp(np.where(np.isfinite(details), details + smooth, _interpolated(optimized, grid)))
    in_camera = unproject(grid.pixels(sampled=False), depth.reshape(-1), camera)
    points = state.poses[image].inverse.transform(in_camera.reshape(*grid.shape, 3))
    usable = np.asarray(np.isfinite(points).all(axis=2))
    return DensePoints(
        np.where(usable[..., None], points, 0.0).astype(np.float32),
        np.where(usable, confidence, 0.0).astype(np.float32),
        np.full((*grid.shape, 3), _GREY, np.uint8),
        grid.original_from_network,
    )


def _details(
    stack: ViewStack, state: AlignmentState, image: int
) -> tuple[FloatArray, npt.NDArray[np.float32]]:
    """(h, w) mean log depth over views, NaN where there is none, and (h, w) largest confidence."""
    views = [
        (number, view)
        for number, frame in enumerate(stack.frames)
        for view in (frame.own, frame.other)
        if view is not None and view.image == image
    ]
    confidence = _largest_confidence([view for _, view in views])
    views.sort(key=lambda item: -float(np.nanmean(item[1].confidence)))
    total = np.zeros(confidence.shape)
    weights = np.zeros(confidence.shape)
    pose = state.poses[image]
    for number, view in views[:_MOST_VIEWS]:
        camera_from_frame = pose @ state.frames[number].target_from_source
        axis = state.frames[number].scale * camera_from_frame.rotation[2]
        depth = view.points @ axis + camera_from_frame.translation[2]
        with np.errstate(invalid="ignore", divide="ignore"):
            weight = np.log(view.confidence)
            logarithm = np.log(depth)
        usable = np.isfinite(logarithm) & np.isfinite(weight) & (weight > 0)
        total += np.where(usable, weight * logarithm, 0.0)
        weights += np.where(usable, weight, 0.0)
    with np.errstate(invalid="ignore"):
        return total / weights, np.where(weights > 0, confidence, np.float32(0))


def _largest_confidence(views: list[FrameView]) -> npt.NDArray[np.float32]:
    largest = np.zeros(views[0].confidence.shape, np.float32)
    for view in views:
        usable = np.isfinite(view.points).all(axis=2) & np.isfinite(view.confidence)
        largest = np.maximum(largest, np.where(usable, view.confidence, np.float32(0)))
    return largest


def _interpolated(values: FloatArray, grid: PixelGrid) -> FloatArray:
    """(h, w) from values on the lattice, bilinear, constant beyond its outermost pixels."""
    y, x = (
        (np.arange(length) - part.start) / grid.stride
        for length, part in zip(grid.shape, grid.lattice, strict=True)
    )
    full: FloatArray = ndimage.map_coordinates(
        values, np.meshgrid(y, x, indexing="ij"), order=1, mode="nearest"
    )
    return full
