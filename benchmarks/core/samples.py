"""What a benchmark asks: two photographs and what is known to be true about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError

__all__ = [
    "CorrespondenceTruth",
    "Dataset",
    "DepthReference",
    "HomographyTruth",
    "LocalizationTruth",
    "MultiViewTruth",
    "PairSample",
    "PointReference",
    "PointmapReference",
    "PoseTruth",
    "Truth",
    "missing_data",
]

FloatArray: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PoseTruth:
    """The relative pose of two calibrated photographs.

    Attributes:
        k0, k1: (3, 3) intrinsics of the stored photographs, integer pixels at pixel centres.
        cam1_from_cam0: (4, 4), OpenCV axes.
        is_metric: whether the translation is in metres; its direction alone counts otherwise.
        rotation_deg: angle between the two cameras.
        overlap: share of common content in [0, 1], or ``None`` where it is not known.
        is_scored: ``False`` where a server keeps the pose; ``cam1_from_cam0`` then means nothing
            and ``rotation_deg`` stays NaN.
        depth0: z-depth of photograph 0 as a one-channel picture, where it is known: single matches
            can then be judged by their own truth.
        depth_scale: stored units of depth for one unit of the translation; stored 0 is unknown.
    """

    k0: FloatArray
    k1: FloatArray
    cam1_from_cam0: FloatArray
    is_metric: bool = False
    rotation_deg: float = float("nan")
    overlap: float | None = None
    is_scored: bool = True
    depth0: Path | None = None
    depth_scale: float = 1000.0

    def __post_init__(self) -> None:
        for name, matrix, shape in (
            ("K0", self.k0, (3, 3)),
            ("K1", self.k1, (3, 3)),
            ("cam1_from_cam0", self.cam1_from_cam0, (4, 4)),
        ):
            if np.shape(matrix) != shape or not np.isfinite(matrix).all():
                raise DatasetError(
                    f"{name}: expected finite values of shape {shape}, got shape {np.shape(matrix)}"
                )
        for name, matrix in (("K0", self.k0), ("K1", self.k1)):
            if min(matrix[0, 0], matrix[1, 1]) <= 0:
                raise DatasetError(f"{name}: expected positive focals, got {matrix[0, 0]}")
        if np.isnan(self.rotation_deg) and self.is_scored:
            cosine = (np.trace(self.cam1_from_cam0[:3, :3]) - 1) / 2
            angle = float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
            object.__setattr__(self, "rotation_deg", angle)


@dataclass(frozen=True, slots=True, eq=False)
class HomographyTruth:
    """A plane, or a turn on the spot: ``pixel1 ~ H pixel0`` in the stored photographs.

    Attributes:
        h1_from_0: (3, 3).
        sequence_kind: what changes, for instance ``viewpoint`` or ``illumination``; may be empty.
    """

    h1_from_0: FloatArray
    sequence_kind: str = ""

    def __post_init__(self) -> None:
        if np.shape(self.h1_from_0) != (3, 3) or not np.isfinite(self.h1_from_0).all():
            shape = np.shape(self.h1_from_0)
            raise DatasetError(f"H: expected finite values of shape (3, 3), got shape {shape}")


@dataclass(frozen=True, slots=True, eq=False)
class CorrespondenceTruth:
    """Corresponding pixels marked by hand: (N, 2) each, x then y, stored photographs."""

    keypoints0: FloatArray
    keypoints1: FloatArray

    def __post_init__(self) -> None:
        shape0, shape1 = np.shape(self.keypoints0), np.shape(self.keypoints1)
        if shape0 != shape1 or len(shape0) != 2 or shape0[1] != 2 or not shape0[0]:
            raise DatasetError(f"correspondences: expected two (N, 2), got {shape0} and {shape1}")


@dataclass(frozen=True, slots=True, eq=False)
class DepthReference:
    """A reference photograph with depth and pose.

    Attributes:
        k: (3, 3) intrinsics of the reference photograph.
        cam_from_world: (4, 4) in metres.
        depth: file of z-depth; one value a pixel of the (registered) reference photograph.
        depth_scale: stored units a metre.
        invalid: stored value that means nothing is known, beside 0.
        depth_k: (3, 3) intrinsics of the depth camera where they differ; it is taken to stand
            where the photograph was taken from, so that a pixel finds its depth by its ray.
    """

    k: FloatArray
    cam_from_world: FloatArray
    depth: Path
    depth_scale: float = 1000.0
    invalid: int = 0
    depth_k: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class PointReference:
    """A reference photograph of a structure-from-motion map.

    Attributes:
        keypoints: (N, 2) pixels of the reference photograph with a 3-D point.
        points: (N, 3) the points in the world's frame, metres.
        max_distance_px: a match within so many pixels of a keypoint takes its point.
    """

    keypoints: FloatArray
    points: FloatArray
    max_distance_px: float = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class PointmapReference:
    """A reference photograph with a scanned point behind every pixel (InLoc).

    Attributes:
        points: MATLAB file whose ``XYZcut`` holds (H, W, 3) points; NaN: nothing was scanned.
        world_from_points: (4, 4), metres.
    """

    points: Path
    world_from_points: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class LocalizationTruth:
    """Photograph 0 is a query, photograph 1 one of its references in a map.

    Attributes:
        query: name of the query as the benchmark writes it.
        camera_model, camera_params: of the query, COLMAP's names (``PINHOLE``: fx, fy, cx, cy;
            ``SIMPLE_RADIAL``: f, cx, cy, k), integer pixels at pixel centres.
        reference: how a pixel of photograph 1 becomes a point of the world.
        cam_from_world: (4, 4) pose of the query, metres; ``None`` where it is kept by a server.
    """

    query: str
    camera_model: str
    camera_params: tuple[float, ...]
    reference: DepthReference | PointReference | PointmapReference
    cam_from_world: FloatArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class MultiViewTruth:
    """Two views of a scan whose surface has been measured (DTU).

    Attributes:
        k0, k1: (3, 3).
        cam0_from_world, cam1_from_world: (4, 4), millimetres.
        scan: number of the scan.
        surface: PLY file of the measured points.
        observed: MATLAB file of the observed volume (``ObsMask``, ``BB``, ``Res``).
        plane: MATLAB file of the table's plane (``P``).
    """

    k0: FloatArray
    k1: FloatArray
    cam0_from_world: FloatArray
    cam1_from_world: FloatArray
    scan: int
    surface: Path
    observed: Path
    plane: Path


Truth: TypeAlias = (
    PoseTruth | HomographyTruth | CorrespondenceTruth | LocalizationTruth | MultiViewTruth
)


@dataclass(frozen=True, slots=True, eq=False)
class PairSample:
    """One pair of a benchmark.

    Attributes:
        name: unique in its data set; the key of the prediction cache.
        image0, image1: the stored photographs.
        truth: what is known.
        group: scene or category, for averages over groups.
        unit: what is scored as one (a query with all its references); by default the pair itself.
    """

    name: str
    image0: Path
    image1: Path
    truth: Truth
    group: str = ""
    unit: str = ""

    @property
    def unit_name(self) -> str:
        """Name of the scored unit."""
        return self.unit or self.name


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """The pairs of one benchmark.

    Attributes:
        name: as on the command line.
        title: as printed in a report.
        samples: in the order of the official list.
        kind: which task scores it: ``pose``, ``metric_pose``, ``homography``, ``correspondences``,
            ``localization`` or ``multiview``.
        root: the folder it was read from.
        problems: pairs of the list that could not be read, (name, why); each counts as a failure.
        notes: what a reader of the numbers must know (ground truth variant, what was left out).
        is_synthetic: rendered; never to be reported under a real set's name.
    """

    name: str
    title: str
    samples: tuple[PairSample, ...]
    kind: str
    root: Path
    problems: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = field(default=())
    is_synthetic: bool = False

    def __post_init__(self) -> None:
        names = [sample.name for sample in self.samples]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise DatasetError(f"{self.name}: pair {twice!r} is listed twice")


def missing_data(name: str, root: Path, tree: Sequence[str], published: str) -> DatasetError:
    """The error of a set that is not there: the tree that was looked for, and where to get it.

    Args:
        name: the set.
        root: where it was looked for.
        tree: lines of the expected layout, below ``root``.
        published: where the set is published, and under which terms.
    """
    lines = "\n".join(f"    {line}" for line in tree)
    return DatasetError(
        f"{name}: not found at {root}\n  expected:\n    {root}/\n{lines}\n  published: {published}"
    )
