"""Extreme viewpoints: a SYNTHETIC benchmark with exact truth, 30 to 180 degrees apart.

    python -m benchmarks.datasets.extreme --out DIR --scenes 40 --seed 0 --size 384
    ... and further --textures FOLDER [FOLDER ...] --meshes FOLDER [FOLDER ...]

Rooms, streets, open grounds and tables are ray-cast with the textures given (procedural patterns
without). Each scene gives one pair for each bin of rotation, 30-60, 60-90, 90-120, 120-150 and
150-180 degrees, whose views share at least a tenth of their content. Options, textures and meshes
decide every pixel. ``pairs.jsonl`` is written last: a folder without it is not finished.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, missing_data
from benchmarks.datasets.extreme_scenes import LAYOUTS, ExtremeOptions, ExtremePair, SceneMaker
from benchmarks.datasets.pairs_jsonl import read_pair_list
from benchmarks.protocols import POSE_PRESETS
from matcher.errors import DatasetError
from matcher.files import replaced
from matcher.synthetic.meshes import find_meshes, read_mesh

__all__ = [
    "NAME",
    "PROTOCOLS",
    "PUBLISHED",
    "PUBLISHED_VALUES",
    "TITLE",
    "main",
    "read",
    "write_extreme",
]

NAME = "extreme"
TITLE = "Extreme viewpoints (synthetic, rendered)"
PUBLISHED = "nowhere: render it with python -m benchmarks.datasets.extreme --out DIR --scenes 40"
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()
PROTOCOLS: dict[str, Protocol] = dict(POSE_PRESETS)

_TREE = (
    "pairs.jsonl                    pairs with pose, rot_deg and overlap",
    "extreme.json                   how they were rendered",
    "images/scene_0000/0a.png, 0b.png, 0a_depth.png ...",
)


def read(root: Path) -> Dataset:
    """The rendered pairs below ``root``; a group is a bin of rotation.

    Raises:
        DatasetError: nothing was rendered there, or not one pair can be used.
    """
    if not (root / "pairs.jsonl").is_file():
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    try:
        options = json.loads((root / "extreme.json").read_text(encoding="utf-8"))
        how = ", ".join(f"{key} {value}" for key, value in options.items())
    except (OSError, ValueError, AttributeError):
        how = "unknown options (extreme.json is missing or broken)"
    notes = ("synthetic: rendered scenes with exact poses and overlaps", f"rendered with {how}")
    return read_pair_list(root / "pairs.jsonl", NAME, TITLE, notes=notes, is_synthetic=True)


def write_extreme(
    folder: Path,
    options: ExtremeOptions,
    texture_folders: Sequence[Path] = (),
    mesh_folders: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Render the benchmark; returns the path of its ``pairs.jsonl``.

    Args:
        folder: where to; made if it is not there.
        options: what to render.
        texture_folders: photographs to cut textures from.
        mesh_folders: textured meshes, one of which stands in each scene.
        progress: called after each scene with scenes done and scenes in all.

    Raises:
        DatasetError: the folder holds a benchmark already, or textures or meshes are absent.
    """
    target = folder / "pairs.jsonl"
    if target.exists():
        raise DatasetError(f"{target} is there already; choose another folder")
    read_meshes = (read_mesh(path, options.texture_size) for path in find_meshes(mesh_folders))
    meshes = [mesh for mesh in read_meshes if mesh is not None]
    maker = SceneMaker(options, texture_folders, meshes)
    lines: list[str] = []
    for number in range(options.scenes):
        scene = f"scene_{number:04d}"
        (folder / "images" / scene).mkdir(parents=True, exist_ok=True)
        for row, pair in enumerate(maker.pairs(number)):
            names = tuple(f"images/{scene}/{row}{side}.png" for side in "ab")
            for name, image in zip(names, (pair.image0, pair.image1), strict=True):
                _write_image(folder / name, image)
            depth, scale = f"images/{scene}/{row}a_depth.png", _depth_scale(pair.depth0)
            stored = np.rint(pair.depth0 * scale).astype(np.uint16)
            _write_image(folder / depth, stored)
            layout = LAYOUTS[number % len(LAYOUTS)]
            entry = _entry(pair, names, f"{layout}_{number:04d}")
            lines.append(json.dumps({**entry, "depth0": depth, "depth_scale": scale}))
        if progress is not None:
            progress(number + 1, options.scenes)
    described = {
        **dataclasses.asdict(options),
        "texture_folders": len(texture_folders),
        "meshes": len(meshes),
    }
    _write_text(folder / "extreme.json", json.dumps(described, indent=2) + "\n")
    _write_text(target, "\n".join(lines) + "\n")
    return target


def _entry(pair: ExtremePair, names: tuple[str, ...], scene: str) -> dict[str, Any]:
    low, high = pair.bin_deg
    return {
        "image0": names[0],
        "image1": names[1],
        "K0": pair.k0.tolist(),
        "K1": pair.k1.tolist(),
        "T_0to1": pair.cam1_from_cam0.tolist(),
        "rot_deg": round(pair.rotation_deg, 4),
        "overlap": round(pair.overlap, 4),
        "set": f"{low:03d}-{high:03d} deg",
        "scene": scene,
        "is_metric": True,
        "source": "synthetic",
    }


def _depth_scale(depth: npt.NDArray[np.float32]) -> float:
    """Units a metre that make the most of 16 bits."""
    return float(np.iinfo(np.uint16).max / max(float(depth.max()), 1.0))


def _write_image(path: Path, image: npt.NDArray[Any]) -> None:
    with replaced(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def _write_text(path: Path, text: str) -> None:
    with replaced(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the renderer."""
    defaults = ExtremeOptions()
    parser = argparse.ArgumentParser(description="Render the extreme-viewpoint benchmark.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scenes", type=int, default=defaults.scenes)
    parser.add_argument("--seed", type=int, default=defaults.seed)
    parser.add_argument("--size", type=int, default=defaults.size, help="long side, pixels")
    parser.add_argument("--textures", type=Path, nargs="*", default=[], help="photographs")
    parser.add_argument("--meshes", type=Path, nargs="*", default=[])
    parser.add_argument("--num-textures", type=int, default=defaults.textures, help="at a time")
    parser.add_argument("--texture-size", type=int, default=defaults.texture_size)
    given = parser.parse_args(arguments)
    options = ExtremeOptions(
        given.scenes, given.seed, given.size, given.num_textures, given.texture_size
    )

    def report(done: int, total: int) -> None:
        print(f"{done} of {total} scenes", flush=True)

    print(write_extreme(given.out, options, given.textures, given.meshes, report))


if __name__ == "__main__":
    main()
