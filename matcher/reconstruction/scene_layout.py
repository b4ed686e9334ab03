"""How a reconstruction is shown: which way is up, where to look from, how cameras are drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from matcher.geometry.camera import normalize, undistorted_camera
from matcher.reconstruction.model import RegisteredImage
from matcher.structures import FloatArray

__all__ = [
    "FRUSTUM_EDGES",
    "Viewpoint",
    "frustum_colors",
    "frustum_corners",
    "frustum_depth",
    "level_from_world",
    "three_quarter_view",
    "up_direction",
]

FRUSTUM_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1), (1, 5), (5, 2))
"""Lines between the six corners of :func:`frustum_corners`."""

_MEAN_UP_WEIGHT = 0.005
_AZIMUTH_DEG, _ELEVATION_DEG = 32.0, 24.0
_FITTED_SHARE, _FITTED_POINTS, _FITTING_STEPS = 0.97, 30_000, 12


@dataclass(frozen=True, slots=True, eq=False)
class Viewpoint:
    """Where a picture of the scene is taken from, world frame.

    Attributes:
        eye: (3,).
        target: (3,) in the middle of the picture.
        up: (3,) unit.
        field_of_view_deg: vertical.
    """

    eye: FloatArray
    target: FloatArray
    up: FloatArray
    field_of_view_deg: float

    @property
    def axes(self) -> FloatArray:
        """(3, 3) rows right, down, forward: OpenCV axes of the camera that looks from here."""
        return _axes(self.target - self.eye, self.up)


def up_direction(images: Sequence[RegisteredImage]) -> FloatArray:
    """(3,) unit vector that points to the sky, as the photographs tell.

    Photographers hold the camera's x axis level, so up is what is perpendicular to all of them;
    where these leave it open (all cameras look the same way), the mean of the cameras' own up
    decides.
    """
    if not images:
        return np.array([0.0, -1.0, 0.0])
    rotations = np.stack([image.cam_from_world.rotation for image in images])
    right, mean_up = rotations[:, 0], -rotations[:, 1].mean(axis=0)
    spread = right.T @ right / len(images) - _MEAN_UP_WEIGHT * np.outer(mean_up, mean_up)
    up: FloatArray = np.linalg.eigh(spread)[1][:, 0]
    return -up if up @ mean_up < 0 else up


def level_from_world(images: Sequence[RegisteredImage]) -> FloatArray:
    """(3, 3) rotation into axes x right, y up, z backward: glTF's, level, as the cameras look."""
    ahead = _mean_ahead(images)
    axes = _axes(ahead, up_direction(images), level=True)
    return np.diag([1.0, -1.0, -1.0]) @ axes


def frustum_depth(images: Sequence[RegisteredImage], positions: FloatArray) -> float:
    """How far in front of its camera a frustum's picture plane is drawn, world units.

    A third of the usual distance to the nearest other camera, but visible beside the scene.
    """
    centers = np.array([image.center for image in images]).reshape(-1, 3)
    middle = np.median(positions, axis=0) if len(positions) else centers.mean(axis=0)
    distances = np.linalg.norm(positions - middle, axis=1)
    reach = float(np.quantile(distances, 0.9)) if len(positions) else 0.0
    if len(centers) > 1:
        apart = np.linalg.norm(centers[:, None] - centers[None], axis=-1)
        np.fill_diagonal(apart, np.inf)
        wanted = float(np.median(apart.min(axis=1))) / 3
    else:
        wanted = reach / 10
    if reach > 0:
        wanted = float(np.clip(wanted, 0.03 * reach, 0.12 * reach))
    return wanted if wanted > 0 else 1.0


def frustum_corners(image: RegisteredImage, depth: float) -> FloatArray:
    """(6, 3) in the camera's frame, OpenCV axes.

    The centre, the corners of the photograph (top left, top right, bottom right, bottom left) at
    ``depth``, and a tip above its upper edge.
    """
    right, bottom = image.size.width - 0.5, image.size.height - 0.5
    pixels = np.array([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]])
    rays = normalize(pixels, undistorted_camera(image.camera))
    top = (rays[0] + rays[1]) / 2
    tip = top + 0.25 * (top - (rays[2] + rays[3]) / 2)
    plane = np.concatenate([rays, tip[None]])
    corners = np.concatenate([plane, np.ones((5, 1))], axis=1) * depth
    return np.concatenate([np.zeros((1, 3)), corners])


