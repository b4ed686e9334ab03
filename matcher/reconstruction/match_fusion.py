"""Dense points from matches between views whose cameras are known (MASt3R, section 4.5).

Every view is a reference once. Its matches with each neighbour are triangulated; a pixel becomes a
point where enough neighbours agree on its depth.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.camera import unproject
from matcher.geometry.pnp import reprojection_errors_px
from matcher.geometry.triangulation import triangulate, triangulation_angles_deg
from matcher.images import read_image
from matcher.photographs import Photographs
from matcher.reconstruction.model import RegisteredImage
from matcher.reconstruction.point_cloud import PointCloud
from matcher.structures import Camera, FloatArray, Matches, Pose

__all__ = ["FusedPixels", "MatchFusionOptions", "Neighbour", "fuse_matches", "fuse_neighbours"]

_GREY = 128


@dataclass(frozen=True, slots=True)
class MatchFusionOptions:
    """What a triangulated match must fulfil.

    Attributes:
        max_reprojection_error_px: in both views, pixels of the keypoints.
        min_angle_deg: between the two viewing rays.
        min_neighbours: of one reference that must agree on the depth of a pixel.
        max_depth_difference: from the median depth of the pixel, as a share of it.

    Raises:
        InputError: a number out of range.
    """

    max_reprojection_error_px: float = 2.0
    min_angle_deg: float = 1.0
    min_neighbours: int = 2
    max_depth_difference: float = 0.01

    def __post_init__(self) -> None:
        for name, low in (
            ("max_reprojection_error_px", 0),
            ("min_angle_deg", 0),
            ("min_neighbours", 1),
            ("max_depth_difference", 0),
        ):
            if not getattr(self, name) >= low:
                raise InputError(name, f"at least {low}", f"{getattr(self, name)}")


class MatchedPair(Protocol):
    """Two named photographs and their matches, in original pixels."""

    @property
    def name0(self) -> str:
        """Of photograph 0."""

    @property
    def name1(self) -> str:
        """Of photograph 1."""

    @property
    def matches(self) -> Matches:
        """Correspondences."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbour:
    """The matches of a reference, view 0, with one neighbour.

    Attributes:
        keypoints0, keypoints1: (M, 2) pixels, x then y.
        camera0, camera1: for these pixels.
        cam1_from_cam0: known; its unit is that of the points.
    """

    keypoints0: FloatArray
    keypoints1: FloatArray
    camera0: Camera
    camera1: Camera
    cam1_from_cam0: Pose


@dataclass(frozen=True, slots=True, eq=False)
class FusedPixels:
    """N pixels of a reference on whose depth its neighbours agree.

    Attributes:
        pixels: (N, 2), x then y.
        depths: (N,) z in the reference's camera.
        votes: (N,) number of neighbours that agree.
    """

    pixels: FloatArray
    depths: FloatArray
    votes: npt.NDArray[np.int64]


def fuse_matches(
    pairs: Iterable[MatchedPair],
    images: Sequence[RegisteredImage],
    options: MatchFusionOptions | None = None,
    *,
    photographs: Photographs | None = None,
) -> PointCloud:
    """Fuse the matches of all pairs whose two cameras are known.

    Args:
        pairs: matches, for instance the records of a store; each pair serves both its views.
        images: cameras and poses; pairs with a photograph that is not among them are left out.
        options: what counts.
        photographs: gives the points their colours; without them all are grey.

    Returns:
        World points; the confidence is the number of photographs that agree.

    Raises:
        InputError: a photograph that is needed for its colours is not there.
    """
    options = options or MatchFusionOptions()
    known = {image.name: image for image in images}
    neighbours: dict[str, list[Neighbour]] = {name: [] for name in known}
    for pair in pairs:
        if pair.name0 in known and pair.name1 in known and len(pair.matches):
            keypoints = (
                pair.matches.keypoints0.numpy().astype(np.float64),
                pair.matches.keypoints1.numpy().astype(np.float64),
            )
            for names, ends in (
                ((pair.name0, pair.name1), keypoints),
                ((pair.name1, pair.name0), keypoints[::-1]),
            ):
                neighbours[names[0]].append(_neighbour(known, *names, *ends))
    clouds = []
    for name, those in neighbours.items():
        fused = fuse_neighbours(those, options)
        if len(fused.depths):
            clouds.append(_cloud(known[name], fused, photographs))
    return PointCloud.joined(clouds)


