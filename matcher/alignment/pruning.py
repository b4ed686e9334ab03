"""A solution without what does not fit, and with what fits after all.

Photographs that ended in a wrong place show it: most of their sightings do not agree with the rest.
They and the wrong pairs are taken out, the rest is refined again, and each photograph that is
missing may try once more, with its pose estimated against the points of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from matcher.alignment.anchors import collect_sightings
from matcher.alignment.collection import Collection
from matcher.alignment.graph import connected_components
from matcher.alignment.reprojection import CameraState
from matcher.alignment.resection import Resection, add_photograph, resect
from matcher.alignment.solve import (
    Solution,
    consistent_pairs,
    refine_rounds,
    sightings_per_pair,
    solve,
)
from matcher.alignment.sparse_options import SparseOptions

__all__ = ["solve_and_prune"]

_LEAST_GOOD_SHARE = 0.35
"""Pairs of whose sightings a smaller share agrees with the solution are wrong."""
_PRUNINGS = 4
_DISAGREES = "its matches do not agree with the other photographs on one place for it"


def solve_and_prune(
    group: Collection, options: SparseOptions, progress: Callable[[str], None]
) -> tuple[Solution, dict[str, str]]:
    """Solve a connected group; returns the solution and why some photographs are not in it.

    Args:
        group: photographs that verified pairs connect.
        options: thresholds.
        progress: is told the name of each stage as it begins.
    """
    agreeing, rotations = consistent_pairs(group)
    members = list(range(len(group)))
    solution = solve(agreeing, rotations, options, progress)
    members, solution = _prune(members, solution, options, progress)
    members, solution = _grow(group, members, solution, options, progress)
    inside = set(members)
    reasons = {name: _DISAGREES for image, name in enumerate(group.names) if image not in inside}
    order = np.argsort(members)
    return _reordered(solution, order.tolist(), options), reasons


def _prune(
    members: list[int],
    solution: Solution,
    options: SparseOptions,
    progress: Callable[[str], None],
) -> tuple[list[int], Solution]:
    """Take out wrong pairs and photographs until none is left, refining in between."""
    for _ in range(_PRUNINGS):
        kept, views = _fitting(solution, options)
        collection = solution.collection
        if len(views) == len(collection.views) and len(kept) == len(collection):
            break
        if len(kept) < 2:
            break
        part = collection.with_views([collection.views[view] for view in views]).part(kept)
        state = _part_of_state(solution, kept)
        sightings = collect_sightings(part.views, part.grids, sightings_per_pair(part, options))
        solution = refine_rounds(part, sightings, state, options, progress)
        members = [members[index] for index in kept]
    return members, solution


def _fitting(solution: Solution, options: SparseOptions) -> tuple[list[int], list[int]]:
    """Indices of the photographs and pairs that fit: the largest group with enough sightings."""
    collection, sightings = solution.collection, solution.sightings
    num_views = len(collection.views)
    total = np.bincount(sightings.pair, minlength=num_views)
    good = np.bincount(sightings.pair, solution.good, minlength=num_views)
    fits = good >= _LEAST_GOOD_SHARE * np.maximum(total, 1)
    ends = collection.ends
    known = [image for image, pose in enumerate(collection.known_poses) if pose is not None]
    support = np.zeros(len(collection))
    for view in np.flatnonzero(fits):
        # Both ends of a match are counted among the sightings.
        support[list(ends[view])] += good[view] / 2
    alive = {image for image in range(len(collection)) if support[image] >= options.min_inliers}
    alive |= set(known)
    views = [view for view in np.flatnonzero(fits).tolist() if alive.issuperset(ends[view])]
    joined = [ends[view] for view in views]
    joined += [(known[0], other) for other in known[1:]]
    largest = connected_components(len(collection), joined)[0]
    inside = set(largest)
    return largest, [view for view in views if inside.issuperset(ends[view])]


def _grow(
    whole: Collection,
    members: list[int],
    solution: Solution,
    options: SparseOptions,
    progress: Callable[[str], None],
) -> tuple[list[int], Solution]:
    """Add the photographs that are missing, the surest first."""
    refused: set[int] = set()
    while True:
        outside = [
            image for image in range(len(whole)) if image not in members and image not in refused
        ]
        found = [resect(whole, members, solution, image, options) for image in outside]
        sound = [one for one in found if one is not None and one.is_sound]
        if not sound:
            return members, solution
        best = max(sound, key=lambda one: one.num_inliers)
        larger = _with_one_more(whole, members, solution, best, options, progress)
        if larger is None:
            refused.add(best.image)
            continue
        members, solution = [*members, best.image], larger


def _with_one_more(
    whole: Collection,
    members: Sequence[int],
    solution: Solution,
    found: Resection,
    options: SparseOptions,
    progress: Callable[[str], None],
) -> Solution | None:
    """The solution with a photograph added, or ``None`` if that did not work."""
    collection, state = add_photograph(whole, members, solution, found)
    kept_before = {frozenset(ends) for ends in solution.collection.ends}
    last = len(members)
    views = [
        view
        for view, ends in zip(collection.views, collection.ends, strict=True)
        if last in ends or frozenset(ends) in kept_before
    ]
    collection = collection.with_views(views)
    sightings = collect_sightings(
        collection.views, collection.grids, sightings_per_pair(collection, options)
    )
    larger = refine_rounds(collection, sightings, state, options, progress)
    kept, fitting = _fitting(larger, options)
    if len(kept) < len(collection):
        return None
    if len(fitting) == len(views):
        return larger
    part = collection.with_views([views[view] for view in fitting])
    sightings = collect_sightings(part.views, part.grids, sightings_per_pair(part, options))
    return refine_rounds(part, sightings, larger.state, options, progress)


def _part_of_state(solution: Solution, kept: Sequence[int]) -> CameraState:
    state, grids = solution.state, solution.collection.grids
    offsets = np.concatenate([[0], np.cumsum([len(grid) for grid in grids])])
    anchors = [np.arange(offsets[image], offsets[image + 1]) for image in kept]
    return CameraState(
        state.rotations[kept],
        state.translations[kept],
        state.focals[kept],
        state.centers[kept],
        state.inverse_depth[np.concatenate(anchors)],
    )


def _reordered(solution: Solution, order: list[int], options: SparseOptions) -> Solution:
    """The solution with its photographs in another order."""
    if order == sorted(order):
        return solution
    part = solution.collection.part(order)
    state = _part_of_state(solution, order)
    sightings = collect_sightings(part.views, part.grids, sightings_per_pair(part, options))
    return Solution.of(part, sightings, state, solution.depth_noise, options)
