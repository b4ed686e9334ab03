"""Preparing photographs for the network without losing their own pixels.

A :class:`~matcher.structures.View` is what the network sees of a photograph, with the exact map
back to the photograph's own pixels (integer pixels are pixel centres, x then y).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from matcher.errors import InputError
from matcher.geometry.pixels import resize_transform
from matcher.images.reading import RgbArray
from matcher.structures import FloatArray, ImageSize, View

__all__ = ["check_mask", "check_rgb", "normalize", "prepare_view", "released_crop"]

_SMALLEST_LONG_SIDE = 128
_AREA_FACTOR = 4.0


def prepare_view(
    image: RgbArray,
    *,
    max_size: int = 512,
    patch_size: int = 16,
    min_size: int = _SMALLEST_LONG_SIDE,
    mask: npt.NDArray[np.bool_] | Tensor | None = None,
    name: str = "image",
) -> View:
    """Resize a whole photograph to the network; nothing is cropped.

    The long side becomes at most ``max_size`` and at least ``min_size`` pixels; between the two a
    photograph keeps its own pixels. Both sides are rounded to whole pixels and then padded at the
    right and the bottom, by repeating the border, to multiples of ``patch_size``.
    ``original_from_network`` inverts the resize as it was rounded, axis by axis, with half-pixel
    centres: ``x_original = (x + 0.5) * width_original / width_content - 0.5``.

    Args:
        image: (H, W, 3) uint8 RGB, as :func:`read_image` gives it.
        max_size: largest long side of the content, network pixels.
        patch_size: side of the network's patches, pixels.
        min_size: smaller photographs are enlarged to this long side (a network of 16-pixel patches
            has little to say about 3 x 3 of them).
        mask: (H, W) bool in original pixels, where matches are welcome; a network pixel is welcome
            if more than half of the area it covers is.
        name: where the photograph came from, for messages.

    Raises:
        InputError: wrong shape or type of image or mask, sizes that are not positive.
    """
    check_rgb(image, name)
    _check_sizes(max_size, patch_size, min_size)
    original = ImageSize(*image.shape[:2])
    content = _content_size(original, max_size, min(min_size, max_size))
    resized = _resize(np.ascontiguousarray(image), content)
    pad = (-content.height % patch_size, -content.width % patch_size)
    return View(
        pixels=normalize(np.pad(resized, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")),
        content_size=content,
        original_size=original,
        original_from_network=resize_transform(content, original),
        mask=None if mask is None else _network_mask(check_mask(mask, original), content, pad),
        name=name,
    )


def released_crop(
    image: RgbArray,
    size: int = 512,
    *,
    square_ok: bool = False,
    patch_size: int = 16,
    name: str = "image",
) -> View:
    """Prepare a photograph by the rule with which released DUSt3R and MASt3R were evaluated.

    The long side is scaled to ``size`` (for ``size=224`` the short side), enlarging if need be,
    and the centre is cropped to multiples of ``patch_size``; a square becomes 4:3 unless
    ``square_ok``. Use it to reproduce published numbers; :func:`prepare_view` crops nothing.

    Raises:
        InputError: wrong image, sizes that are not positive, a photograph so narrow that the rule
            leaves no pixel of it.
    """
    check_rgb(image, name)
    _check_sizes(size, patch_size, 1)
    original = ImageSize(*image.shape[:2])
    long_side, short_side = max(image.shape[:2]), min(image.shape[:2])
    target = round(size * long_side / short_side) if size == 224 else size
    resized_size = ImageSize(
        *(max(1, round(side * target / long_side)) for side in image.shape[:2])
    )
    left, top, right, bottom = _released_box(resized_size, size, square_ok, patch_size)
    if right <= left or bottom <= top:
        raise InputError(
            name,
            f"sides that keep {patch_size} pixels when the long one is scaled to {target}",
            f"{original.width} x {original.height}",
        )
    resample = Image.Resampling.LANCZOS if long_side > target else Image.Resampling.BICUBIC
    picture = Image.fromarray(image).resize((resized_size.width, resized_size.height), resample)
    return View(
        pixels=normalize(np.asarray(picture.crop((left, top, right, bottom)))),
        content_size=ImageSize(bottom - top, right - left),
        original_size=original,
        original_from_network=resize_transform(resized_size, original) @ _shift(left, top),
        name=name,
    )


def _content_size(size: ImageSize, max_size: int, min_size: int) -> ImageSize:
    long_side = max(size.height, size.width)
    scale = min(max(long_side, min_size), max_size) / long_side
    return ImageSize(max(1, round(size.height * scale)), max(1, round(size.width * scale)))


def _resize(image: RgbArray, size: ImageSize) -> RgbArray:
    if image.shape[:2] == (size.height, size.width):
        return image
    if min(image.shape[0] / size.height, image.shape[1] / size.width) >= _AREA_FACTOR:
        # Exact area averages first: Lanczos over all of a large photograph takes three times as
        # long, and at twice the wanted size the averaging leaves no trace.
        twice = (2 * size.width, 2 * size.height)
        image = cv2.resize(image, twice, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    picture = Image.fromarray(image).resize((size.width, size.height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _shift(x: float, y: float) -> FloatArray:
    return np.array([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]])


def _released_box(
    size: ImageSize, wanted: int, square_ok: bool, patch_size: int
) -> tuple[int, int, int, int]:
    """Centre crop (left, top, right, bottom) of a resized photograph."""
    center_x, center_y = size.width // 2, size.height // 2
    if wanted == 224:
        half_width = half_height = 112
    else:
        half_width = center_x * 2 // patch_size * patch_size // 2
        half_height = center_y * 2 // patch_size * patch_size // 2
        if size.width == size.height and not square_ok:
            half_height = 3 * half_width // 4
    return (
        center_x - half_width,
        center_y - half_height,
        center_x + half_width,
        center_y + half_height,
    )


def normalize(rgb: RgbArray) -> Tensor:
    """(3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float()
    return (pixels / 127.5 - 1.0).contiguous()


def _network_mask(mask: npt.NDArray[np.bool_], content: ImageSize, pad: tuple[int, int]) -> Tensor:
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(
        (content.width, content.height), Image.Resampling.BOX
    )
    covered = np.asarray(picture) > 127
    return torch.from_numpy(np.pad(covered, ((0, pad[0]), (0, pad[1]))))


def check_rgb(image: RgbArray, name: str) -> None:
    """Raise ``InputError`` unless ``image`` is (H, W, 3) uint8."""
    actual = f"{getattr(image, 'dtype', type(image).__name__)} {getattr(image, 'shape', '')}"
    shape = image.shape if isinstance(image, np.ndarray) and image.dtype == np.uint8 else ()
    if len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise InputError(name, "a (H, W, 3) uint8 array; see read_image", actual.strip())


def _check_sizes(max_size: int, patch_size: int, min_size: int) -> None:
    for argument, value in (
        ("max_size", max_size),
        ("patch_size", patch_size),
        ("min_size", min_size),
    ):
        if value < 1:
            raise InputError(argument, "a positive number of pixels", f"{value}")


def check_mask(mask: npt.NDArray[np.bool_] | Tensor, size: ImageSize) -> npt.NDArray[np.bool_]:
    """The mask as an array; raises ``InputError`` unless it is bool and as large as the image."""
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.shape != (size.height, size.width) or array.dtype != np.bool_:
        raise InputError(
            "mask",
            f"bool of shape ({size.height}, {size.width}), as the upright image",
            f"{array.dtype} of shape {array.shape}",
        )
    return array
