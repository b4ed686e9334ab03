"""What a camera does to a picture: light, colour, noise, blur, compression; crops and turns."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["photometric", "resize_image"]

ByteImage = npt.NDArray[np.uint8]


def photometric(random: np.random.Generator, image: ByteImage, strength: float = 1.0) -> ByteImage:
    """Change the look of an (H, W, 3) image, not its geometry.

    Args:
        random: source of randomness.
        image: uint8 RGB.
        strength: 0 changes nothing, 1 is the usual range (day to night, phone to scanner).
    """
    values: npt.NDArray[np.float32] = image.astype(np.float32) / np.float32(255)
    dusk = random.random() < 0.12 * strength
    if dusk:
        values = _night(random, values)
    if random.random() < 0.8:
        gain = float(np.exp(random.normal(0, 0.25 * strength)))
        balance = np.exp(random.normal(0, 0.08 * strength, 3)).astype(np.float32)
        gamma = float(np.exp(random.normal(0, 0.25 * strength)))
        values = np.clip(values * gain * balance, 0, 1) ** gamma
    if random.random() < 0.6:
        grey = values @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
        saturation = random.uniform(0.0 if random.random() < 0.15 else 0.5, 1.5)
        saturation = 1 + strength * (saturation - 1)
        values = grey[..., None] + saturation * (values - grey[..., None])
        contrast = float(np.exp(random.normal(0, 0.2 * strength)))
        mean = float(grey.mean())
        values = mean + contrast * (values - mean)
    if random.random() < 0.25 * strength:
        values = _shade(random, values)
    if random.random() < 0.4 * strength:
        values = _uneven(random, values)
    if random.random() < 0.25 * strength:
        sigma = random.uniform(0.3, 1.5)
        values = np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), dtype=np.float32)
    if random.random() < 0.1 * strength:
        values = _shaken(random, values)
    if dusk or random.random() < 0.4:
        spread = strength * random.uniform(0.015 if dusk else 0.002, 0.05 if dusk else 0.04)
        noise = random.standard_normal(values.shape, dtype=np.float32)
        values = values + noise * np.float32(spread)
    bytes_ = np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)
    if random.random() < 0.3 * strength:
        quality = int(random.integers(25, 90))
        _, coded = cv2.imencode(".jpg", bytes_[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        decoded = np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR), dtype=np.uint8)
        bytes_ = np.ascontiguousarray(decoded[..., ::-1])
    return bytes_


def _shade(random: np.random.Generator, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A soft shadow or highlight: a smooth field of a few random bumps."""
    field = random.uniform(0.4, 1.4, (3, 3)).astype(np.float32)
    smooth = cv2.resize(field, (values.shape[1], values.shape[0]), interpolation=cv2.INTER_CUBIC)
    shaded: npt.NDArray[np.float32] = values * smooth[..., None]
    return shaded


def _night(random: np.random.Generator, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same colours by little and coloured light, with lamps here and there."""
    height, width = values.shape[:2]
    light = random.uniform(0.04, 0.3) * np.exp(random.normal(0, 0.25, 3)).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32) / max(height, width)
    glow = np.zeros((height, width), dtype=np.float32)
    for _ in range(int(random.integers(0, 4))):
        centre, reach = random.uniform(0, 1, 2), random.uniform(0.08, 0.4)
        square = (x - centre[0]) ** 2 + (y - centre[1]) ** 2
        glow += np.float32(random.uniform(0.2, 0.9)) * np.exp(-square / np.float32(reach**2))
    warm = np.array([1.0, 0.8, 0.5], dtype=np.float32) ** np.float32(random.uniform(0, 1))
    lit: npt.NDArray[np.float32] = values**2 * (light + glow[..., None] * warm)
    # The camera brightens a dark place, up to a point.
    gain = min(float(random.uniform(0.08, 0.3)) ** 2 / max(float(lit.mean()), 1e-4), 12.0)
    return np.asarray(np.sqrt(np.clip(lit * np.float32(gain), 0, 1)), dtype=np.float32)


def _uneven(
    random: np.random.Generator, values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Dark corners, or brightness that changes from row to row."""
    height, width = values.shape[:2]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    if random.random() < 0.7:
        x = np.linspace(-1, 1, width, dtype=np.float32)[None]
        factor = 1 - np.float32(random.uniform(0.05, 0.5)) * 0.5 * (x * x + y * y)
    else:
        wave = np.sin(np.float32(random.uniform(1, 14)) * y + np.float32(random.uniform(0, 6)))
        factor = 1 + np.float32(random.uniform(0.05, 0.25)) * wave
    uneven: npt.NDArray[np.float32] = values * factor[..., None]
    return uneven


def _shaken(
    random: np.random.Generator, values: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Blur along a line through every pixel's centre: nothing moves."""
    reach = int(random.integers(1, 4))
    side, angle = 2 * reach + 1, random.uniform(0, np.pi)
    along = np.linspace(-reach, reach, 8 * side)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    off_x = np.abs(x[..., None] - along * np.cos(angle))
    off_y = np.abs(y[..., None] - along * np.sin(angle))
    kernel = (np.clip(1 - off_x, 0, None) * np.clip(1 - off_y, 0, None)).sum(-1)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    blurred = cv2.filter2D(values, -1, kernel, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(blurred, dtype=np.float32)


def resize_image(image: ByteImage, shape: tuple[int, int]) -> ByteImage:
    """Resize to (height, width), averaging when it shrinks."""
    shrinks = image.shape[0] > shape[0]
    resized = cv2.resize(
        image, (shape[1], shape[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    )
    return np.asarray(resized, dtype=np.uint8)
