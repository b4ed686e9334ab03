"""Pixel conventions and the maps between pixel grids.

Everywhere in Widebase an integer coordinate is the centre of a pixel: the centre of the top-left
pixel is (0, 0), and an image of width W covers x in [-0.5, W - 0.5]. COLMAP puts (0, 0) on the
outer corner of that pixel instead; the half pixel between the two conventions is added and taken
away in this module only.
"""

from __future__ import annotations

from dataclasses import replace

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import InputError
from matcher.structures import Camera, FloatArray, ImageSize, as_keypoints

__all__ = [
    "camera_from_colmap",
    "camera_to_colmap",
    "image_center",
    "keypoints_from_colmap",
    "keypoints_to_colmap",
    "resize_transform",
    "to_original",
    "transform_keypoints",
]

_CORNER_FROM_CENTER = 0.5


def resize_transform(from_size: ImageSize, to_size: ImageSize) -> FloatArray:
    """The (3, 3) map from pixels of an image to pixels of its resized copy.

    Resizing stretches the area that the pixels cover, not the lattice of their centres:
    ``x' = (x + 0.5) * width' / width - 0.5``, and the same in y.
    """
    scale_x = to_size.width / from_size.width
    scale_y = to_size.height / from_size.height
    return np.array(
        [
            [scale_x, 0.0, 0.5 * scale_x - 0.5],
            [0.0, scale_y, 0.5 * scale_y - 0.5],
            [0.0, 0.0, 1.0],
        ]
    )


def transform_keypoints(transform: npt.ArrayLike, keypoints: npt.ArrayLike) -> FloatArray:
    """Apply a (3, 3) map of homogeneous pixels to (M, 2) keypoints.

    Args:
        transform: (3, 3), for instance of :func:`resize_transform`, or a homography.
        keypoints: (M, 2) pixels, x then y.

    Raises:
        InputError: wrong shapes, or numbers that are not finite.
    """
    matrix = np.asarray(transform, dtype=np.float64)
    if matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise InputError("transform", "a finite matrix of shape (3, 3)", f"{matrix.shape}")
    points = torch.from_numpy(as_keypoints("keypoints", keypoints))
    mapped: FloatArray = kornia_geometry.transform_points(torch.from_numpy(matrix), points).numpy()
    return mapped


def to_original(
    keypoints_network: npt.ArrayLike, original_from_network: npt.ArrayLike
) -> FloatArray:
    """(M, 2) pixels of the network's view, as (M, 2) float64 pixels of the original photograph."""
    return transform_keypoints(original_from_network, keypoints_network)


def image_center(size: ImageSize) -> tuple[float, float]:
    """(x, y) of the middle of the image, pixels."""
    return (size.width - 1) / 2, (size.height - 1) / 2


def keypoints_to_colmap(keypoints: npt.ArrayLike) -> FloatArray:
    """(M, 2) keypoints in COLMAP's convention, whose (0, 0) is the image's outer corner."""
    return as_keypoints("keypoints", keypoints) + _CORNER_FROM_CENTER


def keypoints_from_colmap(keypoints: npt.ArrayLike) -> FloatArray:
    """(M, 2) keypoints in our convention, from COLMAP's."""
    return as_keypoints("keypoints", keypoints) - _CORNER_FROM_CENTER


def camera_to_colmap(camera: Camera) -> Camera:
    """The camera with its principal point in COLMAP's convention."""
    return _shift_principal_point(camera, _CORNER_FROM_CENTER)


def camera_from_colmap(camera: Camera) -> Camera:
    """The camera with its principal point in our convention, from COLMAP's."""
    return _shift_principal_point(camera, -_CORNER_FROM_CENTER)


def _shift_principal_point(camera: Camera, shift: float) -> Camera:
    start = 1 if camera.model == "SIMPLE_RADIAL" else 2
    params = list(camera.params)
    params[start] += shift
    params[start + 1] += shift
    return replace(camera, params=tuple(params))
