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

__all__ = ["crop_view", "prepare_view", "released_crop"]

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
    _check_rgb(image, name)
    height, width = image.shape[:2]
    return crop_view(
        image,
        (0, 0, width, height),
        max_size=max_size,
        patch_size=patch_size,
        min_size=min_size,
        mask=mask,
        name=name,
    )


def crop_view(
    image: RgbArray,
    box: tuple[int, int, int, int],
    *,
    max_size: int = 512,
    patch_size: int = 16,
    min_size: int = 1,
    mask: npt.NDArray[np.bool_] | Tensor | None = None,
    name: str = "image",
) -> View:
    """Resize a window of a photograph to the network, as :func:`prepare_view` does with all of it.

    Args:
        image: (H, W, 3) uint8 RGB.
        box: ``(x0, y0, x1, y1)`` in original pixels: columns ``x0 .. x1 - 1``, rows
            ``y0 .. y1 - 1``.
        max_size: largest long side of the content, network pixels.
        patch_size: side of the network's patches, pixels.
        min_size: smallest long side of the content; ``max_size`` gives every window the same scale.
        mask: (H, W) bool over the whole photograph.
        name: where the photograph came from, for messages.

    Returns:
        A view whose ``original_from_network`` leads to the pixels of the whole photograph.

    Raises:
        InputError: a box that is empty or leaves the photograph, and all of :func:`prepare_view`.
    """
    _check_rgb(image, name)
    _check_sizes(max_size, patch_size, min_size)
    original = ImageSize(*image.shape[:2])
    x0, y0, x1, y1 = _check_box(box, original)
    window = ImageSize(y1 - y0, x1 - x0)
    content = _content_size(window, max_size, min(min_size, max_size))
    resized = _resize(np.ascontiguousarray(image[y0:y1, x0:x1]), content)
    pad = (-content.height % patch_size, -content.width % patch_size)
    return View(
        pixels=_normalize(np.pad(resized, ((0, pad[0]), (0, pad[1]), (0, 0)), mode="edge")),
        content_size=content,
        original_size=original,
        original_from_network=_original_from_resized(window, content, x0, y0),
        mask=None
        if mask is None
        else _network_mask(_check_mask(mask, original)[y0:y1, x0:x1], content, pad),
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
    _check_rgb(image, name)
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
        pixels=_normalize(np.asarray(picture.crop((left, top, right, bottom)))),
        content_size=ImageSize(bottom - top, right - left),
        original_size=original,
        original_from_network=_original_from_resized(original, resized_size) @ _shift(left, top),
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


def _original_from_resized(
    window: ImageSize, resized: ImageSize, left: int = 0, top: int = 0
) -> FloatArray:
    """Original pixels from those of a resized window whose top-left pixel is (left, top)."""
    return _shift(left, top) @ resize_transform(resized, window)


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


def _normalize(rgb: RgbArray) -> Tensor:
    """(3, H, W) float32 in [-1, 1]."""
    pixels = torch.from_numpy(np.array(rgb)).permute(2, 0, 1).float()
    return (pixels / 127.5 - 1.0).contiguous()


def _network_mask(mask: npt.NDArray[np.bool_], content: ImageSize, pad: tuple[int, int]) -> Tensor:
    picture = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(
        (content.width, content.height), Image.Resampling.BOX
    )
    covered = np.asarray(picture) > 127
    return torch.from_numpy(np.pad(covered, ((0, pad[0]), (0, pad[1]))))


def _check_rgb(image: RgbArray, name: str) -> None:
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


def _check_box(box: tuple[int, int, int, int], size: ImageSize) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = (int(value) for value in box)
    if not (0 <= x0 < x1 <= size.width and 0 <= y0 < y1 <= size.height):
        raise InputError(
            "box", f"a part of the image of {size.width} x {size.height} pixels", f"{box}"
        )
    return x0, y0, x1, y1


def _check_mask(mask: npt.NDArray[np.bool_] | Tensor, size: ImageSize) -> npt.NDArray[np.bool_]:
    array = mask.detach().cpu().numpy() if isinstance(mask, Tensor) else np.asarray(mask)
    if array.shape != (size.height, size.width) or array.dtype != np.bool_:
        raise InputError(
            "mask",
            f"bool of shape ({size.height}, {size.width}), as the upright image",
            f"{array.dtype} of shape {array.shape}",
        )
    return array
