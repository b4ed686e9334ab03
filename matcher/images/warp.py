"""An affine warp of a photograph as the network sees it, without aliasing."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import InputError
from matcher.geometry.pixels import resize_transform
from matcher.images.reading import RgbArray
from matcher.images.views import check_mask, check_rgb, normalize
from matcher.structures import FloatArray, ImageSize, View

__all__ = ["warp_view"]

_MOST_SAMPLES = 4
_MARGIN_PX = 3


def warp_view(
    image: RgbArray,
    view_from_original: FloatArray,
    size: ImageSize,
    *,
    mask: npt.NDArray[np.bool_] | None = None,
    name: str = "image",
) -> View:
    """A part of a photograph, turned, stretched and scaled.

    Where the view shrinks the photograph, every pixel of it is the mean of several samples. What
    lies beyond the photograph repeats its border, and no match is welcome there.

    Args:
        image: (H, W, 3) uint8 RGB.
        view_from_original: (3, 3) invertible affine map of pixels.
        size: of the view; both sides are multiples of the patch size.
        mask: (H, W) bool over the photograph, where matches are welcome.
        name: where the photograph came from, for messages.

    Raises:
        InputError: wrong shape or type of image or mask, a map that is not affine or not
            invertible.
    """
    check_rgb(image, name)
    matrix = np.asarray(view_from_original, dtype=np.float64)
    is_affine = matrix.shape == (3, 3) and np.array_equal(matrix[2], [0, 0, 1])
    if not is_affine or not np.isfinite(matrix).all() or np.linalg.det(matrix) == 0:
        raise InputError("view_from_original", "an invertible affine map (3, 3)", f"{matrix}")
    original = ImageSize(*image.shape[:2])
    welcome = np.ones(image.shape[:2], np.uint8) if mask is None else check_mask(mask, original)
    seen = cv2.warpAffine(
        welcome.astype(np.uint8), matrix[:2], (size.width, size.height), flags=cv2.INTER_NEAREST
    )
    return View(
        pixels=normalize(_warp(image, matrix, size)),
        content_size=size,
        original_size=original,
        original_from_network=np.asarray(np.linalg.inv(matrix), dtype=np.float64),
        mask=torch.from_numpy(seen > 0),
        name=name,
    )


def _warp(image: RgbArray, view_from_original: FloatArray, size: ImageSize) -> RgbArray:
    matrix = view_from_original
    least, most = np.linalg.svd(matrix[:2, :2], compute_uv=False)[::-1]
    image, matrix = _part(image, matrix, size)
    if most < 0.5:  # shrinks along all directions: exact means of areas first
        before = ImageSize(*image.shape[:2])
        after = ImageSize(*(max(1, round(side * 2 * most)) for side in image.shape[:2]))
        image = _shrunken(image, after)
        matrix = matrix @ np.linalg.inv(resize_transform(before, after))
        least = np.linalg.svd(matrix[:2, :2], compute_uv=False)[1]
    samples = min(_MOST_SAMPLES, max(1, math.ceil(1 / least - 0.25)))
    if samples == 1:
        return _sampled(image, matrix, size)
    finer = ImageSize(size.height * samples, size.width * samples)
    return _shrunken(_sampled(image, resize_transform(size, finer) @ matrix, finer), size)


def _shrunken(image: RgbArray, size: ImageSize) -> RgbArray:
    shrunken = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_AREA)
    return np.asarray(shrunken, dtype=np.uint8)


def _part(image: RgbArray, matrix: FloatArray, size: ImageSize) -> tuple[RgbArray, FloatArray]:
    """The rows and columns of the photograph that the view shows, and the map from these."""
    corners = np.array(
        [
            [-0.5, -0.5, 1],
            [size.width, -0.5, 1],
            [-0.5, size.height, 1],
            [size.width, size.height, 1],
        ]
    )
    back = corners @ np.linalg.inv(matrix).T
    limit = np.array([image.shape[1], image.shape[0]])
    first = np.clip(np.floor(back[:, :2].min(axis=0)) - _MARGIN_PX, 0, limit - 1).astype(int)
    end = np.clip(np.ceil(back[:, :2].max(axis=0)) + _MARGIN_PX, first + 1, limit).astype(int)
    shift = np.eye(3)
    shift[:2, 2] = first
    return np.ascontiguousarray(image[first[1] : end[1], first[0] : end[0]]), matrix @ shift


def _sampled(image: RgbArray, matrix: FloatArray, size: ImageSize) -> RgbArray:
    enlarges = np.linalg.svd(matrix[:2, :2], compute_uv=False)[1] > 1
    return np.asarray(
        cv2.warpAffine(
            image,
            matrix[:2],
            (size.width, size.height),
            flags=cv2.INTER_CUBIC if enlarges else cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        ),
        dtype=np.uint8,
    )
