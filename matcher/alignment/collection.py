"""Photographs, what is known of their cameras, and the verified pairs among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from matcher.alignment.anchors import AnchorGrid, make_grids
from matcher.alignment.graph import connected_components
from matcher.alignment.observations import Observations, PairMatches
from matcher.alignment.sparse_options import SparseOptions
from matcher.alignment.two_view import TwoView, verify_pair
from matcher.errors import InputError
from matcher.geometry.camera import camera_from_focal, undistort_keypoints, undistorted_camera
from matcher.geometry.focal import focal_from_field_of_view
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = ["Collection", "make_collection", "undistorted_pairs", "verify_pairs"]

_NAMED_AT_MOST = 3


@dataclass(frozen=True, slots=True, eq=False)
class Collection:
    """N photographs and E verified pairs.

    Attributes:
        names: of the photographs.
        sizes: of the photographs.
        cameras: pinholes, known (without their distortion) or guessed.
        known_cameras: as given, or ``None``.
        known_poses: as given, or ``None``.
        told_focals: of the photographs' files (EXIF), or ``None``.
        map_focals: of the pointmaps, or ``None``.
        grids: blocks of the photographs.
        views: the verified pairs.
    """

    names: tuple[str, ...]
    sizes: tuple[ImageSize, ...]
    cameras: tuple[Camera, ...]
    known_cameras: tuple[Camera | None, ...]
    known_poses: tuple[Pose | None, ...]
    told_focals: tuple[float | None, ...]
    map_focals: tuple[float | None, ...]
    grids: tuple[AnchorGrid, ...]
    views: tuple[TwoView, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def view_px(self) -> FloatArray:
        """(N,) original pixels in a pixel of the network's view."""
        return np.array([grid.view_px for grid in self.grids])

    @property
    def ends(self) -> list[tuple[int, int]]:
        """The two photographs of each verified pair."""
        return [(view.matches.first, view.matches.second) for view in self.views]

    def with_views(self, views: Sequence[TwoView]) -> Collection:
        """The same photographs with other verified pairs."""
        return replace(self, views=tuple(views))

    def part(self, members: Sequence[int]) -> Collection:
        """Some of the photographs, and the pairs among them."""
        position = {member: index for index, member in enumerate(members)}
        views = [
            TwoView(
                replace(
                    view.matches,
                    first=position[view.matches.first],
                    second=position[view.matches.second],
                ),
                view.pose,
                view.num_tried,
            )
            for view in self.views
            if view.matches.first in position and view.matches.second in position
        ]
        return Collection(
            tuple(self.names[member] for member in members),
            tuple(self.sizes[member] for member in members),
            tuple(self.cameras[member] for member in members),
            tuple(self.known_cameras[member] for member in members),
            tuple(self.known_poses[member] for member in members),
            tuple(self.told_focals[member] for member in members),
            tuple(self.map_focals[member] for member in members),
            tuple(self.grids[member] for member in members),
            tuple(views),
        )

    def largest_group(self) -> tuple[Collection, dict[str, str]]:
        """The largest group that pairs connect, and why each other photograph is not in it."""
        groups = connected_components(len(self), self.ends)
        reasons = {}
        for group in groups[1:]:
            for member in group:
                reasons[self.names[member]] = self._why_apart(member, group, len(groups[0]))
        return self.part(groups[0]), reasons

    def _why_apart(self, member: int, group: Sequence[int], largest: int) -> str:
        if len(group) == 1:
            return "no pair with another photograph could be verified"
        others = [self.names[other] for other in group if other != member]
        more = len(others) - _NAMED_AT_MOST
        listed = ", ".join(others[:_NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        return (
            f"no verified pair connects it to the {largest} photographs reconstructed; it belongs "
            f"to another group of {len(group)}, with {listed}"
        )


def make_collection(
    observations: Observations,
    cameras: Mapping[str, Camera],
    poses: Mapping[str, Pose],
    options: SparseOptions,
    focals: Mapping[str, float] | None = None,
) -> Collection:
    """The photographs with what is known of them.

    A focal that no camera gives is that of ``focals`` (EXIF), or of the photograph's pointmap, or
    usual.

    Raises:
        InputError: a camera for photographs of another size.
    """
    pinholes, known = [], []
    map_focals = [None if view is None else view.focal() for view in observations.canonical]
    told_focals = [(focals or {}).get(name) for name in observations.names]
    guesses = [told or guess for told, guess in zip(told_focals, map_focals, strict=True)]
    for name, size, focal in zip(observations.names, observations.sizes, guesses, strict=True):
        camera = cameras.get(name)
        if camera is not None and camera.size is not None and camera.size != size:
            raise InputError(
                f"camera of {name}",
                f"one for {size.width} x {size.height} pixels",
                f"{camera.size.width} x {camera.size.height}",
            )
        known.append(camera)
        if camera is not None:
            pinholes.append(undistorted_camera(camera))
            continue
        pinholes.append(camera_from_focal(focal or focal_from_field_of_view(size), size))
    return Collection(
        observations.names,
        observations.sizes,
        tuple(pinholes),
        tuple(known),
        tuple(poses.get(name) for name in observations.names),
        tuple(told_focals),
        tuple(map_focals),
        tuple(make_grids(observations.sizes, observations.canonical, options.block_px)),
    )


def undistorted_pairs(
    pairs: Sequence[PairMatches], known_cameras: Sequence[Camera | None]
) -> list[PairMatches]:
    """The pairs with the lenses of known cameras removed; what has no inverse is left out."""
    straight = []
    for pair in pairs:
        keypoints = []
        for image, pixels in ((pair.first, pair.keypoints0), (pair.second, pair.keypoints1)):
            camera = known_cameras[image]
            keypoints.append(pixels if camera is None else undistort_keypoints(pixels, camera))
        usable = np.asarray(np.isfinite(np.hstack(keypoints)).all(axis=1))
        moved = replace(pair, keypoints0=keypoints[0], keypoints1=keypoints[1])
        straight.append(moved if usable.all() else moved.select(usable))
    return straight


def verify_pairs(
    collection: Collection, pairs: Sequence[PairMatches], options: SparseOptions
) -> Collection:
    """The collection with the pairs that two-view geometry confirms."""
    views = []
    for pair in pairs:
        pose0 = collection.known_poses[pair.first]
        pose1 = collection.known_poses[pair.second]
        known = None if pose0 is None or pose1 is None else pose1 @ pose0.inverse
        found = verify_pair(
            pair, collection.cameras, collection.sizes, collection.view_px.tolist(), options, known
        )
        if isinstance(found, TwoView):
            views.append(found)
    return collection.with_views(views)
