"""A pool of rendered scenes on disk: ``python -m matcher.synthetic.pool --out DIR --scenes N``.

Each file ``scene_000123.npz`` holds one scene: ``image`` (V, H, W, 3) uint8, ``depth`` (V, H, W)
float16 z-depth in metres (0: nothing that stays there), ``k`` (V, 3, 3) float64 and
``cam_from_world`` (V, 4, 4) float64. Files are renamed into place, so a reader never sees half
of one.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.batches import PlaceOptions, take_views
from matcher.synthetic.cameras import sample_cameras
from matcher.synthetic.layouts import sample_scenes
from matcher.synthetic.meshes import (
    MeshModel,
    add_meshes,
    find_meshes,
    join_textures,
    read_mesh,
)
from matcher.synthetic.patterns import ROLES, role_of_file, role_textures
from matcher.synthetic.relief import height_field
from matcher.synthetic.render import RenderedViews
from matcher.synthetic.textures import (
    MipAtlas,
    build_atlas,
    find_images,
    load_textures,
    procedural_textures,
)

__all__ = ["PoolOptions", "write_pool"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What a pool holds.

    Attributes:
        scenes: number of files.
        views: views a scene.
        size: side of the square files; portrait and landscape ones have about as many pixels.
        seed: everything follows from it.
        first: number of the first file.
        textures: how many photograph crops are in use at a time.
        texture_size: their side.
        procedural_share: procedural textures beside them, relative to ``textures``.
        role_textures: made-up textures for each role (walls, books, leaves, ...).
        mesh_share: how many of the scenes get a mesh, where there are meshes.
        refresh: scenes after which new crops are cut.
        batch: scenes rendered together.
        device: where to render.
    """

    scenes: int
    views: int = 6
    size: int = 256
    seed: int = 0
    first: int = 0
    textures: int = 320
    texture_size: int = 512
    procedural_share: float = 0.12
    role_textures: int = 4
    mesh_share: float = 0.5
    refresh: int = 400
    batch: int = 2
    device: str = "cpu"

    def __post_init__(self) -> None:
        if min(self.scenes, self.views, self.batch, self.refresh) < 1 or self.size < 32:
            raise InputError("pool options", "positive counts and a size of at least 32", f"{self}")

    @property
    def shapes(self) -> tuple[ImageSize, ...]:
        """Sizes the files take turns in; sides are multiples of 32 where ``size`` is."""
        long, short = self.size + self.size // 8, self.size - self.size // 8
        square = ImageSize(self.size, self.size)
        return square, ImageSize(long, short), ImageSize(short, long)


def _textures(files: Sequence[Path], options: PoolOptions, seed: int) -> tuple[Tensor, Tensor]:
    """Fresh crops and patterns (T, 3, size, size) and what they are for (T,)."""
    generator = torch.Generator().manual_seed(seed)
    size = options.texture_size
    made = max(1, int(options.textures * options.procedural_share))
    parts = [procedural_textures(generator, made, size)]
    roles = [torch.full((made,), ROLES.index("any"))]
    patterns, pattern_roles = role_textures(generator, options.role_textures, size)
    parts.append(patterns)
    roles.append(pattern_roles)
    if files:
        crops, chosen = load_textures(files, size, seed, options.textures, with_files=True)
        parts.append(crops)
        roles.append(torch.tensor([role_of_file(file) for file in chosen]))
    return torch.cat(parts), torch.cat(roles)


def _write(path: Path, views: RenderedViews, row: int) -> None:
    image = (views.image[row] * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    depth = views.depth[row]
    # A ray along the ground may end beyond what float16 can hold: nothing is known there.
    depth = torch.where(depth <= torch.finfo(torch.float16).max, depth, 0.0)
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as stream:
        np.savez(
            stream,
            image=image.cpu().numpy(),
            depth=depth.to(torch.float16).cpu().numpy(),
            k=views.cameras.k[row].cpu().numpy(),
            cam_from_world=views.cameras.cam_from_world[row].cpu().numpy(),
        )
    os.replace(temporary, path)


def write_pool(
    folder: str | Path,
    texture_folders: Sequence[str | Path],
    options: PoolOptions,
    places: PlaceOptions | None = None,
    meshes: Sequence[MeshModel] = (),
) -> Iterator[Path]:
    """Render scenes into ``folder``; yields each file when it is complete.

    A batch depends on ``seed`` and its own number only, so a pool can be continued with ``first``.
    """
    places = places or PlaceOptions()
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    files = find_images(texture_folders)
    atlas: MipAtlas | None = None
    generation = -1
    mesh_starts: list[int] = []
    for start in range(options.first, options.first + options.scenes, options.batch):
        if atlas is None or start // options.refresh != generation:
            generation = start // options.refresh
            textures, roles = _textures(files, options, options.seed * 100_003 + generation)
            textures, mesh_starts = join_textures(textures, meshes)
            # A mesh's own texture fits nothing else.
            extra = torch.full((len(textures) - len(roles),), ROLES.index("any"))
            atlas = build_atlas(textures, torch.cat((roles, extra))).to(options.device)
        generator = torch.Generator().manual_seed(options.seed * 1_000_003 + start)
        size = options.shapes[start // options.batch % len(options.shapes)]
        count = min(options.batch, options.first + options.scenes - start)
        scene = sample_scenes(generator, count, atlas, places.scenes)
        if meshes:
            scene = add_meshes(generator, scene, meshes, mesh_starts, share=options.mesh_share)
        cameras = sample_cameras(generator, scene, options.views, size, places.cameras)
        views = take_views(generator, scene, cameras, size, places)
        for row in range(count):
            path = out / f"scene_{start + row:06d}.npz"
            _write(path, views, row)
            yield path


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Render a pool of synthetic scenes.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, required=True)
    parser.add_argument("--views", type=int, default=6)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--textures", type=Path, nargs="*", default=[])
    parser.add_argument("--meshes", type=Path, nargs="*", default=[])
    parser.add_argument("--texture-size", type=int, default=PoolOptions(scenes=1).texture_size)
    parser.add_argument(
        "--reliefs", type=int, default=0, help="so many height fields beside the meshes"
    )
    return parser.parse_args(arguments)


def _reliefs(count: int, texture_size: int, seed: int) -> list[MeshModel]:
    """Height fields of different roughness, each with a procedural texture."""
    if count < 1:
        return []
    generator = torch.Generator().manual_seed(seed)
    textures = procedural_textures(generator, count, texture_size)
    heights = torch.rand(count, generator=generator) * 0.3 + 0.05
    return [
        height_field(generator, texture, relief=float(height))
        for texture, height in zip(textures, heights, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the pool."""
    given = _parse(arguments)
    size = given.texture_size
    read = [read_mesh(path, size) for path in find_meshes(given.meshes)]
    meshes = [mesh for mesh in read if mesh is not None]
    meshes += _reliefs(given.reliefs, size, given.seed)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = PoolOptions(
        scenes=given.scenes,
        views=given.views,
        size=given.size,
        seed=given.seed,
        first=given.first,
        device=given.device,
        batch=given.batch,
        texture_size=size,
    )
    for number, path in enumerate(write_pool(given.out, given.textures, options, meshes=meshes)):
        if number % 50 == 0:
            _log.info("%d of %d scenes: %s", number + 1, options.scenes, path.name)


if __name__ == "__main__":
    main()
