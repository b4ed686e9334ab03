"""The fine stage: reprojection errors of all sightings, by Levenberg and Marquardt's method.

MASt3R-SfM (arXiv:2409.19152), section 4.3, second stage: poses, focals and the depths of anchors
move until every match ends where its anchor's point is seen. The unknowns of a sighting are two
cameras and one depth, so the depths are eliminated in closed form (Schur complement) and a system
over the cameras remains. All sightings are handled together, in torch.

Points are written by inverse depth: one at infinity has the value 0 and no singularity.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from matcher.alignment.anchors import Sightings
from matcher.structures import FloatArray

__all__ = [
    "CameraState",
    "RefineOptions",
    "depth_spread",
    "refine",
    "reprojection_errors",
    "whiten",
]

_CHUNK = 40_000
_NEAREST = 1e-6
_DAMPING = (1e-4, 1e-9, 1e6)
_CONVERGED = 1e-6
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


@dataclass(frozen=True, slots=True, eq=False)
class RefineOptions:
    """What may move, and how far errors are trusted.

    Attributes:
        loss_scale: residuals (in units of the noise) beyond it lose influence (Cauchy's loss).
        max_steps: no more steps than these.
        free_pose: (N,) which poses may move.
        focal_group: (N,) focals with the same index change by one factor; -1 keeps a focal.
        free_center: (N,) which principal points may move.
        focal_prior: standard deviation of the logarithm of a focal factor; infinity: none.
        center_prior: standard deviation of a principal point, in focals; keeps it near the middle.
    """

    loss_scale: float
    max_steps: int
    free_pose: npt.NDArray[np.bool_]
    focal_group: npt.NDArray[np.int64]
    free_center: npt.NDArray[np.bool_]
    focal_prior: float = float("inf")
    center_prior: float = 0.02


@dataclass(slots=True, eq=False)
class _Problem:
    """The sightings as tensors, sorted by anchor."""

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
    problem, _ = _make_problem(sightings, whitening, len(state.focals), sort=False)
    residual, depth = _residuals(problem, _as_tensors(state))
    errors: FloatArray = residual.norm(dim=1).numpy()
    errors[(depth <= _NEAREST).numpy()] = np.inf
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
    problem, _ = _make_problem(sightings, identity, len(state.focals), sort=False)
    residual, depth = _residuals(problem, _as_tensors(state))
    told = (length > least_parallax_px * noise_px[sightings.other]) & (depth > _NEAREST).numpy()
    if np.count_nonzero(told) < _LEAST_TOLD:
        return None
    errors = np.abs(np.sum(residual.numpy()[told] * along[told], axis=1)) / length[told] ** 2
    return float(1.4826 * np.median(errors))


def _parallax(sightings: Sightings, state: CameraState) -> FloatArray:
    """(K, 2) derivatives of the seen pixels by the logarithm of the inverse depth, pixels."""
    identity = np.broadcast_to(np.eye(2), (len(sightings), 2, 2))
    problem, _ = _make_problem(sightings, identity, len(state.focals), sort=False)
    unknowns = _as_tensors(state)
    _, relative, _, _, point, inverse = _project(problem, unknowns)
    shift = unknowns[1][problem.other] - (
        relative @ unknowns[1][problem.home][:, :, None]
    )[:, :, 0]
    moved = (_by_point(problem, unknowns, point) @ (inverse * shift)[:, :, None])[:, :, 0]
    parallax: FloatArray = moved.numpy()
    return parallax


def refine(
    sightings: Sightings, state: CameraState, whitening: FloatArray, options: RefineOptions
) -> CameraState:
    """Move what is free until the robust sum of squared reprojection errors is least.

    Args:
        sightings: what is observed.
        state: where to start.
        whitening: (K, 2, 2) of :func:`whiten`.
        options: what may move.
    """
    problem, anchors = _make_problem(sightings, whitening, len(state.focals), sort=True)
    layout = _Layout(options, len(state.focals))
    unknowns = _as_tensors(state)
    unknowns[4] = unknowns[4][anchors]
    start_focal, start_center = unknowns[2].clone(), unknowns[3].clone()
    damping, least, most = _DAMPING
    cost = _cost(problem, unknowns, options, start_focal, start_center)
    for _ in range(options.max_steps):
        system = _linearise(problem, unknowns, options, layout, start_focal, start_center)
        improved = False
        while damping < most:
            candidate = _apply(unknowns, *_solve_step(system, layout, problem, damping))
            new_cost = _cost(problem, candidate, options, start_focal, start_center)
            if new_cost < cost:
                improved = True
                break
            damping *= 8
        if not improved:
            break
        gain = (cost - new_cost) / max(cost, 1e-30)
        unknowns, cost, damping = candidate, new_cost, max(damping / 5, least)
        if gain < _CONVERGED:
            break
    inverse_depth = state.inverse_depth.copy()
    inverse_depth[anchors.numpy()] = unknowns[4].numpy()
    return CameraState(
        unknowns[0].numpy(),
        unknowns[1].numpy(),
        unknowns[2].numpy(),
        unknowns[3].numpy(),
        inverse_depth,
    )


class _Layout:
    """Which column of the reduced system each camera parameter has.

    A camera has 9 parameters: rotation, translation, log focal, principal point (in focals).
    """

    width = 9

    def __init__(self, options: RefineOptions, num_images: int) -> None:
        columns = np.full((num_images, self.width), -1, dtype=np.int64)
        count = 0
        for image in np.flatnonzero(options.free_pose):
            columns[image, :6] = count + np.arange(6)
            count += 6
        groups = {int(group) for group in options.focal_group if group >= 0}
        for group in sorted(groups):
            columns[options.focal_group == group, 6] = count
            count += 1
        for image in np.flatnonzero(options.free_center):
            columns[image, 7:] = count + np.arange(2)
            count += 2
        self.columns = torch.from_numpy(columns)
        self.count = count
        # Parameters that do not move share one column beyond the last, which is cut off.
        self.padded = torch.where(self.columns < 0, count, self.columns)
        self.used = 9 if bool(options.free_center.any()) else 7


def _make_problem(
    sightings: Sightings, whitening: FloatArray, num_images: int, *, sort: bool
) -> tuple[_Problem, Tensor]:
    order = np.argsort(sightings.anchor, kind="stable") if sort else np.arange(len(sightings))
    anchors, local = np.unique(sightings.anchor[order], return_inverse=True)
    if not sort:
        anchors, local = np.arange(sightings.num_anchors), sightings.anchor[order]
    problem = _Problem(
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


def _as_tensors(state: CameraState) -> list[Tensor]:
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


def _chunked(problem: _Problem, start: int) -> _Problem:
    stop = start + _CHUNK
    return _Problem(
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


def _project(part: _Problem, unknowns: list[Tensor]) -> tuple[Tensor, ...]:
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


def _residuals(part: _Problem, unknowns: list[Tensor]) -> tuple[Tensor, Tensor]:
    point = _project(part, unknowns)[4]
    depth = point[:, 2]
    safe = depth.clamp(min=_NEAREST)
    pixel = point[:, :2] / safe[:, None] * unknowns[2][part.other] + unknowns[3][part.other]
    return (part.whitening @ (pixel - part.seen)[:, :, None])[:, :, 0], depth


def _cost(
    problem: _Problem,
    unknowns: list[Tensor],
    options: RefineOptions,
    start_focal: Tensor,
    start_center: Tensor,
) -> float:
    residual, depth = _residuals(problem, unknowns)
    squared = (residual**2).sum(1)
    # A point behind the camera counts as an error of many pixels, whatever it projects to.
    squared = torch.where(depth > _NEAREST, squared, torch.full_like(squared, 1e4))
    scale = options.loss_scale**2
    cost = float((scale * torch.log1p(squared / scale)).sum())
    focal, center = _prior_residuals(unknowns, options, start_focal, start_center)
    return cost + float((focal**2).sum() + (center**2).sum())


def _prior_residuals(
    unknowns: list[Tensor], options: RefineOptions, start_focal: Tensor, start_center: Tensor
) -> tuple[Tensor, Tensor]:
    focal = torch.log(unknowns[2][:, 0] / start_focal[:, 0]) / options.focal_prior
    center = (unknowns[3] - start_center) / unknowns[2] / options.center_prior
    return focal, center * torch.from_numpy(options.free_center)[:, None]


@dataclass(slots=True, eq=False)
class _System:
    """Normal equations: cameras (padded), anchors, and what couples them."""

    cameras: Tensor
    camera_right: Tensor
    anchors: Tensor
    anchor_right: Tensor
    coupling_rows: Tensor
    coupling_columns: Tensor
    coupling: Tensor


def _linearise(
    problem: _Problem,
    unknowns: list[Tensor],
    options: RefineOptions,
    layout: _Layout,
    start_focal: Tensor,
    start_center: Tensor,
) -> _System:
    used, images = layout.used, problem.num_images
    blocks = torch.zeros(images * images, used, used, dtype=torch.float64)
    right = torch.zeros(images, used, dtype=torch.float64)
    anchors = torch.zeros(problem.num_anchors, dtype=torch.float64)
    anchor_right = torch.zeros(problem.num_anchors, dtype=torch.float64)
    couplings = []
    for start in range(0, len(problem.home), _CHUNK):
        part = _chunked(problem, start)
        residual, home, other, depth = _jacobians(part, unknowns, options, used)
        for first, one in ((part.home, home), (part.other, other)):
            for second, two in ((part.home, home), (part.other, other)):
                blocks.index_add_(0, first * images + second, one.transpose(1, 2) @ two)
            right.index_add_(0, first, (one.transpose(1, 2) @ residual[:, :, None])[:, :, 0])
            couplings.append((one.transpose(1, 2) @ depth[:, :, None])[:, :, 0])
        anchors.index_add_(0, part.anchor, (depth**2).sum(1))
        anchor_right.index_add_(0, part.anchor, (depth * residual).sum(1))
    columns = layout.padded[:, :used]
    size = layout.count + 1
    cameras = torch.zeros(size * size, dtype=torch.float64)
    place = columns[:, None, :, None] * size + columns[None, :, None, :]
    cameras.index_add_(0, place.reshape(-1), blocks.reshape(-1))
    cameras = cameras.view(size, size)
    camera_right = torch.zeros(size, dtype=torch.float64)
    camera_right.index_add_(0, columns.reshape(-1), right.reshape(-1))
    _add_priors(cameras, camera_right, unknowns, options, layout, start_focal, start_center)
    rows = torch.cat(
        [
            part.anchor
            for start in range(0, len(problem.home), _CHUNK)
            for part in [_chunked(problem, start)] * 2
        ]
    )
    which = torch.cat(
        [
            image
            for start in range(0, len(problem.home), _CHUNK)
            for part in [_chunked(problem, start)]
            for image in (part.home, part.other)
        ]
    )
    return _System(
        cameras, camera_right, anchors, anchor_right, rows, columns[which], torch.cat(couplings)
    )


def _jacobians(
    part: _Problem, unknowns: list[Tensor], options: RefineOptions, used: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted residuals (K, 2), and their derivatives by home (K, 2, P), other, inverse depth."""
    ray, relative, from_home, turned, point, inverse = _project(part, unknowns)
    image_point = point[:, :2] / point[:, 2:].clamp(min=_NEAREST)
    residual, depth = _residuals(part, unknowns)
    squared = (residual**2).sum(1)
    weight = torch.rsqrt(1 + squared / options.loss_scale**2) * (depth > _NEAREST)
    whitening = part.whitening * weight[:, None, None]
    by_point = whitening @ _by_point(part, unknowns, point)
    by_center = whitening * unknowns[2][part.other][:, None, :]
    in_home = by_point @ relative
    home = torch.zeros(len(depth), 2, used, dtype=torch.float64)
    other = torch.zeros_like(home)
    home[:, :, :3] = in_home @ _skew(from_home)
    home[:, :, 3:6] = -inverse[:, :, None] * in_home
    ray_change = ray.clone()
    ray_change[:, 2] = 0
    home[:, :, 6] = -(in_home @ ray_change[:, :, None])[:, :, 0]
    other[:, :, :3] = -by_point @ _skew(turned)
    other[:, :, 3:6] = inverse[:, :, None] * by_point
    other[:, :, 6] = (by_center @ image_point[:, :, None])[:, :, 0]
    if used > 7:
        home[:, :, 7:] = -in_home[:, :, :2]
        other[:, :, 7:] = by_center
    shift = unknowns[1][part.other] - (relative @ unknowns[1][part.home][:, :, None])[:, :, 0]
    by_depth = (by_point @ shift[:, :, None])[:, :, 0] / part.ratio[:, None]
    return residual * weight[:, None], home, other, by_depth


def _by_point(part: _Problem, unknowns: list[Tensor], point: Tensor) -> Tensor:
    """(K, 2, 3) how a seen pixel moves with the point in the other camera, pixels."""
    depth = point[:, 2].clamp(min=_NEAREST)
    focal = unknowns[2][part.other]
    by_point = torch.zeros(len(depth), 2, 3, dtype=torch.float64)
    by_point[:, 0, 0] = focal[:, 0] / depth
    by_point[:, 1, 1] = focal[:, 1] / depth
    by_point[:, :, 2] = -focal * point[:, :2] / depth[:, None] ** 2
    return by_point


def _add_priors(
    cameras: Tensor,
    camera_right: Tensor,
    unknowns: list[Tensor],
    options: RefineOptions,
    layout: _Layout,
    start_focal: Tensor,
    start_center: Tensor,
) -> None:
    focal, center = _prior_residuals(unknowns, options, start_focal, start_center)
    column = layout.padded[:, 6]
    diagonal = cameras.diagonal()
    if np.isfinite(options.focal_prior):
        inverse = 1 / options.focal_prior
        diagonal.index_add_(0, column, torch.full_like(focal, inverse**2))
        camera_right.index_add_(0, column, focal * inverse)
    if layout.used > 7:
        inverse = 1 / options.center_prior
        for axis in range(2):
            column = layout.padded[:, 7 + axis]
            diagonal.index_add_(0, column, torch.full_like(focal, inverse**2))
            camera_right.index_add_(0, column, center[:, axis] * inverse)


def _solve_step(
    system: _System, layout: _Layout, problem: _Problem, damping: float
) -> tuple[Tensor, Tensor]:
    """(N, 9) step of the cameras and (A,) step of the inverse depths."""
    count = layout.count
    anchors = system.anchors * (1 + damping) + 1e-12
    reduced = system.cameras.clone()
    right = system.camera_right.clone()
    dense = _Coupling(system, problem, count + 1)
    reduced_by, right_by = dense.eliminate(anchors, system.anchor_right)
    reduced = reduced[:count, :count] - reduced_by[:count, :count]
    diagonal = system.cameras.diagonal()[:count]
    reduced = reduced + torch.diag(damping * diagonal + 1e-9 * diagonal.mean() + 1e-12)
    step = torch.zeros(count + 1, dtype=torch.float64)
    if count:
        step[:count] = torch.linalg.lstsq(
            reduced, (right_by - right)[:count, None], driver="gelsd"
        ).solution[:, 0]
    depth_step = -(system.anchor_right + dense.times(step)) / anchors
    return step[layout.padded], depth_step


class _Coupling:
    """The part of the normal equations between cameras and anchors, (A, columns)."""

    def __init__(self, system: _System, problem: _Problem, size: int) -> None:
        self.matrix = torch.zeros(problem.num_anchors * size, dtype=torch.float64)
        place = system.coupling_rows[:, None] * size + system.coupling_columns
        self.matrix.index_add_(0, place.reshape(-1), system.coupling.reshape(-1))
        self.matrix = self.matrix.view(problem.num_anchors, size)

    def eliminate(self, anchors: Tensor, anchor_right: Tensor) -> tuple[Tensor, Tensor]:
        """What the anchors take away from the cameras' matrix and right side."""
        scaled = self.matrix / anchors[:, None]
        return self.matrix.T @ scaled, scaled.T @ anchor_right

    def times(self, step: Tensor) -> Tensor:
        """(A,) the anchors' share of a step of the cameras."""
        return torch.mv(self.matrix, step)


def _apply(unknowns: list[Tensor], cameras: Tensor, depth: Tensor) -> list[Tensor]:
    rotations, translations, focals, centers, inverse_depth = unknowns
    turn = torch.from_numpy(Rotation.from_rotvec(cameras[:, :3].numpy()).as_matrix())
    factor = torch.exp(cameras[:, 6:7].clamp(-0.2, 0.2))
    return [
        turn @ rotations,
        translations + cameras[:, 3:6],
        focals * factor,
        centers + cameras[:, 7:9] * focals,
        (inverse_depth + depth).clamp(min=0.0),
    ]


def _skew(vectors: Tensor) -> Tensor:
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
