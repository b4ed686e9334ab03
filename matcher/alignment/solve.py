"""From verified pairs to cameras and depths: start, coarse stage, rounds of the fine stage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from matcher.alignment.anchors import Sightings, collect_sightings
from matcher.alignment.coarse import place_cameras
from matcher.alignment.collection import Collection
from matcher.alignment.depths import AnchorDepths, average_depths
from matcher.alignment.refine import RefineOptions, refine
from matcher.alignment.reprojection import (
    CameraState,
    depth_spread,
    reprojection_errors,
    whiten,
)
from matcher.alignment.rotations import average_rotations
from matcher.alignment.sparse_options import SparseOptions
from matcher.structures import FloatArray

__all__ = [
    "GOOD_ERROR",
    "Solution",
    "consistent_pairs",
    "refine_rounds",
    "sightings_per_pair",
    "solve",
    "start",
]

GOOD_ERROR = 3.0
"""Whitened errors up to which a sighting agrees with the solution."""
_MOST_SIGHTINGS = 400_000
_LEAST_PER_PAIR = 50
_MAX_ROTATION_ERROR_DEG = (10.0, 20.0)
"""Pairs further from the averaged rotations are wrong; with guessed focals they may be more off."""
_LAST_SCALE, _SCALE_STEP, _FIRST_SCALE_MOST = 1.0, 3.0, 300.0
_START_QUANTILE = 0.8
_LEAST_PARALLAX = 20.0
_DEPTH_NOISE = (1e-3, 0.2)
_FOCAL_PRIOR = 0.7


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """Cameras and anchors of a collection, and how well they explain its sightings.

    Attributes:
        collection: what was solved.
        sightings: what was observed.
        state: cameras and anchors.
        errors: (K,) whitened errors of the sightings.
        depth_noise: relative error of pixels' depths, given their anchors'.
    """

    collection: Collection
    sightings: Sightings
    state: CameraState
    errors: FloatArray
    depth_noise: float

    @classmethod
    def of(
        cls,
        collection: Collection,
        sightings: Sightings,
        state: CameraState,
        depth_noise: float,
        options: SparseOptions,
    ) -> Solution:
        """A solution with its errors."""
        noise_px = options.max_error_px * collection.view_px
        whitening = whiten(sightings, state, noise_px, depth_noise)
        errors = reprojection_errors(sightings, state, whitening)
        return cls(collection, sightings, state, errors, depth_noise)

    @property
    def good(self) -> npt.NDArray[np.bool_]:
        """(K,) which sightings agree."""
        return self.errors <= GOOD_ERROR


def consistent_pairs(collection: Collection) -> tuple[Collection, FloatArray]:
    """The pairs whose rotations agree with all others', and the (N, 3, 3) averaged rotations."""
    ends = np.array(collection.ends, dtype=np.int64)
    averaged = average_rotations(
        len(collection),
        ends,
        np.stack([view.pose.rotation for view in collection.views]),
        np.array([len(view.matches) for view in collection.views], dtype=np.float64),
        known={
            image: pose.rotation
            for image, pose in enumerate(collection.known_poses)
            if pose is not None
        },
    )
    guessed = any(camera is None for camera in collection.known_cameras)
    agree = averaged.errors_deg <= _MAX_ROTATION_ERROR_DEG[int(guessed)]
    views = [view for view, keep in zip(collection.views, agree, strict=True) if keep]
    return collection.with_views(views), averaged.rotations


def solve(
    collection: Collection,
    rotations: FloatArray,
    options: SparseOptions,
    progress: Callable[[str], None],
) -> Solution:
    """Solve a collection whose pairs connect all its photographs.

    Args:
        collection: photographs and consistent pairs.
        rotations: (N, 3, 3), cam_from_world, averaged over the pairs.
        options: see ``SparseOptions``.
        progress: is told the name of each stage as it begins.
    """
    progress("coarse stage")
    collection, sightings, state = start(collection, rotations, options)
    return refine_rounds(collection, sightings, state, options, progress)


