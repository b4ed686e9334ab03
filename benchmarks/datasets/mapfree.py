"""Map-free relocalisation: metric relative pose of a phone against one reference photograph.

Every fifth frame of a scene's second sequence is a query against the first frame of its first
sequence. The poses of the test split are kept by the server: its samples are not scored.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import EstimatorOptions, Protocol
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PoseTruth, missing_data
from benchmarks.datasets.building import PairCollector, scale_intrinsics, stored_size
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.protocols import POSE_PRESETS
from matcher.errors import DatasetError
from matcher.geometry.pose import quaternion_to_rotation
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "mapfree"
TITLE = "Map-free relocalisation"
PUBLISHED = (
    "research.nianticlabs.com/mapfree-reloc-benchmark (registration; research use only); its zips "
    "train, val and test unpack to this tree"
)
# The official threshold of the virtual correspondences, for photographs of 540 x 720 pixels.
_VCRE_PX = (90.0,)
PROTOCOLS: dict[str, Protocol] = {
    "ours": dataclasses.replace(
        POSE_PRESETS["ours"],
        auc_thresholds=_VCRE_PX,
        note=(
            "essential matrix by PoseLib LO-RANSAC at 1 px; length of the translation: median "
            "ratio of the method's depths to the triangulated ones; 1 m for methods without depth"
        ),
    ),
    "pnp": Protocol(
        name="pnp",
        estimator=EstimatorOptions("poselib-pnp", (5.0,)),
        auc_thresholds=_VCRE_PX,
        note=(
            "PoseLib PnP at 5 px from the method's points in image 0; methods without points take "
            "the essential matrix at the same threshold and a translation of 1 m"
        ),
    ),
}

_TREE = (
    "val/                      or test/; or name one of them, or train/, as the root",
    "    s00460/",
    "        intrinsics.txt    path fx fy cx cy width height",
    "        poses.txt         path qw qx qy qz tx ty tz, world to camera",
    "        seq0/frame_00000.jpg",
    "        seq1/frame_00000.jpg ...",
)
_REFERENCE = "seq0/frame_00000.jpg"
_QUERY = re.compile(r"seq1/frame_(\d+)\.jpg")
_EVERY = 5
_INTRINSICS, _POSE = 6, 7  # numbers a line
_NUM_SCENES = {"train": 460, "val": 65, "test": 130}


@dataclass(frozen=True, slots=True, eq=False)
class _Table:
    """The rows of a text file by frame, and why the rows that cannot be read cannot."""

    path: Path
    rows: Mapping[str, FloatArray] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    unreadable: str = ""

    def row(self, frame: str) -> FloatArray:
        if reason := self.unreadable or self.broken.get(frame):
            raise DatasetError(reason)
        if frame not in self.rows:
            raise DatasetError(f"{self.path}: no line for {frame}")
        return self.rows[frame]

    def queries(self) -> list[str]:
        """Every fifth frame of the second sequence, by its number."""
        numbered = {
            int(found[1]): frame
            for frame in (*self.rows, *self.broken)
            if (found := _QUERY.fullmatch(frame))
        }
        return [numbered[number] for number in sorted(numbered) if number % _EVERY == 0]


def read(root: Path) -> Dataset:
    """Read the validation split, or the split that ``root`` is.

    Raises:
        DatasetError: no scene is there, or not one pair of them can be used.
    """
    folder = next((root / split for split in ("val", "test") if _scenes(root / split)), root)
    scenes = _scenes(folder)
    if not scenes:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    pairs = PairCollector()
    scored = [_add_scene(pairs, scene) for scene in scenes]
    split = folder.resolve().name
    split = split if split in _NUM_SCENES else "unnamed"
    title = f"{TITLE}, {split} split"
    notes = _notes(split, len(scenes), all(scored))
    return pairs.finish(NAME, title, root, kind="metric_pose", notes=notes)


def _scenes(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("s[0-9]*") if path.is_dir())


def _notes(split: str, num_scenes: int, is_scored: bool) -> tuple[str, ...]:
    notes = [
        f"{split} split, every fifth frame of seq1 against {_REFERENCE}",
        "a frame without an answer is one failure; the submission holds a file for every scene, so "
        "that the server counts the same (of a scene whose file is missing it counts every frame, "
        "not every fifth)",
    ]
    expected = _NUM_SCENES.get(split, num_scenes)
    if num_scenes != expected:
        notes.append(f"{num_scenes} of {expected} scenes are there")
    if not is_scored:
        notes.append("the server keeps the poses: file written, not scored")
    return tuple(notes)


def _add_scene(pairs: PairCollector, scene: Path) -> bool:
    """Gather the queries of a scene; ``False`` where a server keeps their poses."""
    intrinsics = _read_table(scene / "intrinsics.txt", _INTRINSICS)
    poses = _read_table(scene / "poses.txt", _POSE)
    # The test split gives the pose of the reference only.
    frames = poses.queries()
    is_scored = bool(frames)

    def truth(frame: str) -> PoseTruth:
        k0, k1 = (_matrix(intrinsics.row(f), scene / f) for f in (_REFERENCE, frame))
        reference = _pose(poses.row(_REFERENCE))
        query = _pose(poses.row(frame)) if is_scored else reference
        cam1_from_cam0 = (query @ reference.inverse).matrix
        return PoseTruth(k0, k1, cam1_from_cam0, is_metric=True, is_scored=is_scored)

    for frame in frames or intrinsics.queries():
        images = scene / _REFERENCE, scene / frame
        name = f"{scene.name}/{Path(frame).stem}"
        pairs.add(name, images, partial(truth, frame), group=scene.name)
    if not frames and not intrinsics.queries():
        reason = poses.unreadable or intrinsics.unreadable or "no frame of seq1 is listed"
        pairs.fail(scene.name, reason)
    return is_scored or bool(poses.unreadable)


def _read_table(path: Path, columns: int) -> _Table:
    rows: dict[str, FloatArray] = {}
    broken: dict[str, str] = {}
    try:
        lines = list(read_lines(path))
    except DatasetError as error:
        return _Table(path, unreadable=str(error))
    for line, (frame, *words) in lines:
        try:
            rows[frame] = parse_numbers(words, columns, path, line)
            if columns == _POSE and not np.linalg.norm(rows[frame][:4]) > 0:
                raise DatasetError(f"{path}:{line}: the quaternion has no length")
        except DatasetError as error:
            broken[frame] = str(error)
    return _Table(path, rows, broken)


def _matrix(row: FloatArray, image: Path) -> FloatArray:
    """K of the stored photograph."""
    fx, fy, cx, cy, width, height = row.tolist()
    k = Camera.pinhole(fx, fy, cx, cy).matrix
    return scale_intrinsics(k, ImageSize(int(height), int(width)), stored_size(image))


def _pose(row: FloatArray) -> Pose:
    """cam_from_world."""
    return Pose(quaternion_to_rotation(row[:4]), row[4:])


_METRICS = (
    "VCRE median px",
    "VCRE precision@90px",
    "VCRE AUC",
    "median translation m",
    "median rotation deg",
    "pose precision@0.25m,5deg",
    "pose AUC",
)
_OWN_DEPTH = "MASt3R, own depth"
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row(
        _OWN_DEPTH, _METRICS, (57.2, 75.9, 93.4, 0.46, 3.0, 51.7, 74.6), "MASt3R paper, val"
    ),
    *published_row(
        "DUSt3R", _METRICS, (125.8, 45.2, 70.4, 1.10, 9.4, 17.0, 34.4), "MASt3R paper, val"
    ),
    *published_row(
        _OWN_DEPTH, _METRICS, (48.7, 79.3, 93.3, 0.36, 2.2, 54.7, 74.0), "MASt3R paper, test"
    ),
)
