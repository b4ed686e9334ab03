"""The objective of DUSt3R's global alignment (arXiv:2312.14132, section 3.3) and its descent.

    sum over views of  weight * | world point - scale * (rotation @ pointmap + translation) |

World points follow from a depth per pixel, the viewing rays and the pose of the photograph. The
unknowns are stored as in the released system, so that Adam takes the same steps: quaternions
(x, y, z, w), the signed logarithm of translations, logarithms of scales, depths and (20 times)
focals. Arrays are (V, 3, P): with the coordinates apart from the pixels, sums over them vectorise.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from matcher.alignment.initialize import AlignmentState, Known, image_rays
from matcher.alignment.options import PointmapOptions
from matcher.alignment.views import ViewStack
from matcher.geometry.procrustes import Registration
from matcher.structures import FloatArray, Pose

__all__ = ["BASE_SCALE", "PointmapObjective", "descend"]

BASE_SCALE = 0.5
"""Geometric mean of the scales of the frames during the descent, as in the released system."""

_FOCAL_FACTOR = 20.0
_CENTER_FACTOR = 10.0  # pixels of the pointmap
_BETAS = (0.9, 0.9)
_NUMBERS_AT_ONCE = 1 << 17
_TINY = 1e-20


class PointmapObjective:
    """The weighted mean distance between world points and pointmaps, as a function of a state.

    Args:
        stack: the views.
        known: what stays as it is given.
        state: where to start; its mean scale must be ``BASE_SCALE``.
        optimize_principal_points: for the cameras that are not given.
    """

    def __init__(
        self,
        stack: ViewStack,
        known: Known,
        state: AlignmentState,
        *,
        optimize_principal_points: bool = False,
    ) -> None:
        self._stack, self._known, self._state = stack, known, state
        self._fixes_scale = known.fixes_scale
        rays = image_rays(stack, known, state)
        usable = stack.is_pixel & np.isfinite(rays).all(axis=2)
        self._rays = _tensor(np.where(usable[..., None], rays, 0.0)).mT.contiguous()
        self._pixels = _tensor(stack.pixels).mT.contiguous()
        self._weights = torch.from_numpy(self._mean_weights(usable))
        self._points = torch.from_numpy(stack.points).mT.contiguous()
        self._image = torch.from_numpy(stack.image)
        self._frame = torch.from_numpy(stack.frame)
        self._camera_known = torch.tensor([camera is not None for camera in known.cameras])
        self._pose_known = torch.tensor([pose is not None for pose in known.poses])
        self._known_rotation = _tensor(np.stack([pose.inverse.rotation for pose in state.poses]))
        self._known_center = _tensor(np.stack([pose.inverse.translation for pose in state.poses]))
        self._center_steps = _tensor(
            [_CENTER_FACTOR * grid.original_per_network for grid in stack.grids]
        )[:, None]
        self._set_parameters(state, optimize_principal_points)

    def _mean_weights(self, usable: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """(V, P) weights over the number of pixels; own views and others are two means."""
        stack = self._stack
        weights = stack.weights * usable[stack.image]
        counts = stack.is_pixel.sum(axis=1)[stack.image]
        for side in (stack.is_own, ~stack.is_own):
            weights[side] /= max(counts[side].sum(), 1)
        return weights

    def _set_parameters(self, state: AlignmentState, optimize_principal_points: bool) -> None:
        places = [pose.inverse for pose in state.poses]
        frames = [frame.target_from_source for frame in state.frames]
        scales = np.array([frame.scale for frame in state.frames])
        shifts = np.stack([frame.translation for frame in frames]) / scales[:, None]
        self.image_quaternion = _quaternions(places)
        self.image_shift = _signed_log(np.stack([place.translation for place in places]))
        self.frame_quaternion = _quaternions(frames)
        self.frame_shift = _signed_log(shifts)
        self.frame_log_scale = _tensor(np.log(scales))
        self.log_depth = _tensor(np.log(state.depth))
        self.log_focal = _tensor(_FOCAL_FACTOR * np.log(state.focals))
        self.center_offset = torch.zeros(len(places), 2)
        self._centers = _tensor(state.centers)
        self.parameters = [
            self.image_quaternion,
            self.image_shift,
            self.frame_quaternion,
            self.frame_shift,
            self.frame_log_scale,
            self.log_depth,
            self.log_focal,
        ]
        if optimize_principal_points:
            self.parameters.append(self.center_offset)
        for parameter in self.parameters:
            parameter.requires_grad_()

    def loss(self) -> Tensor:
        """() the objective, in a world that is scaled to the mean scale ``BASE_SCALE``.

        Distances grow with the world, so that without this a world whose scale hangs on two given
        poses alone would shrink from the noise.
        """
        scale = self._frame_scales()
        rotation = _rotations(self.frame_quaternion) * scale[:, None, None]
        shift = _signed_exp(self.frame_shift) * scale[:, None]
        total: Tensor = _WeightedDistances.apply(  # type: ignore[no-untyped-call]
            self._world_points(),
            rotation.index_select(0, self._frame),
            shift.index_select(0, self._frame),
            self._points,
            self._weights,
            self._image,
        )
        return total / self._mean_scale() * BASE_SCALE if self._fixes_scale else total

    def _world_points(self) -> Tensor:
        """(I, 3, P)."""
        depth = self.log_depth.exp()[:, None]
        centers = self._centers + self._center_steps * self.center_offset
        focals = (self.log_focal / _FOCAL_FACTOR).exp()
        rays = (self._pixels - centers[:, :, None]) / focals[:, None, None]
        rays = torch.where(self._camera_known[:, None, None], self._rays, rays)
        points = torch.cat([depth * rays, depth], dim=1)
        rotation, center = self._camera_places()
        return torch.baddbmm(center[:, :, None], rotation, points)

    def _camera_places(self) -> tuple[Tensor, Tensor]:
        """(I, 3, 3) and (I, 3) world_from_cam."""
        fixed = self._pose_known
        rotation = _rotations(self.image_quaternion)
        center = _signed_exp(self.image_shift)
        return (
            torch.where(fixed[:, None, None], self._known_rotation, rotation),
            torch.where(fixed[:, None], self._known_center, center),
        )

    def _frame_scales(self) -> Tensor:
        """(F,), of geometric mean ``BASE_SCALE`` unless given poses say how large the world is."""
        log_scale = self.frame_log_scale
        if not self._fixes_scale:
            log_scale = log_scale - log_scale.mean() + math.log(BASE_SCALE)
        return log_scale.exp()

    def _mean_scale(self) -> Tensor:
        return self.frame_log_scale.mean().exp()

    @torch.no_grad()
    def state(self) -> AlignmentState:
        """The unknowns as they are now; what is given keeps every digit."""
        places = zip(_rotation_matrices(self.image_quaternion), self.image_shift, strict=True)
        poses = [
            given or Pose(matrix, _signed_exp(shift).double().numpy()).inverse
            for (matrix, shift), given in zip(places, self._given_poses(), strict=True)
        ]
        scales = self._frame_scales().double().numpy()
        shifts = _signed_exp(self.frame_shift).double().numpy() * scales[:, None]
        matrices = _rotation_matrices(self.frame_quaternion)
        return AlignmentState(
            tuple(poses),
            (self.log_focal / _FOCAL_FACTOR).double().exp().numpy(),
            (self._centers + self._center_steps * self.center_offset).double().numpy(),
            self.log_depth.double().exp().numpy(),
            tuple(
                Registration(Pose(matrix, shift), float(scale))
                for matrix, shift, scale in zip(matrices, shifts, scales, strict=True)
            ),
        )

    def _given_poses(self) -> list[Pose | None]:
        """The given poses in the units of the optimisation."""
        return [
            pose if given is not None else None
            for pose, given in zip(self._state.poses, self._known.poses, strict=True)
        ]


class _WeightedDistances(torch.autograd.Function):
    """Sum of weighted distances between world points and views moved into the world.

    Values and gradients are computed together, some views at a time, so that everything between
    them stays in the processor's cache; the gradient of a distance of 0 is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        world: Tensor,
        rotation: Tensor,
        shift: Tensor,
        points: Tensor,
        weights: Tensor,
        image: Tensor,
    ) -> Tensor:
        """World points (I, 3, P); of each view: (V, 3, 3), (V, 3), (V, 3, P), (V, P), (V,)."""
        gradients = torch.zeros_like(world), torch.empty_like(rotation), torch.empty_like(shift)
        total = world.new_zeros(())
        at_once = max(1, _NUMBERS_AT_ONCE // points[0].numel())
        for start in range(0, len(points), at_once):
            part = slice(start, start + at_once)
            pulls = world.index_select(0, image[part])
            pulls -= torch.baddbmm(shift[part, :, None], rotation[part], points[part])
            lengths = (pulls * pulls).sum(dim=1).sqrt_()
            total += (lengths * weights[part]).sum()
            pulls *= (weights[part] / lengths.clamp_min_(_TINY))[:, None]
            gradients[0].index_add_(0, image[part], pulls)
            torch.bmm(pulls, points[part].mT, out=gradients[1][part])
            torch.sum(pulls, dim=2, out=gradients[2][part])
        ctx.save_for_backward(gradients[0], -gradients[1], -gradients[2])
        return total

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> tuple[Tensor | None, ...]:
        return (*(gradient[0] * saved for saved in ctx.saved_tensors), None, None, None)


def descend(
    objective: PointmapObjective,
    options: PointmapOptions,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Adam with a learning rate that falls along a cosine.

    Args:
        objective: its state is changed.
        options: steps and learning rates.
        progress: is told (steps done, steps in all).

    Returns:
        The objective before the last step; with no step, as it is.
    """
    optimizer = torch.optim.Adam(objective.parameters, lr=options.learning_rate, betas=_BETAS)
    low, high = options.final_learning_rate, options.learning_rate
    last = float(objective.loss().detach()) if options.iterations == 0 else math.nan
    for step in range(options.iterations):
        cosine = (1 + math.cos(math.pi * step / options.iterations)) / 2
        optimizer.param_groups[0]["lr"] = low + (high - low) * cosine
        optimizer.zero_grad()
        loss = objective.loss()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        last = float(loss.detach())
        if progress is not None:
            progress(step + 1, options.iterations)
    return last


def _tensor(values: npt.ArrayLike) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.float32))


def _quaternions(poses: list[Pose]) -> Tensor:
    """(N, 4) x, y, z, w."""
    return _tensor(np.stack([Rotation.from_matrix(pose.rotation).as_quat() for pose in poses]))


def _rotation_matrices(quaternions: Tensor) -> FloatArray:
    matrices: FloatArray = Rotation.from_quat(quaternions.double().numpy()).as_matrix()
    return matrices


def _rotations(quaternions: Tensor) -> Tensor:
    """(N, 3, 3) from (N, 4) x, y, z, w of any length."""
    x, y, z, w = torch.nn.functional.normalize(quaternions, dim=1).unbind(1)
    rows = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
        *(2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
        *(2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
    )
    return torch.stack(rows, dim=1).reshape(-1, 3, 3)


def _signed_log(values: FloatArray) -> Tensor:
    return _tensor(np.sign(values) * np.log1p(np.abs(values)))


def _signed_exp(values: Tensor) -> Tensor:
    return values.sign() * values.abs().expm1()
