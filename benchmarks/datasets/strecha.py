"""Strecha's multi-view stereo scenes: cameras registered to a laser scan.

A ``.camera`` file holds K row by row, a row of zeros, the camera-to-world rotation row by row, the
camera centre, and width and height.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import (
    PairCollector,
    as_matrix,
    as_rigid,
    relative_pose,
    scale_intrinsics,
    stored_size,
)
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.protocols import POSE_PRESETS, with_resize
from matcher.errors import DatasetError
from matcher.structures import ImageSize

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read", "read_camera"]

NAME = "strecha"
TITLE = "Strecha MVS"
PUBLISHED = (
    "C. Strecha et al., On Benchmarking Camera Calibration and Multi-View Stereo for High "
    "Resolution Imagery, CVPR 2008 (EPFL; for research): strechaMVS, images and cameras"
)
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()
PROTOCOLS: dict[str, Protocol] = {
    name: with_resize(preset, ResizeRule("long", 1024, only_shrink=True))
    for name, preset in POSE_PRESETS.items()
}

_TREE = (
    "fountain_dense/urd/0000.png ...          and herzjesu_dense, castle_dense, entry_dense, ...",
    "fountain_dense/urd/0000.png.camera ...   (or in another folder of the scene)",
)
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".JPG", ".ppm")
# K (3 rows), zeros, rotation (3 rows), centre: 3 numbers a row; then width and height.
_ROWS = (3, 3, 3, 3, 3, 3, 3, 3, 2)


def read(root: Path) -> Dataset:
    """All pairs of images of every scene below ``root``, or of the one scene that it is.

    Raises:
        DatasetError: no camera file, or no pair can be used.
    """
    scenes = sorted({_scene_folder(root, camera) for camera in root.rglob("*.camera")})
    if not scenes:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = PairCollector()
    for scene in scenes:
        _collect_scene(scene, collector)
    notes = ("all pairs of each scene; the overlap of a pair is not known",)
    return collector.finish(NAME, TITLE, root, notes=notes)


def read_camera(path: Path) -> tuple[FloatArray, FloatArray, ImageSize]:
    """K (3, 3), cam_from_world (4, 4) in metres and image size of a ``.camera`` file.

    Raises:
        DatasetError: truncated, not numbers, or no camera.
    """
    lines = list(read_lines(path))
    if len(lines) < len(_ROWS):
        raise DatasetError(f"{path}: expected {len(_ROWS)} lines, got {len(lines)}")
    rows = [
        parse_numbers(words, count, path, number)
        for (number, words), count in zip(lines, _ROWS, strict=False)
    ]
    k = as_matrix("K", rows[:3], (3, 3))
    world_from_cam = np.stack(rows[4:7])
    centre = rows[7]
    pose = as_rigid(path.name, world_from_cam.T, -world_from_cam.T @ centre)
    width, height = (round(value) for value in rows[8])
    if min(width, height) < 1:
        raise DatasetError(f"{path}: expected a positive size, got {width} x {height}")
    return k, pose, ImageSize(height, width)


def _scene_folder(root: Path, camera: Path) -> Path:
    """The folder right below ``root``; ``root`` itself where it is a scene."""
    inner = camera.parent.relative_to(root).parts
    return root / inner[0] if len(inner) > 1 else root if not inner else _lone(root, inner[0])


def _lone(root: Path, folder: str) -> Path:
    """``root/fountain_dense/x.camera`` is a scene below root; ``root/urd/x.camera`` is root's."""
    return root if folder in ("urd", "images", "cameras", "gt_dense_cameras") else root / folder


def _collect_scene(scene: Path, collector: PairCollector) -> None:
    # One image can have its camera beside it and once more in a folder of cameras.
    cameras = {path.name: path for path in sorted(scene.rglob("*.camera"), reverse=True)}
    views = [(camera, _image_of(scene, camera)) for _, camera in sorted(cameras.items())]
    for (camera0, image0), (camera1, image1) in combinations(views, 2):

        def truth(
            camera0: Path = camera0,
            camera1: Path = camera1,
            image0: Path = image0,
            image1: Path = image1,
        ) -> PoseTruth:
            k0, pose0 = _stored_camera(camera0, image0)
            k1, pose1 = _stored_camera(camera1, image1)
            return PoseTruth(k0, k1, relative_pose(pose0, pose1), is_metric=True)

        label = f"{scene.name}/{image0.stem}--{image1.stem}"
        collector.add(label, (image0, image1), truth, scene.name)


def _stored_camera(camera: Path, image: Path) -> tuple[FloatArray, FloatArray]:
    k, pose, size = read_camera(camera)
    return scale_intrinsics(k, size, stored_size(image)), pose


def _image_of(scene: Path, camera: Path) -> Path:
    """The photograph of ``0000.png.camera``: beside it, elsewhere in the scene, or as a JPEG."""
    beside = camera.with_suffix("")
    if beside.is_file():
        return beside
    for suffix in (beside.suffix, *_IMAGE_SUFFIXES):
        found = sorted(scene.rglob(f"{beside.stem}{suffix}"))
        if found:
            return found[0]
    return beside
