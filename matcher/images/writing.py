"""Writing pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from matcher.errors import InputError
from matcher.files import checked_target, written
from matcher.images.reading import RgbArray

__all__ = ["check_picture_path", "write_picture"]

_SAVE_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 92}),
    ".tif": ("TIFF", {}),
    ".tiff": ("TIFF", {}),
    ".bmp": ("BMP", {}),
}


def check_picture_path(path: str | os.PathLike[str]) -> Path:
    """The path of a picture to write, if one can be written there.

    Raises:
        InputError: a suffix that names no known picture format, or a folder that does not exist.
    """
    return checked_target(path, _SAVE_OPTIONS)


def write_picture(path: str | os.PathLike[str], picture: RgbArray) -> None:
    """Write a picture in one step: whoever looks finds the old file or the whole new one.

    Args:
        path: the suffix chooses the format: .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp.
        picture: (H, W, 3) uint8 RGB.

    Raises:
        InputError: an unknown suffix, a folder that does not exist or refuses the file, or an array
            that is no picture.
    """
    target = check_picture_path(path)
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or not picture.size:
        raise InputError("picture", "(H, W, 3) uint8 RGB", f"{picture.shape} {picture.dtype}")
    file_format, options = _SAVE_OPTIONS[target.suffix.lower()]
    with written(target, _SAVE_OPTIONS) as stream:
        Image.fromarray(np.ascontiguousarray(picture)).save(stream, file_format, **options)