def start(
    collection: Collection, rotations: FloatArray, options: SparseOptions
) -> tuple[Collection, Sightings, CameraState]:
    """The coarse solution; the grids come back with the better model of a block's depths."""
    collection, sightings, depths = _anchor_depths(collection, options)
    known_centers = {
        image: pose.inverse.translation
        for image, pose in enumerate(collection.known_poses)
        if pose is not None
    }
    places = place_cameras(
        sightings,
        depths.depth,
        rotations,
        collection.cameras,
        known_centers,
        same_place=[
            ends
            for ends, view in zip(collection.ends, collection.views, strict=True)
            if not view.has_baseline
        ],
    )
    image = np.repeat(np.arange(len(collection)), [len(grid) for grid in collection.grids])
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse_depth = 1 / (places.sizes[image] * depths.depth)
    unknown = ~np.isfinite(inverse_depth)
    inverse_depth[unknown] = np.median(inverse_depth[~unknown]) if not unknown.all() else 0.0
    return (
        collection,
        sightings,
        CameraState(
            rotations,
            -np.einsum("nij,nj->ni", rotations, places.centers),
            np.array([camera.focals for camera in collection.cameras]),
            np.array([camera.principal_point for camera in collection.cameras]),
            inverse_depth,
        ),
    )


def sightings_per_pair(collection: Collection, options: SparseOptions) -> int:
    """How many matches of a pair take part: fewer of each where there are many pairs."""
    share = _MOST_SIGHTINGS // (2 * max(1, len(collection.views)))
    return min(options.max_matches_per_pair, max(_LEAST_PER_PAIR, share))


def _anchor_depths(
    collection: Collection, options: SparseOptions
) -> tuple[Collection, Sightings, AnchorDepths]:
    """Sightings and depths, with or without the pointmaps' details inside a block.

    Good pointmaps tell how the depth changes inside a block; rough ones make it worse than one
    depth for all of it. Triangulated matches decide which these are.
    """
    most = sightings_per_pair(collection, options)
    answers = []
    for grids in (collection.grids, tuple(grid.without_ratios() for grid in collection.grids)):
        sightings = collect_sightings(collection.views, grids, most)
        depths = average_depths(
            sightings, collection.views, grids, collection.cameras, collection.view_px
        )
        answers.append((depths.noise, replace(collection, grids=grids), sightings, depths))
    _, chosen, sightings, depths = min(answers, key=lambda answer: answer[0])
    return chosen, sightings, depths


def refine_rounds(
    collection: Collection,
    sightings: Sightings,
    state: CameraState,
    options: SparseOptions,
    progress: Callable[[str], None],
) -> Solution:
    """The fine stage, with a loss that becomes stricter round by round."""
    noise_px = options.max_error_px * collection.view_px
    unknown = np.array([camera is None for camera in collection.known_cameras])
    scales = _loss_scales(sightings, state, noise_px)
    depth_noise = _DEPTH_NOISE[1]
    for number, scale in enumerate(scales):
        progress(f"fine stage, round {number + 1} of {len(scales)}")
        spread = depth_spread(sightings, state, noise_px, _LEAST_PARALLAX)
        depth_noise = float(np.clip(spread or 0.0, *_DEPTH_NOISE))
        whitening = whiten(sightings, state, noise_px, depth_noise)
        is_late = number >= len(scales) - 2
        moved = RefineOptions(
            loss_scale=scale,
            max_steps=options.max_steps,
            free_pose=np.array([pose is None for pose in collection.known_poses]),
            focal_group=_focal_groups(collection, options.shared_focal),
            # Only when everything else is about right: it would explain anything.
            free_center=unknown & (options.refine_principal_point and is_late),
            focal_prior=_FOCAL_PRIOR,
        )
        state = refine(sightings, state, whitening, moved)
    return Solution.of(collection, sightings, state, depth_noise, options)


def _loss_scales(sightings: Sightings, state: CameraState, noise_px: FloatArray) -> list[float]:
    """From errors as they are at the start, down to the noise."""
    whitening = whiten(sightings, state, noise_px, _DEPTH_NOISE[1])
    errors = reprojection_errors(sightings, state, whitening)
    first = float(np.clip(np.quantile(errors, _START_QUANTILE), _LAST_SCALE, _FIRST_SCALE_MOST))
    count = 1 + max(2, int(np.ceil(np.log(first / _LAST_SCALE) / np.log(_SCALE_STEP))))
    first = max(first, _LAST_SCALE * 4)
    return [float(value) for value in np.geomspace(first, _LAST_SCALE, count)]


def _focal_groups(collection: Collection, shared: bool) -> npt.NDArray[np.int64]:
    """Index of the focal of each photograph; -1 where it is known."""
    groups = np.full(len(collection), -1, dtype=np.int64)
    keys: dict[tuple[int, int] | int, int] = {}
    for image, (camera, size) in enumerate(
        zip(collection.known_cameras, collection.sizes, strict=True)
    ):
        if camera is None:
            key = (size.height, size.width) if shared else image
            groups[image] = keys.setdefault(key, len(keys))
    return groups
