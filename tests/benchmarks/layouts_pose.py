"""Writers of miniatures: rendered views in the exact layout of each pose benchmark.

Each returns where every view went, so that a test can find the truth of what a reader read.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.core.samples import FloatArray
from matcher.geometry.pixels import resize_transform
from matcher.structures import ImageSize
from tests.benchmarks.miniature import MiniView, relative

ViewFiles = dict[Path, MiniView]

SCENE = "scene0707_00"
SEQUENCE = "110_13051_23361"
_FLIP = np.diag([-1.0, -1.0, 1.0])


def size_of(view: MiniView) -> ImageSize:
    return ImageSize(*view.depth.shape)


def save_image(path: Path, view: MiniView) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(view.image).save(path)
    return path


def words(*values: object) -> str:
    """Numbers of arrays, and texts, in one line, with all their digits."""
    parts: list[str] = []
    for value in values:
        if isinstance(value, str):
            parts.append(value)
        else:
            parts += [repr(float(number)) for number in np.asarray(value).ravel()]
    return " ".join(parts)


def k_for(view: MiniView, size: ImageSize) -> FloatArray:
    """K of a view, for a copy of another size."""
    return resize_transform(size_of(view), size) @ view.k


def write_pairs_jsonl(root: Path, views: Sequence[MiniView]) -> ViewFiles:
    files = [save_image(root / f"images/{i}.png", view) for i, view in enumerate(views)]
    lines = [
        {
            "image0": f"images/{i}.png",
            "image1": f"images/{j}.png",
            "K0": views[i].k.tolist(),
            "K1": views[j].k.tolist(),
            "T_0to1": relative(views[i], views[j]).tolist(),
            "overlap": 0.1 * (i + j),
            "set": "mini",
            "scene": "ground",
            "is_metric": True,
        }
        for i, j in combinations(range(len(views)), 2)
    ]
    (root / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return dict(zip(files, views, strict=True))


def write_scannet_loftr(root: Path, views: Sequence[MiniView], *, roma: bool = False) -> ViewFiles:
    """LoFTR's ``test.npz`` and ``intrinsics.npz``; or RoMa's file of the colour camera."""
    folder = root / "scans_test" / SCENE
    files = [save_image(folder / f"color/{15 * i}.jpg", view) for i, view in enumerate(views)]
    pairs = list(combinations(range(len(views)), 2))
    np.savez(
        root / "test.npz",
        name=np.array([(707, 0, 15 * i, 15 * j) for i, j in pairs], dtype=np.int32),
        rel_pose=np.stack([relative(views[i], views[j])[:3].reshape(12) for i, j in pairs]),
    )
    if roma:
        k = np.eye(4)
        k[:3, :3] = k_for(views[0], ImageSize(968, 1296))
        text = "\n".join(words(row) for row in k)
        (folder / "intrinsic").mkdir()
        (folder / "intrinsic/intrinsic_color.txt").write_text(text + "\n")
    else:
        np.savez(root / "intrinsics.npz", **{SCENE: k_for(views[0], ImageSize(480, 640))})
    return dict(zip(files, views, strict=True))


def write_calibrated_pairs(path: Path, views: Sequence[MiniView], *, superglue: bool) -> ViewFiles:
    """SuperGlue's 38 words or glue-factory's 32 words a line."""
    names = [f"scans_test/{SCENE}/sens/frame-{i:06d}.color.jpg" for i in range(len(views))]
    if path.parent.name == "megadepth":
        names = [f"0015/images/{i}.jpg" for i in range(len(views))]
    lines = []
    for i, j in combinations(range(len(views)), 2):
        pose = relative(views[i], views[j])
        if superglue:
            line = (names[i], names[j], "0", "0", views[i].k, views[j].k, pose)
        else:
            line = (names[i], names[j], views[i].k, views[j].k, pose[:3, :3], pose[:3, 3])
        lines.append(words(*line))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    below = "images" if path.parent.name == "megadepth" else "."
    files = [
        save_image(path.parent / below / name, view)
        for name, view in zip(names, views, strict=True)
    ]
    return dict(zip(files, views, strict=True))


def write_megadepth(root: Path, views: Sequence[MiniView], names: Sequence[str]) -> ViewFiles:
    """Archives of object arrays with a view that is absent (None), as in the official ones."""
    found: ViewFiles = {}
    for name in names:
        place = name.split("_")[0]
        paths: list[str | None] = [
            f"Undistorted_SfM/{place}/images/{i}.jpg" for i in range(len(views))
        ]
        for path, view in zip(paths, views, strict=True):
            found[save_image(root / str(path), view)] = view
        pairs = [((i, j), 0.25, np.zeros((2, 4))) for i, j in combinations(range(len(views)), 2)]
        np.savez(
            root / f"{name}.npz",
            image_paths=objects([*paths, None]),
            depth_paths=objects([*paths, None]),
            intrinsics=objects([*(view.k for view in views), None]),
            poses=objects([*(view.cam_from_world for view in views), None]),
            pair_infos=objects(pairs),
        )
    return found


def objects(values: Sequence[object]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        array[row] = value
    return array


def write_megadepth_views(root: Path, views: Sequence[MiniView]) -> ViewFiles:
    """glue-factory's ``views.txt`` and ``pairs.txt``."""
    names = [f"0015/images/{i}.jpg" for i in range(len(views))]
    files = [
        save_image(root / "images" / name, view) for name, view in zip(names, views, strict=True)
    ]
    lines = []
    for name, view in zip(names, views, strict=True):
        size, k, pose = size_of(view), view.k, view.cam_from_world
        camera = words([k[0, 0], k[1, 1], k[0, 2], k[1, 2]])
        lines.append(
            f"{name} {words(pose[:3, :3], pose[:3, 3])} PINHOLE {size.width} {size.height} {camera}"
        )
    (root / "views.txt").write_text("\n".join(lines) + "\n")
    pairs = [f"{names[i]} {names[j]}" for i, j in combinations(range(len(views)), 2)]
    (root / "pairs.txt").write_text("\n".join(pairs) + "\n")
    return dict(zip(files, views, strict=True))


