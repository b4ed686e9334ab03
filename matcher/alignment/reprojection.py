"""Where anchors are seen: projection, errors and what is to be expected of them, in torch.

All sightings are handled together. Points are written by inverse depth: one at infinity has the
value 0 and no singularity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from matcher.alignment.anchors import Sightings
from matcher.structures import FloatArray

__all__ = [
    "NEAREST",
    "CameraState",
    "Problem",
    "as_tensors",
    "by_point",
    "depth_spread",
    "make_problem",
    "part_of_problem",
    "projected",
    "reprojection_errors",
    "residuals",
    "whiten",
]

NEAREST = 1e-6
"""Depth over that in the home camera from which a point counts as in front."""
_LEAST_TOLD = 50


@dataclass(frozen=True, slots=True, eq=False)
class CameraState:
    """All unknowns: N cameras and the anchors of their photographs.

    Attributes:
        rotations: (N, 3, 3), cam_from_world.
        translations: (N, 3), cam_from_world.
        focals: (N, 2) fx, fy, original pixels.
        centers: (N, 2) principal points, original pixels.
        inverse_depth: (A,) of the anchors, in their home camera; >= 0.
    """

    rotations: FloatArray
    translations: FloatArray
    focals: FloatArray
    centers: FloatArray
    inverse_depth: FloatArray


@dataclass(slots=True, eq=False)
class Problem:
    """The sightings as tensors."""

    home: Tensor
    other: Tensor
    anchor: Tensor
    pixel: Tensor
    seen: Tensor
    ratio: Tensor
    whitening: Tensor
    num_images: int
    num_anchors: int


def reprojection_errors(
    sightings: Sightings, state: CameraState, whitening: FloatArray
) -> FloatArray:
    """(K,) lengths of whitened reprojection errors; infinite where a point is behind a camera.

    Args:
        sightings: what is observed.
        state: cameras and anchors.
        whitening: (K, 2, 2) of :func:`whiten`.
    """
    problem, _ = make_problem(sightings, whitening, len(state.focals), sort=False)
    residual, depth = residuals(problem, as_tensors(state))
    errors: FloatArray = residual.norm(dim=1).numpy()
    errors[(depth <= NEAREST).numpy()] = np.inf
    return errors


def whiten(
    sightings: Sightings, state: CameraState, noise_px: FloatArray, depth_noise: float
) -> FloatArray:
    """(K, 2, 2) matrices that turn reprojection errors in pixels into units of their noise.

    A sighting misses for two reasons: its keypoint is off, in any direction, and the depth of its
    pixel is not quite what the anchor says, which moves the point along the epipolar line, the
    further the more parallax there is.

    Args:
        sightings: what is observed.
        state: cameras and anchors, which give the lines and the parallax.
        noise_px: (N,) error of a keypoint of each photograph, original pixels.
        depth_noise: relative error of a pixel's depth, given its anchor's.
    """
    along = _parallax(sightings, state) * depth_noise
    scale = noise_px[sightings.other]
    length = np.maximum(np.linalg.norm(along, axis=1), 1e-12)
    line = along / length[:, None]
    # Across the line 1 / noise; along it 1 / sqrt(noise^2 + length^2).
    shrink = 1 / np.hypot(scale, length) - 1 / scale
    outer = line[:, :, None] * line[:, None, :]
    whitening: FloatArray = shrink[:, None, None] * outer + np.eye(2) / scale[:, None, None]
    return whitening


def depth_spread(
    sightings: Sightings, state: CameraState, noise_px: FloatArray, least_parallax_px: float
) -> float | None:
    """Relative error of pixels' depths, given their anchors', as the sightings show it.

    Args:
        sightings: what is observed.
        state: cameras and anchors.
        noise_px: (N,) error of a keypoint of each photograph, original pixels.
        least_parallax_px: sightings whose point moves by fewer pixels of noise as its depth
            doubles do not show it.
    """
    along = _parallax(sightings, state)
    length = np.linalg.norm(along, axis=1)
    identity = np.broadcast_to(np.eye(2), (len(sightings), 2, 2))
    problem, _ = make_problem(sightings, identity, len(state.focals), sort=False)
    residual, depth = residuals(problem, as_tensors(state))
    told = (length > least_parallax_px * noise_px[sightings.other]) & (depth > NEAREST).numpy()
    if np.count_nonzero(told) < _LEAST_TOLD:
        return None
    errors = np.abs(np.sum(residual.numpy()[told] * along[told], axis=1)) / length[told] ** 2
    return float(1.4826 * np.median(errors))


def _parallax(sightings: Sightings, state: CameraState) -> FloatArray:
    """(K, 2) derivatives of the seen pixels by the logarithm of the inverse depth, pixels."""
    identity = np.broadcast_to(np.eye(2), (len(sightings), 2, 2))
    problem, _ = make_problem(sightings, identity, len(state.focals), sort=False)
    unknowns = as_tensors(state)
    _, relative, _, _, point, inverse = projected(problem, unknowns)
    shift = unknowns[1][problem.other] - (relative @ unknowns[1][problem.home][:, :, None])[:, :, 0]
    moved = (by_point(problem, unknowns, point) @ (inverse * shift)[:, :, None])[:, :, 0]
    parallax: FloatArray = moved.numpy()
    return parallax


def make_problem(
    sightings: Sightings, whitening: FloatArray, num_images: int, *, sort: bool
) -> tuple[Problem, Tensor]:
    """The sightings as tensors, and which anchors they number: all, or sorted those seen."""
    order = np.argsort(sightings.anchor, kind="stable") if sort else np.arange(len(sightings))
    anchors, local = np.unique(sightings.anchor[order], return_inverse=True)
    if not sort:
        anchors, local = np.arange(sightings.num_anchors), sightings.anchor[order]
    problem = Problem(
        torch.from_numpy(sightings.home[order]),
        torch.from_numpy(sightings.other[order]),
        torch.from_numpy(local.astype(np.int64)),
        torch.from_numpy(sightings.pixel[order]),
        torch.from_numpy(sightings.seen[order]),
        torch.from_numpy(sightings.ratio[order]),
        torch.from_numpy(np.ascontiguousarray(whitening[order])),
        num_images,
        len(anchors),
    )
    return problem, torch.from_numpy(anchors)


def as_tensors(state: CameraState) -> list[Tensor]:
    """Rotations, translations, focals, principal points, inverse depths."""
    return [
        torch.from_numpy(np.array(value, dtype=np.float64))
        for value in (
            state.rotations,
            state.translations,
            state.focals,
            state.centers,
            state.inverse_depth,
        )
    ]


def part_of_problem(problem: Problem, start: int, count: int) -> Problem:
    """Some consecutive sightings."""
    stop = start + count
    return Problem(
        problem.home[start:stop],
        problem.other[start:stop],
        problem.anchor[start:stop],
        problem.pixel[start:stop],
        problem.seen[start:stop],
        problem.ratio[start:stop],
        problem.whitening[start:stop],
        problem.num_images,
        problem.num_anchors,
    )


def projected(part: Problem, unknowns: list[Tensor]) -> tuple[Tensor, ...]:
    """Ray in the home camera, the same ray and point in the other one, and inverse depth."""
    rotations, translations, focals, centers, inverse_depth = unknowns
    ray = torch.cat(
        [
            (part.pixel - centers[part.home]) / focals[part.home],
            torch.ones(len(part.home), 1, dtype=torch.float64),
        ],
        dim=1,
    )
    inverse = (inverse_depth[part.anchor] / part.ratio)[:, None]
    relative = rotations[part.other] @ rotations[part.home].transpose(1, 2)
    from_home = ray - inverse * translations[part.home]
    turned = (relative @ from_home[:, :, None])[:, :, 0]
    point = turned + inverse * translations[part.other]
    return ray, relative, from_home, turned, point, inverse


def residuals(part: Problem, unknowns: list[Tensor]) -> tuple[Tensor, Tensor]:
    """(K, 2) whitened reprojection errors, and (K,) depths in the other camera."""
    point = projected(part, unknowns)[4]
    depth = point[:, 2]
    safe = depth.clamp(min=NEAREST)
    pixel = point[:, :2] / safe[:, None] * unknowns[2][part.other] + unknowns[3][part.other]
    return (part.whitening @ (pixel - part.seen)[:, :, None])[:, :, 0], depth


def by_point(part: Problem, unknowns: list[Tensor], point: Tensor) -> Tensor:
    """(K, 2, 3) how a seen pixel moves with the point in the other camera, pixels."""
    depth = point[:, 2].clamp(min=NEAREST)
    focal = unknowns[2][part.other]
    by_point = torch.zeros(len(depth), 2, 3, dtype=torch.float64)
    by_point[:, 0, 0] = focal[:, 0] / depth
    by_point[:, 1, 1] = focal[:, 1] / depth
    by_point[:, :, 2] = -focal * point[:, :2] / depth[:, None] ** 2
    return by_point