def fuse_neighbours(
    neighbours: Sequence[Neighbour], options: MatchFusionOptions | None = None
) -> FusedPixels:
    """Pixels of one reference on whose depth enough neighbours agree.

    A neighbour has one vote for a pixel. Depths further from the median than allowed do not count;
    pixel and depth are means over those that do.
    """
    options = options or MatchFusionOptions()
    pixels, depths = [np.zeros((0, 2))], [np.zeros(0)]
    for neighbour in neighbours:
        pixel, depth = _triangulated(neighbour, options)
        # One neighbour has one vote for a pixel, however many matches end there.
        _, first = np.unique(np.rint(pixel), axis=0, return_index=True)
        pixels.append(pixel[first])
        depths.append(depth[first])
    return _agreed(np.concatenate(pixels), np.concatenate(depths), options)


def _neighbour(
    known: Mapping[str, RegisteredImage],
    name0: str,
    name1: str,
    keypoints0: FloatArray,
    keypoints1: FloatArray,
) -> Neighbour:
    image0, image1 = known[name0], known[name1]
    cam1_from_cam0 = image1.cam_from_world @ image0.cam_from_world.inverse
    return Neighbour(keypoints0, keypoints1, image0.camera, image1.camera, cam1_from_cam0)


def _cloud(
    image: RegisteredImage, fused: FusedPixels, photographs: Photographs | None
) -> PointCloud:
    in_camera = unproject(fused.pixels, fused.depths, image.camera)
    # A strongly bent lens has no inverse far out.
    usable = np.isfinite(in_camera).all(axis=1)
    if photographs is None:
        colors = np.full((len(in_camera), 3), _GREY, dtype=np.uint8)
    else:
        picture = read_image(photographs.path(image.name))
        limit = np.array(picture.shape[1::-1]) - 1
        columns, rows = np.clip(np.rint(fused.pixels), 0, limit).astype(np.int64).T
        colors = picture[rows, columns]
    return PointCloud(
        image.cam_from_world.inverse.transform(in_camera[usable]),
        colors[usable],
        (fused.votes[usable] + 1).astype(np.float32),
    )


def _triangulated(
    neighbour: Neighbour, options: MatchFusionOptions
) -> tuple[FloatArray, FloatArray]:
    """(M, 2) pixels of the reference and (M,) depths of the matches that hold."""
    keypoints0, keypoints1 = neighbour.keypoints0, neighbour.keypoints1
    camera0, camera1 = neighbour.camera0, neighbour.camera1
    ends = (keypoints0, keypoints1, camera0, camera1, neighbour.cam1_from_cam0)
    points = triangulate(*ends)
    if not len(points):
        return np.zeros((0, 2)), np.zeros(0)
    angles = triangulation_angles_deg(*ends)
    errors = np.maximum(
        reprojection_errors_px(keypoints0, points, camera0, Pose.identity()),
        reprojection_errors_px(keypoints1, points, camera1, neighbour.cam1_from_cam0),
    )
    # Comparisons with NaN (behind a camera) are false.
    holds = (errors <= options.max_reprojection_error_px) & (angles >= options.min_angle_deg)
    return keypoints0[holds], points[holds, 2]


def _agreed(pixels: FloatArray, depths: FloatArray, options: MatchFusionOptions) -> FusedPixels:
    """One mean pixel and depth for each pixel at whose depth enough neighbours agree."""
    if not len(depths):
        return FusedPixels(pixels, depths, np.zeros(0, dtype=np.int64))
    cells = np.rint(pixels).astype(np.int64)
    order = np.lexsort((depths, cells[:, 1], cells[:, 0]))
    cells, pixels, depths = cells[order], pixels[order], depths[order]
    starts = np.flatnonzero(np.r_[True, (cells[1:] != cells[:-1]).any(axis=1)])
    counts = np.diff(np.r_[starts, len(depths)])
    median = np.repeat(depths[starts + (counts - 1) // 2], counts)
    votes = (np.abs(depths - median) <= options.max_depth_difference * median).astype(np.float64)
    total = np.add.reduceat(votes, starts)
    enough = total >= options.min_neighbours
    mean_depth = np.add.reduceat(depths * votes, starts) / total
    mean_pixel = np.add.reduceat(pixels * votes[:, None], starts, axis=0) / total[:, None]
    return FusedPixels(mean_pixel[enough], mean_depth[enough], total[enough].astype(np.int64))
