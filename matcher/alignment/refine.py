"""The fine stage: reprojection errors of all sightings, by Levenberg and Marquardt's method.

MASt3R-SfM (arXiv:2409.19152), section 4.3, second stage: poses, focals and the depths of anchors
move until every match ends where its anchor's point is seen. The unknowns of a sighting are two
cameras and one depth, so the depths are eliminated in closed form (Schur complement) and a system
over the cameras remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.spatial.transform import Rotation
from torch import Tensor

from matcher.alignment.anchors import Sightings
from matcher.alignment.reprojection import (
    NEAREST,
    CameraState,
    Problem,
    as_tensors,
    by_point,
    make_problem,
    part_of_problem,
    projected,
    residuals,
)
from matcher.structures import FloatArray

__all__ = ["RefineOptions", "refine"]

_AT_ONCE = 40_000
"""Sightings whose derivatives are in memory together."""
_DAMPING, _LEAST_DAMPING, _MOST_DAMPING = 1e-4, 1e-9, 1e6
_DAMPING_UP, _DAMPING_DOWN = 8.0, 5.0
_CONVERGED = 1e-5
_BEHIND_PENALTY = 1e4
"""Squared error of a point behind the camera, whatever it projects to."""
_LARGEST_FOCAL_STEP = 0.2
_CAMERA_WIDTH = 9
"""Parameters of a camera: rotation, translation, log focal, principal point (in focals)."""
_WITHOUT_CENTER = 7


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


def refine(
    sightings: Sightings, state: CameraState, whitening: FloatArray, options: RefineOptions
) -> CameraState:
    """Move what is free until the robust sum of squared reprojection errors is least.

    Args:
        sightings: what is observed.
        state: where to start.
        whitening: (K, 2, 2) of ``whiten``.
        options: what may move.
    """
    problem, anchors = make_problem(sightings, whitening, len(state.focals), sort=True)
    unknowns = as_tensors(state)
    unknowns[4] = unknowns[4][anchors]
    objective = _Objective(problem, options, unknowns[2].clone(), unknowns[3].clone())
    damping = _DAMPING
    cost = objective.cost(unknowns)
    for _ in range(options.max_steps):
        system = objective.linearise(unknowns)
        while True:
            candidate = _moved(unknowns, *system.step(damping))
            new_cost = objective.cost(candidate)
            if new_cost < cost or damping > _MOST_DAMPING:
                break
            damping *= _DAMPING_UP
        if not new_cost < cost:
            break
        gain = (cost - new_cost) / cost
        unknowns, cost = candidate, new_cost
        damping = max(damping / _DAMPING_DOWN, _LEAST_DAMPING)
        if gain < _CONVERGED:
            break
    inverse_depth = state.inverse_depth.copy()
    inverse_depth[anchors.numpy()] = unknowns[4].numpy()
    rotations, translations, focals, centers = (value.numpy() for value in unknowns[:4])
    return CameraState(rotations, translations, focals, centers, inverse_depth)


class _Objective:
    """The robust cost of a state, and its quadratic model."""

    def __init__(
        self, problem: Problem, options: RefineOptions, focals: Tensor, centers: Tensor
    ) -> None:
        self.problem, self.options = problem, options
        self._focals, self._centers = focals, centers
        self._free_center = torch.from_numpy(options.free_center)
        self.columns, self.count = _columns(options, len(focals))
        self._used = _CAMERA_WIDTH if options.free_center.any() else _WITHOUT_CENTER

    def cost(self, unknowns: list[Tensor]) -> float:
        """Cauchy's loss of all sightings, and the priors."""
        residual, depth = residuals(self.problem, unknowns)
        squared = (residual**2).sum(1)
        squared = torch.where(depth > NEAREST, squared, torch.full_like(squared, _BEHIND_PENALTY))
        scale = self.options.loss_scale**2
        focal, center = self._prior_residuals(unknowns)
        loss = (scale * torch.log1p(squared / scale)).sum()
        return float(loss + (focal**2).sum() + (center**2).sum())

    def linearise(self, unknowns: list[Tensor]) -> _System:
        """Normal equations at a state, with the weights that the loss gives there."""
        problem, used = self.problem, self._used
        images, size = problem.num_images, self.count + 1
        blocks = torch.zeros(images * images, used, used, dtype=torch.float64)
        right = torch.zeros(images, used, dtype=torch.float64)
        depths = torch.zeros(problem.num_anchors, dtype=torch.float64)
        depth_right = torch.zeros(problem.num_anchors, dtype=torch.float64)
        couplings, rows, cameras = [], [], []
        for start in range(0, len(problem.home), _AT_ONCE):
            part = part_of_problem(problem, start, _AT_ONCE)
            residual, by_home, by_other, by_depth = _jacobians(part, unknowns, self.options, used)
            sides = ((part.home, by_home), (part.other, by_other))
            for first, one in sides:
                transposed = one.transpose(1, 2)
                for second, two in sides:
                    blocks.index_add_(0, first * images + second, transposed @ two)
                right.index_add_(0, first, (transposed @ residual[:, :, None])[:, :, 0])
                couplings.append((transposed @ by_depth[:, :, None])[:, :, 0])
                rows.append(part.anchor)
                cameras.append(first)
            depths.index_add_(0, part.anchor, (by_depth**2).sum(1))
            depth_right.index_add_(0, part.anchor, (by_depth * residual).sum(1))
        columns = self.columns[:, :used]
        matrix = torch.zeros(size * size, dtype=torch.float64)
        place = columns[:, None, :, None] * size + columns[None, :, None, :]
        matrix.index_add_(0, place.reshape(-1), blocks.reshape(-1))
        camera_right = torch.zeros(size, dtype=torch.float64)
        camera_right.index_add_(0, columns.reshape(-1), right.reshape(-1))
        matrix = matrix.view(size, size)
        self._add_priors(matrix, camera_right, unknowns)
        coupling = sparse.csr_matrix(
            (
                torch.cat(couplings).reshape(-1).numpy(),
                (
                    torch.cat(rows).repeat_interleave(used).numpy(),
                    columns[torch.cat(cameras)].reshape(-1).numpy(),
                ),
            ),
            shape=(problem.num_anchors, size),
        )
        return _System(
            matrix.numpy(),
            camera_right.numpy(),
            depths.numpy(),
            depth_right.numpy(),
            coupling,
            self.columns.numpy(),
        )

    def _prior_residuals(self, unknowns: list[Tensor]) -> tuple[Tensor, Tensor]:
        focal = torch.log(unknowns[2][:, 0] / self._focals[:, 0]) / self.options.focal_prior
        center = (unknowns[3] - self._centers) / unknowns[2] / self.options.center_prior
        return focal, center * self._free_center[:, None]

    def _add_priors(self, matrix: Tensor, right: Tensor, unknowns: list[Tensor]) -> None:
        focal, center = self._prior_residuals(unknowns)
        diagonal = matrix.diagonal()
        terms = [(6, focal, 1 / self.options.focal_prior)]
        if self._used > _WITHOUT_CENTER:
            inverse = 1 / self.options.center_prior
            terms += [(7, center[:, 0], inverse), (8, center[:, 1], inverse)]
        for parameter, residual, inverse in terms:
            column = self.columns[:, parameter]
            diagonal.index_add_(0, column, torch.full_like(residual, inverse**2))
            right.index_add_(0, column, residual * inverse)


