"""ScanNet-1500: indoor pairs, as LoFTR, RoMa, SuperGlue and glue-factory lay them out.

Three sets of intrinsics are in use, and their numbers are not comparable; what was read is noted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import (
    PairCollector,
    as_matrix,
    as_rigid,
    first_existing,
    scale_intrinsics,
    stored_size,
)
from benchmarks.datasets.calibrated_pairs import collect_calibrated_pairs
from benchmarks.datasets.npz_files import read_npz
from benchmarks.datasets.number_files import read_matrix
from benchmarks.protocols import POSE_PRESETS, with_resize
from matcher.errors import DatasetError
from matcher.structures import ImageSize

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "scannet1500"
TITLE = "ScanNet-1500"
PUBLISHED = (
    "http://www.scan-net.org (terms of use to be signed; non-commercial research); the 1500 test "
    "pairs: https://github.com/zju3dv/LoFTR (test.npz, intrinsics.npz) or "
    "https://github.com/magicleap/SuperGluePretrainedNetwork (scannet_test_pairs_with_gt.txt)"
)
PROTOCOLS: dict[str, Protocol] = {
    name: with_resize(
        preset,
        ResizeRule("short", 480) if name == "roma" else ResizeRule("exact", 640, 480),
    )
    for name, preset in POSE_PRESETS.items()
}
_AUCS = ("AUC@5", "AUC@10", "AUC@20")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row("RoMa v2", _AUCS, (33.6, 56.2, 73.8), "RoMa v2 paper"),
    *published_row("SP+LightGlue (OpenCV)", _AUCS, (17.8, 34.0, 52.0), "glue-factory"),
    *published_row("SP+LightGlue (PoseLib)", _AUCS, (21.9, 39.8, 55.7), "glue-factory"),
    *published_row("MASt3R", _AUCS, (28.0, 50.2, 68.8), "Reloc3r paper"),
    *published_row("MASt3R", _AUCS, (34.5, 57.3, 74.5), "Speedy MASt3R paper"),
)

_TREE = (
    "test.npz                                 name (1500, 4), rel_pose (1500, 12)",
    "intrinsics.npz                           K of each scene at 640 x 480 (LoFTR)",
    "scans_test/scene0707_00/color/15.jpg ...",
    "scans_test/scene0707_00/intrinsic/intrinsic_color.txt    without intrinsics.npz (RoMa)",
    "or scannet_test_pairs_with_gt.txt and the images it names (SuperGlue)",
    "or pairs_calibrated.txt and the images it names (glue-factory)",
)
_PAIR_FILES = ("test.npz", "scannet_test_1500/test.npz", "assets/scannet_test_1500/test.npz")
_IMAGE_FOLDERS = ("scans_test", "test", "scannet_test_1500", ".")
_TEXT_LISTS = ("scannet_test_pairs_with_gt.txt", "pairs_calibrated.txt")
_LOFTR_SIZE = ImageSize(480, 640)
_COLOR_SIZE = ImageSize(968, 1296)


def read(root: Path) -> Dataset:
    """The 1500 pairs below ``root``, or those of a pair list that ``root`` names.

    Of several lists in one folder the first of ``test.npz``, ``scannet_test_pairs_with_gt.txt``
    and ``pairs_calibrated.txt`` is read; name the file itself to read another.

    Raises:
        DatasetError: no list, or nothing of it can be used.
    """
    folder, chosen = (root.parent, root) if root.is_file() else (root, None)
    archive = chosen if chosen and chosen.suffix == ".npz" else None
    if chosen is None:
        archive = first_existing(folder, _PAIR_FILES)
    collector = PairCollector()
    if archive is not None:
        note = _collect_loftr(folder, archive, collector)
    else:
        pairs = chosen or first_existing(folder, _TEXT_LISTS)
        if pairs is None:
            raise missing_data(TITLE, root, _TREE, PUBLISHED)
        collect_calibrated_pairs(pairs, folder, collector, _scene_of)
        note = f"intrinsics: those written in {pairs.name}, for the stored images"
    return collector.finish(NAME, TITLE, folder, notes=(note,))


def _scene_of(image: str) -> str:
    found = re.search(r"scene\d{4}_\d{2}", image)
    return found.group() if found else ""


def _collect_loftr(folder: Path, archive: Path, collector: PairCollector) -> str:
    """The pairs of ``test.npz``; returns which intrinsics were used."""
    arrays = read_npz(archive, ("name", "rel_pose"))
    names, poses = arrays["name"], arrays["rel_pose"]
    if names.ndim != 2 or names.shape[1] != 4 or not np.issubdtype(names.dtype, np.integer):
        raise DatasetError(f"{archive}: name: expected integers (N, 4), got {names.shape}")
    if poses.reshape(len(poses), -1).shape != (len(names), 12):
        raise DatasetError(f"{archive}: rel_pose: expected ({len(names)}, 12), got {poses.shape}")
    scenes = {f"scene{int(row[0]):04d}_{int(row[1]):02d}" for row in names}
    images = next(
        (
            folder / place
            for place in _IMAGE_FOLDERS
            if any((folder / place / scene).is_dir() for scene in scenes)
        ),
        None,
    )
    if images is None:
        raise missing_data(TITLE, folder, _TREE, PUBLISHED)
    intrinsics, note = _intrinsics(folder, archive, images, scenes)
    for (scene_number, part, stem0, stem1), pose in zip(names.tolist(), poses, strict=True):
        scene = f"scene{scene_number:04d}_{part:02d}"
        paths = tuple(images / scene / "color" / f"{stem}.jpg" for stem in (stem0, stem1))
        collector.add(
            f"{scene}/{stem0}--{stem1}",
            (paths[0], paths[1]),
            _Pair(intrinsics, scene, (paths[0], paths[1]), pose.reshape(3, 4)),
            scene,
        )
    return note


def _intrinsics(
    folder: Path, archive: Path, images: Path, scenes: set[str]
) -> tuple[Mapping[str, tuple[FloatArray | DatasetError, ImageSize]], str]:
    """K (or why there is none) of each scene with the image size it is for, and a note."""
    path = first_existing(archive.parent, ("intrinsics.npz",)) or first_existing(
        folder, ("intrinsics.npz",)
    )
    found: dict[str, tuple[FloatArray | DatasetError, ImageSize]] = {}
    if path is not None:
        arrays = read_npz(path)
        for scene in scenes:
            found[scene] = (
                _try_k(arrays[scene], scene)
                if scene in arrays
                else DatasetError(f"{path.name} lacks {scene}"),
                _LOFTR_SIZE,
            )
        return found, "intrinsics: intrinsics.npz (LoFTR), for 640 x 480 pixels"
    for scene in scenes:
        try:
            matrix = read_matrix(images / scene / "intrinsic" / "intrinsic_color.txt", 4, 4)
        except DatasetError as error:
            found[scene] = error, _COLOR_SIZE
        else:
            found[scene] = _try_k(matrix[:3, :3], scene), _COLOR_SIZE
    return found, "intrinsics: intrinsic/intrinsic_color.txt (RoMa), for 1296 x 968 pixels"


def _try_k(value: object, scene: str) -> FloatArray | DatasetError:
    try:
        return as_matrix(f"K of {scene}", value, (3, 3))
    except DatasetError as error:
        return error


class _Pair:
    """Makes the truth of one row of ``test.npz``."""

    def __init__(
        self,
        intrinsics: Mapping[str, tuple[FloatArray | DatasetError, ImageSize]],
        scene: str,
        images: tuple[Path, Path],
        pose: FloatArray,
    ) -> None:
        self.intrinsics, self.scene, self.images, self.pose = intrinsics, scene, images, pose

    def __call__(self) -> PoseTruth:
        k, size = self.intrinsics[self.scene]
        if isinstance(k, DatasetError):
            raise DatasetError(str(k))
        k0, k1 = (scale_intrinsics(k, size, stored_size(image)) for image in self.images)
        return PoseTruth(
            k0, k1, as_rigid("rel_pose", self.pose[:, :3], self.pose[:, 3]), is_metric=True
        )
