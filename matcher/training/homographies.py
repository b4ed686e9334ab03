"""Pairs of two homography views of one photograph: cheap, with real image statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError
from matcher.training.augment import photometric, resize_image
from matcher.training.motion import ANY_MOTION, MAX_ATTEMPTS, Motion
from matcher.training.photo_files import read_photo
from matcher.training.samples import TrainingSample, select_matches

__all__ = ["HomographyViews", "SinglePhotos", "homography_pair", "homography_views"]

ByteImage = npt.NDArray[np.uint8]


class SinglePhotos:
    """Two homography views of one photograph: cheap, with real image statistics."""

    def __init__(self, photos: Sequence[Path]) -> None:
        self.photos = list(photos)

    def draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        num_matches: int,
        motion: Motion = ANY_MOTION,
    ) -> TrainingSample:
        """One pair with scale changes up to about 3, turns, and perspective, at every motion."""
        for _ in range(MAX_ATTEMPTS):
            photo = read_photo(self.photos[int(random.integers(len(self.photos)))])
            sample = homography_pair(random, photo, shape, num_matches)
            if sample is not None:
                return sample
        raise DatasetError(f"photos: no usable homography pair in {MAX_ATTEMPTS} draws")


@dataclass(frozen=True, slots=True, eq=False)
class HomographyViews:
    """Two warps of one photograph.

    Attributes:
        image0, image1: (H, W, 3) uint8.
        view1_from0: (3, 3), pixels of view 0 to pixels of view 1.
        photo_from0: (3, 3), pixels of view 0 to pixels of the photograph.
    """

    image0: ByteImage
    image1: ByteImage
    view1_from0: npt.NDArray[np.float64]
    photo_from0: npt.NDArray[np.float64]


def homography_views(
    random: np.random.Generator, photo: ByteImage, shape: tuple[int, int]
) -> HomographyViews:
    """Two warps of ``photo`` to (height, width) ``shape``, light and colour changed in each."""
    height, width = shape
    fit = min(photo.shape[0] / height, photo.shape[1] / width)
    scale0 = fit * random.uniform(0.45, 0.95)
    scale1 = np.clip(scale0 * 2 ** random.normal(0, 0.6), fit * 0.25, fit * 1.1)
    wide = random.random() < 0.25
    angle = random.uniform(-np.pi, np.pi) if wide else random.normal(0, 0.25)
    centre0 = np.array(photo.shape[1::-1]) / 2
    slack0 = np.maximum(centre0 - scale0 * np.array([width, height]) / 2, 0)
    centre0 = centre0 + random.uniform(-1, 1, 2) * slack0
    centre1 = centre0 + random.uniform(-0.35, 0.35, 2) * min(scale0, scale1) * np.array(
        [width, height]
    )
    photo_from0 = _random_warp(random, shape, centre0, scale0, random.normal(0, 0.1), 0.08)
    photo_from1 = _random_warp(random, shape, centre1, float(scale1), angle, 0.2)
    return HomographyViews(
        photometric(random, _warp_photo(photo, photo_from0, shape)),
        photometric(random, _warp_photo(photo, photo_from1, shape)),
        np.linalg.inv(photo_from1) @ photo_from0,
        photo_from0,
    )


def homography_pair(
    random: np.random.Generator, photo: ByteImage, shape: tuple[int, int], num_matches: int
) -> TrainingSample | None:
    """A pair of ``homography_views`` with its matches, or ``None`` if they share too little."""
    height, width = shape
    views = homography_views(random, photo, shape)
    keypoints0 = random.integers(0, [width, height], (8 * num_matches, 2)).astype(np.float64)
    keypoints1 = _warp(views.view1_from0, keypoints0)
    on_photo = _warp(views.photo_from0, keypoints0)
    limit = np.array(photo.shape[1::-1]) - 1
    inside = ((on_photo >= 0) & (on_photo <= limit)).all(axis=1)
    inside &= ((keypoints1 >= 0) & (keypoints1 <= [width - 1, height - 1])).all(axis=1)
    if inside.sum() < num_matches // 4:
        return None
    return TrainingSample(
        views.image0,
        views.image1,
        select_matches(
            random, keypoints0[inside], keypoints1[inside], shape, num_matches, exact=True
        ),
        source="photos",
    )


def _random_warp(
    random: np.random.Generator,
    shape: tuple[int, int],
    centre: npt.NDArray[np.float64],
    scale: float,
    angle: float,
    perspective: float,
) -> npt.NDArray[np.float64]:
    """photo_from_view (3, 3): a similarity about ``centre`` with jittered corners."""
    half = np.array([shape[1] - 1, shape[0] - 1]) / 2
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * half
    jitter = random.uniform(-perspective, perspective, (4, 2)) * half * 2
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    target = (corners + jitter) @ turn.T * scale + centre
    matrix = cv2.getPerspectiveTransform(
        (corners + half).astype(np.float32), target.astype(np.float32)
    )
    return np.asarray(matrix, dtype=np.float64)


def _warp(
    matrix: npt.NDArray[np.float64], points: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    return np.asarray(cv2.perspectiveTransform(points[None], matrix)[0], dtype=np.float64)


def _warp_photo(
    photo: ByteImage, photo_from_view: npt.NDArray[np.float64], shape: tuple[int, int]
) -> ByteImage:
    """Resample the photo, shrunk first where the warp would skip pixels (no aliasing)."""
    centre = np.array([[shape[1] / 2, shape[0] / 2]])
    steps = _warp(photo_from_view, centre + np.eye(2)) - _warp(photo_from_view, centre)
    shrink = max(1.0, float(np.abs(steps).max(axis=1).min()))
    if shrink > 1.3:
        size = (max(1, round(photo.shape[0] / shrink)), max(1, round(photo.shape[1] / shrink)))
        ratio = np.array([size[1] / photo.shape[1], size[0] / photo.shape[0]])
        small_from_photo = np.array(
            [[ratio[0], 0, 0.5 * ratio[0] - 0.5], [0, ratio[1], 0.5 * ratio[1] - 0.5], [0, 0, 1]]
        )
        photo, photo_from_view = resize_image(photo, size), small_from_photo @ photo_from_view
    warped = cv2.warpPerspective(
        photo,
        photo_from_view,
        (shape[1], shape[0]),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(warped, dtype=np.uint8)
