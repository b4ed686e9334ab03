"""Turned photographs: pixels and pointmaps laid back upright."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matcher.pointmaps import Pointmaps
from matcher.structures import ImageSize, Matches
from matcher.turns import QUARTER_TURNS, turn, upright_matches, upright_pointmaps

SIZE = ImageSize(5, 8)


def spots(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8; every pixel's colour is its own place."""
    rows, columns = np.indices((height, width))
    return np.stack([columns, rows, np.full((height, width), 7)], axis=-1).astype(np.uint8)


@pytest.mark.parametrize("quarter_turns", QUARTER_TURNS)
def test_every_pixel_comes_back(quarter_turns: int) -> None:
    turned = turn(spots(SIZE.height, SIZE.width), quarter_turns)
    rows, columns = np.indices(turned.shape[:2])
    keypoints = np.stack([columns.ravel(), rows.ravel()], axis=1).astype(np.float32)
    count = len(keypoints)
    matches = Matches(torch.zeros(count, 2), torch.from_numpy(keypoints), torch.ones(count))
    upright = upright_matches(matches, SIZE, quarter_turns)
    assert np.array_equal(upright.keypoints1.numpy(), turned.reshape(-1, 3)[:, :2])
    assert torch.equal(upright.keypoints0, matches.keypoints0)
    assert upright.keypoints1.dtype == torch.float32


def test_one_turn_is_counter_clockwise() -> None:
    turned = turn(spots(SIZE.height, SIZE.width), 1)
    assert turned.shape == (8, 5, 3)
    assert turned[0, 0].tolist() == [7, 0, 7]  # the right end of the upper edge is now upper left


@pytest.mark.parametrize("quarter_turns", QUARTER_TURNS)
@pytest.mark.parametrize("symmetric", [True, False])
def test_pointmaps_of_the_upright_photograph(quarter_turns: int, symmetric: bool) -> None:
    """Rays of an upright camera, seen by one that lies on its side, and back."""
    height, width, focal = 6, 10, 4.0
    rows, columns = np.indices((height, width)).astype(np.float64)
    depth = 2 + 0.1 * rows + 0.05 * columns
    offsets = np.stack([columns - (width - 1) / 2, rows - (height - 1) / 2], axis=-1)
    own = np.dstack([offsets * depth[..., None] / focal, depth]).astype(np.float32)
    in_camera0 = own + np.float32([0.3, -0.2, 1.0])
    # A camera turned clockwise sees the picture turned counter-clockwise.
    own_turned = np.rot90(own, quarter_turns).copy()
    for _ in range(quarter_turns):
        own_turned[..., :2] = np.stack([own_turned[..., 1], -own_turned[..., 0]], axis=-1)
    rays = own_turned[..., :2] / own_turned[..., 2:] * focal
    turned_rows, turned_columns = np.indices(own_turned.shape[:2])
    middle = (np.array(own_turned.shape[1::-1]) - 1) / 2
    expected = np.stack([turned_columns, turned_rows], -1) - middle
    np.testing.assert_allclose(rays, expected, atol=1e-5)  # so the test's own turn is right

    scaling = np.diag([2.0, 3.0, 1.0])
    maps = Pointmaps(
        points0=own,
        points1=np.rot90(in_camera0, quarter_turns),
        confidence0=depth.astype(np.float32),
        confidence1=np.rot90(depth.astype(np.float32), quarter_turns),
        original0_from_network=np.eye(3),
        original1_from_network=np.eye(3),
        points1_in_camera1=own_turned if symmetric else None,
    )
    upright = upright_pointmaps(maps, scaling, quarter_turns)
    np.testing.assert_array_equal(upright.points1, in_camera0)
    np.testing.assert_array_equal(upright.confidence1, depth.astype(np.float32))
    np.testing.assert_array_equal(upright.original1_from_network, scaling)
    np.testing.assert_array_equal(upright.points0, own)
    if symmetric:
        assert upright.points1_in_camera1 is not None
        np.testing.assert_allclose(upright.points1_in_camera1, own, atol=1e-6)
    else:
        assert upright.points1_in_camera1 is None
