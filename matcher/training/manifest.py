"""The manifest of training data: one JSON object a line, a posed view or a pair of images.

A view record::

    {"image": path, "K": 3x3, "cam_from_world": 4x4, "depth": path, "depth_scale": number,
     "group": name}

``depth`` (a single-channel image whose values divided by ``depth_scale`` are metres along the
optical axis) may be absent; ``group`` names the place and defaults to the manifest's folder.

A pair record::

    {"image0": path, "image1": path, "K0": 3x3, "K1": 3x3, "cam1_from_cam0": 4x4,
     "correspondences": path, "group": name}

``correspondences`` is an ``.npz`` with ``keypoints0`` and ``keypoints1``, (N, 2) float32 pixels, x
then y, integer = pixel centre; ``cam1_from_cam0`` may be absent. Paths are relative to the
manifest. Matrices use OpenCV camera axes, and images are free of lens distortion.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError, InputError
from matcher.files import replaced
from matcher.structures import Camera, FloatArray, Pose

__all__ = [
    "CorrespondencePair",
    "PosedView",
    "read_correspondences",
    "read_pairs",
    "read_views",
    "write_correspondences",
    "write_pairs",
    "write_views",
]

KeypointArray = npt.NDArray[np.float32]
_Record = TypeVar("_Record")


@dataclass(frozen=True, slots=True, eq=False)
class PosedView:
    """One photograph with its camera and pose, and perhaps its depth.

    Attributes:
        image: path of the photograph.
        camera: its pinhole camera.
        cam_from_world: its pose, in units of the place (metres where there is depth).
        group: name of the place; only views of one group share a world frame.
        depth: path of the depth image, or ``None``.
        depth_scale: stored depth units a metre; ``None`` exactly where ``depth`` is.
    """

    image: Path
    camera: Camera
    cam_from_world: Pose
    group: str
    depth: Path | None = None
    depth_scale: float | None = None

    def __post_init__(self) -> None:
        if (self.depth is None) != (self.depth_scale is None):
            raise InputError(
                "depth_scale", "a number exactly where there is depth", f"{self.depth_scale}"
            )
        if self.depth_scale is not None and not 0 < self.depth_scale < float("inf"):
            raise InputError("depth_scale", "a positive finite number", f"{self.depth_scale}")


@dataclass(frozen=True, slots=True, eq=False)
class CorrespondencePair:
    """Two photographs with known correspondences.

    Attributes:
        image0, image1: paths of the photographs.
        camera0, camera1: their pinhole cameras.
        correspondences: path of the ``.npz`` that ``read_correspondences`` reads.
        group: name of the place.
        cam1_from_cam0: relative pose, translation up to scale, or ``None``.
    """

    image0: Path
    image1: Path
    camera0: Camera
    camera1: Camera
    correspondences: Path
    group: str
    cam1_from_cam0: Pose | None = None

    @property
    def rotation_degrees(self) -> float | None:
        """Angle of the relative rotation in [0, 180], or ``None`` without a pose."""
        if self.cam1_from_cam0 is None:
            return None
        cosine = (np.trace(self.cam1_from_cam0.rotation) - 1.0) / 2.0
        return float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0))))


def read_views(path: str | os.PathLike[str]) -> list[PosedView]:
    """Read a manifest of posed views; image and depth files must exist.

    Raises:
        DatasetError: the manifest or a file it names is missing, or a line is malformed; the
            message names the manifest and the line.
    """
    return list(_read(Path(path), _parse_view))


def read_pairs(path: str | os.PathLike[str]) -> list[CorrespondencePair]:
    """Read a manifest of pairs; image and correspondence files must exist (they are not opened).

    Raises:
        DatasetError: the manifest or a file it names is missing, or a line is malformed; the
            message names the manifest and the line.
    """
    return list(_read(Path(path), _parse_pair))


def write_views(path: str | os.PathLike[str], views: Iterable[PosedView]) -> None:
    """Write a manifest of views, all at once: readers see the old file or the whole new one."""
    manifest = Path(path)
    _write(manifest, (_view_record(view, manifest.parent) for view in views))


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[CorrespondencePair]) -> None:
    """Write a manifest of pairs, all at once: readers see the old file or the whole new one."""
    manifest = Path(path)
    _write(manifest, (_pair_record(pair, manifest.parent) for pair in pairs))


def read_correspondences(path: str | os.PathLike[str]) -> tuple[KeypointArray, KeypointArray]:
    """Read the matched pixels of a pair: two (N, 2) float32 arrays, row i matches row i.

    Raises:
        DatasetError: the file is missing, is no such archive, or holds other shapes or NaN.
    """
    try:
        # NumPy leaves the file open when it holds no archive: it is closed here.
        with Path(path).open("rb") as file, np.load(file, allow_pickle=False) as archive:
            keypoints0 = np.asarray(archive["keypoints0"], dtype=np.float32)
            keypoints1 = np.asarray(archive["keypoints1"], dtype=np.float32)
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: cannot read correspondences: {_one_line(error)}") from error
    if keypoints0.ndim != 2 or keypoints0.shape[1:] != (2,) or keypoints0.shape != keypoints1.shape:
        raise DatasetError(
            f"{path}: expected two arrays of shape (N, 2), "
            f"got {keypoints0.shape} and {keypoints1.shape}"
        )
    if not (np.isfinite(keypoints0).all() and np.isfinite(keypoints1).all()):
        raise DatasetError(f"{path}: expected finite pixels, got NaN or infinity")
    return keypoints0, keypoints1


def write_correspondences(
    path: str | os.PathLike[str], keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike
) -> None:
    """Write the (N, 2) matched pixels of a pair, all at once."""
    with replaced(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            keypoints0=np.asarray(keypoints0, dtype=np.float32),
            keypoints1=np.asarray(keypoints1, dtype=np.float32),
        )


class _Line:
    """One record being read: typed access to its fields, errors that name file and line."""

    def __init__(self, manifest: Path, number: int, text: str) -> None:
        self.manifest = manifest
        self.number = number
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise self.error(f"not JSON ({_one_line(error)})") from error
        if not isinstance(fields, dict):
            raise self.error(f"expected a JSON object, got {type(fields).__name__}")
        self.fields: dict[str, Any] = fields

    def error(self, problem: str) -> DatasetError:
        return DatasetError(f"{self.manifest}:{self.number}: {problem}")

    def has(self, key: str) -> bool:
        return self.fields.get(key) is not None

    def text(self, key: str) -> str:
        value = self.fields.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"{key}: expected a string, got {value!r}")
        return value

    def file(self, key: str) -> Path:
        path = self.manifest.parent / self.text(key)
        if not path.is_file():
            raise self.error(f"{key}: no such file: {path}")
        return path

    def number_of(self, key: str) -> float:
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{key}: expected a number, got {value!r}")
        return float(value)

    def matrix(self, key: str, size: int) -> FloatArray:
        try:
            matrix = np.asarray(self.fields.get(key), dtype=np.float64)
        except (TypeError, ValueError):
            raise self.error(f"{key}: expected {size} x {size} numbers") from None
        if matrix.shape != (size, size):
            raise self.error(f"{key}: expected {size} x {size} numbers, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise self.error(f"{key}: expected finite numbers, got NaN or infinity")
        return matrix

    def camera(self, key: str) -> Camera:
        return Camera.from_matrix(self.matrix(key, 3))

    def pose(self, key: str) -> Pose:
        matrix = self.matrix(key, 4)
        if not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0)):
            raise self.error(f"{key}: expected the last row 0 0 0 1, got {matrix[3].tolist()}")
        return Pose.from_matrix(matrix)

    def group(self) -> str:
        return self.text("group") if self.has("group") else self.manifest.resolve().parent.name


def _parse_view(line: _Line) -> PosedView:
    has_depth = line.has("depth")
    return PosedView(
        image=line.file("image"),
        camera=line.camera("K"),
        cam_from_world=line.pose("cam_from_world"),
        group=line.group(),
        depth=line.file("depth") if has_depth else None,
        depth_scale=line.number_of("depth_scale") if has_depth else None,
    )


def _parse_pair(line: _Line) -> CorrespondencePair:
    return CorrespondencePair(
        image0=line.file("image0"),
        image1=line.file("image1"),
        camera0=line.camera("K0"),
        camera1=line.camera("K1"),
        correspondences=line.file("correspondences"),
        group=line.group(),
        cam1_from_cam0=line.pose("cam1_from_cam0") if line.has("cam1_from_cam0") else None,
    )


def _read(manifest: Path, parse: Callable[[_Line], _Record]) -> Iterator[_Record]:
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest}: cannot read the manifest: {_one_line(error)}") from error
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        line = _Line(manifest, number, text)
        try:
            yield parse(line)
        except InputError as error:
            raise line.error(_one_line(error)) from error


def _view_record(view: PosedView, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image": _relative(view.image, folder),
        "K": view.camera.matrix.tolist(),
        "cam_from_world": view.cam_from_world.matrix.tolist(),
        "group": view.group,
    }
    if view.depth is not None:
        record["depth"] = _relative(view.depth, folder)
        record["depth_scale"] = view.depth_scale
    return record


def _pair_record(pair: CorrespondencePair, folder: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "image0": _relative(pair.image0, folder),
        "image1": _relative(pair.image1, folder),
        "K0": pair.camera0.matrix.tolist(),
        "K1": pair.camera1.matrix.tolist(),
        "correspondences": _relative(pair.correspondences, folder),
        "group": pair.group,
    }
    if pair.cam1_from_cam0 is not None:
        record["cam1_from_cam0"] = pair.cam1_from_cam0.matrix.tolist()
    return record


def _write(manifest: Path, records: Iterable[dict[str, Any]]) -> None:
    with replaced(manifest) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
