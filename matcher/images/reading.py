"""Reading photographs: whatever holds one becomes a (H, W, 3) uint8 RGB array, upright."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from matcher.errors import InputError

__all__ = ["ImageSource", "RgbArray", "read_image"]

RgbArray: TypeAlias = npt.NDArray[np.uint8]
ImageSource: TypeAlias = str | os.PathLike[str] | Image.Image | npt.NDArray[Any] | Tensor

_FLOAT_TOLERANCE = 1e-4
_WHITE = 255.0
_ARRAY_SHAPES = "shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4)"
_TENSOR_SHAPES = "shape (3, H, W), (1, H, W), (H, W) or (1, 3, H, W)"
_FILE = "an image file that Pillow reads"


def read_image(source: ImageSource, argument: str = "image") -> RgbArray:
    """Read a photograph, upright.

    Grey becomes three equal channels, 16-bit values are scaled to 8 bits, transparent pixels are
    laid over white, and the EXIF orientation of a file or a PIL image is applied.

    Args:
        source: a path to any format Pillow reads; a PIL image; a numpy array (H, W), (H, W, 1),
            (H, W, 3) or (H, W, 4) of RGB(A) as uint8, uint16 or float in [0, 1]; a torch tensor
            (3, H, W), (1, H, W), (H, W) or (1, 3, H, W) of the same types.
        argument: name of the argument, for error messages.

    Returns:
        (H, W, 3) uint8 RGB. It may share memory with ``source``.

    Raises:
        InputError: a file that is missing or cannot be decoded to its end; a wrong shape or type;
            NaN; floats outside [0, 1].
    """
    if isinstance(source, Tensor):
        return _from_tensor(source, argument)
    if isinstance(source, np.ndarray):
        return _from_array(source, argument, _ARRAY_SHAPES)
    if isinstance(source, Image.Image):
        return _from_pillow(source, argument, "the PIL image")
    if isinstance(source, str | os.PathLike):
        return _from_file(Path(source), argument)
    raise InputError(
        argument, "a path, a PIL image, a numpy array or a torch tensor", type(source).__name__
    )


def _from_file(path: Path, argument: str) -> RgbArray:
    if path.is_dir():
        raise InputError(argument, "an image file", f"the directory {path}")
    try:
        opened = Image.open(path)
    except FileNotFoundError:
        raise InputError(argument, "an image file", f"no file at {path}") from None
    except UnidentifiedImageError:
        actual = "an empty file" if path.stat().st_size == 0 else "a file of another kind"
        raise InputError(argument, _FILE, f"{actual}: {path}") from None
    except Exception as error:
        raise _undecodable(argument, str(path), error) from None
    with opened as picture:
        return _from_pillow(picture, argument, str(path))


def _from_pillow(picture: Image.Image, argument: str, origin: str) -> RgbArray:
    try:
        # Image decoders fail with whatever type their parser meets: all of it is a broken file.
        picture.load()
        return _pillow_to_rgb(_upright(picture), argument)
    except InputError:
        raise
    except Exception as error:
        raise _undecodable(argument, origin, error) from None


def _undecodable(argument: str, origin: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(argument, _FILE, f"{origin} ({reason})")


def _upright(picture: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(picture)
    except Exception:
        return picture  # tags that cannot be read turn nothing; the pixels are still good


def _pillow_to_rgb(picture: Image.Image, argument: str) -> RgbArray:
    if picture.mode == "F":
        return _from_array(np.asarray(picture), argument, _ARRAY_SHAPES)
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        values = np.asarray(picture).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(
                argument, "8 or 16 bits a channel", f"values {values.min()} to {values.max()}"
            )
        return _from_array(values.astype(np.uint16), argument, _ARRAY_SHAPES)
    if picture.mode in ("LA", "PA", "La", "RGBa", "RGBA") or "transparency" in picture.info:
        return _from_array(np.asarray(picture.convert("RGBA")), argument, _ARRAY_SHAPES)
    return np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB"))


def _from_tensor(tensor: Tensor, argument: str) -> RgbArray:
    image = tensor.detach().cpu()
    if image.ndim == 4 and image.shape[0] == 1:
        image = image[0]
    if image.ndim == 3 and image.shape[0] in (1, 3):
        image = image.movedim(0, -1)
    elif image.ndim != 2:
        raise InputError(argument, _TENSOR_SHAPES, f"a tensor of shape {tuple(tensor.shape)}")
    if image.dtype == torch.bfloat16:
        image = image.float()
    return _from_array(image.numpy(), argument, _TENSOR_SHAPES)


def _from_array(array: npt.NDArray[Any], argument: str, shapes: str) -> RgbArray:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise InputError(argument, shapes, f"an array of shape {array.shape}")
    if array.size == 0:
        raise InputError(argument, "at least one pixel", f"shape {array.shape}")
    channels = _to_bytes(array.reshape(*array.shape[:2], -1), argument)
    if channels.shape[2] == 4:
        return _over_white(channels)
    if channels.shape[2] == 1:
        return np.repeat(channels, 3, axis=2)
    return np.ascontiguousarray(channels)


def _to_bytes(array: npt.NDArray[Any], argument: str) -> RgbArray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return _rounded(array.astype(np.float32) / np.float32(257))
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(argument, "uint8, uint16 or float in [0, 1]", f"{array.dtype}")
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise InputError(argument, "finite pixels", "NaN or infinity")
    if low < -_FLOAT_TOLERANCE or high > 1 + _FLOAT_TOLERANCE:
        raise InputError(argument, "floats in [0, 1]", f"values {low:.4g} to {high:.4g}")
    return _rounded(np.clip(array.astype(np.float32), 0, 1) * np.float32(255))


def _over_white(rgba: RgbArray) -> RgbArray:
    alpha = rgba[..., 3:].astype(np.float32) / np.float32(255)
    return _rounded(rgba[..., :3] * alpha + np.float32(_WHITE) * (1 - alpha))


def _rounded(values: npt.NDArray[np.float32]) -> RgbArray:
    return np.rint(values).astype(np.uint8)
