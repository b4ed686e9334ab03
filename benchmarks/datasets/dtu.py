"""DTU: things on a table, photographed from 49 places and scanned with structured light."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, MultiViewTruth, PairSample, missing_data
from benchmarks.datasets.building import (
    as_matrix,
    as_rigid,
    first_existing,
    scale_intrinsics,
    stored_size,
)
from benchmarks.datasets.number_files import parse_numbers, read_lines, read_matrix
from benchmarks.tasks.fusion import FusionOptions
from matcher.errors import DatasetError, MatcherError
from matcher.structures import ImageSize

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "SCANS", "TITLE", "read"]

NAME = "dtu"
TITLE = "DTU"
PUBLISHED = "https://roboimagedata.compute.dtu.dk/?page_id=36 (free to use with citation)"
SCANS = (1, 4, 9, 10, 11, 12, 13, 15, 23, 24, 29, 32, 33, 34, 48, 49, 62, 75, 77, 110, 114, 118)
PROTOCOLS: dict[str, Protocol] = {
    "ours": Protocol(
        name="ours",
        estimator=FusionOptions(thresholds=(2.0,)),
        is_headline=True,
        note=(
            "true cameras; matches triangulated within 2 px and 1 degree, depths that two "
            "neighbours agree on to 1 % averaged; cloud thinned to 0.2 mm, distances clipped at "
            "20 mm, searched to 60 mm"
        ),
    )
}
_MEASURES = ("accuracy mm", "completeness mm", "overall mm")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row("DUSt3R", _MEASURES, (2.677, 0.805, 1.741), "DUSt3R paper"),
    *published_row("MASt3R coarse", _MEASURES, (0.652, 0.592, 0.622), "MASt3R paper"),
    *published_row("MASt3R", _MEASURES, (0.403, 0.344, 0.374), "MASt3R paper"),
)

_TREE = (
    "Rectified/scan1/rect_001_3_r5000.png ...          1600 x 1200, light 3",
    "Cameras/00000000_cam.txt ..., Cameras/pair.txt    or Calibration/cal18/pos_001.txt ...",
    "Points/stl/stl001_total.ply",
    "ObsMask/ObsMask1_10.mat, ObsMask/Plane1.mat",
)
_SIZE = ImageSize(1200, 1600)
_LIGHT = 3
_VIEWS = 49
_NEIGHBOURS = 10
_LARGEST_SKEW_PX = 1.0
_PLACES = ("", "SampleSet/MVS Data/", "MVS Data/")


@dataclass(frozen=True, slots=True, eq=False)
class _View:
    """K of the stored photograph, and cam_from_world in millimetres."""

    image: Path
    k: FloatArray
    cam_from_world: FloatArray


def read(root: Path) -> Dataset:
    """The pairs (reference, neighbour) of every scan below ``root``.

    Raises:
        DatasetError: no scan is there, or none can be used.
    """
    scans = [scan for scan in SCANS if (root / "Rectified" / f"scan{scan}").is_dir()]
    if not scans:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    samples: list[PairSample] = []
    problems: list[tuple[str, str]] = []
    notes: list[str] = []
    for scan in scans:
        try:
            samples.extend(_read_scan(root, scan, notes))
        except MatcherError as error:
            problems.append((f"scan{scan}", " ".join(str(error).split())))
    if not samples:
        raise DatasetError(f"{TITLE}: no usable scan in {root}: {': '.join(problems[0])}")
    absent = [str(scan) for scan in SCANS if scan not in scans]
    if absent:
        notes.append(f"scans not there: {', '.join(absent)}")
    notes.append("the true cameras are given to the triangulation")
    return Dataset(
        NAME,
        TITLE,
        tuple(samples),
        "multiview",
        root,
        tuple(problems),
        tuple(dict.fromkeys(notes)),
    )


def _read_scan(root: Path, scan: int, notes: list[str]) -> list[PairSample]:
    files = [
        _find(root, f"Points/stl/stl{scan:03d}_total.ply"),
        _find(root, f"ObsMask/ObsMask{scan}_10.mat"),
        _find(root, f"ObsMask/Plane{scan}.mat"),
    ]
    views: dict[int, _View] = {}
    for number in range(1, _VIEWS + 1):
        image = root / "Rectified" / f"scan{scan}" / f"rect_{number:03d}_{_LIGHT}_r5000.png"
        if image.is_file():
            views[number] = _read_view(root, number, image, notes)
    if len(views) < 2:
        raise DatasetError(f"expected {_VIEWS} images rect_001_{_LIGHT}_r5000.png ..., light 3")
    if len(views) < _VIEWS:
        notes.append(f"scan{scan}: {len(views)} of {_VIEWS} views")
    samples = []
    for reference, neighbours in _neighbours(root, views, notes).items():
        for neighbour in neighbours:
            view0, view1 = views[reference], views[neighbour]
            truth = MultiViewTruth(
                view0.k, view1.k, view0.cam_from_world, view1.cam_from_world, scan, *files
            )
            name, group = f"scan{scan}/{reference:03d}--{neighbour:03d}", f"scan{scan}"
            samples.append(PairSample(name, view0.image, view1.image, truth, group, group))
    if not samples:
        raise DatasetError("no pair of its views is listed")
    return samples


def _find(root: Path, name: str) -> Path:
    found = first_existing(root, [f"{place}{name}" for place in _PLACES])
    if found is None:
        raise DatasetError(f"no file at {root / name}")
    return found


def _read_view(root: Path, number: int, image: Path, notes: list[str]) -> _View:
    camera = root / "Cameras" / f"{number - 1:08d}_cam.txt"
    if camera.is_file():
        k, pose = _read_camera(camera)
        note = "cameras: Cameras/*_cam.txt"
    else:
        name = f"Calibration/cal18/pos_{number:03d}.txt"
        k, pose = _decompose(read_matrix(_find(root, name), 4, 3), name)
        note = "cameras: Calibration/cal18, projection matrices taken apart"
    if note not in notes:
        notes.append(note)
    return _View(image, scale_intrinsics(k, _SIZE, stored_size(image)), pose)


def _read_camera(path: Path) -> tuple[FloatArray, FloatArray]:
    """K and cam_from_world of a file with ``extrinsic``, 4 x 4, ``intrinsic``, 3 x 3."""
    rows = [
        (line, words)
        for line, words in read_lines(path)
        if words[0] not in ("extrinsic", "intrinsic")
    ]
    if len(rows) < 7:
        raise DatasetError(f"{path}: expected 4 + 3 lines of numbers, got {len(rows)}")
    pose = np.stack([parse_numbers(words, 4, path, line) for line, words in rows[:4]])
    k = np.stack([parse_numbers(words, 3, path, line) for line, words in rows[4:7]])
    return k, as_rigid(str(path), pose[:3, :3], pose[:3, 3])


def _decompose(projection: FloatArray, name: str) -> tuple[FloatArray, FloatArray]:
    """K and cam_from_world of a (3, 4) projection matrix, which is known up to its scale."""
    matrix = as_matrix(name, projection, (3, 4))
    determinant = np.linalg.det(matrix[:, :3])
    if determinant == 0:
        raise DatasetError(f"{name}: a projection matrix without a camera centre")
    matrix = matrix * np.sign(determinant)
    _, k, rotation, *_ = cv2.RQDecomp3x3(matrix[:, :3])
    signs = np.diag(np.sign(np.diag(k)))
    k, rotation = k @ signs, signs @ rotation
    translation = np.linalg.solve(k, matrix[:, 3])
    k = k / k[2, 2]
    if abs(k[0, 1]) > _LARGEST_SKEW_PX:
        raise DatasetError(f"{name}: a skew of {k[0, 1]:.3g} px")
    k[0, 1] = 0.0
    return k, as_rigid(name, rotation, translation)


def _neighbours(
    root: Path, views: Mapping[int, _View], notes: list[str]
) -> dict[int, tuple[int, ...]]:
    listed = first_existing(root, ("Cameras/pair.txt", "pair.txt"))
    if listed is not None:
        notes.append(f"neighbours: {listed.relative_to(root)}")
        found = _read_pairs(listed)
        return {
            reference: tuple(view for view in found[reference] if view in views)
            for reference in views
            if reference in found
        }
    notes.append(f"neighbours: the {_NEIGHBOURS} nearest cameras of each")
    numbers = list(views)
    poses = np.stack([views[number].cam_from_world for number in numbers])
    centers = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    nearest = {}
    for row, number in enumerate(numbers):
        # Rounded, so that the last digits of a calibration file do not decide between equals.
        distances = np.round(np.linalg.norm(centers - centers[row], axis=1), 2)
        order = np.argsort(distances, kind="stable")
        others = [numbers[index] for index in order if index != row]
        nearest[number] = tuple(others[:_NEIGHBOURS])
    return nearest


def _read_pairs(path: Path) -> dict[int, tuple[int, ...]]:
    """View -> neighbours, best first, from 1; the file counts from 0.

    Its first line is the number of views; then come, for each, a line with the view and a line
    ``count neighbour score neighbour score ...``.
    """
    lines = [parse_numbers(words, len(words), path, line) for line, words in read_lines(path)][1:]
    found = {}
    for view, scored in zip(lines[::2], lines[1::2], strict=False):
        if len(view) != 1 or len(scored) != 1 + 2 * int(scored[0]):
            raise DatasetError(f"{path}: broken neighbours of view {int(view[0])}")
        found[int(view[0]) + 1] = tuple(int(number) + 1 for number in scored[1::2])
    return found
