"""What maps are made of: RGB-D images, COLMAP models, our own reconstructions.

Whatever part cannot be used (a photograph that is not there, a depth map of another shape) is left
out, and said by name with its reason.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError, InputError
from matcher.geometry.camera import resize_camera
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.localization.lifting import (
    DepthPoints,
    PointmapPoints,
    PointSource,
    TrackedPoints,
    check_aspect,
)
from matcher.localization.references import DepthFile, Reference, photograph_size
from matcher.reconstruction.model import DensePoints, Reconstruction, RegisteredImage
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = ["Depth", "Found", "from_reconstruction", "from_rgbd", "read_rgbd_list"]

Depth: TypeAlias = str | os.PathLike[str] | npt.NDArray[np.floating[Any]]

# The network sees 512 pixels: its matches are good to about a hundredth of a photograph's side.
_REACH, _SNAP = 0.015, 0.004  # shares of the diagonal


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What of a map can be used.

    Attributes:
        references: the photographs that know something.
        missing: name of every other, and why it is left out.
    """

    references: tuple[Reference, ...]
    missing: Mapping[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class RgbdImage:
    """A photograph with its depth and its place, not yet looked at."""

    name: str
    image: Path
    depth: Depth
    cam_from_world: Pose
    camera: Camera
    depth_scale: float


def from_rgbd(images: Sequence[RgbdImage]) -> Found:
    """References that know a depth map each."""
    return _collect((image.name, partial(_rgbd_reference, image)) for image in images)


def from_reconstruction(
    reconstruction: Reconstruction, images: Path, min_confidence: float
) -> Found:
    """References that know their pointmap, or else the triangulated points they observe.

    Args:
        reconstruction: photographs in one frame.
        images: the folder that the photographs' names are relative to.
        min_confidence: points of pointmaps below are left out.
    """
    tracked = _tracked_points(reconstruction)
    found = _collect(
        (
            image.name,
            partial(_registered_reference, image, images, tracked[number], min_confidence),
        )
        for number, image in enumerate(reconstruction.images)
    )
    return Found(found.references, {**found.missing, **reconstruction.unregistered})


def read_rgbd_list(path: Path) -> tuple[list[RgbdImage], dict[str, str]]:
    """RGB-D images from a file with one JSON object a line.

    Each holds ``image`` and ``depth`` (relative to the file's folder), ``K`` (3 x 3) or ``camera``
    (``model`` and ``params``), ``cam_from_world`` (4 x 4), and ``depth_scale`` (1000 if it is not
    there).

    Returns:
        the images, and the lines that cannot be used, with the reason.

    Raises:
        DatasetError: no such file.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise DatasetError(f"{path}: {reason}") from None
    images, broken = [], {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            images.append(_rgbd_image(json.loads(line), path.parent))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
            broken[f"{path.name}:{number}"] = reason
    return images, broken


def _rgbd_image(entry: Mapping[str, Any], root: Path) -> RgbdImage:
    if "camera" in entry:
        camera = Camera(entry["camera"]["model"], tuple(entry["camera"]["params"]))
    else:
        camera = Camera.from_matrix(entry["K"])
    name = str(entry["image"])
    return RgbdImage(
        name,
        root / name,
        root / str(entry["depth"]),
        Pose.from_matrix(entry["cam_from_world"]),
        camera,
        float(entry.get("depth_scale", 1000.0)),
    )


def _collect(makers: Iterable[tuple[str, Callable[[], Reference]]]) -> Found:
    references: list[Reference] = []
    missing: dict[str, str] = {}
    for name, make in makers:
        if name in missing or any(reference.name == name for reference in references):
            raise InputError("images", "names that appear once", f"{name} twice")
        try:
            references.append(make())
        except InputError as error:
            missing[name] = str(error)
    return Found(tuple(references), missing)


def _rgbd_reference(image: RgbdImage) -> Reference:
    size = photograph_size(image.image)
    camera = _camera_for(image.camera, size)
    points: PointSource
    if isinstance(image.depth, np.ndarray):
        depth = image.depth.astype(np.float32) / np.float32(image.depth_scale)
        points = DepthPoints(depth, camera, image.cam_from_world, size)
        if not (depth > 0).any():
            raise InputError("depth map", "a depth somewhere", "none at all")
    else:
        points = DepthFile(Path(image.depth), image.depth_scale, camera, image.cam_from_world, size)
        points.check()
    return Reference(image.name, image.image, camera, image.cam_from_world, size, points)


def _registered_reference(
    image: RegisteredImage,
    root: Path,
    tracked: tuple[FloatArray, FloatArray],
    min_confidence: float,
) -> Reference:
    path = root / image.name
    size = photograph_size(path)
    camera = _camera_for(image.camera, size, image.size)
    to_photograph = resize_transform(image.size, size)
    points: PointSource
    if image.dense is not None:
        points = _pointmap(image.dense, to_photograph, image.center, min_confidence)
    else:
        keypoints, positions = tracked
        if not len(positions):
            raise InputError("points", "3-D points that the photograph observes", "none")
        points = TrackedPoints(
            transform_keypoints(to_photograph, keypoints),
            positions,
            _REACH * size.diagonal,
            _SNAP * size.diagonal,
        )
    return Reference(image.name, path, camera, image.cam_from_world, size, points)


def _pointmap(
    dense: DensePoints, to_photograph: FloatArray, center: FloatArray, min_confidence: float
) -> PointmapPoints:
    sure = (dense.confidence > 0) & (dense.confidence >= min_confidence)
    if not sure.any():
        raise InputError("points", f"points of a confidence of at least {min_confidence:g}", "none")
    return PointmapPoints(
        np.where(sure[..., None], dense.points, np.float32(np.nan)),
        to_photograph @ dense.original_from_network,
        center,
    )


def _tracked_points(reconstruction: Reconstruction) -> list[tuple[FloatArray, FloatArray]]:
    """For each image its keypoints with a point, and these points."""
    points = reconstruction.points
    observed = []
    for number in range(len(reconstruction.images)):
        rows = np.flatnonzero(points.observation_image == number)
        positions = points.positions[points.observation_point[rows]]
        observed.append((points.observation_keypoint[rows], positions))
    return observed


def _camera_for(camera: Camera, size: ImageSize, known: ImageSize | None = None) -> Camera:
    """The camera for the photograph as it is stored, which may be smaller than it was."""
    held_for = known or camera.size
    if held_for is None or held_for == size:
        return Camera(camera.model, camera.params, size)
    check_aspect("camera", held_for, size)
    return resize_camera(camera, size, held_for)