def write_strecha(root: Path, views: Sequence[MiniView], scene: str) -> ViewFiles:
    found: ViewFiles = {}
    for i, view in enumerate(views):
        image = save_image(root / scene / "urd" / f"{i:04d}.png", view)
        rotation, translation = view.cam_from_world[:3, :3], view.cam_from_world[:3, 3]
        rows = (*view.k, np.zeros(3), *rotation.T, -rotation.T @ translation)
        size = size_of(view)
        text = "\n".join(words(row) for row in rows) + f"\n{size.width} {size.height}\n"
        image.with_name(f"{image.name}.camera").write_text(text)
        found[image] = view
    return found


def co3d_viewpoint(view: MiniView, form: str) -> dict[str, object]:
    """A camera as PyTorch3D has it: row vectors, x left, y up, normalised device coordinates."""
    height, width = view.depth.shape
    half = np.array([width, height]) / 2
    unit = np.full(2, half.min()) if form == "ndc_isotropic" else half
    k = view.k
    return {
        "R": (_FLIP @ view.cam_from_world[:3, :3]).T.tolist(),
        "T": (_FLIP @ view.cam_from_world[:3, 3]).tolist(),
        "focal_length": (np.array([k[0, 0], k[1, 1]]) / unit).tolist(),
        "principal_point": ((half - k[:2, 2] - 0.5) / unit).tolist(),
        "intrinsics_format": form,
    }


def write_co3d(
    root: Path, views: Sequence[MiniView], category: str, form: str = "ndc_isotropic"
) -> ViewFiles:
    """One test sequence, and one frame of a training sequence that must not be read."""
    found: ViewFiles = {}
    annotations, listed = [], []
    for number, view in enumerate(views, 1):
        path = f"{category}/{SEQUENCE}/images/frame{number:06d}.jpg"
        found[save_image(root / path, view)] = view
        annotations.append(
            {
                "sequence_name": SEQUENCE,
                "frame_number": number,
                "image": {"path": path, "size": list(view.depth.shape)},
                "viewpoint": co3d_viewpoint(view, form),
            }
        )
        listed.append([SEQUENCE, number, path])
    with gzip.open(root / category / "frame_annotations.jgz", "wt") as stream:
        json.dump([*annotations, {**annotations[0], "sequence_name": "training"}], stream)
    lists = root / category / "set_lists"
    lists.mkdir()
    (lists / "set_lists_fewview_dev.json").write_text(
        json.dumps({"train": [["training", 1, "nowhere.jpg"]], "val": [], "test": listed})
    )
    return found


def write_realestate10k(root: Path, views: Sequence[MiniView], sequence: str) -> ViewFiles:
    found: ViewFiles = {}
    lines = ["https://www.youtube.com/watch?v=0"]
    for i, view in enumerate(views):
        timestamp, (height, width), k = 1_000_000 + 33_367 * i, view.depth.shape, view.k
        found[save_image(root / f"frames/{sequence}/{timestamp}.png", view)] = view
        camera = (
            [k[0, 0] / width, k[1, 1] / height],
            [(k[0, 2] + 0.5) / width, (k[1, 2] + 0.5) / height, 0, 0],
        )
        lines.append(f"{timestamp} {words(*camera, view.cam_from_world[:3])}")
    (root / "test").mkdir(exist_ok=True)
    (root / f"test/{sequence}.txt").write_text("\n".join(lines) + "\n")
    return found
