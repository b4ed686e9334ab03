"""The manifest of training data: one JSON object a line, a posed view or a pair of images.

Both kinds may stand in one manifest; who reads views leaves out the pairs.

A view record::

    {"image": path, "K": 3x3, "cam_from_world": 4x4, "depth": path, "depth_scale": number,
     "group": name}

``depth`` (a single-channel image whose values divided by ``depth_scale`` are metres along the
optical axis) may be absent; ``group`` names the place and defaults to the manifest's folder.

A pair record::

    {"image0": path, "image1": path, "K0": 3x3, "K1": 3x3, "cam1_from_cam0": 4x4,
     "correspondences": path, "group": name}

``correspondences`` is an ``.npz`` with ``keypoints0`` and ``keypoints1``, (N, 2) float32 pixels, x
then y, integer = pixel centre; ``K0``, ``K1`` and ``cam1_from_cam0`` may be absent: matches alone
are enough to train on. Paths are relative to the manifest. Matrices use OpenCV camera axes, and
images are free of lens distortion.
"""

from __future__ import annotations

import json
import os
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError, InputError
from matcher.files import replaced
from matcher.structures import Camera, Pose
from matcher.training.manifest_lines import ManifestLine, manifest_texts, one_line

__all__ = [
    "CorrespondencePair",
    "PosedView",
    "read_correspondences",
    "read_manifest",
    "read_pairs",
    "read_record",
    "read_views",
    "write_correspondences",
    "write_pairs",
    "write_views",
]

# What a file that is no whole archive makes NumPy raise.
_BROKEN_ARCHIVE = (
    OSError,
    KeyError,
    ValueError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)
KeypointArray = npt.NDArray[np.float32]


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
        camera0, camera1: their pinhole cameras, or ``None``: the training does not need them.
        correspondences: path of the ``.npz`` that ``read_correspondences`` reads.
        group: name of the place.
        cam1_from_cam0: relative pose, translation up to scale, or ``None``.
    """

    image0: Path
    image1: Path
    camera0: Camera | None
    camera1: Camera | None
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
    return [record for record in read_manifest(path) if isinstance(record, PosedView)]


def read_pairs(path: str | os.PathLike[str]) -> list[CorrespondencePair]:
    """Read a manifest of pairs; image and correspondence files must exist (they are not opened).

    Raises:
        DatasetError: the manifest or a file it names is missing, or a line is malformed; the
            message names the manifest and the line.
    """
    return [record for record in read_manifest(path) if isinstance(record, CorrespondencePair)]


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
    except _BROKEN_ARCHIVE as error:
        raise DatasetError(f"{path}: cannot read correspondences: {one_line(error)}") from error
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


def read_record(line: ManifestLine) -> PosedView | CorrespondencePair:
    """The view or pair of a line; raises ``DatasetError`` where it is neither."""
    is_pair = any(line.has(key) for key in ("image0", "image1", "correspondences"))
    try:
        return _parse_pair(line) if is_pair else _parse_view(line)
    except InputError as error:
        raise line.error(one_line(error)) from error


def read_manifest(path: str | os.PathLike[str]) -> list[PosedView | CorrespondencePair]:
    """Read all views and pairs of a manifest, in its order.

    Raises:
        DatasetError: the manifest or a file it names is missing, or a line is malformed; the
            message names the manifest and the line.
    """
    manifest = Path(path)
    texts = manifest_texts(manifest)
    return [read_record(ManifestLine(manifest, number, text)) for number, text in texts]


def _parse_view(line: ManifestLine) -> PosedView:
    has_depth = line.has("depth")
    return PosedView(
        image=line.file("image"),
        camera=line.camera("K"),
        cam_from_world=line.pose("cam_from_world"),
        group=line.group(),
        depth=line.file("depth") if has_depth else None,
        depth_scale=line.number_of("depth_scale") if has_depth else None,
    )


def _parse_pair(line: ManifestLine) -> CorrespondencePair:
    return CorrespondencePair(
        image0=line.file("image0"),
        image1=line.file("image1"),
        camera0=line.camera("K0") if line.has("K0") else None,
        camera1=line.camera("K1") if line.has("K1") else None,
        correspondences=line.file("correspondences"),
        group=line.group(),
        cam1_from_cam0=line.pose("cam1_from_cam0") if line.has("cam1_from_cam0") else None,
    )


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
        "correspondences": _relative(pair.correspondences, folder),
        "group": pair.group,
    }
    for key, camera in (("K0", pair.camera0), ("K1", pair.camera1)):
        if camera is not None:
            record[key] = camera.matrix.tolist()
    if pair.cam1_from_cam0 is not None:
        record["cam1_from_cam0"] = pair.cam1_from_cam0.matrix.tolist()
    return record


def _write(manifest: Path, records: Iterable[dict[str, Any]]) -> None:
    with replaced(manifest) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record) + "\n")


def _relative(path: Path, folder: Path) -> str:
    return Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
