"""Rendered views with exact truth, from which the tests build every benchmark's layout in small."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.core.samples import FloatArray
from matcher.structures import ImageSize
from matcher.synthetic.cameras import look_at
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.render import render
from matcher.synthetic.scene import Cameras
from matcher.synthetic.textures import build_atlas, procedural_textures

__all__ = ["MiniView", "relative", "render_views"]


@dataclass(frozen=True, slots=True, eq=False)
class MiniView:
    """One view: (H, W, 3) uint8 RGB, (H, W) float32 z-depth in metres (0: sky), K, pose."""

    image: npt.NDArray[np.uint8]
    depth: npt.NDArray[np.float32]
    k: FloatArray
    cam_from_world: FloatArray


@lru_cache(maxsize=16)
def render_views(
    seed: int = 0,
    angles_deg: tuple[float, ...] = (0.0, 10.0, 25.0, 70.0),
    height: int = 120,
    width: int = 160,
) -> tuple[MiniView, ...]:
    """Cameras on a circle of 6 m around things on an open ground, at the given angles."""
    generator = torch.Generator().manual_seed(seed)
    atlas = build_atlas(procedural_textures(generator, 24, 128))
    scene = sample_scenes(generator, 1, atlas, SceneOptions(0, 0, 1, 0))
    size = ImageSize(height, width)
    focal = 0.5 * max(height, width) / math.tan(math.radians(30))
    k = torch.tensor(
        [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64
    )
    angle = torch.deg2rad(torch.tensor(angles_deg, dtype=torch.float64)) + 0.3
    flat, up = 6 * math.cos(math.radians(30)), 6 * math.sin(math.radians(30))
    position = torch.stack((flat * angle.cos(), flat * angle.sin(), torch.full_like(angle, up)), -1)
    target = torch.tensor([0.0, 0.0, 0.4], dtype=torch.float64).expand_as(position)
    poses = look_at(position, target, torch.zeros_like(angle))[None]
    views = render(scene, Cameras(k.expand(1, len(angle), 3, 3), poses), size)
    images = (views.image[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return tuple(
        MiniView(images[i], views.depth[0, i].numpy(), k.numpy(), poses[0, i].numpy())
        for i in range(len(angles_deg))
    )


def relative(view0: MiniView, view1: MiniView) -> FloatArray:
    """cam1_from_cam0 (4, 4)."""
    return np.asarray(view1.cam_from_world @ np.linalg.inv(view0.cam_from_world))
