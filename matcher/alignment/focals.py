"""First guesses of unknown focals, from the matches of many pairs and from pointmaps.

A pair alone says little about two focals: its epipolar geometry fits many combinations almost
equally well, and noise decides. Many pairs together say more, because a photograph has one focal
in all of them. So every pair is asked how well it can be explained at each combination of a coarse
scale of focals, and the combination over all photographs with the least cost wins. What the
network's pointmaps say counts as one more vote, what the photograph's own file says as a heavy one,
and so does what photographs are usually like.
The guess is good to a step of the scale; the fine stage does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import poselib
import torch

from matcher.alignment.collection import Collection
from matcher.alignment.observations import PairMatches
from matcher.alignment.sparse_options import SparseOptions
from matcher.geometry.camera import camera_from_focal
from matcher.geometry.pose import essential_from_pose, unit_pose
from matcher.geometry.ransac import RansacOptions, poselib_camera, poselib_options
from matcher.structures import Camera, FloatArray

__all__ = ["with_matched_focals"]

_STEP = 1.26
_SCALE = 0.5 * _STEP ** np.arange(10)
"""Focals that are tried, in long sides of the photograph: 90 to 14 degrees of view."""
_TYPICAL, _TYPICAL_SPREAD, _TYPICAL_WEIGHT = 1.2, 0.6, 20.0
"""Focals of photographs: a log-normal distribution, and what it counts beside matches."""
_VOTE_WEIGHT, _VOTE_SPREAD, _VOTE_CAP = 5.0, 0.15, 10.0
"""What the focal of a good pointmap counts, how far off it may be (logarithm), and the limit."""
_TOLD_WEIGHT = 20.0
"""What the focal in a photograph's file counts: tags are seldom wrong, but pictures are edited."""
_TRIED, _COMPARED = 1_000, 300
_MIN_SHARE, _MIN_COUNT = 0.15, 40
_PAIRS_PER_IMAGE = 5
_COST_CAP = 60.0
"""No pair argues more strongly than this; one in which most matches are wrong would."""
_TRUNCATED = 4.0
_SWEEPS = 20


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A pair that an uncalibrated epipolar geometry explains; ``rank`` by how much it can tell."""

    matches: PairMatches
    rank: float
    threshold: float


def with_matched_focals(
    collection: Collection, pairs: Sequence[PairMatches], options: SparseOptions
) -> Collection:
    """The collection with better guesses for the focals of cameras that are not known.

    Args:
        collection: photographs; guesses from their pointmaps.
        pairs: all pairs, in pixels without lens distortion.
        options: thresholds.
    """
    unknown = [camera is None for camera in collection.known_cameras]
    if not any(unknown):
        return collection
    candidates = _best_candidates(collection, pairs, options)
    costs = [
        (one.matches.first, one.matches.second, _costs(one, collection, options.seed))
        for one in candidates
    ]
    long_sides = np.array([max(size.height, size.width) for size in collection.sizes])
    votes = _votes(collection, long_sides)
    groups = np.arange(len(collection))
    if options.shared_focal:
        sizes = {size: index for index, size in reversed(list(enumerate(collection.sizes)))}
        groups = np.array(
            [
                sizes[size] if is_unknown else index
                for index, (size, is_unknown) in enumerate(
                    zip(collection.sizes, unknown, strict=True)
                )
            ]
        )
    labels = _least_cost(costs, votes, groups)
    cameras = list(collection.cameras)
    for image, is_unknown in enumerate(unknown):
        if is_unknown:
            focal = _SCALE[labels[image]] * long_sides[image]
            guess = collection.told_focals[image] or collection.map_focals[image]
            # What the file or the pointmap says is finer than the scale, where matches confirm it.
            if guess is None or abs(np.log(guess / focal)) > np.log(_STEP):
                cameras[image] = camera_from_focal(float(focal), collection.sizes[image])
    return replace(collection, cameras=tuple(cameras))


def _best_candidates(
    collection: Collection, pairs: Sequence[PairMatches], options: SparseOptions
) -> list[_Candidate]:
    """For every photograph the pairs that tell most about its focal."""
    found = [
        candidate
        for pair in pairs
        if collection.known_cameras[pair.first] is None
        or collection.known_cameras[pair.second] is None
        if (candidate := _candidate(pair, collection, options)) is not None
    ]
    found.sort(key=lambda candidate: -candidate.rank)
    count = [0] * len(collection)
    chosen = []
    for candidate in found:
        ends = candidate.matches.first, candidate.matches.second
        if min(count[end] for end in ends) < _PAIRS_PER_IMAGE:
            chosen.append(candidate)
            for end in ends:
                count[end] += 1
    return chosen


def _candidate(
    pair: PairMatches, collection: Collection, options: SparseOptions
) -> _Candidate | None:
    """A pair with the matches that a fundamental matrix explains, if they are enough."""
    order = np.sort(np.argsort(-pair.confidence, kind="stable")[:_TRIED])
    tried = pair.select(order)
    view_px = collection.view_px
    threshold = options.max_error_px * float(np.sqrt(view_px[pair.first] * view_px[pair.second]))
    if len(tried) < _MIN_COUNT:
        return None
    _, info = poselib.estimate_fundamental(
        tried.keypoints0, tried.keypoints1, _ransac(threshold, 2_000, options.seed), {}
    )
    agree = np.array(info["inliers"], dtype=np.bool_)
    if agree.sum() < max(_MIN_COUNT, _MIN_SHARE * len(tried)):
        return None
    kept = tried.select(agree)
    # Matches of a plane, or of a turn on the spot, fit a homography and say nothing of focals.
    _, info = poselib.estimate_homography(
        kept.keypoints0, kept.keypoints1, _ransac(2 * threshold, 500, options.seed), {}
    )
    rank = len(kept) - float(np.count_nonzero(info["inliers"]))
    rows = np.random.default_rng(options.seed).permutation(len(kept))[:_COMPARED]
    return _Candidate(kept.select(np.sort(rows)), rank, threshold)


def _ransac(threshold: float, iterations: int, seed: int) -> dict[str, object]:
    return poselib_options(
        RansacOptions(threshold, max_iterations=iterations, min_iterations=30, seed=seed)
    )


def _costs(candidate: _Candidate, collection: Collection, seed: int) -> FloatArray:
    """(S0, S1) cost of each combination of focals; one row or column where a camera is known."""
    matches = candidate.matches
    cameras: list[list[Camera]] = []
    for image in (matches.first, matches.second):
        known = collection.known_cameras[image]
        size = collection.sizes[image]
        long_side = max(size.height, size.width)
        cameras.append(
            [collection.cameras[image]]
            if known is not None
            else [camera_from_focal(float(factor * long_side), size) for factor in _SCALE]
        )
    options = _ransac(candidate.threshold, 100, seed)
    costs = np.empty((len(cameras[0]), len(cameras[1])))
    for row, camera0 in enumerate(cameras[0]):
        for column, camera1 in enumerate(cameras[1]):
            found, _ = poselib.estimate_relative_pose(
                matches.keypoints0,
                matches.keypoints1,
                poselib_camera(camera0),
                poselib_camera(camera1),
                options,
                {},
            )
            costs[row, column] = _misfit(matches, camera0, camera1, found, candidate.threshold)
    least = float(costs.min())
    full = np.broadcast_to(np.minimum(costs - least, _COST_CAP), (len(_SCALE), len(_SCALE)))
    return np.array(full)


def _misfit(
    matches: PairMatches,
    camera0: Camera,
    camera1: Camera,
    found: poselib.CameraPose,
    threshold: float,
) -> float:
    pose = unit_pose(found.R, found.t)
    if pose is None:
        return _TRUNCATED * len(matches)
    # In pixels of both photographs: errors of rays would shrink as the focals grow.
    essential = essential_from_pose(pose)
    fundamental = np.linalg.inv(camera1.matrix).T @ essential @ np.linalg.inv(camera0.matrix)
    squared = kornia_geometry.sampson_epipolar_distance(
        torch.from_numpy(matches.keypoints0)[None],
        torch.from_numpy(matches.keypoints1)[None],
        torch.from_numpy(fundamental)[None],
        squared=True,
    )[0].numpy()
    return float(np.minimum(squared / threshold**2, _TRUNCATED).sum())


def _votes(collection: Collection, long_sides: FloatArray) -> FloatArray:
    """(N, S) cost of each focal of each photograph by itself."""
    usual = (np.log(_SCALE / _TYPICAL) / _TYPICAL_SPREAD) ** 2 / 2
    votes = np.tile(_TYPICAL_WEIGHT * usual, (len(collection), 1))
    for image, (told, mapped) in enumerate(
        zip(collection.told_focals, collection.map_focals, strict=True)
    ):
        focal, weight = (mapped, _VOTE_WEIGHT) if told is None else (told, _TOLD_WEIGHT)
        if focal is not None:
            off = np.log(_SCALE * long_sides[image] / focal) / _VOTE_SPREAD
            votes[image] = weight * np.minimum(off**2, _VOTE_CAP)
    return votes


def _least_cost(
    costs: Sequence[tuple[int, int, FloatArray]],
    votes: FloatArray,
    groups: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """(N,) step of the scale for each photograph: coordinate descent, from each step for all."""
    best, best_cost = np.zeros(len(votes), dtype=np.int64), np.inf
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    steps = votes.shape[1]
    for first in range(steps):
        labels = np.full(len(votes), first)
        for _ in range(_SWEEPS):
            before = labels.copy()
            for group in members:
                cost = votes[group].sum(axis=0)
                for i, j, table in costs:
                    if i in group and j in group:
                        cost = cost + np.diag(table)
                    elif i in group:
                        cost = cost + table[:, labels[j]]
                    elif j in group:
                        cost = cost + table[labels[i]]
                labels[group] = int(np.argmin(cost))
            if np.array_equal(labels, before):
                break
        total = _total(costs, votes, labels)
        if total < best_cost:
            best, best_cost = labels, total
    return best


def _total(
    costs: Sequence[tuple[int, int, FloatArray]],
    votes: FloatArray,
    labels: npt.NDArray[np.int64],
) -> float:
    own = votes[np.arange(len(votes)), labels].sum()
    return float(own + sum(table[labels[i], labels[j]] for i, j, table in costs))
