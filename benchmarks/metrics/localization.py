"""How far a camera was put from where it stood."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.core.samples import FloatArray
from matcher.errors import InputError
from matcher.geometry.pose import rotation_error_deg

__all__ = [
    "INLOC_THRESHOLDS",
    "OUTDOOR_THRESHOLDS",
    "ROOM_THRESHOLDS",
    "AbsolutePoseError",
    "PoseThreshold",
    "absolute_pose_error",
    "median_error",
    "pose_recall",
]


@dataclass(frozen=True, slots=True)
class AbsolutePoseError:
    """Distance between two camera centres in metres, and the angle between the cameras."""

    metres: float
    degrees: float


@dataclass(frozen=True, slots=True)
class PoseThreshold:
    """A pose counts where both errors are at most so large."""

    metres: float
    degrees: float

    @property
    def label(self) -> str:
        """For instance ``0.25m,2deg`` or ``5cm,5deg``."""
        if self.metres < 0.1:
            return f"{self.metres * 100:g}cm,{self.degrees:g}deg"
        return f"{self.metres:g}m,{self.degrees:g}deg"


ROOM_THRESHOLDS = (PoseThreshold(0.05, 5.0),)
"""7Scenes."""
OUTDOOR_THRESHOLDS = (PoseThreshold(5.0, 10.0), PoseThreshold(0.5, 5.0), PoseThreshold(0.25, 2.0))
"""Aachen, and the other sets of visuallocalization.net; widest first."""
INLOC_THRESHOLDS = (PoseThreshold(1.0, 10.0), PoseThreshold(0.5, 10.0), PoseThreshold(0.25, 10.0))
"""InLoc; widest first."""


def absolute_pose_error(estimated: npt.ArrayLike, expected: npt.ArrayLike) -> AbsolutePoseError:
    """Errors of a pose.

    Args:
        estimated: (4, 4) cam_from_world, metres.
        expected: (4, 4) cam_from_world, metres.
    """
    a, b = (np.asarray(pose, dtype=np.float64) for pose in (estimated, expected))
    if a.shape != (4, 4) or b.shape != (4, 4):
        raise InputError("pose", "two of shape (4, 4)", f"{a.shape} and {b.shape}")
    distance = float(np.linalg.norm(_center(a) - _center(b)))
    return AbsolutePoseError(distance, rotation_error_deg(a[:3, :3], b[:3, :3]))


def median_error(errors: npt.ArrayLike) -> float:
    """The median of (N,) errors, infinite ones counted; NaN without any."""
    values = np.sort(np.asarray(errors, dtype=np.float64).reshape(-1))
    if not len(values):
        return float("nan")
    low, high = values[(len(values) - 1) // 2], values[len(values) // 2]
    # The mean of the middle two would be NaN-free but warn where both are infinite.
    return float(low if low == high else (low + high) / 2)


def pose_recall(metres: npt.ArrayLike, degrees: npt.ArrayLike, threshold: PoseThreshold) -> float:
    """Share of (N,) poses within both thresholds; NaN without any."""
    distances, angles = (np.asarray(errors, dtype=np.float64) for errors in (metres, degrees))
    if distances.shape != angles.shape or distances.ndim != 1:
        raise InputError("errors", "two of shape (N,)", f"{distances.shape} and {angles.shape}")
    if not len(distances):
        return float("nan")
    within = (distances <= threshold.metres) & (angles <= threshold.degrees)
    return float(np.mean(within))


def _center(cam_from_world: FloatArray) -> FloatArray:
    center: FloatArray = -cam_from_world[:3, :3].T @ cam_from_world[:3, 3]
    return center