def frustum_colors(count: int) -> npt.NDArray[np.uint8]:
    """(count, 3) RGB, blue to red in the order of the photographs; readable on light ground."""
    levels = np.linspace(20, 235, max(count, 1)).round().astype(np.uint8)[:count, None]
    if not count:
        return np.zeros((0, 3), np.uint8)
    turbo = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[:, 0, ::-1]
    return np.asarray(turbo * 0.85, dtype=np.uint8)


def three_quarter_view(
    images: Sequence[RegisteredImage],
    positions: FloatArray,
    aspect: float,
    field_of_view_deg: float = 40.0,
) -> Viewpoint:
    """From behind the cameras, above and to one side, with points and cameras in the picture.

    Args:
        images: with known places; may be empty.
        positions: (N, 3) of the points.
        aspect: width of the picture over its height.
        field_of_view_deg: vertical.
    """
    up = up_direction(images)
    centers = np.array([image.center for image in images]).reshape(-1, 3)
    shown = positions[:: len(positions) // _FITTED_POINTS + 1] if len(positions) else centers
    if not len(shown):
        shown = np.zeros((1, 3))
    level = _axes(_mean_ahead(images), up, level=True)
    azimuth, elevation = np.radians(_AZIMUTH_DEG), np.radians(_ELEVATION_DEG)
    # Right, down and forward of the level view, turned to the side and then lowered.
    forward = level.T @ [
        np.sin(azimuth) * np.cos(elevation),
        np.sin(elevation),
        np.cos(azimuth) * np.cos(elevation),
    ]
    axes = _axes(forward, up)
    tangents = np.tan(np.radians(field_of_view_deg) / 2) * np.array([aspect, 1.0])
    eye, target = _fitted(shown @ axes.T, centers @ axes.T, tangents)
    return Viewpoint(axes.T @ eye, axes.T @ target, up, field_of_view_deg)


def _fitted(
    points: FloatArray, centers: FloatArray, tangents: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """(3,) eye that looks along z and sees most points and all centers; (3,) what it looks at.

    By turns the eye steps back until all is in the picture, and to the middle of what it sees.
    """
    low, high = (1 - _FITTED_SHARE) / 2, (1 + _FITTED_SHARE) / 2
    depth = float(np.median(points[:, 2]))
    gap = 1e-3 * max(float(np.ptp(points, axis=0).max()), 1e-6)
    both = np.concatenate([points, centers])
    side = np.median(points[:, :2], axis=0)
    back = depth - gap
    for _ in range(_FITTING_STEPS):
        # |x - side| <= tangent * (z - back) bounds how far in front the eye may stand.
        bounds = both[:, 2] - (np.abs(both[:, :2] - side) / (0.94 * tangents)).max(axis=1)
        back = min(float(np.quantile(bounds[: len(points)], 1 - _FITTED_SHARE)), depth - gap)
        if len(centers):
            back = min(back, float(bounds[len(points) :].min()) - gap)
        ahead = both[:, 2] > back + gap / 2
        seen = (both[:, :2] - side) / np.where(ahead, both[:, 2] - back, np.inf)[:, None]
        reach = np.quantile(seen[: len(points)], (low, high), axis=0)
        reach[0] = np.minimum(reach[0], seen[len(points) :].min(axis=0, initial=np.inf))
        reach[1] = np.maximum(reach[1], seen[len(points) :].max(axis=0, initial=-np.inf))
        # Half of the way: what is near moves further in the picture than the middle does.
        side = side + 0.5 * reach.mean(axis=0) * (depth - back)
    eye = np.array([*side, back])
    return eye, np.array([*side, depth])


def _mean_ahead(images: Sequence[RegisteredImage]) -> FloatArray:
    """(3,) where the cameras look on average; the first decides if they look all around."""
    if not images:
        return np.array([0.0, 0.0, 1.0])
    ahead = np.stack([image.cam_from_world.rotation[2] for image in images])
    mean: FloatArray = ahead.mean(axis=0)
    return mean if np.linalg.norm(mean) > 0.2 else ahead[0]


def _axes(forward: FloatArray, up: FloatArray, *, level: bool = False) -> FloatArray:
    """(3, 3) rows right, down, forward; ``level`` keeps up and tilts forward instead."""
    right = np.cross(forward, up)
    if np.linalg.norm(right) < 1e-6 * np.linalg.norm(forward):
        right = np.cross(np.eye(3)[np.argmin(np.abs(up))], up)
    right = right / np.linalg.norm(right)
    if level:
        return np.stack([right, -up, np.cross(right, -up)])
    ahead = forward / np.linalg.norm(forward)
    return np.stack([right, np.cross(ahead, right), ahead])
