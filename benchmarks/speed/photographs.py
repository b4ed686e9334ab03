"""Photographs for the suites: those of a folder, a sample pair, or rendered ones."""

from __future__ import annotations

import math
from pathlib import Path

import cv2
import numpy as np
import torch

from matcher.errors import DatasetError
from matcher.sample_pairs import motorcycle_pair
from matcher.structures import Camera, ImageSize
from matcher.synthetic.cameras import look_at
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.render import render
from matcher.synthetic.scene import Cameras
from matcher.synthetic.textures import build_atlas, procedural_textures

__all__ = ["photographs_of", "render_photographs", "write_pair"]

_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".ppm", ".tif", ".tiff"})
_STEP_DEG = 8.0


def photographs_of(root: Path, most: int) -> tuple[Path, ...]:
    """The first ``most`` photographs of a folder and those below, by name.

    Raises:
        DatasetError: no such folder, or fewer than two photographs in it.
    """
    if not root.is_dir():
        raise DatasetError(f"photographs: no folder {root}")
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if len(found) < 2:
        raise DatasetError(f"photographs: expected at least 2 in {root}, got {len(found)}")
    return tuple(found[:most])


def render_photographs(folder: Path, count: int, size: ImageSize) -> tuple[Path, ...]:
    """Write JPEG files of one scene, seen by cameras 8 degrees apart on a circle around it."""
    generator = torch.Generator().manual_seed(0)
    atlas = build_atlas(procedural_textures(generator, 24, 128))
    scene = sample_scenes(generator, 1, atlas, SceneOptions(0, 0, 1, 0))
    focal = 0.5 * max(size.height, size.width) / math.tan(math.radians(30))
    centre_x, centre_y = (size.width - 1) / 2, (size.height - 1) / 2
    k = torch.tensor([[focal, 0, centre_x], [0, focal, centre_y], [0, 0, 1]], dtype=torch.float64)
    angle = torch.deg2rad(_STEP_DEG * torch.arange(count, dtype=torch.float64)) + 0.3
    flat, up = 6 * math.cos(math.radians(30)), 6 * math.sin(math.radians(30))
    position = torch.stack((flat * angle.cos(), flat * angle.sin(), torch.full_like(angle, up)), -1)
    target = torch.tensor([0.0, 0.0, 0.4], dtype=torch.float64).expand_as(position)
    poses = look_at(position, target, torch.zeros_like(angle))[None]
    views = render(scene, Cameras(k.expand(1, count, 3, 3), poses), size)
    images = (views.image[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    paths = tuple(folder / f"{index:03d}.jpg" for index in range(count))
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(str(path), np.ascontiguousarray(image[..., ::-1]))
    return paths


def write_pair(folder: Path, size: ImageSize) -> tuple[tuple[Path, Path], tuple[Camera, Camera]]:
    """Write the motorcycle pair as two JPEG files of the given size; the files and their cameras.

    Raises:
        MissingDependencyError: scikit-image, which carries the pair, is not installed.
    """
    sample = motorcycle_pair()
    ratio_y, ratio_x = (
        new / old
        for new, old in zip((size.height, size.width), sample.image0.shape[:2], strict=True)
    )
    files, cameras = [], []
    for name, image, camera in (
        ("image0.jpg", sample.image0, sample.camera0),
        ("image1.jpg", sample.image1, sample.camera1),
    ):
        resized = cv2.resize(image, (size.width, size.height), interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / name), np.ascontiguousarray(resized[..., ::-1]))
        files.append(folder / name)
        cameras.append(
            Camera.pinhole(
                camera.focals[0] * ratio_x,
                camera.focals[1] * ratio_y,
                (camera.principal_point[0] + 0.5) * ratio_x - 0.5,
                (camera.principal_point[1] + 0.5) * ratio_y - 0.5,
                size,
            )
        )
    return (files[0], files[1]), (cameras[0], cameras[1])