@dataclass(slots=True, eq=False)
class _System:
    """Normal equations of C camera parameters (and one that takes what is fixed), A depths.

    Attributes:
        matrix: (C + 1, C + 1) of the cameras.
        right: (C + 1,) gradient of the cameras.
        depths: (A,) diagonal of the depths.
        depth_right: (A,) gradient of the depths.
        coupling: (A, C + 1) sparse.
        columns: (N, 9) which parameter of a camera is where; C where it is fixed.
    """

    matrix: FloatArray
    right: FloatArray
    depths: FloatArray
    depth_right: FloatArray
    coupling: sparse.csr_matrix
    columns: npt.NDArray[np.int64]

    def step(self, damping: float) -> tuple[Tensor, Tensor]:
        """(N, 9) step of the cameras and (A,) step of the inverse depths."""
        count = len(self.right) - 1
        depths = self.depths * (1 + damping) + 1e-12
        step = np.zeros(count + 1)
        if count:
            scaled = sparse.diags(1 / depths) @ self.coupling
            reduced = self.matrix - (self.coupling.T @ scaled).toarray()
            right = self.right - scaled.T @ self.depth_right
            diagonal = np.diag(self.matrix)[:count]
            reduced = reduced[:count, :count]
            reduced[np.diag_indices(count)] += damping * diagonal + 1e-9 * diagonal.mean() + 1e-12
            step[:count] = -np.linalg.lstsq(reduced, right[:count], rcond=None)[0]
        depth_step = -(self.depth_right + self.coupling @ step) / depths
        return torch.from_numpy(step[self.columns]), torch.from_numpy(depth_step)


