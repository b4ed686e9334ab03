"""Cameras and poses as pycolmap's types, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from matcher.colmap.library import import_pycolmap
from matcher.errors import DatasetError, InputError
from matcher.geometry.pixels import camera_from_colmap, camera_to_colmap
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["camera_from_pycolmap", "camera_to_pycolmap", "pose_to_pycolmap"]

_NO_DISTORTION = (0.0, 0.0, 0.0, 0.0)


def camera_from_pycolmap(camera: Any, image: str) -> Camera:
    """Our camera for one of pycolmap's.

    Args:
        camera: a ``pycolmap.Camera``.
        image: name of an image that it took, for the message.

    Raises:
        DatasetError: a lens that is not one of ours, or parameters that make no camera.
    """
    name = str(getattr(camera, "model_name", None) or camera.model.name)
    params = tuple(float(value) for value in camera.params)
    try:
        size = ImageSize(int(camera.height), int(camera.width))
        return camera_from_colmap(_converted(name, params, size))
    except InputError as error:
        raise DatasetError(f"camera of {image}: {error}") from None


def _converted(model: str, params: tuple[float, ...], size: ImageSize) -> Camera:
    if model in ("PINHOLE", "SIMPLE_RADIAL", "OPENCV"):
        return Camera(model, params, size)  # type: ignore[arg-type]
    if model == "SIMPLE_PINHOLE":
        focal, cx, cy = params
        return Camera.pinhole(focal, focal, cx, cy, size)
    if model == "RADIAL":
        focal, cx, cy, k1, k2 = params
        return Camera("OPENCV", (focal, focal, cx, cy, k1, k2, 0.0, 0.0), size)
    if model == "FULL_OPENCV" and params[8:] == _NO_DISTORTION:
        return Camera("OPENCV", params[:8], size)
    raise InputError(
        "camera model",
        "SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL or OPENCV (undistort the images first)",
        model,
    )


def camera_to_pycolmap(
    camera: Camera, size: ImageSize, *, identifier: int, is_known: bool = True
) -> Any:
    """A ``pycolmap.Camera`` for one of ours.

    Args:
        camera: intrinsics in our pixels.
        size: of its photographs; stands for ``camera.size``.
        identifier: COLMAP's number for it, from 1.
        is_known: whether COLMAP may trust the focal length (its prior-focal flag).
    """
    pycolmap = import_pycolmap("writing COLMAP cameras")
    shifted = camera_to_colmap(replace(camera, size=size))
    made = pycolmap.Camera(
        model=shifted.model,
        width=size.width,
        height=size.height,
        params=list(shifted.params),
        camera_id=identifier,
    )
    made.has_prior_focal_length = is_known
    return made


def pose_to_pycolmap(pose: Pose) -> Any:
    """A ``pycolmap.Rigid3d`` for one of our poses."""
    pycolmap = import_pycolmap("writing COLMAP poses")
    return pycolmap.Rigid3d(pycolmap.Rotation3d(pose.rotation), pose.translation)
