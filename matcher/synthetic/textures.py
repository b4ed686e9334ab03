"""Textures with mip-maps, from photographs or made up from noise and patterns.

Every texture is square and of one size, so a whole set is a single tensor; all levels of all
textures live in one flat table of packed RGB bytes, which makes a trilinear lookup eight gathers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, overload

import cv2
import numpy as np
import torch
import torch.nn.functional as functional
from torch import Tensor

from matcher.errors import DatasetError, InputError

__all__ = [
    "MipAtlas",
    "build_atlas",
    "cell_grid",
    "find_images",
    "load_textures",
    "procedural_textures",
    "sample_atlas",
    "smooth_noise",
]

_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
_CROP_TRIES = 6
# Standard deviations (of 255): a crop above the first is taken at once; below the second, little
# on it can be matched.
_GOOD_CONTRAST, _PLAIN_CONTRAST = 36.0, 14.0
_MIN_MEAN, _MAX_MEAN = 80.0, 190.0


@dataclass(frozen=True, slots=True, eq=False)
class MipAtlas:
    """All mip levels of ``count`` square textures.

    Attributes:
        packed: (texels,) int32, four bytes R, G, B, 0 a texel; level after level, in a level
            texture after texture, row-major.
        level_offsets: (levels,) int32, where each level starts in ``packed``.
        count: number of textures.
        size: side of level 0, a power of two.
        roles: (count,) int64 on the CPU, what each texture is for (``patterns.ROLES``); None:
            any of them for anything.
    """

    packed: Tensor
    level_offsets: Tensor
    count: int
    size: int
    roles: Tensor | None = None

    @property
    def levels(self) -> int:
        """Number of mip levels; the last one is a single texel."""
        return int(self.level_offsets.shape[0])

    def to(self, device: torch.device | str) -> MipAtlas:
        """The same atlas on another device."""
        return MipAtlas(
            self.packed.to(device), self.level_offsets.to(device), self.count, self.size, self.roles
        )


def build_atlas(textures: Tensor, roles: Tensor | None = None) -> MipAtlas:
    """Pack (T, 3, size, size) uint8 RGB, size a power of two, with all mip levels.

    ``roles`` (T,) int64 say what each texture is for; None: for anything.

    Raises:
        InputError: not uint8 of that shape, or another number of roles.
    """
    shape = tuple(textures.shape)
    if textures.dtype != torch.uint8 or len(shape) != 4 or shape[1] != 3 or shape[0] < 1:
        raise InputError("textures", "(T, 3, size, size) uint8", f"{shape} {textures.dtype}")
    if roles is not None and roles.shape != shape[:1]:
        raise InputError("roles", f"one for each of {shape[0]} textures", f"{tuple(roles.shape)}")
    size = shape[3]
    if shape[2] != size or size & (size - 1):
        raise InputError("textures", "a square whose side is a power of two", f"{shape[2:]}")
    levels = int(math.log2(size)) + 1
    parts: list[Tensor] = []
    for chunk_level in range(levels):
        parts.append(torch.empty(shape[0], size >> chunk_level, size >> chunk_level, 4).byte())
    for index in range(shape[0]):
        level = textures[index : index + 1].float()
        for part in parts:
            part[index, :, :, :3] = level[0].round().byte().permute(1, 2, 0)
            part[index, :, :, 3] = 0
            if level.shape[-1] > 1:
                level = functional.avg_pool2d(level, 2)
    packed = torch.cat([part.reshape(-1, 4) for part in parts]).view(torch.int32).reshape(-1)
    sizes = torch.tensor([0] + [shape[0] * (size >> i) ** 2 for i in range(levels - 1)])
    offsets = sizes.cumsum(0).to(torch.int32)
    device = textures.device
    roles = None if roles is None else roles.cpu()
    return MipAtlas(packed.to(device), offsets.to(device), shape[0], size, roles)


def _level_taps(
    atlas: MipAtlas, texture: Tensor, uv: Tensor, level: Tensor
) -> tuple[Tensor, Tensor]:
    """Four table indices (4, ...) int32 and bilinear weights (4, ...) in one level."""
    level_size = atlas.size >> level
    scale = level_size.to(uv.dtype)
    x, y = uv[..., 0] * scale - 0.5, uv[..., 1] * scale - 0.5
    x_floor, y_floor = x.floor(), y.floor()
    x_weight, y_weight = x - x_floor, y - y_floor
    last = level_size - 1
    x_low, y_low = x_floor.to(torch.int32), y_floor.to(torch.int32)
    x0, x1 = x_low & last, (x_low + 1) & last  # wraps around: sizes are powers of two
    y0, y1 = y_low & last, (y_low + 1) & last
    base = atlas.level_offsets[level] + texture * level_size * level_size
    row0, row1 = base + y0 * level_size, base + y1 * level_size
    indices = torch.stack((row0 + x0, row0 + x1, row1 + x0, row1 + x1))
    low_x, low_y = 1 - x_weight, 1 - y_weight
    weights = torch.stack((low_x * low_y, x_weight * low_y, low_x * y_weight, x_weight * y_weight))
    return indices, weights


def sample_atlas(atlas: MipAtlas, texture: Tensor, uv: Tensor, lod: Tensor) -> Tensor:
    """Trilinear lookup, repeating the texture in both directions.

    Args:
        atlas: the textures.
        texture: (...) int, index of the texture.
        uv: (..., 2) coordinates; the texture covers [0, 1).
        lod: (...) level of detail, log2 of the footprint in texels of level 0.

    Returns:
        (..., 3) float32 RGB in [0, 1].
    """
    texture = texture.to(torch.int32)
    lod = lod.clamp(0, atlas.levels - 1)
    low = lod.floor()
    fraction = lod - low
    level = low.to(torch.int32)
    # int32 indices must not overflow for far-away coordinates, and precision is best near zero.
    uv = uv - uv.floor()
    indices0, weights0 = _level_taps(atlas, texture, uv, level)
    indices1, weights1 = _level_taps(atlas, texture, uv, (level + 1).clamp(max=atlas.levels - 1))
    indices = torch.cat((indices0, indices1))
    weights = torch.cat((weights0 * (1 - fraction), weights1 * fraction))
    packed = atlas.packed[indices.reshape(-1)]
    colours = packed.view(torch.uint8).reshape(*indices.shape, 4)[..., :3]
    return torch.einsum("k...c,k...->...c", colours.to(uv.dtype), weights) / 255.0


def find_images(folders: Sequence[str | Path]) -> list[Path]:
    """All image files under the folders, sorted, so that a seed means the same everywhere."""
    found: list[Path] = []
    for folder in folders:
        path = Path(folder)
        if not path.exists():
            raise DatasetError(f"texture folder not found: {path}")
        files = [path] if path.is_file() else sorted(path.rglob("*"))
        found += [file for file in files if file.suffix.lower() in _IMAGE_SUFFIXES]
    return found


def _read_rgb(path: Path) -> np.ndarray:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise DatasetError(f"cannot read texture image: {path}")
    return np.ascontiguousarray(image[..., ::-1])


def _crop(image: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """One square crop with some contrast, resized to ``size``, brightness pulled to mid-grey."""
    height, width = image.shape[:2]
    best, best_contrast = image, -1.0
    for _ in range(_CROP_TRIES):
        side = int(min(height, width) * rng.uniform(0.55, 1.0))
        side = max(side, min(size // 2, height, width), 1)
        top = int(rng.integers(0, height - side + 1))
        left = int(rng.integers(0, width - side + 1))
        crop = image[top : top + side, left : left + side]
        contrast = float(crop.std())
        if contrast > best_contrast:
            best, best_contrast = crop, contrast
        if contrast > _GOOD_CONTRAST:
            break
    shrinks = best.shape[0] > size
    resized = cv2.resize(
        best, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    mean = float(resized.mean())
    gain = float(np.clip(mean, _MIN_MEAN, _MAX_MEAN)) / max(mean, 1.0)
    brightened = np.clip(resized.astype(np.float32) * min(gain, 3.0), 0, 255)
    return np.asarray(brightened.round(), dtype=np.uint8)


@overload
def load_textures(
    paths: Sequence[str | Path], size: int = 512, seed: int = 0, count: int | None = None
) -> Tensor: ...


@overload
def load_textures(
    paths: Sequence[str | Path],
    size: int = 512,
    seed: int = 0,
    count: int | None = None,
    *,
    with_files: Literal[True],
) -> tuple[Tensor, list[Path]]: ...


def load_textures(
    paths: Sequence[str | Path],
    size: int = 512,
    seed: int = 0,
    count: int | None = None,
    *,
    with_files: bool = False,
) -> Tensor | tuple[Tensor, list[Path]]:
    """Random square crops of photographs as textures.

    Args:
        paths: image files; each gives one crop, or several when ``count`` exceeds their number.
        size: side of a texture, a power of two.
        seed: which crops.
        count: how many textures; all files once by default.
        with_files: whether to tell which file each crop is of.

    Returns:
        (T, 3, size, size) uint8 RGB, and the T files if asked for.

    Raises:
        DatasetError: no file, or a file that cannot be read as an image.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise DatasetError("no texture image found")
    rng = np.random.default_rng(seed)
    total = len(files) if count is None else count
    order = np.concatenate([rng.permutation(len(files)) for _ in range(-(-total // len(files)))])
    textures = np.empty((total, 3, size, size), dtype=np.uint8)
    chosen = [files[index] for index in order[:total]]
    for row, file in enumerate(chosen):
        crop = _crop(_read_rgb(file), size, rng)
        # Plain surfaces exist, but a scene of them alone teaches nothing: most get a second file.
        if float(crop.std()) < _PLAIN_CONTRAST and rng.uniform() < 0.8:
            chosen[row] = files[int(rng.integers(len(files)))]
            crop = _crop(_read_rgb(chosen[row]), size, rng)
        textures[row] = crop.transpose(2, 0, 1)
    return (torch.from_numpy(textures), chosen) if with_files else torch.from_numpy(textures)


def smooth_noise(generator: torch.Generator, count: int, size: int, roughness: float) -> Tensor:
    """(count, 3, size, size) in [0, 1]: octaves of smoothed random values."""
    total = torch.zeros(count, 3, size, size)
    amplitude, cells = 1.0, 4
    while cells <= size:
        grid = torch.rand(count, 3, cells, cells, generator=generator) - 0.5
        grey = grid.mean(1, keepdim=True)
        mixed = 0.4 * grid + 1.6 * grey
        total += amplitude * functional.interpolate(
            mixed, (size, size), mode="bilinear", align_corners=False
        )
        amplitude *= roughness
        cells *= 2
    low = total.amin((1, 2, 3), keepdim=True)
    return (total - low) / (total.amax((1, 2, 3), keepdim=True) - low)


def cell_grid(size: int, columns: int, rows: int, brick: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Cell number (size, size) and position inside the cell, x and y in [0, 1)."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    fy = y * rows / size
    shift = 0.5 * (fy.long() % 2) if brick else torch.zeros_like(fy)
    fx = (x * columns / size + shift) % columns
    number = fy.long() * columns + fx.long()
    return number, fx % 1, fy % 1


def _pattern(generator: torch.Generator, kind: int, size: int) -> Tensor:
    """(3, size, size) multiplier: checker, bricks, windows or text-like strokes."""
    rows = int(torch.randint(3, 9, (1,), generator=generator))
    columns = int(torch.randint(3, 9, (1,), generator=generator))
    if kind == 3:
        rows, columns = rows * 3, columns * 6
    number, fx, fy = cell_grid(size, columns, rows, kind == 1)
    shade = torch.rand(rows * columns, 3, generator=generator)
    if kind == 0:
        return 0.3 + 0.7 * shade[number].permute(2, 0, 1)
    if kind == 1:
        mortar = (fx < 0.06) | (fy < 0.1)
        stone = 0.6 + 0.4 * shade[number].mean(-1)
        return torch.where(mortar, 0.35, stone)[None].expand(3, -1, -1)
    margin_x, margin_y = 0.1 + 0.2 * torch.rand(2, generator=generator)
    if kind == 2:
        window = (fx > margin_x) & (fx < 1 - margin_x) & (fy > margin_y) & (fy < 1 - margin_y)
        bar = ((fx - 0.5).abs() < 0.03) | ((fy - 0.45).abs() < 0.025)
        glass = 0.15 + 0.5 * shade[number].permute(2, 0, 1)
        return torch.where(window & ~bar, glass, torch.ones(()))
    ink = (fy > 0.25) & (fy < 0.8) & (shade[number][..., 0] > 0.3)
    stroke = ((fx - shade[number][..., 1]).abs() < 0.25) | (
        (fy - 0.25 - 0.5 * shade[number][..., 2]).abs() < 0.12
    )
    return torch.where(ink & stroke, 0.15, 1.0)[None].expand(3, -1, -1)


def procedural_textures(generator: torch.Generator, count: int, size: int = 256) -> Tensor:
    """Textures that need no file: coloured noise of several octaves, plain or under a pattern.

    Args:
        generator: source of all randomness, on the CPU.
        count: number of textures.
        size: side, a power of two.

    Returns:
        (count, 3, size, size) uint8 RGB; kinds alternate: noise, checker, bricks, windows, text.
    """
    textures = torch.empty(count, 3, size, size, dtype=torch.uint8)
    for index in range(count):
        roughness = 0.6 + 0.25 * float(torch.rand(1, generator=generator))
        noise = smooth_noise(generator, 1, size, roughness)[0]
        tint = 0.55 + 0.45 * torch.rand(3, 1, 1, generator=generator)
        kind = index % 5
        image = noise * tint
        if kind:
            image = (0.35 + 0.65 * noise) * tint * _pattern(generator, kind - 1, size)
        textures[index] = (image.clamp(0, 1) * 255).round().byte()
    return textures
