"""Rendered pairs that are far apart: scenes, cameras with wanted turns and overlaps, images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from benchmarks.core.samples import FloatArray
from matcher.errors import DatasetError, InputError
from matcher.structures import ImageSize
from matcher.synthetic.cameras import CameraOptions, clearance, sample_cameras
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.meshes import MeshModel, add_meshes, join_textures
from matcher.synthetic.pairs import overlap, overlap_matrix, relative_pose
from matcher.synthetic.render import cast_depth, render
from matcher.synthetic.scene import Cameras, Scene
from matcher.synthetic.textures import (
    MipAtlas,
    build_atlas,
    find_images,
    load_textures,
    procedural_textures,
)

__all__ = ["BINS_DEG", "LAYOUTS", "ExtremeOptions", "ExtremePair", "SceneMaker"]

BINS_DEG = ((30, 60), (60, 90), (90, 120), (120, 150), (150, 180))
LAYOUTS = ("rooms", "streets", "grounds", "tables")

_SCENES_AN_ATLAS = 20
_ATTEMPTS = 60
_VIEWS, _CANDIDATES = 20, 48
_PROBE_LONG_SIDE, _PROBE_TOLERANCE, _PROBE_MARGIN = 48, 0.05, 1.3
_LEAST_KNOWN = 0.45  # share of a view that is not sky


@dataclass(frozen=True, slots=True)
class ExtremeOptions:
    """What is rendered; everything follows from it and the textures and meshes given.

    Attributes:
        scenes: places; each gives one pair for each bin of rotation.
        seed: of all randomness.
        size: long side of the images, pixels.
        textures: textures in use at a time, photographs and patterns together.
        texture_size: their side, a power of two.
        min_overlap: least share of common content, the smaller of both ways.
    """

    scenes: int = 40
    seed: int = 0
    size: int = 384
    textures: int = 160
    texture_size: int = 512
    min_overlap: float = 0.1

    def __post_init__(self) -> None:
        if self.scenes < 1 or self.size < 32 or self.textures < 4 or self.seed < 0:
            raise InputError("extreme options", "scenes, textures and a size >= 32", f"{self}")
        if not 0 < self.min_overlap < 1:
            raise InputError("min_overlap", "in (0, 1)", f"{self.min_overlap}")

    @property
    def shapes(self) -> tuple[ImageSize, ...]:
        """Sizes the scenes take turns in."""
        short = 3 * self.size // 4
        return ImageSize(short, self.size), ImageSize(self.size, short)


@dataclass(frozen=True, slots=True, eq=False)
class ExtremePair:
    """Two (H, W, 3) uint8 RGB views of a scene with exact truth.

    Attributes:
        image0, image1: the views.
        depth0, depth1: (H, W) float32 z-depth, metres; 0: sky.
        k0, k1: (3, 3).
        cam1_from_cam0: (4, 4), metres.
        rotation_deg: angle between the cameras.
        overlap: share of the known pixels of one view seen in the other, the smaller of both ways.
        bin_deg: bin of the rotation.
    """

    image0: npt.NDArray[np.uint8]
    image1: npt.NDArray[np.uint8]
    depth0: npt.NDArray[np.float32]
    depth1: npt.NDArray[np.float32]
    k0: FloatArray
    k1: FloatArray
    cam1_from_cam0: FloatArray
    rotation_deg: float
    overlap: float
    bin_deg: tuple[int, int]


class SceneMaker:
    """Renders the pairs of scene ``i``, the same whatever was rendered before."""

    def __init__(
        self,
        options: ExtremeOptions,
        texture_folders: Sequence[Path] = (),
        meshes: Sequence[MeshModel] = (),
    ) -> None:
        self.options, self.meshes = options, meshes
        self._photographs = find_images(texture_folders)
        self._generation = -1
        self._atlas: MipAtlas | None = None
        self._mesh_starts: list[int] = []

    def pairs(self, number: int) -> list[ExtremePair]:
        """One pair for each of :data:`BINS_DEG`.

        Raises:
            DatasetError: no such scene was found in many attempts.
        """
        options = self.options
        # Layouts take turns too; every layout meets every shape.
        shape = (number + number // len(LAYOUTS)) % len(options.shapes)
        size = options.shapes[shape]
        for attempt in range(_ATTEMPTS):
            generator = torch.Generator().manual_seed(
                options.seed * 1_000_003 + number * 1009 + attempt
            )
            scene = self._scene(generator, number)
            cameras = sample_cameras(
                generator,
                scene,
                _VIEWS,
                size,
                CameraOptions(big_roll=0, candidates=_CANDIDATES, overlap=(0.1, 0.8)),
            )
            chosen = _choose(generator, scene, cameras, size, options.min_overlap)
            pairs = _render(scene, cameras, chosen, size) if chosen else []
            if pairs and min(pair.overlap for pair in pairs) >= options.min_overlap:
                return pairs
        raise DatasetError(f"scene {number}: no pairs in all bins after {_ATTEMPTS} attempts")

    def _scene(self, generator: torch.Generator, number: int) -> Scene:
        atlas = self._atlas_of(number)
        layout = number % len(LAYOUTS)
        shares = [float(place == layout) for place in range(len(LAYOUTS))]
        scene = sample_scenes(generator, 1, atlas, SceneOptions(*shares))
        if self.meshes:
            scene = add_meshes(generator, scene, self.meshes, self._mesh_starts)
        return scene

    def _atlas_of(self, number: int) -> MipAtlas:
        generation = number // _SCENES_AN_ATLAS
        if self._atlas is None or generation != self._generation:
            options, seed = self.options, self.options.seed * 100_003 + generation
            photographs = 7 * options.textures // 8 if self._photographs else 0
            parts = [
                procedural_textures(
                    torch.Generator().manual_seed(seed),
                    options.textures - photographs,
                    options.texture_size,
                )
            ]
            if photographs:
                parts.append(
                    load_textures(self._photographs, options.texture_size, seed, photographs)
                )
            textures, self._mesh_starts = join_textures(torch.cat(parts), self.meshes)
            self._atlas, self._generation = build_atlas(textures), generation
        return self._atlas


def _rotations_deg(cam_from_world: Tensor) -> Tensor:
    """(V, V) angles between cameras (V, 4, 4), degrees."""
    rotation = cam_from_world[:, :3, :3]
    trace = torch.einsum("iab,jab->ij", rotation, rotation)
    return torch.rad2deg(((trace - 1) / 2).clamp(-1, 1).arccos())


def _choose(
    generator: torch.Generator, scene: Scene, cameras: Cameras, size: ImageSize, least: float
) -> list[tuple[int, int]]:
    """One pair of views for each bin, or nothing where a bin stays empty."""
    scale = _PROBE_LONG_SIDE / max(size.height, size.width)
    probe = ImageSize(round(size.height * scale), round(size.width * scale))
    small = cameras.resized(probe.width / size.width, probe.height / size.height)
    depth = cast_depth(scene, small, probe)
    poses = cameras.cam_from_world[0]
    shares = overlap_matrix(depth, small.k, small.cam_from_world, _PROBE_TOLERANCE)[0]
    centre = -(poses[:, :3, :3].mT @ poses[:, :3, 3:])[..., 0]
    good = clearance(scene, centre[None])[0] > CameraOptions().min_clearance
    good &= (depth[0] > 0).double().mean((-2, -1)) > _LEAST_KNOWN
    usable = torch.minimum(shares, shares.mT) >= _PROBE_MARGIN * least
    usable &= good[:, None] & good[None]
    angles = _rotations_deg(poses)
    chosen = []
    for low, high in BINS_DEG:
        rows = (usable & (angles >= low) & (angles < high)).nonzero()
        if not len(rows):
            return []
        # Both orders are among the rows, so which view comes first is drawn too.
        first, second = rows[int(torch.randint(len(rows), (1,), generator=generator))].tolist()
        chosen.append((first, second))
    return chosen


def _render(
    scene: Scene, cameras: Cameras, chosen: Sequence[tuple[int, int]], size: ImageSize
) -> list[ExtremePair]:
    used = sorted({view for pair in chosen for view in pair})
    seen = render(scene, cameras.select(torch.tensor([used])), size)
    images = (seen.image[0] * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pairs = []
    for (first, second), bin_deg in zip(chosen, BINS_DEG, strict=True):
        i, j = used.index(first), used.index(second)
        poses, k, depth = seen.cameras.cam_from_world[0], seen.cameras.k[0], seen.depth[0]
        pose = relative_pose(poses[i], poses[j])
        _, share = overlap(depth[i], k[i], depth[j], k[j], pose)
        pairs.append(
            ExtremePair(
                images[i],
                images[j],
                depth[i].numpy(),
                depth[j].numpy(),
                k[i].numpy(),
                k[j].numpy(),
                pose.numpy(),
                float(_rotations_deg(poses[[i, j]])[0, 1]),
                float(share),
                bin_deg,
            )
        )
    return pairs
