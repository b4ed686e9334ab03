"""Depth maps brought to known depths: smooth errors, edges, outliers, holes, bad input."""

from __future__ import annotations

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.depth_correction import correct_depth

HEIGHT, WIDTH = 93, 130


def surface() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return 3 + 0.01 * x + 0.4 * np.sin(y / 30)


def bent() -> np.ndarray:
    """The factor by which the map is wrong: from 0.75 to 1.33."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.exp(0.28 * np.sin(x / 40 + 0.5) * np.cos(y / 45))


def some_pixels(count: int = 900, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform([0, 0], [WIDTH - 1, HEIGHT - 1], (count, 2))


def at(values: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    x, y = pixels.round().astype(int).T
    return values[y, x]


def relative_error(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(found - true) / true


def test_a_smooth_error_goes_and_the_unit_is_that_of_the_known_depths():
    pixels = some_pixels()
    true = 7 * surface()
    wrong = 0.2 * surface() * bent()
    found = correct_depth(wrong, pixels, at(true, pixels))
    assert np.median(relative_error(found, true)) < 0.02
    before = wrong * np.median(true / wrong)
    assert np.median(relative_error(before, true)) > 0.07


def test_one_known_pixel_is_a_scale():
    found = correct_depth(surface(), [[40, 30]], [2 * surface()[30, 40]])
    np.testing.assert_allclose(found, 2 * surface(), rtol=1e-9)


def test_a_correction_stays_on_its_side_of_an_edge():
    """The background is right and full of known pixels, the foreground 30 % too far."""
    true = np.full((HEIGHT, WIDTH), 6.0)
    true[:, 60:90] = 2.0
    wrong = true.copy()
    wrong[:, 60:90] *= 1.3
    pixels = some_pixels()
    found = correct_depth(wrong, pixels, at(true, pixels))
    foreground = relative_error(found, true)[:, 60:90]
    assert np.median(foreground) < 0.04  # of 0.3 before
    assert np.percentile(foreground, 95) < 0.15
    assert relative_error(found, true)[:, :52].max() < 0.005


def test_wrong_depths_lose_their_weight():
    pixels = some_pixels()
    known = at(surface(), pixels)
    known[::5] *= 3
    found = correct_depth(surface() * bent(), pixels, known)
    assert np.median(relative_error(found, surface())) < 0.02


def test_without_weight_a_depth_counts_nothing():
    pixels = some_pixels()
    known = at(surface(), pixels)
    weights = np.ones(len(known))
    known[::2], weights[::2] = 99.0, 0.0
    found = correct_depth(surface(), pixels, known, weights)
    np.testing.assert_allclose(found, surface(), rtol=1e-6)


def test_holes_stay_and_known_depths_in_them_are_left_out():
    wrong = surface()
    wrong[20:40, 30:60] = np.nan
    wrong[50, 50], wrong[51, 51] = 0.0, -1.0
    pixels = np.concatenate([some_pixels(), [[45.0, 30.0]]])
    known = 2 * at(surface(), pixels)
    known[-1] = 1e6
    found = correct_depth(wrong, pixels, known)
    usable = np.isfinite(wrong) & (wrong > 0)
    np.testing.assert_array_equal(found[~usable], wrong[~usable])
    np.testing.assert_allclose(found[usable], 2 * wrong[usable], rtol=1e-6)


def test_a_hole_does_not_spoil_its_neighbours():
    """Nodes of the lattice lie in holes, where the factor is far from the usual one."""
    true, wrong = surface(), surface()
    wrong[:, 100:] = surface()[:, 100:] / 2
    pixels = some_pixels(2000)
    whole = correct_depth(wrong, pixels, at(true, pixels))
    pierced = wrong.copy()
    pierced[::8, 112::8] = np.nan
    found = correct_depth(pierced, pixels, at(true, pixels))
    usable = np.isfinite(pierced[:, 110:])
    np.testing.assert_allclose(found[:, 110:][usable], whole[:, 110:][usable], rtol=0.02)
    assert np.median(relative_error(found[:, 110:][usable], true[:, 110:][usable])) < 0.05


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 3), (8, 9)])
def test_small_maps(shape):
    found = correct_depth(np.full(shape, 2.0), [[0, 0]], [3.0])
    np.testing.assert_allclose(found, 3.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": np.ones(4)}, "depth: expected shape"),
        ({"pixels": [[1, 2, 3]]}, "shapes"),
        ({"known": [1.0, 2.0]}, "shapes"),
        ({"known": 1.0}, "shapes"),
        ({"known": [np.nan]}, "finite"),
        ({"known": [0.0]}, "depths > 0"),
        ({"weights": [-1.0]}, "weights >= 0"),
        ({"pixels": [[99, 1]]}, "inside 6 x 5"),
        ({"depth": np.full((5, 6), np.nan)}, "some where the map has a depth"),
        ({"pixels": np.zeros((0, 2)), "known": []}, "some where the map has a depth"),
    ],
)
def test_bad_input(change, message):
    arguments = {"depth": np.ones((5, 6)), "pixels": [[1, 2]], "known": [2.0], **change}
    with pytest.raises(InputError, match=message):
        correct_depth(**arguments)
