"""MegaDepth-1500: tourists' photographs of two places, as LoFTR and glue-factory lay them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import (
    PairCollector,
    as_matrix,
    as_rigid,
    first_existing,
    relative_pose,
)
from benchmarks.datasets.calibrated_pairs import collect_calibrated_pairs
from benchmarks.datasets.npz_files import read_npz
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.protocols import POSE_PRESETS, with_resize
from matcher.errors import DatasetError

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "megadepth1500"
TITLE = "MegaDepth-1500"
PUBLISHED = (
    "https://www.cs.cornell.edu/projects/megadepth (Flickr photographs, terms of their owners); "
    "scenes 0015 and 0022 undistorted, and the five lists: https://github.com/zju3dv/LoFTR"
)
_LONG_SIDES = {"loftr": 840, "glue-factory": 1600, "glue-factory-opencv": 1600}
PROTOCOLS: dict[str, Protocol] = {
    name: with_resize(
        preset,
        ResizeRule("long", _LONG_SIDES.get(name, 1200), only_shrink=preset.resize.only_shrink),
    )
    for name, preset in POSE_PRESETS.items()
}
_AUCS = ("AUC@5", "AUC@10", "AUC@20")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row("RoMa v2", _AUCS, (62.8, 77.0, 86.6), "RoMa v2 paper"),
    *published_row("SP+LightGlue (OpenCV)", _AUCS, (51.0, 68.1, 80.7), "glue-factory"),
    *published_row("SP+LightGlue (PoseLib)", _AUCS, (66.8, 79.3, 87.9), "glue-factory"),
)

_LISTS = ("0015_0.1_0.3", "0015_0.3_0.5", "0022_0.1_0.3", "0022_0.3_0.5", "0022_0.5_0.7")
_LIST_FOLDERS = (".", "megadepth_test_1500_scene_info", "assets/megadepth_test_1500_scene_info")
_TREE = (
    *(f"{name}.npz" for name in _LISTS),
    "    (also below megadepth_test_1500_scene_info/)",
    "Undistorted_SfM/0015/images/*.jpg, Undistorted_SfM/0022/images/*.jpg",
    "or pairs_calibrated.txt and images/ (glue-factory)",
    "or views.txt, pairs.txt and images/ (glue-factory)",
)
_NOTE = "intrinsics as published: COLMAP's, half a pixel from integer pixel centres"
_VIEW_MODELS = {"SIMPLE_PINHOLE": (0, 0, 1, 2), "PINHOLE": (0, 1, 2, 3)}


def read(root: Path) -> Dataset:
    """The five times 300 pairs below ``root``.

    Raises:
        DatasetError: the lists are not there or cannot be read (a pickle in them that asks for
            more than data is refused), or no pair can be used.
    """
    collector = PairCollector()
    notes = [_NOTE]
    found = [
        path
        for name in _LISTS
        if (path := first_existing(root, _places(f"{name}.npz"))) is not None
    ]
    calibrated = first_existing(root, ("pairs_calibrated.txt",))
    views, pairs = root / "views.txt", root / "pairs.txt"
    if found:
        for path in found:
            _collect_list(root, path, collector)
        absent = [name for name in _LISTS if name not in {path.stem for path in found}]
        if absent:
            notes.append(f"lists that are not there: {', '.join(absent)}")
    elif calibrated is not None:
        collect_calibrated_pairs(calibrated, _images(root), collector, _scene_of)
    elif views.is_file() and pairs.is_file():
        _collect_views(views, pairs, _images(root), collector)
    else:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    return collector.finish(NAME, TITLE, root, notes=notes)


def _places(name: str) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for folder in _LIST_FOLDERS)


def _images(root: Path) -> Path:
    return root / "images" if (root / "images").is_dir() else root


def _scene_of(image: str) -> str:
    return next((part for part in Path(image).parts if part in ("0015", "0022")), "")


def _collect_list(root: Path, path: Path, collector: PairCollector) -> None:
    """The pairs of one of the five archives."""
    scene = read_npz(path, ("image_paths", "intrinsics", "poses", "pair_infos"))
    group = path.stem.split("_")[0]
    for number, row in enumerate(scene["pair_infos"]):
        label = f"{path.stem}/{number}"
        try:
            (first, second), overlap = _pair_info(row)
            images = tuple(root / str(scene["image_paths"][view]) for view in (first, second))
        except (TypeError, ValueError, IndexError):
            collector.fail(label, f"{path.name}: pair_infos[{number}] is not ((i, j), overlap, ..)")
            continue
        collector.add(
            f"{path.stem}/{images[0].stem}--{images[1].stem}",
            (images[0], images[1]),
            _Pair(scene, (first, second), overlap),
            group,
        )


def _pair_info(row: Sequence[Any]) -> tuple[tuple[int, int], float]:
    first, second = (int(view) for view in row[0])
    if min(first, second) < 0:
        raise ValueError("a negative view")
    return (first, second), float(row[1])


class _Pair:
    """Makes the truth of one row of ``pair_infos``."""

    def __init__(self, scene: Mapping[str, Any], views: tuple[int, int], overlap: float) -> None:
        self.scene, self.views, self.overlap = scene, views, overlap

    def __call__(self) -> PoseTruth:
        (k0, pose0), (k1, pose1) = (self._view(view) for view in self.views)
        overlap = self.overlap if 0 <= self.overlap <= 1 else None
        return PoseTruth(k0, k1, relative_pose(pose0, pose1), overlap=overlap)

    def _view(self, view: int) -> tuple[FloatArray, FloatArray]:
        if view >= min(len(self.scene["intrinsics"]), len(self.scene["poses"])):
            raise DatasetError(f"view {view} has neither intrinsics nor pose")
        k = as_matrix(f"intrinsics[{view}]", self.scene["intrinsics"][view], (3, 3))
        pose = as_matrix(f"poses[{view}]", self.scene["poses"][view], (4, 4))
        return k, as_rigid(f"poses[{view}]", pose[:3, :3], pose[:3, 3])


def _collect_views(views: Path, pairs: Path, images: Path, collector: PairCollector) -> None:
    """glue-factory's views with a camera each, and pairs of their names."""
    known: dict[str, tuple[FloatArray, FloatArray] | DatasetError] = {}
    for number, words in read_lines(views):
        try:
            known[words[0]] = _read_view(words, views, number)
        except DatasetError as error:
            known[words[0]] = error
    for number, words in read_lines(pairs):
        if len(words) < 2:
            collector.fail(f"line {number}", f"{pairs.name}: expected two names, got {len(words)}")
            continue
        name0, name1 = words[:2]

        def truth(names: tuple[str, str] = (name0, name1)) -> PoseTruth:
            (k0, pose0), (k1, pose1) = (_known(known, name) for name in names)
            return PoseTruth(k0, k1, relative_pose(pose0, pose1))

        paths = images / name0, images / name1
        collector.add(f"{name0}--{name1}", paths, truth, _scene_of(name0))


def _known(
    views: Mapping[str, tuple[FloatArray, FloatArray] | DatasetError], name: str
) -> tuple[FloatArray, FloatArray]:
    view = views.get(name, DatasetError(f"views.txt lacks {name}"))
    if isinstance(view, DatasetError):
        raise DatasetError(str(view))
    return view


def _read_view(words: Sequence[str], path: Path, line: int) -> tuple[FloatArray, FloatArray]:
    """K and cam_from_world of ``name R(9) t(3) MODEL width height parameters...``.

    The camera may also stand before the pose.
    """
    at = next((place for place, word in enumerate(words) if word in _VIEW_MODELS), None)
    if at is None:
        raise DatasetError(f"{path}:{line}: expected a camera {' or '.join(_VIEW_MODELS)}")
    rows = _VIEW_MODELS[words[at]]
    end = at + 3 + max(rows) + 1
    camera = parse_numbers(words[at + 1 : end], 2 + max(rows) + 1, path, line)[2:]
    pose = parse_numbers([*words[1:at], *words[end:]], 12, path, line)
    fx, fy, cx, cy = (camera[row] for row in rows)
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    return k, as_rigid(f"{path.name}:{line}", pose[:9].reshape(3, 3), pose[9:])
