"""The sparse alignment of many photographs: from verified matches to cameras, poses and points.

After MASt3R-SfM (arXiv:2409.19152), with three changes for networks whose matches are better than
their pointmaps. Pairs count only where two-view geometry verifies them. The coarse stage begins
with rotations averaged over all pairs instead of a chain of pointmaps, and with depths to which
triangulated matches and pointmaps contribute what they are worth. The fine stage is a second-order
method, which converges in some dozen steps, and knows that the depth inside a block is uncertain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from matcher.alignment.assemble import (
    in_result_frame,
    registered_images,
    triangulated_points,
)
from matcher.alignment.collection import (
    Collection,
    make_collection,
    undistorted_pairs,
    verify_pairs,
)
from matcher.alignment.focals import with_matched_focals
from matcher.alignment.observations import gather_observations
from matcher.alignment.pruning import solve_and_prune
from matcher.alignment.solve import Solution, consistent_pairs
from matcher.alignment.sparse_options import SparseOptions
from matcher.pair_records import PairRecord
from matcher.reconstruction import Reconstruction
from matcher.structures import Camera, Pose

__all__ = ["align_sparse"]

_STAGES = 8


def align_sparse(
    records: Iterable[PairRecord],
    *,
    cameras: Mapping[str, Camera] | None = None,
    poses: Mapping[str, Pose] | None = None,
    focals: Mapping[str, float] | None = None,
    options: SparseOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Photographs that were matched in pairs, as one reconstruction.

    The largest group of photographs that verified pairs connect is reconstructed; every other one
    is listed with the reason. The same records give the same result.

    Args:
        records: the pairs; read once, so that they may come from a file one by one. Pointmaps are
            of use, above all where two photographs were taken from one place, but not needed.
        cameras: by name, where known; kept as they are. The other cameras get square pixels and,
            unless the options ask for it, a principal point in the middle.
        poses: ``cam_from_world`` by name, where known; kept as they are. Two of them in different
            places give the world its scale.
        focals: by name, pixels, where a photograph's file tells (``matcher.images.exif_focal``):
            the start for cameras that are not known.
        options: thresholds.
        progress: is told (stages done, stages in all).

    Returns:
        Cameras, poses, dense pointmaps where the pairs have any (all grey: no photograph is at
        hand), and points with their observations. Without known poses the world is the frame of
        the first photograph's camera, in the unit of the pointmaps.

    Raises:
        InputError: no pair, photographs or pointmaps of one name with different sizes, a camera
            that belongs to another size.
    """
    options = options or SparseOptions()
    tell = _Stages(progress)
    observations = gather_observations(records, options.block_px)
    tell("verification")
    collection = make_collection(observations, cameras or {}, poses or {}, options, focals)
    pairs = undistorted_pairs(observations.pairs, collection.known_cameras)
    collection = verify_pairs(with_matched_focals(collection, pairs, options), pairs, options)
    if not collection.views:
        reason = "no pair with another photograph could be verified"
        return Reconstruction((), unregistered=dict.fromkeys(observations.names, reason))
    group, unregistered = _consistent(collection)
    solution, dropped = solve_and_prune(group, options, tell)
    tell("result")
    return _as_reconstruction(solution, {**unregistered, **dropped})


def _consistent(collection: Collection) -> tuple[Collection, dict[str, str]]:
    """The largest group whose pairs agree on the rotations, and why others are not in it."""
    group, unregistered = collection.largest_group()
    while True:
        agreeing, _ = consistent_pairs(group)
        smaller, reasons = agreeing.largest_group()
        unregistered.update(reasons)
        if len(smaller) == len(group):
            return smaller, unregistered
        group = smaller


def _as_reconstruction(solution: Solution, unregistered: Mapping[str, str]) -> Reconstruction:
    state = in_result_frame(solution)
    images = registered_images(solution, state)
    points = triangulated_points(solution, state, images)
    return Reconstruction(images, points, unregistered)


class _Stages:
    """Counts the stages for a caller that wants to know."""

    def __init__(self, progress: Callable[[int, int], None] | None) -> None:
        self._progress = progress
        self._done = 0

    def __call__(self, stage: str) -> None:
        """A stage begins."""
        if self._progress is not None:
            self._progress(min(self._done, _STAGES), _STAGES)
        self._done += 1
