"""The colours of a reconstruction, from its photographs."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.pixels import resize_transform
from matcher.images import RgbArray, read_image
from matcher.photographs import Photographs
from matcher.reconstruction.model import DensePoints, Reconstruction, RegisteredImage
from matcher.structures import ImageSize

__all__ = ["colored"]


def colored(reconstruction: Reconstruction, photographs: Photographs) -> Reconstruction:
    """The same reconstruction, with the colours that its points have in the photographs.

    A pointmap's pixel gets the mean of the photograph's pixels that it covers; a triangulated
    point the mean of its observations; one without observations keeps its colour.

    Raises:
        InputError: a photograph is not there, cannot be read, or has another size.
    """
    points = reconstruction.points
    sums = np.zeros((len(points), 3))
    images = []
    for index, image in enumerate(reconstruction.images):
        rows = np.flatnonzero(points.observation_image == index)
        if image.dense is None and not len(rows):
            images.append(image)
            continue
        picture = _read(photographs, image)
        if image.dense is not None:
            colors = _at_network_size(picture, image.dense)
            image = replace(image, dense=replace(image.dense, colors=colors))
        images.append(image)
        limit = (image.size.width - 1, image.size.height - 1)
        pixels = np.clip(np.rint(points.observation_keypoint[rows]), 0, limit).astype(np.int64)
        np.add.at(sums, points.observation_point[rows], picture[pixels[:, 1], pixels[:, 0]])
    counts = points.track_lengths[:, None]
    means = np.rint(sums / np.maximum(counts, 1)).astype(np.uint8)
    sparse = replace(points, colors=np.where(counts > 0, means, points.colors))
    return replace(reconstruction, images=tuple(images), points=sparse)


def _read(photographs: Photographs, image: RegisteredImage) -> RgbArray:
    picture = read_image(photographs.path(image.name))
    size = ImageSize(*picture.shape[:2])
    if size != image.size:
        raise InputError(
            image.name,
            f"{image.size.width} x {image.size.height} pixels, as reconstructed",
            f"{size.width} x {size.height}",
        )
    return picture


def _at_network_size(picture: RgbArray, dense: DensePoints) -> npt.NDArray[np.uint8]:
    """(h, w, 3) colours of the pointmap's pixels."""
    height, width = dense.confidence.shape
    affine = dense.original_from_network
    # Single pixels are sampled: first the photograph is made about as fine as the pointmap.
    shrink = max(1.0, float(np.sqrt(abs(np.linalg.det(affine[:2, :2])))))
    original = ImageSize(*picture.shape[:2])
    small = ImageSize(
        max(1, round(original.height / shrink)), max(1, round(original.width / shrink))
    )
    sampled = cv2.warpAffine(
        cv2.resize(picture, (small.width, small.height), interpolation=cv2.INTER_AREA),
        (resize_transform(original, small) @ affine)[:2],
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return np.asarray(sampled, dtype=np.uint8)
