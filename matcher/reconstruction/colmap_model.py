"""Reconstructions as COLMAP models: ``cameras``, ``images`` and ``points3D``, binary or text."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.colmap import (
    camera_from_pycolmap,
    camera_to_pycolmap,
    import_pycolmap,
    observations_of,
    open_model,
    pose_of,
    pose_to_pycolmap,
    quiet,
    reason_of,
)
from matcher.errors import DatasetError, InputError
from matcher.geometry.pixels import keypoints_to_colmap
from matcher.reconstruction.model import Reconstruction, RegisteredImage, SparsePoints
from matcher.structures import Camera, FloatArray, ImageSize

__all__ = ["from_pycolmap", "read_model", "to_pycolmap", "write_model"]

_STEMS = ("rigs", "cameras", "frames", "images", "points3D")


def read_model(folder: str | os.PathLike[str]) -> Reconstruction:
    """The reconstruction in a folder of a COLMAP model, binary or text.

    A model without 3-D points gives a reconstruction without points. Images in it without a pose
    are listed as unregistered; keypoints whose 3-D point is not there are left out.

    Raises:
        DatasetError: no such folder, a file of the model is not there or cannot be read, a camera
            whose lens is not one of ours (the message names the image).
        MissingDependencyError: pycolmap is not installed.
    """
    source = Path(folder)
    try:
        return from_pycolmap(open_model(source, "reading COLMAP models"))
    except (DatasetError, InputError) as error:
        message = str(error)
        raise DatasetError(
            message if message.startswith(f"{source}") else f"{source}: {message}"
        ) from None


def from_pycolmap(model: Any) -> Reconstruction:
    """Our reconstruction for a ``pycolmap.Reconstruction``; images in the order of their numbers.

    Raises:
        DatasetError: a camera whose lens is not one of ours (the message names the image).
    """
    images: list[RegisteredImage] = []
    unregistered: dict[str, str] = {}
    seen_points, seen_images, seen_keypoints = [], [], []
    for _, image in sorted(model.images.items()):
        pose = pose_of(image)
        if pose is None:
            unregistered[str(image.name)] = "it has no pose in the COLMAP model"
            continue
        camera = camera_from_pycolmap(model.cameras[image.camera_id], str(image.name))
        keypoints, identifiers = observations_of(image)
        seen_points.append(identifiers)
        seen_images.append(np.full(len(identifiers), len(images), np.int64))
        seen_keypoints.append(keypoints)
        assert camera.size is not None  # what comes from a COLMAP camera has its size
        images.append(RegisteredImage(str(image.name), camera, pose, camera.size))
    if not images:
        return Reconstruction((), SparsePoints.empty(), unregistered)
    points = _points_from(model, seen_points, seen_images, seen_keypoints)
    return Reconstruction(tuple(images), points, unregistered)


def _points_from(
    model: Any,
    seen_points: list[npt.NDArray[np.int64]],
    seen_images: list[npt.NDArray[np.int64]],
    seen_keypoints: list[FloatArray],
) -> SparsePoints:
    numbered = sorted(model.points3D.items())
    if any(point.error < 0 for _, point in numbered):
        model.update_point_3d_errors()
        numbered = sorted(model.points3D.items())
    identifiers = np.array([number for number, _ in numbered], dtype=np.int64)
    observed = np.concatenate(seen_points)
    # Points taken out of a model leave their numbers behind in its images.
    there = np.isin(observed, identifiers)
    return SparsePoints(
        positions=np.array([p.xyz for _, p in numbered], dtype=np.float64).reshape(-1, 3),
        colors=np.array([p.color for _, p in numbered], dtype=np.uint8).reshape(-1, 3),
        errors_px=np.array([p.error for _, p in numbered], dtype=np.float64),
        observation_point=np.searchsorted(identifiers, observed[there]).astype(np.int64),
        observation_image=np.concatenate(seen_images)[there],
        observation_keypoint=np.concatenate(seen_keypoints)[there],
    )


def write_model(
    reconstruction: Reconstruction, folder: str | os.PathLike[str], *, binary: bool = True
) -> None:
    """Write a reconstruction as a COLMAP model that pycolmap and the COLMAP program read.

    Photographs of one size with equal intrinsics share a camera. Dense points, reasons of
    unregistered photographs, the model's name and whether the world is metric have no place in
    these files. A model that was in the folder, in either format, is replaced once the new one is
    whole; other files there stay.

    Args:
        reconstruction: what to write.
        folder: made if it is not there.
        binary: ``*.bin`` files; otherwise ``*.txt``.

    Raises:
        DatasetError: the files cannot be written; what was in the folder is as it was.
        InputError: a photograph's name with a blank, which COLMAP cannot read from text.
        MissingDependencyError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap("writing COLMAP models")
    for name in reconstruction.names:
        if not binary and name.split() != [name]:
            raise InputError(
                "image name", "no blank in a model written as text; write it binary", f"{name!r}"
            )
    model = to_pycolmap(reconstruction)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Inside the target, so that the renames cannot cross file systems.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target) as staging:
            with quiet(pycolmap):
                (model.write_binary if binary else model.write_text)(staging)
            _check_whole(Path(staging), reconstruction)
            _publish(Path(staging), target)
    except Exception as error:  # pycolmap raises whatever its checks and streams throw
        raise DatasetError(
            f"{target}: cannot write the COLMAP model ({reason_of(error)})"
        ) from None


