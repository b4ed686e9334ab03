"""Maps on disk: a folder with ``map.json``, a file of points a reference, and a retrieval index.

``map.json`` names every other file with its checksum, and holds a checksum of itself. The
photographs are not copied: it says where they are, relative to the map's folder where that works.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError, InputError
from matcher.localization.lifting import (
    DepthPoints,
    Lifted,
    MatchArrays,
    PointmapPoints,
    PointSource,
    TrackedPoints,
)
from matcher.localization.references import (
    DepthFile,
    Reference,
    common_root,
    photograph_size,
    read_depth,
)
from matcher.localization.retrieval import RetrievalIndex
from matcher.localization.sources import Found
from matcher.photographs import file_sha256
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["MAP_NAME", "StoredPoints", "read_map", "write_map"]

MAP_NAME = "map.json"
_FORMAT = 1
_POINTS, _RETRIEVAL = "points", "retrieval.npz"
_BROKEN = (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile)


@dataclass(frozen=True, slots=True, eq=False)
class StoredPoints:
    """What a reference knows, read from the map's folder when it is needed.

    Attributes:
        path: the file.
        sha256: its checksum.
        reference: everything but the points.
    """

    path: Path
    sha256: str
    reference: Reference

    def lift(self, matches: MatchArrays) -> Lifted:
        """The matches whose 3-D point is known.

        Raises:
            DatasetError: the file is gone or broken.
        """
        return self.read().lift(matches)

    def read(self) -> PointSource:
        """The points.

        Raises:
            DatasetError: the file is gone or broken.
        """
        try:
            content = self.path.read_bytes()
            if hashlib.sha256(content).hexdigest() != self.sha256:
                raise ValueError("its checksum is wrong")
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return _points_from(dict(stored), self.reference)
        except _BROKEN as error:
            raise DatasetError(f"{self.path}: broken points of a map ({_line(error)})") from None


def write_map(
    folder: Path, found: Found, is_metric: bool, retrieval: RetrievalIndex | None
) -> None:
    """Write a map, whole or not at all.

    Raises:
        InputError: as ``ReferenceMap.save``.
    """
    if any(reference.points is None for reference in found.references):
        raise InputError("map", "photographs with 3-D points", "a single photograph without")
    if folder.exists() and not (folder / MAP_NAME).is_file():
        raise InputError("map folder", "a new folder, or one that holds a map", f"{folder}")
    # Beside the target, so that the rename cannot cross file systems.
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        (temporary / _POINTS).mkdir(parents=True)
        _write_parts(temporary, folder, found, is_metric, retrieval)
        _take_place(temporary, folder)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise InputError("map folder", "a place to write to", f"{folder}: {reason}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def read_map(folder: Path, images: Path | None) -> tuple[Found, bool, RetrievalIndex | None]:
    """A map's usable references, whether it is metric, and its retrieval index.

    Raises:
        DatasetError: no map there, or a broken one.
    """
    path = folder / MAP_NAME
    if not path.is_file():
        raise DatasetError(f"no map at {folder} ({MAP_NAME} is missing)")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        content = document["content"]
        if document["sha256"] != _checksum(content):
            raise ValueError("its checksum is wrong")
        if content["format"] != _FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {_FORMAT}")
        found = _read_references(folder, content, images)
        index = None
        if content["retrieval"] is not None:
            if file_sha256(folder / _RETRIEVAL) != content["retrieval"]:
                raise ValueError(f"the checksum of {_RETRIEVAL} is wrong")
            index = RetrievalIndex.load(folder / _RETRIEVAL)
    except _BROKEN as error:
        if isinstance(error, InputError | DatasetError):
            raise
        raise DatasetError(f"{path}: a broken map ({_line(error)})") from None
    if index is not None and found.missing:
        index = index.subset([reference.name for reference in found.references])
    return found, bool(content["is_metric"]), index


def _write_parts(
    temporary: Path,
    folder: Path,
    found: Found,
    is_metric: bool,
    retrieval: RetrievalIndex | None,
) -> None:
    root = common_root([reference.path for reference in found.references])
    entries = []
    for number, reference in enumerate(found.references):
        name = f"{_POINTS}/{number:06d}.npz"
        with (temporary / name).open("wb") as stream:
            np.savez_compressed(stream, **_arrays_of(reference.points))
        assert reference.camera is not None  # only a single photograph may lack one
        entries.append(
            {
                "name": reference.name,
                "image": Path(os.path.abspath(reference.path)).relative_to(root).as_posix(),
                "size": [reference.size.height, reference.size.width],
                "camera": [reference.camera.model, *reference.camera.params],
                "cam_from_world": reference.cam_from_world.matrix[:3].tolist(),
                "points": name,
                "sha256": file_sha256(temporary / name),
            }
        )
    checksum = None
    if retrieval is not None:
        retrieval.save(temporary / _RETRIEVAL)
        checksum = file_sha256(temporary / _RETRIEVAL)
    content = {
        "format": _FORMAT,
        "is_metric": is_metric,
        "images": [os.path.relpath(root, os.path.abspath(folder)), str(root)],
        "references": entries,
        "missing": dict(found.missing),
        "retrieval": checksum,
    }
    document = {"content": content, "sha256": _checksum(content)}
    (temporary / MAP_NAME).write_text(json.dumps(document, indent=1), encoding="utf-8")


def _take_place(temporary: Path, folder: Path) -> None:
    """The new folder under the old one's name; the old one comes back if that fails."""
    if not folder.exists():
        temporary.rename(folder)
        return
    old = temporary.with_suffix(".old")
    folder.rename(old)
    try:
        temporary.rename(folder)
    except OSError:
        old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _read_references(folder: Path, content: Mapping[str, Any], images: Path | None) -> Found:
    """Photographs in their old place, or by name below ``images``."""
    references = []
    missing = dict(content["missing"])
    root = images if images is not None else _root(folder, content)
    for entry in content["references"]:
        name = str(entry["name"])
        path = root / (name if images is not None else entry["image"])
        size = ImageSize(*entry["size"])
        try:
            stored = photograph_size(path)
            if stored != size:
                raise InputError(
                    "photograph",
                    f"{size.width} x {size.height} pixels, as when the map was built",
                    f"{stored.width} x {stored.height}",
                )
        except InputError as error:
            missing[name] = str(error)
            continue
        model, *params = entry["camera"]
        bare = Reference(
            name,
            path,
            Camera(model, tuple(params), size),
            Pose.from_matrix(entry["cam_from_world"]),
            size,
            None,
        )
        points = StoredPoints(folder / entry["points"], str(entry["sha256"]), bare)
        references.append(replace(bare, points=points))
    return Found(tuple(references), missing)


