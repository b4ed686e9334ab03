"""Cameras at work: projection, lens distortion, resizing, and cameras written as text.

Lens distortion is OpenCV's polynomial model, which kornia implements; ``SIMPLE_RADIAL`` is the
same model with one coefficient.
"""

from __future__ import annotations

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import InputError
from matcher.geometry.pixels import image_center, resize_transform
from matcher.structures import Camera, FloatArray, ImageSize, as_keypoints

__all__ = [
    "bearing_vectors",
    "camera_from_focal",
    "denormalize",
    "distort_keypoints",
    "has_distortion",
    "normalize",
    "parse_camera",
    "project",
    "resize_camera",
    "undistort_keypoints",
    "undistorted_camera",
    "unproject",
]

# The inverse of the distortion is a fixed-point iteration. It converges linearly: 5 steps, kornia's
# default, leave pixels of error for a strong lens; the few pixels that 20 steps leave open get 200.
_UNDISTORTION_STEPS = (20, 200)
_CONVERGED_PX = 1e-9
_UNDISTORTION_TOLERANCE_PX = 1e-4


def has_distortion(camera: Camera) -> bool:
    """Whether the lens bends straight lines."""
    return any(value != 0 for value in camera.distortion)


def undistorted_camera(camera: Camera) -> Camera:
    """The pinhole camera in whose pixels :func:`undistort_keypoints` answers."""
    return Camera.pinhole(*camera.focals, *camera.principal_point, camera.size)


def camera_from_focal(focal: float, size: ImageSize) -> Camera:
    """A pinhole camera with square pixels and its principal point in the middle of the image."""
    return Camera.pinhole(focal, focal, *image_center(size), size)


def distort_keypoints(keypoints: npt.ArrayLike, camera: Camera) -> FloatArray:
    """Where the real lens puts (M, 2) pixels of the undistorted pinhole image."""
    pixels = as_keypoints("keypoints", keypoints)
    if not has_distortion(camera) or not len(pixels):
        return pixels.copy()
    distorted: FloatArray = kornia_geometry.distort_points(
        torch.from_numpy(pixels)[None], *_kornia_intrinsics(camera)
    )[0].numpy()
    return distorted


def undistort_keypoints(keypoints: npt.ArrayLike, camera: Camera) -> FloatArray:
    """Pixels of the undistorted pinhole image, with the same focals and principal point.

    Args:
        keypoints: (M, 2) pixels of the photograph, x then y.
        camera: the camera that took it.

    Returns:
        (M, 2); a row is NaN where the lens model has no inverse (beyond the radius at which a
        strongly bent model folds back).
    """
    pixels = as_keypoints("keypoints", keypoints)
    if not has_distortion(camera) or not len(pixels):
        return pixels.copy()
    undistorted = np.full_like(pixels, np.nan)
    errors = np.full(len(pixels), np.inf)
    for steps in _UNDISTORTION_STEPS:
        rows = np.flatnonzero(errors > _CONVERGED_PX)
        if not len(rows):
            break
        undistorted[rows], errors[rows] = _undistort(pixels[rows], camera, steps)
    undistorted[errors > _UNDISTORTION_TOLERANCE_PX] = np.nan
    return undistorted


def _undistort(pixels: FloatArray, camera: Camera, steps: int) -> tuple[FloatArray, FloatArray]:
    """(M, 2) undistorted pixels and the (M,) distances by which they miss when distorted again."""
    undistorted: FloatArray = kornia_geometry.undistort_points(
        torch.from_numpy(pixels)[None], *_kornia_intrinsics(camera), num_iters=steps
    )[0].numpy()
    undistorted[~np.isfinite(undistorted)] = np.inf  # diverged: it misses by infinity, below
    finite = np.where(np.isinf(undistorted), 0.0, undistorted)
    errors = np.linalg.norm(distort_keypoints(finite, camera) - pixels, axis=1)
    errors[np.isinf(undistorted).any(axis=1) | ~np.isfinite(errors)] = np.inf
    return undistorted, errors


def normalize(keypoints: npt.ArrayLike, camera: Camera) -> FloatArray:
    """(M, 2) coordinates x / z, y / z of the viewing rays of (M, 2) pixels, lens removed."""
    undistorted = undistort_keypoints(keypoints, camera)
    rays: FloatArray = (undistorted - np.array(camera.principal_point)) / np.array(camera.focals)
    return rays


