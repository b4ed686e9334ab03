"""The objective of the alignment: its value and gradient against the plain formula."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

import matcher.alignment.objective as module
from matcher.alignment.initialize import Known, initialize
from matcher.alignment.objective import BASE_SCALE, PointmapObjective, descend
from matcher.alignment.options import PointmapOptions
from matcher.alignment.views import Frame, FrameView, PixelGrid, ViewStack, stack_views
from matcher.structures import ImageSize, Pose


def noisy_stack(images: int = 3, seed: int = 0) -> ViewStack:
    """All ordered pairs of photographs whose pointmaps are a plane plus noise."""
    generator = np.random.default_rng(seed)
    size = ImageSize(10, 12)
    y, x = np.mgrid[:10, :12].astype(np.float64)
    plane = np.stack([(x - 5.5) / 10, (y - 4.5) / 10, np.ones_like(x)], axis=-1) * 3

    def view(image: int) -> FrameView:
        points = plane * (1 + 0.05 * generator.standard_normal((10, 12, 1)))
        return FrameView(
            image,
            points.astype(np.float32),
            generator.uniform(1, 5, (10, 12)).astype(np.float32),
        )

    grids = [PixelGrid(str(index), size, (10, 12), np.eye(3)) for index in range(images)]
    frames = [Frame(view(i), view(j)) for i in range(images) for j in range(images) if i != j] + [
        Frame(view(0))
    ]
    return stack_views(grids, frames, None)


def plain_distances(
    world: Tensor,
    rotation: Tensor,
    shift: Tensor,
    points: Tensor,
    weights: Tensor,
    image: Tensor,
) -> Tensor:
    moved = rotation @ points + shift[:, :, None]
    return (torch.linalg.vector_norm(world[image] - moved, dim=1) * weights).sum()


@pytest.mark.parametrize("at_once", [1, 1 << 17])
def test_value_and_gradient(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = noisy_stack()
    known = Known.of(stack.grids)
    state = initialize(stack, known)
    state = state.scaled(BASE_SCALE / state.mean_scale)
    monkeypatch.setattr(module, "_NUMBERS_AT_ONCE", at_once)
    ours = PointmapObjective(stack, known, state)
    ours.loss().backward()  # type: ignore[no-untyped-call]
    monkeypatch.setattr(module._WeightedDistances, "apply", plain_distances)
    plain = PointmapObjective(stack, known, state)
    plain.loss().backward()  # type: ignore[no-untyped-call]
    assert float(ours.loss().detach()) == pytest.approx(float(plain.loss().detach()), rel=1e-6)
    for mine, theirs in zip(ours.parameters, plain.parameters, strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-4, atol=1e-7)


def test_a_distance_of_zero_has_no_gradient() -> None:
    points = torch.ones(1, 3, 4)
    world = torch.ones(1, 3, 4, requires_grad=True)
    total = module._WeightedDistances.apply(
        world, torch.eye(3)[None], torch.zeros(1, 3), points, torch.ones(1, 4), torch.tensor([0])
    )
    total.backward()
    assert total.item() == 0
    assert world.grad is not None
    assert (world.grad == 0).all()


def test_the_product_of_the_scales_is_fixed() -> None:
    stack = noisy_stack()
    known = Known.of(stack.grids)
    state = initialize(stack, known)
    objective = PointmapObjective(stack, known, state.scaled(BASE_SCALE / state.mean_scale))
    before = float(objective.loss().detach())
    descend(objective, PointmapOptions(iterations=30))
    assert objective.state().mean_scale == pytest.approx(BASE_SCALE, rel=1e-5)
    assert float(objective.loss().detach()) < before


def test_no_step_changes_nothing() -> None:
    stack = noisy_stack()
    known = Known.of(stack.grids)
    state = initialize(stack, known)
    state = state.scaled(BASE_SCALE / state.mean_scale)
    objective = PointmapObjective(stack, known, state)
    loss = descend(objective, PointmapOptions(iterations=0))
    assert loss == float(objective.loss().detach())
    np.testing.assert_allclose(objective.state().depth, state.depth, rtol=1e-6)


def test_the_lattice_has_equal_margins_and_no_more_pixels_than_asked_for() -> None:
    transform = np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    grid = PixelGrid("a", ImageSize(768, 1024), (384, 512), transform).thinned(12_500)
    assert grid.stride == 4
    assert grid.lattice_shape == (96, 128)
    pixels = grid.pixels()
    np.testing.assert_allclose(pixels[0], [2.5, 2.5])
    np.testing.assert_allclose(pixels.mean(axis=0), [510.5, 382.5])
    assert grid.thinned(None).lattice_shape == (384, 512)


def test_points_that_are_not_finite_have_no_weight() -> None:
    stack = noisy_stack()
    own = stack.frames[0].own
    broken = own.points.copy()
    broken[2, 3] = np.nan
    frames = [Frame(FrameView(0, broken, own.confidence), stack.frames[0].other)]
    stack = stack_views(stack.grids, [*frames, *stack.frames[1:]], None)
    assert stack.confidence[0, 2 * 12 + 3] == 0
    assert np.isfinite(stack.points).all()
    assert stack.weights[0, 2 * 12 + 3] == 0


def test_a_given_pose_does_not_move() -> None:
    stack = noisy_stack()
    given = Pose(np.eye(3), np.array([0.1, 0.2, 0.3]))
    known = Known.of(stack.grids, poses=(None, given, None))
    state = initialize(stack, known)
    factor = BASE_SCALE / state.mean_scale
    objective = PointmapObjective(stack, known, state.scaled(factor))
    descend(objective, PointmapOptions(iterations=20))
    found = objective.state().poses
    np.testing.assert_array_equal(found[1].translation, factor * given.translation)
    np.testing.assert_array_equal(found[1].rotation, given.rotation)
    assert np.abs(found[0].translation).max() > 0
