"""What readers of pair lists share: broken pairs are named and counted, and the rest goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.core.samples import Dataset, FloatArray, PairSample, Truth
from matcher.errors import DatasetError, MatcherError
from matcher.structures import ImageSize

__all__ = [
    "PairCollector",
    "as_matrix",
    "as_rigid",
    "first_existing",
    "relative_pose",
    "scale_intrinsics",
    "stored_size",
]

_ROTATION_TOLERANCE = 1e-3
_EXIF_ORIENTATION = 0x0112
_SIDEWAYS = (5, 6, 7, 8)


class PairCollector:
    """Gathers the pairs of a list, and the reasons of those that cannot be used."""

    def __init__(self) -> None:
        self._samples: list[PairSample] = []
        self._problems: list[tuple[str, str]] = []
        self._names: set[str] = set()
        self._present: dict[Path, bool] = {}

    def add(
        self,
        name: str,
        images: tuple[Path, Path],
        make_truth: Callable[[], Truth],
        group: str = "",
    ) -> None:
        """A pair, or a problem where a photograph is absent or ``make_truth`` raises."""
        try:
            for image in images:
                if not self._is_present(image):
                    raise DatasetError(f"no image at {image}")
            if name in self._names:
                raise DatasetError("listed twice")
            truth = make_truth()
        except MatcherError as error:
            self.fail(name, str(error))
            return
        self._names.add(name)
        self._samples.append(PairSample(name, *images, truth, group))

    def fail(self, name: str, reason: str) -> None:
        """A pair of the list that cannot be used; it will count as a failure."""
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name} #{count}"
        self._names.add(unique)
        self._problems.append((unique, " ".join(reason.split())))

    def finish(
        self,
        name: str,
        title: str,
        root: Path,
        *,
        kind: str = "pose",
        notes: Iterable[str] = (),
        is_synthetic: bool = False,
    ) -> Dataset:
        """The data set.

        Raises:
            DatasetError: not one pair can be used.
        """
        if not self._samples:
            first = f"; the first: {': '.join(self._problems[0])}" if self._problems else ""
            count = len(self._problems)
            raise DatasetError(f"{title}: no usable pair in {root} ({count} broken){first}")
        return Dataset(
            name,
            title,
            tuple(self._samples),
            kind,
            root,
            tuple(self._problems),
            tuple(notes),
            is_synthetic,
        )

    def _is_present(self, image: Path) -> bool:
        if image not in self._present:
            self._present[image] = image.is_file()
        return self._present[image]


def as_matrix(name: str, value: Any, shape: tuple[int, ...]) -> FloatArray:
    """Finite numbers of a shape, or a :class:`DatasetError` that says what came instead."""
    try:
        matrix = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise DatasetError(f"{name}: expected numbers of shape {shape}") from None
    if matrix.shape != shape:
        raise DatasetError(f"{name}: expected shape {shape}, got {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise DatasetError(f"{name}: expected finite numbers")
    return matrix


def as_rigid(name: str, rotation: Any, translation: Any) -> FloatArray:
    """(4, 4) pose of a (3, 3) rotation and a (3,) translation.

    Raises:
        DatasetError: wrong shapes, or a matrix that is no rotation within 0.001.
    """
    pose = np.eye(4)
    pose[:3, :3] = as_matrix(f"{name} rotation", rotation, (3, 3))
    pose[:3, 3] = as_matrix(f"{name} translation", translation, (3,))
    residual = np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max()
    if residual > _ROTATION_TOLERANCE or np.linalg.det(pose[:3, :3]) < 0:
        raise DatasetError(f"{name}: its 3 x 3 part is no rotation")
    return pose


def relative_pose(cam0_from_world: FloatArray, cam1_from_world: FloatArray) -> FloatArray:
    """cam1_from_cam0 (4, 4) of two rigid poses."""
    world_from_cam0 = np.eye(4)
    world_from_cam0[:3, :3] = cam0_from_world[:3, :3].T
    world_from_cam0[:3, 3] = -cam0_from_world[:3, :3].T @ cam0_from_world[:3, 3]
    return np.asarray(cam1_from_world @ world_from_cam0)


@lru_cache(maxsize=65536)
def stored_size(path: Path) -> ImageSize:
    """Size of a photograph, upright, from the file's header.

    Raises:
        DatasetError: no image can be read there.
    """
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            sideways = picture.getexif().get(_EXIF_ORIENTATION) in _SIDEWAYS
    except (OSError, ValueError, SyntaxError) as error:
        raise DatasetError(f"cannot read the image {path} ({error})") from None
    return ImageSize(width, height) if sideways else ImageSize(height, width)


def scale_intrinsics(k: FloatArray, from_size: ImageSize, to_size: ImageSize) -> FloatArray:
    """K (3, 3) of a photograph for a stored copy of another size.

    Raises:
        DatasetError: the sizes differ in shape by more than 1 %.
    """
    if from_size == to_size:
        return k
    scale_x, scale_y = to_size.width / from_size.width, to_size.height / from_size.height
    if abs(scale_x / scale_y - 1) > 0.01:
        raise DatasetError(
            f"K is for {from_size.width} x {from_size.height} pixels, "
            f"the image has {to_size.width} x {to_size.height}"
        )
    scaled = np.array(k, dtype=np.float64)
    scaled[0] *= scale_x
    scaled[1] *= scale_y
    scaled[0, 2] += 0.5 * scale_x - 0.5
    scaled[1, 2] += 0.5 * scale_y - 0.5
    return scaled


def first_existing(root: Path, candidates: Sequence[str]) -> Path | None:
    """The first of some paths below ``root`` that is there."""
    return next((root / name for name in candidates if (root / name).exists()), None)
