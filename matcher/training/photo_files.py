"""Photographs on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError

__all__ = ["find_photos", "read_photo"]

ByteImage = npt.NDArray[np.uint8]
_PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


def find_photos(folders: Sequence[str]) -> list[Path]:
    """Every photograph below ``folders``, sorted.

    Raises:
        DatasetError: a folder is missing or holds none.
    """
    found: list[Path] = []
    for folder in folders:
        files = [path for path in Path(folder).rglob("*") if path.suffix.lower() in _PHOTO_SUFFIXES]
        if not files:
            raise DatasetError(f"photos: expected photographs below {folder}, found none")
        found += sorted(files)
    return found


def read_photo(path: Path) -> ByteImage:
    """(H, W, 3) uint8 RGB; raises ``DatasetError`` for a file that is no picture."""
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"photo: cannot read {path}")
    return np.asarray(image[..., ::-1], dtype=np.uint8)
