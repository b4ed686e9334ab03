"""2D-3D correspondences of a query, gathered over its references."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.localization.lifting import Lifted
from matcher.structures import FloatArray

__all__ = ["Correspondences", "gather"]

# Correspondences closer than this in the query, and in the world, are one: references that share a
# surface repeat it, which would let it outvote what a single reference sees.
_SAME_PIXEL_PX = 1.0
_SAME_POINT = 0.003  # share of the median distance between points and the middle of them


@dataclass(frozen=True, slots=True, eq=False)
class Correspondences:
    """M places of a query and the points of the world that they may show.

    Attributes:
        keypoints: (M, 2) float64 pixels of the query, x then y.
        points: (M, 3) float64, world frame.
        confidence: (M,) in (0, 1], of the match behind each.
        reference: (M,) int64, number of the reference that knows the point.
        reference_keypoints: (M, 2) float64, where that reference shows it, its own pixels.
    """

    keypoints: FloatArray
    points: FloatArray
    confidence: FloatArray
    reference: npt.NDArray[np.int64]
    reference_keypoints: FloatArray

    def __len__(self) -> int:
        return len(self.points)

    def select(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Correspondences:
        """Some of them."""
        return Correspondences(
            self.keypoints[rows],
            self.points[rows],
            self.confidence[rows],
            self.reference[rows],
            self.reference_keypoints[rows],
        )


def gather(lifted: Sequence[Lifted]) -> Correspondences:
    """One set of correspondences from what was found with each reference.

    The surest one of those that agree, to within a pixel and a small fraction of the scene's size,
    stays.
    """
    empty = Lifted.empty()
    parts = [empty, *lifted]
    together = Correspondences(
        np.concatenate([part.matches.query for part in parts]),
        np.concatenate([part.points for part in parts]),
        np.concatenate([part.matches.confidence for part in parts]),
        np.repeat(np.arange(-1, len(lifted)), [len(part) for part in parts]),
        np.concatenate([part.matches.reference for part in parts]),
    )
    return together.select(_distinct(together))


def _distinct(found: Correspondences) -> npt.NDArray[np.intp]:
    """Rows of the surest correspondence of each pixel with each place."""
    if not len(found):
        return np.zeros(0, dtype=np.intp)
    middle = np.median(found.points, axis=0)
    extent = float(np.median(np.linalg.norm(found.points - middle, axis=1)))
    place = found.points / max(_SAME_POINT * extent, np.finfo(np.float64).tiny)
    cells = np.rint(np.concatenate([found.keypoints / _SAME_PIXEL_PX, place], axis=1))
    surest_first = np.argsort(-found.confidence, kind="stable")
    _, first = np.unique(cells[surest_first], axis=0, return_index=True)
    return np.sort(surest_first[first])