def denormalize(coordinates: npt.ArrayLike, camera: Camera) -> FloatArray:
    """(M, 2) pixels of the photograph for (M, 2) ray coordinates x / z, y / z, lens applied."""
    rays = as_keypoints("coordinates", coordinates)
    pinhole = rays * np.array(camera.focals) + np.array(camera.principal_point)
    return distort_keypoints(pinhole, camera)


def bearing_vectors(keypoints: npt.ArrayLike, camera: Camera) -> FloatArray:
    """(M, 3) unit viewing rays of (M, 2) pixels, OpenCV camera axes."""
    rays = normalize(keypoints, camera)
    bearings = np.concatenate([rays, np.ones((len(rays), 1))], axis=1)
    unit: FloatArray = bearings / np.linalg.norm(bearings, axis=1, keepdims=True)
    return unit


def project(points: npt.ArrayLike, camera: Camera) -> FloatArray:
    """Pixels of 3-D points.

    Args:
        points: (M, 3) in the camera's frame (x right, y down, z forward).
        camera: the camera.

    Returns:
        (M, 2) pixels, x then y; NaN for points that are not in front of the camera.
    """
    array = _as_points("points", points)
    pixels = np.full((len(array), 2), np.nan)
    in_front = np.isfinite(array).all(axis=1) & (array[:, 2] > 0)
    pixels[in_front] = denormalize(array[in_front, :2] / array[in_front, 2:], camera)
    return pixels


def unproject(keypoints: npt.ArrayLike, depth: npt.ArrayLike, camera: Camera) -> FloatArray:
    """(M, 3) points in the camera's frame at (M,) depths z along the rays of (M, 2) pixels."""
    rays = normalize(keypoints, camera)
    z = np.asarray(depth, dtype=np.float64)
    if z.shape != (len(rays),):
        raise InputError("depth", f"shape ({len(rays)},)", f"{z.shape}")
    return np.concatenate([rays, np.ones((len(rays), 1))], axis=1) * z[:, None]


def resize_camera(camera: Camera, to_size: ImageSize, from_size: ImageSize | None = None) -> Camera:
    """The camera of the image resized to ``to_size``.

    Args:
        camera: the camera for the image at its present size.
        to_size: size after resizing.
        from_size: present size; ``camera.size`` where it is ``None``.

    Returns:
        The same model, or ``OPENCV`` where one focal cannot express an uneven scale.

    Raises:
        InputError: neither ``from_size`` nor ``camera.size`` is known.
    """
    size = from_size or camera.size
    if size is None:
        raise InputError("from_size", "the size of the image the camera holds for", "None")
    transform = resize_transform(size, to_size)
    fx, fy = camera.focals[0] * transform[0, 0], camera.focals[1] * transform[1, 1]
    cx = camera.principal_point[0] * transform[0, 0] + transform[0, 2]
    cy = camera.principal_point[1] * transform[1, 1] + transform[1, 2]
    if camera.model == "PINHOLE":
        return Camera.pinhole(fx, fy, cx, cy, to_size)
    if camera.model == "SIMPLE_RADIAL" and np.isclose(fx, fy, rtol=1e-12):
        return Camera("SIMPLE_RADIAL", (fx, cx, cy, camera.params[3]), to_size)
    return Camera("OPENCV", (fx, fy, cx, cy, *camera.distortion), to_size)


def parse_camera(text: str, argument: str = "camera", size: ImageSize | None = None) -> Camera:
    """A camera written as text, for the command line.

    Args:
        text: ``fx,fy,cx,cy`` (pinhole) or ``fx,fy,cx,cy,k1,k2,p1,p2`` (OpenCV distortion), pixels.
        argument: how the user calls this value, for the message.
        size: size of the image the camera holds for.

    Raises:
        InputError: another count of numbers, not numbers, a focal that is not positive.
    """
    expected = "fx,fy,cx,cy in pixels, or fx,fy,cx,cy,k1,k2,p1,p2, with positive focals"
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(argument, expected, repr(text)) from None
    if len(numbers) not in (4, 8):
        raise InputError(argument, expected, f"{len(numbers)} numbers in {text!r}")
    try:
        return Camera("PINHOLE" if len(numbers) == 4 else "OPENCV", numbers, size)
    except InputError as error:
        raise InputError(argument, expected, f"{error.argument} {error.actual}") from None


def _kornia_intrinsics(camera: Camera) -> tuple[torch.Tensor, torch.Tensor]:
    matrix = torch.from_numpy(camera.matrix)[None]
    return matrix, torch.tensor([camera.distortion], dtype=torch.float64)


def _as_points(name: str, value: npt.ArrayLike) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 3:
        raise InputError(name, "shape (M, 3)", f"{array.shape}")
    return array
