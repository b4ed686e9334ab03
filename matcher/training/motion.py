"""Which pairs of views a stage of the training draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError

__all__ = ["ANY_MOTION", "MAX_ATTEMPTS", "MIN_MATCHES", "Motion", "rotation_degrees"]

MAX_ATTEMPTS = 20
"""Draws of a source before it gives up on a pair."""
MIN_MATCHES = 32
"""A pair with fewer correspondences teaches nothing."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Ranges that a pair of views must lie in.

    What is not known of a pair does not exclude it: two photographs matched without a pose may
    turn by any angle, homographies of one photograph know neither number.

    Attributes:
        overlap: least and largest share of either view that the other sees; posed views only.
        rotation_degrees: least and largest angle between the two cameras, degrees.
    """

    overlap: tuple[float, float] = (0.05, 1.0)
    rotation_degrees: tuple[float, float] = (0.0, 180.0)

    def __post_init__(self) -> None:
        for name, largest in (("overlap", 1.0), ("rotation_degrees", 180.0)):
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

    def __str__(self) -> str:
        overlap, angles = self.overlap, self.rotation_degrees
        return (
            f"overlap {overlap[0]:g} to {overlap[1]:g}, "
            f"rotation {angles[0]:g} to {angles[1]:g} degrees"
        )


ANY_MOTION = Motion()
"""Every pair with a common part."""


def rotation_degrees(cam_from_world: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(V, V) angles between all cameras of (V, 4, 4) poses, degrees."""
    rotations = cam_from_world[:, :3, :3]
    trace = np.einsum("iab,jab->ij", rotations, rotations)
    angles: npt.NDArray[np.float64] = np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))
    return angles
