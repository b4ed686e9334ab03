"""Night, dark corners, flicker and shake in augmentation: looks change, places do not."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from matcher.training import augment
from matcher.training.augment import photometric

Floats = npt.NDArray[np.float32]


def picture(seed: int = 0) -> npt.NDArray[np.uint8]:
    coarse = np.random.default_rng(seed).integers(30, 226, (12, 16, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, (64, 48), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def test_usual_strength_is_repeatable_and_varied() -> None:
    image = picture()
    means = []
    for seed in range(60):
        out = photometric(np.random.default_rng(seed), image)
        assert np.array_equal(out, photometric(np.random.default_rng(seed), image))
        means.append(out.mean())
    assert min(means) < 60  # somewhere it is night
    assert max(means) > 150


def test_nothing_moves() -> None:
    """The shift that fits best between edges of both pictures is none."""
    image = picture(3)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float64)
    shifts = []
    for seed in range(25):
        out = photometric(np.random.default_rng(seed), image)
        other = cv2.cvtColor(out, cv2.COLOR_RGB2GRAY).astype(np.float64)
        (dx, dy), response = cv2.phaseCorrelate(grey, other)
        if response > 0.2:
            shifts.append(max(abs(dx), abs(dy)))
    assert len(shifts) > 15
    assert np.median(shifts) < 0.1


@pytest.mark.parametrize("effect", [augment._night, augment._uneven, augment._shaken])
def test_each_effect_keeps_shape_and_range(
    effect: Callable[[np.random.Generator, Floats], Floats],
) -> None:
    values = picture().astype(np.float32) / np.float32(255)
    for seed in range(8):
        out = effect(np.random.default_rng(seed), values)
        assert out.dtype == np.float32
        assert out.shape == values.shape
        assert np.isfinite(out).all()
        assert out.min() >= -1e-6
        assert np.abs(out - values).mean() > 1e-3


def test_night_is_dark_and_shake_keeps_the_mean() -> None:
    values = picture().astype(np.float32) / np.float32(255)
    for seed in range(8):
        assert augment._night(np.random.default_rng(seed), values).mean() < 0.75 * values.mean()
        shaken = augment._shaken(np.random.default_rng(seed), values)
        assert shaken.mean() == pytest.approx(values.mean(), abs=0.01)
        assert shaken.std() < values.std()
