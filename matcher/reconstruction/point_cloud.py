"""Coloured points, ready to be shown or written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.structures import FloatArray

__all__ = ["PointCloud"]


@dataclass(frozen=True, slots=True, eq=False)
class PointCloud:
    """N coloured points in the world frame of their reconstruction.

    Attributes:
        positions: (N, 3) float64, finite.
        colors: (N, 3) uint8 RGB.
        confidence: (N,) float32: of a pointmap's point the network's, > 1; of a triangulated
            point the number of photographs that see it.

    Raises:
        InputError: another shape, or a position that is not finite.
    """

    positions: FloatArray
    colors: npt.NDArray[np.uint8]
    confidence: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.positions)
        for name, shape in (("positions", (count, 3)), ("colors", (count, 3))):
            if getattr(self, name).shape != shape:
                raise InputError(f"cloud {name}", f"shape {shape}", f"{getattr(self, name).shape}")
        if self.confidence.shape != (count,):
            raise InputError("cloud confidence", f"shape ({count},)", f"{self.confidence.shape}")
        if not np.isfinite(self.positions).all():
            raise InputError("cloud positions", "finite numbers", "NaN or infinity")

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def empty(cls) -> PointCloud:
        """No point at all."""
        return cls(np.zeros((0, 3)), np.zeros((0, 3), np.uint8), np.zeros(0, np.float32))

    @classmethod
    def joined(cls, clouds: Iterable[PointCloud]) -> PointCloud:
        """The points of several clouds, in order."""
        parts = [cls.empty(), *clouds]
        return cls(
            np.concatenate([part.positions for part in parts]),
            np.concatenate([part.colors for part in parts]),
            np.concatenate([part.confidence for part in parts]),
        )

    def select(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> PointCloud:
        """Keep the rows of a boolean mask or an index array."""
        return PointCloud(self.positions[rows], self.colors[rows], self.confidence[rows])

    def thinned(self, max_points: int, seed: int = 0) -> PointCloud:
        """At most ``max_points`` of the points, drawn at random, in their order."""
        if max_points < 1:
            raise InputError("max_points", "at least 1", f"{max_points}")
        if len(self) <= max_points:
            return self
        drawn = np.random.default_rng(seed).choice(len(self), max_points, replace=False)
        return self.select(np.sort(drawn))
