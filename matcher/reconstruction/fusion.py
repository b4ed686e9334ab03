"""One cloud from the pointmaps of many photographs, by what they confirm of each other.

The depth fusion of multi-view stereo, as MVSNet and its followers do it after their network: a
point counts where other photographs place the same surface; it becomes the mean of what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.reconstruction.model import Reconstruction
from matcher.reconstruction.point_cloud import PointCloud
from matcher.reconstruction.surfaces import Surface, surfaces_of

__all__ = ["FusionOptions", "fuse_pointmaps"]


@dataclass(frozen=True, slots=True)
class FusionOptions:
    """When two pointmaps agree on a point, and how many must.

    Attributes:
        max_reprojection_error_px: of the other photograph's point beside the pixel it is compared
            with, pixels of the pointmap. The other's is that of the nearest pixel: below 1, even
            perfect pointmaps fail here and there.
        max_depth_difference: between the two, as a share of the depth.
        min_consistent: this many other photographs must agree.
        min_confidence: pointmap points below it are unknown.

    Raises:
        InputError: a number out of range.
    """

    max_reprojection_error_px: float = 1.5
    max_depth_difference: float = 0.01
    min_consistent: int = 2
    min_confidence: float = 0.0

    def __post_init__(self) -> None:
        for name, low in (
            ("max_reprojection_error_px", 0),
            ("max_depth_difference", 0),
            ("min_consistent", 1),
            ("min_confidence", 0),
        ):
            if not getattr(self, name) >= low:
                raise InputError(name, f"at least {low}", f"{getattr(self, name)}")


def fuse_pointmaps(
    reconstruction: Reconstruction, options: FusionOptions | None = None
) -> PointCloud:
    """Points that several photographs agree on.

    Photographs take their turn in order; what an earlier one's points were averaged with is not
    used again, so that a surface is covered once.

    Args:
        reconstruction: with pointmaps; others of its photographs are passed over.
        options: what counts.

    Returns:
        World points, means over the photographs that agree; the confidence is their number.
    """
    options = options or FusionOptions()
    surfaces = surfaces_of(reconstruction.images, options.min_confidence)
    used = [np.zeros(surface.depth.size, dtype=np.bool_) for surface in surfaces]
    return PointCloud.joined(
        _fused(index, surfaces, used, options) for index in range(len(surfaces))
    )


def _fused(
    index: int,
    surfaces: Sequence[Surface],
    used: Sequence[npt.NDArray[np.bool_]],
    options: FusionOptions,
) -> PointCloud:
    """Points of one photograph that enough others confirm; ``used`` is kept up to date."""
    surface = surfaces[index]
    rows = np.flatnonzero((surface.depth.reshape(-1) > 0) & ~used[index])
    positions = surface.points.reshape(-1, 3)[rows]
    colors = surface.colors.reshape(-1, 3)[rows].astype(np.float64)
    total, total_colors = positions.copy(), colors.copy()
    votes = np.ones(len(rows), dtype=np.int64)
    agreeing = []
    for number, other in enumerate(surfaces):
        if number == index:
            continue
        agrees, cells = _agreement(surface, rows, other, options)
        total[agrees] += other.points.reshape(-1, 3)[cells]
        total_colors[agrees] += other.colors.reshape(-1, 3)[cells]
        votes[agrees] += 1
        agreeing.append((number, agrees, cells))
    enough = votes > options.min_consistent
    for number, agrees, cells in agreeing:
        used[number][cells[enough[agrees]]] = True
    count = votes[enough, None]
    return PointCloud(
        total[enough] / count,
        np.rint(total_colors[enough] / count).astype(np.uint8),
        votes[enough].astype(np.float32),
    )


def _agreement(
    surface: Surface, rows: npt.NDArray[np.int64], other: Surface, options: FusionOptions
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which of ``rows`` the other surface confirms (places in it), and by which of its pixels."""
    positions = surface.points.reshape(-1, 3)[rows]
    there, _ = other.project(positions)
    cells = other.nearest(there)
    hit = np.flatnonzero(cells >= 0)
    theirs = other.points.reshape(-1, 3)[cells[hit]]
    back, depth = surface.project(theirs)
    columns = surface.depth.shape[1]
    pixels = np.stack([rows[hit] % columns, rows[hit] // columns], axis=1)
    own = surface.depth.reshape(-1)[rows[hit]]
    # Comparisons with NaN (behind the camera) are false.
    agrees = np.linalg.norm(back - pixels, axis=1) <= options.max_reprojection_error_px
    agrees &= np.abs(depth - own) <= options.max_depth_difference * own
    return hit[agrees], cells[hit[agrees]]
