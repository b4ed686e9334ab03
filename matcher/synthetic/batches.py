"""Training pairs straight from the renderer, in batches, on any device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.cameras import CameraOptions, sample_cameras
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.lens import LensOptions, photograph
from matcher.synthetic.meshes import MeshModel, add_meshes
from matcher.synthetic.render import RenderedViews, RenderOptions, render
from matcher.synthetic.scene import Cameras, Scene
from matcher.synthetic.textures import MipAtlas
from matcher.synthetic.weather import WeatherOptions, sample_weather

__all__ = [
    "TRAINING_CAMERAS",
    "Meshes",
    "PlaceOptions",
    "RenderedPairs",
    "render_pairs",
    "take_views",
]

TRAINING_CAMERAS = CameraOptions(field_of_view=(32.0, 92.0), zoom=3.0)
"""Cameras of the training's scenes: scale changes up to three times and more."""


@dataclass(frozen=True, slots=True)
class PlaceOptions:
    """Everything about how places are made and photographed."""

    scenes: SceneOptions = field(default_factory=SceneOptions.everything)
    cameras: CameraOptions = TRAINING_CAMERAS
    weather: WeatherOptions = field(default_factory=WeatherOptions)
    lens: LensOptions = field(default_factory=LensOptions)
    render: RenderOptions = field(default_factory=RenderOptions)


@dataclass(frozen=True, slots=True, eq=False)
class RenderedPairs:
    """B pairs of views.

    Attributes:
        image: (B, 2, 3, H, W) float32 RGB in [0, 1].
        depth: (B, 2, H, W) float32 z-depth, metres; 0: nothing that stays there.
        k: (B, 2, 3, 3) float64.
        cam_from_world: (B, 2, 4, 4) float64.
    """

    image: Tensor
    depth: Tensor
    k: Tensor
    cam_from_world: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Meshes:
    """Meshes whose textures are in the atlas.

    Attributes:
        models: to choose from.
        texture_starts: first row of each model's textures in the atlas.
        share: of the batches that have one in each place; triangles cost more than all else.
    """

    models: Sequence[MeshModel]
    texture_starts: Sequence[int]
    share: float = 0.2


def _part(scene: Scene, cameras: Cameras, rows: Tensor) -> tuple[Scene, Cameras]:
    return scene.select(rows), Cameras(cameras.k[rows], cameras.cam_from_world[rows])


def render_pairs(
    generator: torch.Generator,
    atlas: MipAtlas,
    batch: int,
    size: ImageSize,
    options: PlaceOptions | None = None,
    *,
    block: int = 512,
    meshes: Meshes | None = None,
) -> Iterator[RenderedPairs]:
    """Batches of pairs without end, each pair of a place of its own.

    Places are laid out on the CPU, ``block`` at a time: that takes about as long for one as for
    hundreds. All else runs where the atlas is.

    Args:
        generator: source of all randomness, on the CPU.
        atlas: textures, on the device that renders.
        batch: pairs of a batch.
        size: of the images.
        options: places, cameras, light, lens.
        block: places laid out together, a multiple of ``batch``.
        meshes: to stand in the places of some of the batches.
    """
    options = options or PlaceOptions()
    if batch < 1 or block < batch or block % batch:
        raise InputError("block", f"a multiple of the batch of {batch}", f"{block}")
    while True:
        scene = sample_scenes(generator, block, atlas, options.scenes)
        cameras = sample_cameras(generator, scene, 2, size, options.cameras)
        for start in range(0, block, batch):
            rows = torch.arange(start, start + batch, device=scene.center.device)
            part, its_cameras = _part(scene, cameras, rows)
            if meshes is not None and float(torch.rand((), generator=generator)) < meshes.share:
                part = add_meshes(generator, part, meshes.models, meshes.texture_starts)
                its_cameras = sample_cameras(generator, part, 2, size, options.cameras)
            views = take_views(generator, part, its_cameras, size, options)
            yield RenderedPairs(
                views.image, views.depth, views.cameras.k, views.cameras.cam_from_world
            )


def take_views(
    generator: torch.Generator,
    scene: Scene,
    cameras: Cameras,
    size: ImageSize,
    options: PlaceOptions,
) -> RenderedViews:
    """Photographs of scenes in random light through random lenses."""
    weather = sample_weather(generator, scene, int(cameras.k.shape[1]), options.weather)
    views = render(scene, cameras, size, options.render, weather)
    return photograph(generator, views, options.lens)