def _columns(options: RefineOptions, num_images: int) -> tuple[Tensor, int]:
    """(N, 9) column of each camera parameter, and their number, the column of what is fixed."""
    columns = np.full((num_images, _CAMERA_WIDTH), -1, dtype=np.int64)
    count = 0
    for image in np.flatnonzero(options.free_pose):
        columns[image, :6] = count + np.arange(6)
        count += 6
    for group in sorted({int(group) for group in options.focal_group if group >= 0}):
        columns[options.focal_group == group, 6] = count
        count += 1
    for image in np.flatnonzero(options.free_center):
        columns[image, 7:] = count + np.arange(2)
        count += 2
    return torch.from_numpy(np.where(columns < 0, count, columns)), count


def _jacobians(
    part: Problem, unknowns: list[Tensor], options: RefineOptions, used: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Weighted residuals (K, 2), and their derivatives by home (K, 2, P), other, inverse depth."""
    ray, relative, from_home, turned, point, inverse = projected(part, unknowns)
    image_point = point[:, :2] / point[:, 2:].clamp(min=NEAREST)
    residual, depth = residuals(part, unknowns)
    squared = (residual**2).sum(1)
    # The square root of the weight that Cauchy's loss gives a squared residual.
    weight = torch.rsqrt(1 + squared / options.loss_scale**2) * (depth > NEAREST)
    whitening = part.whitening * weight[:, None, None]
    in_other = whitening @ by_point(part, unknowns, point)
    in_home = in_other @ relative
    by_center = whitening * unknowns[2][part.other][:, None, :]
    home = torch.zeros(len(depth), 2, used, dtype=torch.float64)
    other = torch.zeros_like(home)
    home[:, :, :3] = in_home @ _skew(from_home)
    home[:, :, 3:6] = -inverse[:, :, None] * in_home
    # A longer focal draws the ray towards the optical axis.
    home[:, :, 6] = -(in_home[:, :, :2] @ ray[:, :2, None])[:, :, 0]
    other[:, :, :3] = -in_other @ _skew(turned)
    other[:, :, 3:6] = inverse[:, :, None] * in_other
    other[:, :, 6] = (by_center @ image_point[:, :, None])[:, :, 0]
    if used > _WITHOUT_CENTER:
        home[:, :, 7:] = -in_home[:, :, :2]
        other[:, :, 7:] = by_center
    shift = unknowns[1][part.other] - (relative @ unknowns[1][part.home][:, :, None])[:, :, 0]
    by_depth = (in_other @ shift[:, :, None])[:, :, 0] / part.ratio[:, None]
    return residual * weight[:, None], home, other, by_depth


def _moved(unknowns: list[Tensor], cameras: Tensor, depth: Tensor) -> list[Tensor]:
    rotations, translations, focals, centers, inverse_depth = unknowns
    turn = torch.from_numpy(Rotation.from_rotvec(cameras[:, :3].numpy()).as_matrix())
    factor = torch.exp(cameras[:, 6:7].clamp(-_LARGEST_FOCAL_STEP, _LARGEST_FOCAL_STEP))
    return [
        turn @ rotations,
        translations + cameras[:, 3:6],
        focals * factor,
        centers + cameras[:, 7:] * focals,
        (inverse_depth + depth).clamp(min=0.0),
    ]


def _skew(vectors: Tensor) -> Tensor:
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
