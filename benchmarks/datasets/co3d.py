"""CO3Dv2: videos around objects, in the official tree with its annotations.

Cameras are PyTorch3D's: row vectors, ``X_cam = X_world R + T``, x to the left and y up, and
intrinsics in normalised device coordinates, whose two conventions ``intrinsics_format`` names.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import (
    PairCollector,
    as_matrix,
    as_rigid,
    relative_pose,
    scale_intrinsics,
    stored_size,
)
from benchmarks.datasets.frame_choice import choose_frames, frame_list_sha256
from benchmarks.protocols import POSE_PRESETS
from matcher.errors import DatasetError
from matcher.structures import ImageSize

__all__ = [
    "FRAMES",
    "NAME",
    "PROTOCOLS",
    "PUBLISHED",
    "PUBLISHED_VALUES",
    "SEED",
    "TITLE",
    "CO3DFrame",
    "annotated_camera",
    "read",
]

NAME = "co3d"
TITLE = "CO3Dv2"
PUBLISHED = "https://github.com/facebookresearch/co3d (CC BY-NC 4.0)"
FRAMES = 10
SEED = 0
PROTOCOLS: dict[str, Protocol] = {
    "co3d": Protocol(
        name="co3d",
        estimator=POSE_PRESETS["ours"].estimator,
        auc_thresholds=(5.0, 10.0, 20.0, 30.0),
        is_headline=True,
        note=(
            "10 frames a sequence, all 45 pairs, mean over categories; the essential matrix is "
            "found with the annotated focals, which the published networks do not use"
        ),
    ),
    **{name: preset for name, preset in POSE_PRESETS.items() if not name.startswith("ours")},
}
_METRICS = ("RRA@15", "RTA@15", "mAA(30)")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row("MASt3R", _METRICS, (94.6, 91.9, 81.8), "MASt3R paper"),
    *published_row("DUSt3R (alignment)", _METRICS, (96.2, 86.8, 76.7), "MASt3R paper"),
)

_TREE = (
    "apple/frame_annotations.jgz              and the other categories",
    "apple/set_lists/set_lists_fewview_dev.json",
    "apple/110_13051_23361/images/frame000001.jpg ...",
)
_SET_LISTS = ("set_lists_fewview_dev.json", "set_lists_fewview_test.json")
_UNSEEN = {"ball", "book", "couch", "frisbee", "hotdog", "kite"}
_UNSEEN |= {"remote", "sandwich", "skateboard", "suitcase"}
# x to the left and y up become x to the right and y down.
_OPENCV_FROM_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])


@dataclass(frozen=True, slots=True, eq=False)
class CO3DFrame:
    """A frame's number, file, and what its annotation says of size (h, w) and viewpoint."""

    number: int
    image: Path
    size: Any
    viewpoint: Any


def read(root: Path) -> Dataset:
    """All pairs of ten frames of each test sequence of the 41 seen categories below ``root``.

    Raises:
        DatasetError: no category, or no pair can be used.
    """
    folders = sorted(path.parent for path in root.glob("*/frame_annotations.jgz"))
    if not folders:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = PairCollector()
    chosen: dict[str, list[int]] = {}
    notes = [f"{FRAMES} frames a sequence drawn with seed {SEED}, all pairs"]
    unseen = [folder.name for folder in folders if folder.name in _UNSEEN]
    if unseen:
        notes.append(f"not of the 41 categories, left out: {', '.join(unseen)}")
    for folder in folders:
        if folder.name in _UNSEEN:
            continue
        try:
            notes.append(_collect_category(root, folder, collector, chosen))
        except DatasetError as error:
            collector.fail(folder.name, str(error))
    notes.insert(1, f"frame list sha256 {frame_list_sha256(chosen)}")
    return collector.finish(NAME, TITLE, root, notes=notes)


def _collect_category(
    root: Path, folder: Path, collector: PairCollector, chosen: dict[str, list[int]]
) -> str:
    """The pairs of one category; returns its frame list in words."""
    listed, list_name = _test_frames(folder)
    frames = _annotations(root, folder / "frame_annotations.jgz", listed)
    words, short = [], 0
    for sequence, numbers in sorted(listed.items()):
        if len(numbers) < FRAMES:
            short += 1
            continue
        name = f"{folder.name}/{sequence}"
        picked = choose_frames(name, sorted(numbers), FRAMES, SEED)
        chosen[name] = picked
        words.append(f"{sequence} {','.join(map(str, picked))}")
        for first, second in combinations(picked, 2):
            label = f"{name}/{first}--{second}"
            pair = frames.get((sequence, first)), frames.get((sequence, second))
            if pair[0] is None or pair[1] is None:
                missing = first if pair[0] is None else second
                collector.fail(label, f"frame_annotations.jgz lacks frame {missing}")
                continue
            _add_pair(collector, label, pair[0], pair[1], folder.name)
    left_out = f"; {short} sequences with fewer frames left out" if short else ""
    return f"{folder.name} ({list_name}, test{left_out}): {'; '.join(words)}"