def _root(folder: Path, content: Mapping[str, Any]) -> Path:
    """Where the photographs are: relative to the map if they moved along, else where they were."""
    relative, absolute = content["images"]
    moved_along = folder / relative
    first = content["references"][0]["image"]
    return moved_along if (moved_along / first).is_file() else Path(absolute)


def _arrays_of(points: PointSource | None) -> dict[str, Any]:
    if isinstance(points, StoredPoints):
        points = points.read()
    if isinstance(points, DepthFile):
        depth = read_depth(points.path)
        stored = depth.astype(np.uint16)
        # Sixteen bits, where that is what it was, compress better than floats.
        return {
            "depth": stored if np.array_equal(stored, depth) else depth,
            "depth_scale": np.array(points.depth_scale),
        }
    if isinstance(points, DepthPoints):
        return {"depth": points.depth, "depth_scale": np.array(1.0)}
    if isinstance(points, PointmapPoints):
        return {"pointmap": points.points, "original_from_network": points.original_from_network}
    assert isinstance(points, TrackedPoints)
    return {
        "keypoints": points.keypoints,
        "positions": points.points,
        "reach_px": np.array([points.reach_px, points.snap_px]),
    }


def _points_from(arrays: Mapping[str, npt.NDArray[Any]], reference: Reference) -> PointSource:
    assert reference.camera is not None
    pose = reference.cam_from_world
    if "depth" in arrays:
        depth = np.asarray(arrays["depth"] / arrays["depth_scale"], np.float32)
        return DepthPoints(depth, reference.camera, pose, reference.size)
    if "pointmap" in arrays:
        return PointmapPoints(
            arrays["pointmap"], arrays["original_from_network"], pose.inverse.translation
        )
    reach_px, snap_px = map(float, arrays["reach_px"])
    return TrackedPoints(arrays["keypoints"], arrays["positions"], reach_px, snap_px)


def _checksum(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"no {text}" if isinstance(error, KeyError) else text
