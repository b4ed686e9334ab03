"""A photograph that is added to a solution: its pose against the anchors of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from matcher.alignment.anchors import Sightings, collect_sightings
from matcher.alignment.collection import Collection
from matcher.alignment.reprojection import CameraState
from matcher.alignment.solve import Solution
from matcher.alignment.sparse_options import SparseOptions
from matcher.geometry.camera import camera_from_focal
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.pnp_focal import estimate_pose_and_focal
from matcher.geometry.ransac import RansacOptions
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["Resection", "add_photograph", "resect"]

_LOOSENESS = 4.0
"""PnP accepts so many times the error of a match: depths of blocks are not exact."""
_MIN_SHARE = 0.25
_ITERATIONS = 3_000
_ALL = 1_000_000


@dataclass(frozen=True, slots=True, eq=False)
class Resection:
    """Where a photograph outside a solution stands.

    Attributes:
        image: its index in the whole collection.
        camera: its pinhole.
        pose: ``cam_from_world``.
        num_inliers: correspondences that agree.
        num_tried: correspondences in all.
    """

    image: int
    camera: Camera
    pose: Pose
    num_inliers: int
    num_tried: int

    @property
    def is_sound(self) -> bool:
        """Whether enough of the correspondences agree."""
        return self.num_inliers >= _MIN_SHARE * self.num_tried


def resect(
    whole: Collection,
    members: Sequence[int],
    solution: Solution,
    image: int,
    options: SparseOptions,
) -> Resection | None:
    """The pose of a photograph from its matches with those of a solution.

    Args:
        whole: all photographs and verified pairs.
        members: which of them the solution holds, in its order.
        solution: cameras and anchors of the members.
        image: index of the photograph in the whole collection.
        options: thresholds.
    """
    sightings = _sightings_with(whole, members, image)
    if sightings is None:
        return None
    state = solution.state
    rows = sightings.other == len(members)
    seen = np.zeros(sightings.num_anchors, dtype=np.bool_)
    seen[solution.sightings.anchor[solution.good]] = True
    rows &= seen[sightings.anchor]
    rows[rows] = state.inverse_depth[sightings.anchor[rows]] > 0
    chosen = sightings.select(rows)
    if len(chosen) < options.min_inliers:
        return None
    points = _world_points(chosen, state)
    limit = _LOOSENESS * options.max_error_px * float(whole.view_px[image])
    ransac = RansacOptions(limit, max_iterations=_ITERATIONS, seed=options.seed)
    camera = whole.cameras[image]
    if whole.known_cameras[image] is None:
        found = estimate_pose_and_focal(
            chosen.seen, points, whole.sizes[image], ransac, focal_guess=camera.focals[0]
        )
        if found is None:
            return None
        estimate = found[0]
        camera = camera_from_focal(found[1], whole.sizes[image])
    else:
        known = estimate_absolute_pose(chosen.seen, points, camera, ransac)
        if known is None:
            return None
        estimate = known
    if estimate.num_inliers < options.min_inliers:
        return None
    return Resection(image, camera, estimate.cam_from_world, estimate.num_inliers, len(chosen))


def add_photograph(
    whole: Collection,
    members: Sequence[int],
    solution: Solution,
    found: Resection,
) -> tuple[Collection, CameraState]:
    """The solution's state with one photograph more, last; its depths follow from the others."""
    cameras = list(whole.cameras)
    cameras[found.image] = found.camera
    grids = list(whole.grids)
    if not solution.collection.grids[0].has_ratios:
        grids = [grid.without_ratios() for grid in grids]
    wider = replace(whole, cameras=tuple(cameras), grids=tuple(grids))
    collection = wider.part([*members, found.image])
    state = solution.state
    num_new = len(grids[found.image])
    joined = CameraState(
        np.concatenate([state.rotations, found.pose.rotation[None]]),
        np.concatenate([state.translations, found.pose.translation[None]]),
        np.concatenate([state.focals, [found.camera.focals]]),
        np.concatenate([state.centers, [found.camera.principal_point]]),
        np.concatenate([state.inverse_depth, np.zeros(num_new)]),
    )
    sightings = collect_sightings(collection.views, collection.grids, _ALL)
    return collection, _with_carried_depths(
        joined, sightings, len(members), len(state.inverse_depth)
    )


def _with_carried_depths(
    state: CameraState, sightings: Sightings, new: int, first_anchor: int
) -> CameraState:
    """Depths of the last photograph's anchors from the points that others put there."""
    rows = sightings.other == new
    rows[rows] = state.inverse_depth[sightings.anchor[rows]] > 0
    part = sightings.select(rows)
    depth = _world_points(part, state) @ state.rotations[new, 2] + state.translations[new, 2]
    in_front = depth > 0
    inverse = state.inverse_depth.copy()
    if in_front.any():
        anchor = part.other_anchor[in_front]
        value = np.log(depth[in_front] / part.other_ratio[in_front])
        inverse[first_anchor:] = np.exp(-np.median(value))
        count = np.bincount(anchor, minlength=len(inverse))
        total = np.bincount(anchor, value, len(inverse))
        known = count > 0
        inverse[known] = np.exp(-total[known] / count[known])
    return replace(state, inverse_depth=inverse)


def _sightings_with(whole: Collection, members: Sequence[int], image: int) -> Sightings | None:
    """Sightings between the members and one more photograph, which comes last."""
    last = len(members)
    views = [
        view
        for view in whole.part([*members, image]).views
        if last in (view.matches.first, view.matches.second)
    ]
    if not views:
        return None
    grids = [whole.grids[member] for member in [*members, image]]
    return collect_sightings(views, grids, _ALL)


def _world_points(part: Sightings, state: CameraState) -> FloatArray:
    """(K, 3) where the home photographs put the points of sightings."""
    rays = (part.pixel - state.centers[part.home]) / state.focals[part.home]
    depth = part.ratio / state.inverse_depth[part.anchor]
    in_camera = np.column_stack([rays, np.ones(len(rays))]) * depth[:, None]
    moved = in_camera - state.translations[part.home]
    points: FloatArray = np.einsum("kji,kj->ki", state.rotations[part.home], moved)
    return points