def _add_pair(
    collector: PairCollector, label: str, frame0: CO3DFrame, frame1: CO3DFrame, category: str
) -> None:
    def truth() -> PoseTruth:
        (k0, pose0), (k1, pose1) = _camera(frame0), _camera(frame1)
        return PoseTruth(k0, k1, relative_pose(pose0, pose1))

    collector.add(label, (frame0.image, frame1.image), truth, category)


def _test_frames(folder: Path) -> tuple[dict[str, set[int]], str]:
    """Frame numbers of each test sequence, and the file they are from."""
    path = next(
        (folder / "set_lists" / name for name in _SET_LISTS if _is_file(folder, name)), None
    )
    if path is None:
        raise DatasetError(f"{folder / 'set_lists'}: none of {', '.join(_SET_LISTS)}")
    listed: dict[str, set[int]] = {}
    try:
        for sequence, number, _ in json.loads(path.read_text(encoding="utf-8"))["test"]:
            listed.setdefault(str(sequence), set()).add(int(number))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: expected [sequence, frame, path] under test ({error})"
        ) from None
    return listed, path.name


def _is_file(folder: Path, name: str) -> bool:
    return (folder / "set_lists" / name).is_file()


def _annotations(
    root: Path, path: Path, wanted: Mapping[str, set[int]]
) -> dict[tuple[str, int], CO3DFrame]:
    """The annotated frames of the wanted sequences."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            entries = json.load(stream)
        return {
            (entry["sequence_name"], int(entry["frame_number"])): CO3DFrame(
                int(entry["frame_number"]),
                root / entry["image"]["path"],
                entry["image"]["size"],
                entry["viewpoint"],
            )
            for entry in entries
            if int(entry["frame_number"]) in wanted.get(entry["sequence_name"], ())
        }
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        reason = f"truncated, or not of that layout ({type(error).__name__}: {error})"
        raise DatasetError(f"{path}: {reason}") from None


def _camera(frame: CO3DFrame) -> tuple[FloatArray, FloatArray]:
    """K (3, 3) of the stored image and cam_from_world (4, 4), in our conventions."""
    k, pose = annotated_camera(frame)
    height, width = frame.size
    annotated = ImageSize(round(height), round(width))
    return scale_intrinsics(k, annotated, stored_size(frame.image)), pose


def annotated_camera(frame: CO3DFrame) -> tuple[FloatArray, FloatArray]:
    """K (3, 3) of the annotated size and cam_from_world (4, 4), in our conventions.

    Raises:
        DatasetError: something is missing, of a wrong shape, or of an unknown convention.
    """
    view, label = frame.viewpoint, f"frame {frame.number}"
    if not isinstance(view, dict) or not {"R", "T", "focal_length", "principal_point"} <= set(view):
        raise DatasetError(f"{label}: no viewpoint")
    height, width = as_matrix(f"{label}, size", frame.size, (2,))
    if min(height, width) < 1:
        raise DatasetError(f"{label}: expected a positive size, got {width:g} x {height:g}")
    half = np.array([width, height]) / 2
    form = str(view.get("intrinsics_format", "ndc_norm_image_bounds")).lower()
    if form == "ndc_isotropic":
        unit = np.full(2, half.min())
    elif form == "ndc_norm_image_bounds":
        unit = half
    else:
        raise DatasetError(f"{label}: intrinsics_format {form!r} is not known")
    fx, fy = as_matrix(f"{label}, focal_length", view["focal_length"], (2,)) * unit
    # Screen axes run against PyTorch3D's; (0, 0) there is the outer corner of the first pixel.
    principal = as_matrix(f"{label}, principal_point", view["principal_point"], (2,))
    cx, cy = half - principal * unit - 0.5
    k = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]])
    rotation = as_matrix(f"{label}, R", view["R"], (3, 3)).T
    translation = as_matrix(f"{label}, T", view["T"], (3,))
    flip = _OPENCV_FROM_PYTORCH3D
    return k, as_rigid(label, flip @ rotation, flip @ translation)
