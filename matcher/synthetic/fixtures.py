"""Small exact pairs for tests: no file, no download, any viewpoint change."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from matcher.structures import FloatArray, ImageSize
from matcher.synthetic.cameras import clearance, look_at
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.render import cast_depth, render
from matcher.synthetic.scene import Cameras, Scene
from matcher.synthetic.textures import build_atlas, procedural_textures

__all__ = ["TestPair", "make_test_pair"]

_TEXTURES, _TEXTURE_SIZE = 24, 128
_FIELD_OF_VIEW = math.radians(60)
_STARTS = 8
_RADIUS, _ELEVATION = 6.0, math.radians(30)


@dataclass(frozen=True, slots=True, eq=False)
class TestPair:
    """Two views of one place and everything about them.

    Attributes:
        image0, image1: (H, W, 3) uint8 RGB.
        depth0, depth1: (H, W) float32 z-depth, metres; 0 where there is only sky.
        k: (3, 3) float64, of both.
        cam1_from_cam0: (4, 4) float64, translation in metres.
    """

    __test__ = False  # not a test case, whatever its name says to a collector

    image0: npt.NDArray[np.uint8]
    image1: npt.NDArray[np.uint8]
    depth0: npt.NDArray[np.float32]
    depth1: npt.NDArray[np.float32]
    k: FloatArray
    cam1_from_cam0: FloatArray


def _freest_pair(
    scene: Scene, k: torch.Tensor, size: ImageSize, first: float, viewpoint: float
) -> Cameras:
    """(1, 2) cameras ``viewpoint`` radians apart on the circle, where least stands in the way."""
    start = first + torch.arange(_STARTS, dtype=torch.float64) * 2 * math.pi / _STARTS
    angle = torch.stack((start, start + viewpoint), -1).flatten()
    flat, height = _RADIUS * math.cos(_ELEVATION), _RADIUS * math.sin(_ELEVATION)
    position = torch.stack(
        (flat * angle.cos(), flat * angle.sin(), torch.full_like(angle, height)), -1
    )
    target = torch.tensor([0.0, 0.0, 0.4], dtype=torch.float64).expand_as(position)
    poses = look_at(position, target, torch.zeros_like(angle))[None]
    cameras = Cameras(k.expand(1, len(angle), 3, 3), poses)
    probe = ImageSize(24, 24)
    small = cameras.resized(probe.width / size.width, probe.height / size.height)
    depth = cast_depth(scene, small, probe)[0].flatten(1)
    near = torch.where(depth > 0, depth, 1e3).kthvalue(depth.shape[1] // 20, dim=1).values
    free = torch.minimum(clearance(scene, position[None])[0], near).view(_STARTS, 2).amin(-1)
    best = 2 * int(free.argmax())
    return cameras.select(torch.tensor([[best, best + 1]]))


def make_test_pair(
    seed: int = 0, size: ImageSize | None = None, viewpoint_deg: float = 20.0
) -> TestPair:
    """Two cameras on a circle around things on an open ground, with procedural textures.

    Args:
        seed: which place, and where on the circle the first camera is.
        size: of both images, 192 x 256 by default.
        viewpoint_deg: angle between the cameras seen from the centre of the circle, 0 to 180.
    """
    size = size or ImageSize(192, 256)
    generator = torch.Generator().manual_seed(seed)
    atlas = build_atlas(procedural_textures(generator, _TEXTURES, _TEXTURE_SIZE))
    scene = sample_scenes(generator, 1, atlas, SceneOptions(0, 0, 1, 0))
    focal = 0.5 * max(size.height, size.width) / math.tan(_FIELD_OF_VIEW / 2)
    k = torch.tensor(
        [
            [focal, 0.0, (size.width - 1) / 2],
            [0.0, focal, (size.height - 1) / 2],
            [0.0, 0.0, 1.0],
        ],
        dtype=torch.float64,
    )
    first = float(torch.rand(1, generator=generator)) * 2 * math.pi
    cameras = _freest_pair(scene, k, size, first, math.radians(viewpoint_deg))
    views = render(scene, cameras, size)
    poses = cameras.cam_from_world[0]
    images = (views.image[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    depths = views.depth[0].numpy()
    relative = (poses[1] @ torch.linalg.inv(poses[0])).numpy()
    return TestPair(images[0], images[1], depths[0], depths[1], k.numpy(), relative)
