"""Warped views: positions come back to a fraction of a pixel, and shrinking does not alias."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.errors import InputError
from matcher.images import warp_view
from matcher.structures import ImageSize


def shift(x: float, y: float) -> np.ndarray:
    return np.array([[1.0, 0, x], [0, 1, y], [0, 0, 1]])


def stretch(x: float, y: float) -> np.ndarray:
    return np.diag([x, y, 1.0])


def brightness(view) -> np.ndarray:
    return (view.pixels[0].double().numpy() + 1) / 2


def test_a_shift_keeps_the_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    view = warp_view(image, shift(-37, -51), ImageSize(128, 160), name="a.jpg")
    expected = torch.from_numpy(image[51:179, 37:197]).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(view.pixels, expected)
    assert view.original_size == ImageSize(300, 400)
    assert view.content_size == view.network_size == ImageSize(128, 160)
    assert view.original_px == 1
    assert view.name == "a.jpg"
    assert bool(view.matchable().all())
    np.testing.assert_array_equal(view.original_from_network @ [0, 0, 1], [37, 51, 1])


@given(
    turn_deg=st.floats(-180, 180),
    scale=st.floats(0.15, 2),
    tilt=st.floats(1, 3),
    x=st.floats(500, 700),
    y=st.floats(350, 450),
)
@settings(max_examples=25, deadline=None)
def test_positions_come_back(
    turn_deg: float, scale: float, tilt: float, x: float, y: float
) -> None:
    rows, columns = np.indices((800, 1200))
    spot = np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 15.0**2))
    image = np.repeat(np.rint(255 * spot).astype(np.uint8)[..., None], 3, axis=2)
    angle = np.radians(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]])
    matrix = shift(128, 96) @ np.vstack([turn, [0, 0, 1]]) @ stretch(scale, scale / tilt)
    view = warp_view(image, matrix @ shift(-x - 5, -y + 7), ImageSize(192, 256))
    weights = brightness(view)
    down, right = np.indices(weights.shape)
    seen = [(weights * right).sum() / weights.sum(), (weights * down).sum() / weights.sum(), 1]
    back = view.original_from_network @ seen
    # A tenth of a pixel of the view.
    assert back[:2] == pytest.approx((x, y), abs=max(0.15, 0.15 * tilt / scale))
    assert view.original_px == pytest.approx(np.sqrt(tilt) / scale)


@pytest.mark.parametrize(
    ("matrix", "period"),
    [(stretch(0.25, 0.25), 4), (stretch(0.1, 0.1), 6), (stretch(0.25, 1.0), 4)],
)
def test_stripes_too_fine_for_the_view_become_grey(matrix: np.ndarray, period: int) -> None:
    """Every second sample would see them as broad stripes, or as none."""
    stripes = (np.arange(1200) % period < period // 2).astype(np.uint8) * 255
    image = np.repeat(np.tile(stripes, (900, 1))[..., None], 3, axis=2)
    view = warp_view(image, matrix, ImageSize(64, 64))
    inner = brightness(view)[4:-4, 4:-4]
    assert inner.mean() == pytest.approx(0.5, abs=0.03)
    assert np.ptp(inner) < 0.2


def test_no_match_is_welcome_beyond_the_photograph_or_outside_its_mask() -> None:
    image = np.full((100, 200, 3), 90, np.uint8)
    view = warp_view(image, shift(30, 20), ImageSize(96, 96))
    welcome = view.matchable().numpy()
    assert not welcome[:20].any()
    assert not welcome[:, :30].any()
    assert welcome[20:, 30:].all()
    assert np.ptp(brightness(view)) == 0  # the border goes on: no edge where the photograph ends
    mask = np.zeros((100, 200), dtype=bool)
    mask[10:20, 40:60] = True
    masked = warp_view(image, shift(30, 20), ImageSize(96, 96), mask=mask).matchable().numpy()
    assert masked.sum() == 200
    assert masked[30:40, 70:90].all()


@pytest.mark.parametrize(
    "matrix", [np.eye(2), np.zeros((3, 3)), stretch(0, 1), np.full((3, 3), np.nan), np.eye(3)[::-1]]
)
def test_bad_maps_are_refused(matrix: np.ndarray) -> None:
    with pytest.raises(InputError, match="view_from_original: expected an invertible affine map"):
        warp_view(np.zeros((10, 10, 3), np.uint8), matrix, ImageSize(16, 16))


def test_bad_images_and_masks_are_refused() -> None:
    with pytest.raises(InputError, match="image"):
        warp_view(np.zeros((10, 10), np.uint8), np.eye(3), ImageSize(16, 16))
    image = np.zeros((10, 10, 3), np.uint8)
    with pytest.raises(InputError, match="mask"):
        warp_view(image, np.eye(3), ImageSize(16, 16), mask=np.ones((5, 5), bool))
