"""Rotations averaged over pairs, some of which are wrong."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from matcher.alignment.rotations import average_rotations, circle_support
from matcher.structures import FloatArray

NUM = 12


def pairs_of(
    share: float, wrong: float, noise_deg: float, seed: int = 0
) -> tuple[FloatArray, np.ndarray, FloatArray, np.ndarray]:
    """True rotations, ends, pair rotations, and which of these are wrong."""
    generator = np.random.default_rng(seed)
    truth = Rotation.random(NUM, random_state=seed).as_matrix()
    ends = np.array(
        [(i, j) for i in range(NUM) for j in range(i + 1, NUM) if generator.random() < share]
    )
    relative = truth[ends[:, 1]] @ np.swapaxes(truth[ends[:, 0]], 1, 2)
    noise = np.radians(noise_deg) * generator.standard_normal((len(ends), 3))
    relative = Rotation.from_rotvec(noise).as_matrix() @ relative
    bad = generator.random(len(ends)) < wrong
    relative[bad] = Rotation.random(int(bad.sum()), random_state=seed + 1).as_matrix()
    return truth, ends, relative, bad


def errors_deg(found: FloatArray, truth: FloatArray) -> FloatArray:
    world = found[0].T @ truth[0]
    return np.degrees(Rotation.from_matrix(found @ world @ np.swapaxes(truth, 1, 2)).magnitude())


def test_exact_pairs_give_exact_rotations() -> None:
    truth, ends, relative, _ = pairs_of(0.6, 0.0, 0.0)
    found = average_rotations(NUM, ends, relative, np.ones(len(ends)))
    assert errors_deg(found.rotations, truth).max() < 1e-6
    assert found.errors_deg.max() < 1e-6


def test_wrong_pairs_are_told_apart() -> None:
    truth, ends, relative, bad = pairs_of(0.8, 0.25, 0.5)
    found = average_rotations(NUM, ends, relative, np.full(len(ends), 100.0))
    assert errors_deg(found.rotations, truth).max() < 1.0
    assert found.errors_deg[~bad].max() < 3
    assert found.errors_deg[bad].min() > 10


def test_an_average_is_better_than_its_pairs() -> None:
    truth, ends, relative, _ = pairs_of(1.0, 0.0, 2.0)
    found = average_rotations(NUM, ends, relative, np.ones(len(ends))).rotations

    def errors(pairs: FloatArray) -> FloatArray:
        true = truth[ends[:, 1]] @ np.swapaxes(truth[ends[:, 0]], 1, 2)
        return np.degrees(Rotation.from_matrix(pairs @ np.swapaxes(true, 1, 2)).magnitude())

    averaged = found[ends[:, 1]] @ np.swapaxes(found[ends[:, 0]], 1, 2)
    assert np.median(errors(averaged)) < 0.75 * np.median(errors(relative))


def test_known_rotations_stay() -> None:
    truth, ends, relative, _ = pairs_of(0.7, 0.0, 1.0)
    known = {2: truth[2], 5: truth[5]}
    found = average_rotations(NUM, ends, relative, np.ones(len(ends)), known)
    for camera, rotation in known.items():
        np.testing.assert_allclose(found.rotations[camera], rotation, atol=1e-12)


@pytest.mark.parametrize("wrong_edge", [0, 1, 2])
def test_a_circle_that_does_not_close_supports_nobody(wrong_edge: int) -> None:
    ends = np.array([(0, 1), (1, 2), (0, 2), (2, 3)])
    relative = np.broadcast_to(np.eye(3), (4, 3, 3)).copy()
    np.testing.assert_array_equal(circle_support(4, ends, relative, np.ones(4)), [1, 1, 1, -1])
    relative[wrong_edge] = Rotation.from_rotvec([0, 0.5, 0]).as_matrix()
    np.testing.assert_array_equal(circle_support(4, ends, relative, np.ones(4)), [0, 0, 0, -1])
