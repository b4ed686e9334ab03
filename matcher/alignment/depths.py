"""Depths of anchors, up to one scale a photograph, before any camera has its place.

Every verified pair triangulates its matches in units of its own baseline, and the canonical
pointmap has depths too. All of them are estimates of the same depths, each in its own unit: their
logarithms are averaged robustly, with one unknown offset for each pair. How much the pointmap
counts follows from how well it agrees: a rough one merely ties the pairs together and fills in
where nothing was triangulated, a good one is followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse.linalg import spsolve

from matcher.alignment.anchors import AnchorGrid, Sightings
from matcher.alignment.two_view import TwoView
from matcher.geometry.camera import normalize
from matcher.structures import Camera, FloatArray

__all__ = ["AnchorDepths", "average_depths"]

_STEPS = 12
_NOISE_FLOOR = 0.03
_POINTMAP_NOISE = (0.02, 1.0)
_LEAST_WEIGHT = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class AnchorDepths:
    """What is known of the shape of each photograph.

    Attributes:
        depth: (A,) depth of every anchor in its home's own unit; NaN where nothing is known.
        pointmap_noise: (N,) typical relative error of the pointmap; NaN without one.
        noise: typical relative error of a triangulated match, given its anchor; infinite without.
    """

    depth: FloatArray
    pointmap_noise: FloatArray
    noise: float


def average_depths(
    sightings: Sightings,
    views: Sequence[TwoView],
    grids: Sequence[AnchorGrid],
    cameras: Sequence[Camera],
    noise_px: FloatArray,
) -> AnchorDepths:
    """Average the depths that pairs and pointmaps give.

    Args:
        sightings: of the verified pairs.
        views: the verified pairs.
        grids: of all photographs.
        cameras: pinholes.
        noise_px: (N,) error of a keypoint of each photograph, original pixels.
    """
    images = np.repeat(np.arange(len(grids)), [len(grid) for grid in grids])
    prior = np.concatenate([grid.anchor_depths() for grid in grids])
    value, sigma = _triangulated(sightings, views, cameras, noise_px)
    usable = np.isfinite(value)
    in_prior = np.flatnonzero(np.isfinite(prior))
    group = 2 * sightings.pair + (sightings.home > sightings.other)
    first_map_group = 2 * len(views)
    anchor = np.concatenate([sightings.anchor[usable], in_prior])
    groups = np.concatenate([group[usable], first_map_group + images[in_prior]])
    values = np.concatenate([value[usable], np.log(prior[in_prior])])
    sigmas = np.concatenate([sigma[usable], np.full(len(in_prior), 0.3)])
    is_map = groups >= first_map_group
    num_groups = first_map_group + len(grids)
    depth = np.full(len(images), np.nan)
    noise = np.full(len(grids), np.nan)
    if not len(values):
        return AnchorDepths(depth, noise, np.inf)
    residual = np.zeros(len(values))
    for step in range(_STEPS):
        weights = 1 / sigmas**2 / (1 + (residual / (2 * sigmas)) ** 2)
        log_depth, offsets = _solve(
            anchor, groups, values, weights, len(images), num_groups, first_map_group
        )
        residual = values - log_depth[anchor] - offsets[groups]
        if step:
            noise = _pointmap_noise(residual, anchor, groups, is_map, images, len(grids))
            sigmas[is_map] = noise[groups[is_map] - first_map_group]
    known = np.bincount(anchor, minlength=len(images)) > 0
    depth[known] = np.exp(log_depth[known])
    matched = np.abs(residual[~is_map])
    return AnchorDepths(depth, noise, float(np.median(matched)) if len(matched) else np.inf)


def _triangulated(
    sightings: Sightings,
    views: Sequence[TwoView],
    cameras: Sequence[Camera],
    noise_px: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """(K,) logarithms of the anchors' depths in units of the baseline, and their errors."""
    value = np.full(len(sightings), np.nan)
    sigma = np.full(len(sightings), np.nan)
    for index, view in enumerate(views):
        if not view.has_baseline:
            continue
        for backward in (False, True):
            rows = np.flatnonzero(
                (sightings.pair == index) & ((sightings.home > sightings.other) == backward)
            )
            if not len(rows):
                continue
            home, other = int(sightings.home[rows[0]]), int(sightings.other[rows[0]])
            pose = view.pose.inverse if backward else view.pose
            rays = normalize(sightings.pixel[rows], cameras[home])
            target = normalize(sightings.seen[rows], cameras[other])
            turned = np.column_stack([rays, np.ones(len(rays))]) @ pose.rotation.T
            # A point at inverse depth q lies on the ray R r + q t, which meets the other pixel.
            offset = turned[:, :2] - target * turned[:, 2:]
            slope = pose.translation[:2] - target * pose.translation[2]
            length = np.maximum(np.sum(slope**2, axis=1), 1e-18)
            inverse = -np.sum(slope * offset, axis=1) / length
            error = (
                np.abs(turned[:, 2])
                / np.sqrt(length)
                * noise_px[other]
                / float(np.mean(cameras[other].focals))
            )
            good = (inverse > error) & (turned[:, 2] + inverse * pose.translation[2] > 0)
            rows, inverse, error = rows[good], inverse[good], error[good]
            value[rows] = -np.log(inverse) - np.log(sightings.ratio[rows])
            sigma[rows] = np.hypot(error / inverse, _NOISE_FLOOR)
    return value, sigma


def _solve(
    anchor: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    values: FloatArray,
    weights: FloatArray,
    num_anchors: int,
    num_groups: int,
    first_map_group: int,
) -> tuple[FloatArray, FloatArray]:
    """Weighted least squares for one depth an anchor and one offset a group."""
    shared = sparse.csr_matrix((weights, (anchor, groups)), shape=(num_anchors, num_groups))
    total = np.maximum(np.bincount(anchor, weights, num_anchors), _LEAST_WEIGHT)
    mean = np.bincount(anchor, weights * values, num_anchors) / total
    group_total = np.bincount(groups, weights, num_groups)
    free = np.flatnonzero(group_total[:first_map_group] > 0)  # pointmaps keep their own unit
    offsets = np.zeros(num_groups)
    if len(free):
        columns = shared[:, free]
        reduced = sparse.diags(group_total[free]) - columns.T @ sparse.diags(1 / total) @ columns
        reduced = reduced + 1e-9 * group_total[free].mean() * sparse.eye(len(free))
        right = np.bincount(groups, weights * values, num_groups)[free] - columns.T @ mean
        offsets[free] = np.atleast_1d(spsolve(reduced.tocsc(), right))
    return mean - (shared @ offsets) / total, offsets


def _pointmap_noise(
    residual: FloatArray,
    anchor: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    is_map: npt.NDArray[np.bool_],
    images: npt.NDArray[np.int64],
    num_images: int,
) -> FloatArray:
    """(N,) median residual of the pointmap where pairs were triangulated too."""
    low, high = _POINTMAP_NOISE
    both = np.bincount(anchor[~is_map], minlength=len(images)) > 0
    noise = np.full(num_images, np.nan)
    image = images[anchor]
    compared = is_map & both[anchor]
    for index in np.unique(image[is_map]):
        errors = np.abs(residual[compared & (image == index)])
        noise[index] = np.clip(1.5 * np.median(errors), low, high) if len(errors) else high
    return noise
