"""A sheet of sample pairs, to look at: ``python -m matcher.synthetic.sheet --out sheet.jpg``.

A row a layout, the two views of a pair side by side. Without ``--textures`` everything on it is
made up, so that the picture may be shared freely.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import DatasetError
from matcher.structures import ImageSize
from matcher.synthetic.batches import PlaceOptions, take_views
from matcher.synthetic.cameras import sample_cameras
from matcher.synthetic.layouts import SceneOptions, sample_scenes
from matcher.synthetic.patterns import role_of_file, role_textures
from matcher.synthetic.textures import MipAtlas, build_atlas, find_images, load_textures

__all__ = ["draw_sheet"]

_GAP = 4
_LAYOUTS = tuple(SceneOptions.__dataclass_fields__)


def draw_sheet(
    generator: torch.Generator,
    atlas: MipAtlas,
    layouts: Sequence[str],
    pairs: int,
    size: ImageSize,
) -> npt.NDArray[np.uint8]:
    """(rows, columns, 3) uint8 RGB: ``pairs`` pairs of views of every layout named."""
    options = PlaceOptions()
    rows: list[npt.NDArray[np.uint8]] = []
    for layout in layouts:
        shares = SceneOptions(**{name: float(name == layout) for name in _LAYOUTS})
        scene = sample_scenes(generator, pairs, atlas, shares)
        cameras = sample_cameras(generator, scene, 2, size, options.cameras)
        image = take_views(generator, scene, cameras, size, options).image
        pixels = (image * 255).round().to(torch.uint8).permute(0, 1, 3, 4, 2).cpu().numpy()
        cells = []
        for pair in pixels:
            cells.append(np.pad(np.concatenate(list(pair), 1), ((0, _GAP), (0, _GAP), (0, 0))))
        rows.append(np.concatenate(cells, 1))
    return np.concatenate(rows)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Draw a sheet of sample pairs.")
    parser.add_argument("--out", type=Path, required=True, help="a .jpg or .png file")
    parser.add_argument("--layouts", nargs="*", choices=_LAYOUTS, default=_LAYOUTS[4:])
    parser.add_argument("--pairs", type=int, default=3, help="a row")
    parser.add_argument("--height", type=int, default=168)
    parser.add_argument("--width", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quality", type=int, default=85, help="of a JPEG file")
    parser.add_argument("--textures", type=Path, nargs="*", default=[], help="folders of pictures")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the sheet."""
    given = _parse(arguments)
    generator = torch.Generator().manual_seed(given.seed)
    textures, roles = role_textures(generator, 8, 512)
    files = find_images(given.textures)
    if files:
        crops, chosen = load_textures(files, 512, given.seed, 200, with_files=True)
        textures = torch.cat((textures, crops))
        roles = torch.cat((roles, torch.tensor([role_of_file(file) for file in chosen])))
    atlas = build_atlas(textures, roles)
    size = ImageSize(given.height, given.width)
    sheet = draw_sheet(generator, atlas, given.layouts, given.pairs, size)
    quality = [cv2.IMWRITE_JPEG_QUALITY, given.quality]
    if not cv2.imwrite(str(given.out), np.ascontiguousarray(sheet[..., ::-1]), quality):
        raise DatasetError(f"sheet: cannot write {given.out}")


if __name__ == "__main__":
    main()
