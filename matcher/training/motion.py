"""Which pairs of views a stage of the training draws."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError

__all__ = [
    "ANY_MOTION",
    "LONGEST_FOCAL",
    "MAX_ATTEMPTS",
    "MIN_MATCHES",
    "Motion",
    "focal_of",
    "rotation_degrees",
]

MAX_ATTEMPTS = 20
"""Draws of a source before it gives up on a pair."""
MIN_MATCHES = 32
"""A pair with fewer correspondences teaches nothing."""
LONGEST_FOCAL = 1000.0
"""No crop of a photograph is narrower: a focal length of this many long sides."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Ranges that a pair of views must lie in.

    What is not known of a pair does not exclude it: two photographs matched without a pose may
    turn by any angle, homographies of one photograph know neither number.

    Attributes:
        overlap: least and largest share of either view that the other sees; posed views only.
        rotation_degrees: least and largest angle between the two cameras, degrees.
        focal: least and largest focal length of either view as the network sees it (cropped), in
            units of its long side; posed views only. Few lenses leave 0.6 to 1.5.
    """

    overlap: tuple[float, float] = (0.05, 1.0)
    rotation_degrees: tuple[float, float] = (0.0, 180.0)
    focal: tuple[float, float] = (0.0, LONGEST_FOCAL)

    def __post_init__(self) -> None:
        limits = (("overlap", 1.0), ("rotation_degrees", 180.0), ("focal", LONGEST_FOCAL))
        for name, largest in limits:
            values = getattr(self, name)
            try:
                low, high = (float(value) for value in values)
            except (TypeError, ValueError):
                raise InputError(name, "two numbers", f"{values!r}") from None
            if not 0 <= low < high <= largest:
                raise InputError(name, f"two rising numbers in [0, {largest:g}]", f"{values!r}")
            object.__setattr__(self, name, (low, high))

    def allows_rotation(self, degrees: npt.ArrayLike) -> npt.NDArray[np.bool_]:
        """Whether angles (...), degrees, lie in the range."""
        low, high = self.rotation_degrees
        angles = np.asarray(degrees, dtype=np.float64)
        allowed: npt.NDArray[np.bool_] = (angles >= low) & (angles <= high)
        return allowed

    def allows_focal(self, focal: float) -> bool:
        """Whether a focal length, in units of the long side, lies in the range."""
        low, high = self.focal
        return low <= focal <= high

    def __str__(self) -> str:
        overlap, angles = self.overlap, self.rotation_degrees
        text = (
            f"overlap {overlap[0]:g} to {overlap[1]:g}, "
            f"rotation {angles[0]:g} to {angles[1]:g} degrees"
        )
        if self.focal != (0.0, LONGEST_FOCAL):
            text += f", focal length {self.focal[0]:g} to {self.focal[1]:g} long sides"
        return text


ANY_MOTION = Motion()
"""Every pair with a common part."""


def focal_of(k: npt.NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """Focal length of a (height, width) view, in units of its long side."""
    return math.sqrt(float(k[0, 0] * k[1, 1])) / max(shape)


def rotation_degrees(cam_from_world: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(V, V) angles between all cameras of (V, 4, 4) poses, degrees."""
    rotations = cam_from_world[:, :3, :3]
    trace = np.einsum("iab,jab->ij", rotations, rotations)
    angles: npt.NDArray[np.float64] = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return angles
