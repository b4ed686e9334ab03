"""The look changes, the geometry and the type do not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from matcher.training.augment import photometric, resize_image
from matcher.turns import rotation_about_axis

ByteImage = npt.NDArray[np.uint8]


def changes(photo: ByteImage, strength: float) -> npt.NDArray[np.float64]:
    """Mean absolute change of 24 draws, grey levels."""
    made = [photometric(np.random.default_rng(seed), photo, strength) for seed in range(24)]
    return np.array([np.abs(image.astype(float) - photo).mean() for image in made])


def test_shape_and_type_stay(photo: ByteImage) -> None:
    for seed in range(24):
        image = photometric(np.random.default_rng(seed), photo)
        assert image.shape == photo.shape
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous


def test_the_input_stays(photo: ByteImage) -> None:
    before = photo.copy()
    for seed in range(8):
        photometric(np.random.default_rng(seed), photo)
    assert np.array_equal(photo, before)


def test_strength_zero_changes_nothing(photo: ByteImage) -> None:
    for seed in range(24):
        image = photometric(np.random.default_rng(seed), photo, 0.0)
        assert np.abs(image.astype(int) - photo).max() <= 1  # rounding


def test_strength_scales_the_change(photo: ByteImage) -> None:
    weak, usual = changes(photo, 0.25).mean(), changes(photo, 1.0).mean()
    assert 1 < weak < 0.5 * usual
    assert 12 < usual < 80


def test_a_seed_decides(photo: ByteImage) -> None:
    one, same, other = (photometric(np.random.default_rng(seed), photo) for seed in (5, 5, 6))
    assert np.array_equal(one, same)
    assert np.abs(one.astype(int) - other).mean() > 1


def test_edges_stay_where_they_are() -> None:
    image = np.full((64, 64, 3), 60, dtype=np.uint8)
    image[:, 32:] = 180
    for seed in range(24):
        changed = photometric(np.random.default_rng(seed), image).astype(float).mean(axis=(0, 2))
        assert abs(int(np.abs(np.diff(changed)).argmax()) - 31) <= 1


@pytest.mark.parametrize(("shape", "factor"), [((100, 130), 2), ((50, 65), 4)])
def test_shrinking_averages(photo: ByteImage, shape: tuple[int, int], factor: int) -> None:
    blocks = photo.astype(float).reshape(shape[0], factor, shape[1], factor, 3).mean(axis=(1, 3))
    assert np.abs(resize_image(photo, shape) - blocks).max() <= 0.51


def test_quarter_turns_are_rotations() -> None:
    for turns in range(-2, 6):
        matrix = rotation_about_axis(turns)
        assert np.array_equal(matrix @ matrix.T, np.eye(3))
        assert np.linalg.det(matrix) == pytest.approx(1)
        assert np.array_equal(matrix, rotation_about_axis(turns + 4))
    # Turned counter-clockwise, what was to the right (x) is at the top (-y).
    assert rotation_about_axis(1) @ [1, 0, 0] == pytest.approx([0, -1, 0])
