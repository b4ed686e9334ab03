"""The fine stage: its derivatives, and what it does with noise and wrong starts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from matcher.alignment import refine as refine_module
from matcher.alignment.anchors import Sightings
from matcher.alignment.refine import RefineOptions, refine
from matcher.alignment.reprojection import (
    CameraState,
    as_tensors,
    make_problem,
    reprojection_errors,
    residuals,
    whiten,
)

IMAGES, PER_IMAGE = 4, 30


def problem_of(seed: int = 0) -> tuple[Sightings, CameraState]:
    """A state, and sightings that agree with it exactly."""
    generator = np.random.default_rng(seed)
    turns = 0.1 * generator.standard_normal((IMAGES, 3))
    state = CameraState(
        Rotation.from_rotvec(turns).as_matrix(),
        0.4 * generator.standard_normal((IMAGES, 3)),
        np.full((IMAGES, 2), 500.0) * (1 + 0.05 * generator.random((IMAGES, 1))),
        np.full((IMAGES, 2), 200.0),
        generator.uniform(0.1, 0.3, IMAGES * PER_IMAGE),
    )
    home, other, anchor = [], [], []
    for image in range(IMAGES):
        for target in range(IMAGES):
            if image != target:
                home += [image] * PER_IMAGE
                other += [target] * PER_IMAGE
                anchor += list(range(image * PER_IMAGE, (image + 1) * PER_IMAGE))
    count = len(home)
    own = generator.uniform(0, 400, (IMAGES * PER_IMAGE, 2))
    draft = Sightings(
        np.array(home),
        np.array(other),
        np.array(anchor),
        np.array(anchor),
        own[anchor],
        np.zeros((count, 2)),
        np.ones(count),
        np.ones(count),
        np.zeros(count, np.int64),
        IMAGES * PER_IMAGE,
    )
    identity = np.broadcast_to(np.eye(2), (count, 2, 2))
    problem, _ = make_problem(draft, identity, IMAGES, sort=False)
    seen = residuals(problem, as_tensors(state))[0].numpy()
    values = {name: getattr(draft, name) for name in Sightings.__slots__} | {"seen": seen}
    return Sightings(**values), state


def options(**changes: object) -> RefineOptions:
    values: dict[str, object] = {
        "loss_scale": 2.0,
        "max_steps": 30,
        "free_pose": np.array([False] + [True] * (IMAGES - 1)),
        "focal_group": np.full(IMAGES, -1),
        "free_center": np.zeros(IMAGES, np.bool_),
    }
    return RefineOptions(**{**values, **changes})  # type: ignore[arg-type]


def shaken(state: CameraState, size: float, focal: float = 0.0) -> CameraState:
    generator = np.random.default_rng(5)
    turn = Rotation.from_rotvec(size * generator.standard_normal((IMAGES, 3))).as_matrix()
    turn[0] = np.eye(3)
    shift = size * generator.standard_normal((IMAGES, 3))
    shift[0] = 0
    scale = np.exp(focal * generator.standard_normal((IMAGES, 1)))
    return CameraState(
        turn @ state.rotations,
        state.translations + shift,
        state.focals * scale,
        state.centers,
        state.inverse_depth * np.exp(size * generator.standard_normal(len(state.inverse_depth))),
    )


def test_derivatives_are_those_of_the_errors() -> None:
    sightings, state = problem_of()
    state = shaken(state, 0.02)
    generator = np.random.default_rng(1)
    whitening = generator.standard_normal((len(sightings), 2, 2))
    problem, anchors = make_problem(sightings, whitening, IMAGES, sort=True)
    unknowns = as_tensors(state)
    unknowns[4] = unknowns[4][anchors]
    far = options(loss_scale=1e7)
    _, home, other, by_depth = refine_module._jacobians(problem, unknowns, far, 9)
    still = torch.zeros(len(anchors), dtype=torch.float64)
    step = 1e-6

    def difference(cameras: torch.Tensor, depths: torch.Tensor) -> torch.Tensor:
        ahead = residuals(problem, refine_module._moved(unknowns, cameras, depths))[0]
        behind = residuals(problem, refine_module._moved(unknowns, -cameras, -depths))[0]
        return (ahead - behind) / (2 * step)

    for image in range(IMAGES):
        for parameter in range(9):
            cameras = torch.zeros(IMAGES, 9, dtype=torch.float64)
            cameras[image, parameter] = step
            expected = torch.zeros(len(problem.home), 2, dtype=torch.float64)
            for rows, derivative in ((problem.home, home), (problem.other, other)):
                mine = rows == image
                expected[mine] += derivative[mine][:, :, parameter]
            numeric = difference(cameras, still)
            assert (numeric - expected).abs().max() <= 1e-5 * numeric.abs().max().clamp(min=1)
    numeric = difference(torch.zeros(IMAGES, 9, dtype=torch.float64), still + step)
    assert (numeric - by_depth).abs().max() <= 1e-5 * numeric.abs().max()


@pytest.mark.parametrize("focals", [False, True])
def test_a_shaken_state_finds_back(focals: bool) -> None:
    sightings, state = problem_of()
    noise = np.ones(IMAGES)
    start = shaken(state, 0.03, focal=0.05 if focals else 0.0)
    whitening = whiten(sightings, start, noise, 0.0)
    before = reprojection_errors(sightings, start, whitening)
    groups = np.arange(IMAGES) if focals else np.full(IMAGES, -1)
    found = refine(
        sightings, start, whitening, options(loss_scale=100.0, focal_group=groups, max_steps=80)
    )
    after = reprojection_errors(sightings, found, whitening)
    assert np.median(before) > 5
    assert np.median(after) < 1e-2
    np.testing.assert_array_equal(found.rotations[0], state.rotations[0])
    np.testing.assert_array_equal(found.centers, state.centers)
    if focals:
        np.testing.assert_allclose(found.focals, state.focals, rtol=5e-3)
    else:
        np.testing.assert_array_equal(found.focals, state.focals)


def test_wrong_sightings_lose_their_weight() -> None:
    sightings, state = problem_of()
    generator = np.random.default_rng(2)
    seen = sightings.seen.copy()
    wrong = generator.random(len(seen)) < 0.2
    seen[wrong] = generator.uniform(0, 400, (int(wrong.sum()), 2))
    values = {name: getattr(sightings, name) for name in Sightings.__slots__} | {"seen": seen}
    spoilt = Sightings(**values)
    whitening = whiten(spoilt, state, np.ones(IMAGES), 0.0)
    found = refine(spoilt, state, whitening, options(loss_scale=1.0))
    angle = Rotation.from_matrix(found.rotations @ np.swapaxes(state.rotations, 1, 2)).magnitude()
    assert np.degrees(angle).max() < 0.05


def test_errors_along_the_line_count_less_with_uncertain_depth() -> None:
    sightings, state = problem_of()
    exact = whiten(sightings, state, np.full(IMAGES, 2.0), 0.0)
    np.testing.assert_allclose(exact, np.broadcast_to(np.eye(2) / 2, exact.shape), atol=1e-9)
    loose = whiten(sightings, state, np.full(IMAGES, 2.0), 0.1)
    values = np.linalg.eigvalsh(loose)
    np.testing.assert_allclose(values[:, 1], 0.5)
    assert (values[:, 0] < 0.5).mean() > 0.9