def _publish(staging: Path, target: Path) -> None:
    written = {path.name for path in staging.iterdir()}
    for name in sorted(written):
        (staging / name).replace(target / name)
    # A model of the other format would be read in place of this one.
    for name in {f"{stem}{suffix}" for stem in _STEMS for suffix in (".bin", ".txt")} - written:
        (target / name).unlink(missing_ok=True)


def _check_whole(folder: Path, reconstruction: Reconstruction) -> None:
    # COLMAP's streams do not report a full disk; what was cut short does not read back.
    model = open_model(folder, "checking COLMAP models")
    if (model.num_reg_images(), model.num_points3D()) != (
        len(reconstruction.images),
        len(reconstruction.points),
    ):
        raise OSError("what was written does not read back")


def to_pycolmap(reconstruction: Reconstruction) -> Any:
    """A ``pycolmap.Reconstruction`` with images and points numbered from 1 in our order.

    Raises:
        MissingDependencyError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap("writing COLMAP models")
    model = pycolmap.Reconstruction()
    numbers: dict[tuple[Camera, ImageSize], int] = {}
    points = reconstruction.points
    by_image = np.argsort(points.observation_image, kind="stable")
    starts = np.searchsorted(
        points.observation_image[by_image], np.arange(len(reconstruction.images) + 1)
    )
    place = np.zeros(len(by_image), np.int64)  # of an observation, among those of its image
    for index, image in enumerate(reconstruction.images):
        key = (image.camera, image.size)
        if key not in numbers:
            numbers[key] = len(numbers) + 1
            model.add_camera_with_trivial_rig(camera_to_pycolmap(*key, identifier=numbers[key]))
        rows = by_image[starts[index] : starts[index + 1]]
        place[rows] = np.arange(len(rows))
        made = pycolmap.Image(
            name=image.name,
            keypoints=keypoints_to_colmap(points.observation_keypoint[rows]),
            camera_id=numbers[key],
            image_id=index + 1,
        )
        model.add_image_with_trivial_frame(made, pose_to_pycolmap(image.cam_from_world))
    _add_points(pycolmap, model, points, place)
    return model


def _add_points(
    pycolmap: Any, model: Any, points: SparsePoints, place: npt.NDArray[np.int64]
) -> None:
    by_point = np.argsort(points.observation_point, kind="stable")
    starts = np.searchsorted(points.observation_point[by_point], np.arange(len(points) + 1))
    images = (points.observation_image + 1).tolist()
    places = place.tolist()
    for index in range(len(points)):
        rows = by_point[starts[index] : starts[index + 1]].tolist()
        track = pycolmap.Track([pycolmap.TrackElement(images[r], places[r]) for r in rows])
        made = pycolmap.Point3D(
            xyz=points.positions[index],
            color=points.colors[index],
            error=float(points.errors_px[index]),
            track=track,
        )
        model.add_point3D_with_id(index + 1, made)
