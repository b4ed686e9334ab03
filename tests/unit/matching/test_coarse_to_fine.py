from __future__ import annotations

import numpy as np
import pytest
import torch

from matcher.errors import InputError
from matcher.matching import (
    add_matches,
    choose_covering,
    merge_matches,
    plan_crops,
    window_grid,
)
from matcher.structures import ImageSize, Matches

CROP = ImageSize(384, 512)


def shifted_keypoints(count: int = 600) -> tuple[np.ndarray, np.ndarray]:
    first = np.random.default_rng(0).uniform((0, 0), (1900, 1400), (count, 2))
    return first, first + np.array([40, -25])


@pytest.mark.parametrize(("height", "width"), [(1, 1), (100, 4000), (1500, 2000), (385, 513)])
def test_windows_cover_the_photograph(height, width):
    seen = np.zeros((height, width), dtype=bool)
    for box in window_grid(ImageSize(height, width), 512, 0.5):
        assert 0 <= box.left < box.right <= width
        assert 0 <= box.top < box.bottom <= height
        seen[box.top : box.bottom, box.left : box.right] = True
    assert seen.all()


def test_planned_crops_see_most_matches_and_correspond():
    first, second = shifted_keypoints()
    size = ImageSize(1500, 2000)
    pairs = plan_crops(size, size, first, second, CROP, CROP)
    seen = np.zeros(len(first), dtype=bool)
    for pair in pairs:
        assert pair.box0.size == pair.box1.size == CROP
        both = pair.box0.contains(first) & pair.box1.contains(second)
        assert pair.num_coarse_matches == both.sum()
        seen |= both
    assert seen.mean() > 0.9
    inner = [pair for pair in pairs if 60 < pair.box0.left < 1400 and 60 < pair.box0.top < 1000]
    shifts = [(pair.box1.left - pair.box0.left, pair.box1.top - pair.box0.top) for pair in inner]
    assert np.abs(np.median(shifts, axis=0) - (40, -25)).max() < 25
    assert plan_crops(size, size, first, second, CROP, CROP, max_crops=3) == pairs[:3]


def test_small_photographs_and_few_matches():
    small = ImageSize(200, 300)
    first, second = np.full((20, 2), 100.0), np.full((20, 2), 90.0)
    pairs = plan_crops(small, ImageSize(1000, 1000), first, second, CROP, CROP)
    assert pairs[0].box0.size == small
    assert pairs[0].num_coarse_matches == 20
    assert plan_crops(small, small, first[:9], second[:9], CROP, CROP) == []
    assert plan_crops(small, small, np.zeros((0, 2)), np.zeros((0, 2)), CROP, CROP) == []


def test_greedy_cover_by_hand():
    weights = [[0.5, 0.5, 0.0], [0.9, 0.0, 0.0], [0.0, 0.0, 0.4], [0.5, 0.5, 0.0]]
    # Best total 0.9 + 0.5 + 0.4: row 0 adds 1.0, then rows 1 and 2 add 0.4 each.
    assert choose_covering(weights, 1.0) == [0, 1, 2]
    assert choose_covering(weights, 0.5) == [0]
    assert choose_covering(np.zeros((3, 4)), 1.0) == []


def test_merged_matches_have_no_near_duplicates():
    first = Matches(
        torch.tensor([[10.0, 10.0], [50.0, 50.0]]),
        torch.tensor([[20.0, 20.0], [60.0, 60.0]]),
        torch.tensor([0.5, 0.6]),
    )
    second = Matches(
        torch.tensor([[10.4, 10.2], [90.0, 90.0], [70.0, 70.0]]),
        torch.tensor([[20.1, 20.1], [60.2, 60.1], [80.0, 80.0]]),
        torch.tensor([0.9, 0.3, 0.6]),
    )
    merged = merge_matches([first, second], cell_px=2.0)
    assert merged.confidence.tolist() == pytest.approx([0.9, 0.6, 0.6])
    expected = torch.tensor([[10.4, 10.2], [50.0, 50.0], [70.0, 70.0]])
    assert torch.equal(merged.keypoints0, expected)
    assert len(merge_matches([])) == 0
    assert len(merge_matches([Matches.empty(), Matches.empty()])) == 0


def test_bad_arguments_are_named():
    size = ImageSize(600, 600)
    points = np.zeros((12, 2))
    with pytest.raises(InputError, match="keypoints1: expected 12 rows"):
        plan_crops(size, size, points, points[:3], CROP, CROP)
    with pytest.raises(InputError, match="coverage"):
        plan_crops(size, size, points, points, CROP, CROP, coverage=0)
    with pytest.raises(InputError, match="max_crops"):
        plan_crops(size, size, points, points, CROP, CROP, max_crops=0)
    with pytest.raises(InputError, match="overlap"):
        window_grid(size, 512, 1.0)
    with pytest.raises(InputError, match="max_side"):
        window_grid(size, 8, 0.5)
    with pytest.raises(InputError, match="cell_px"):
        merge_matches([], cell_px=0)


def test_coarse_matches_fill_what_fine_ones_left():
    fine = Matches(
        torch.tensor([[10.0, 10.0], [50.0, 50.0]]),
        torch.tensor([[20.0, 10.0], [60.0, 50.0]]),
        torch.tensor([0.2, 0.3]),
    )
    coarse = Matches(
        # Near a fine one in image 0; near one in image 1; near none.
        torch.tensor([[12.0, 13.0], [90.0, 90.0], [100.0, 20.0]]),
        torch.tensor([[150.0, 90.0], [58.0, 53.0], [110.0, 20.0]]),
        torch.tensor([0.9, 0.9, 0.9]),
    )
    both = add_matches(fine, coarse, cell_px=8.0)
    assert both.keypoints0.tolist() == [[10.0, 10.0], [50.0, 50.0], [100.0, 20.0]]
    assert both.confidence.tolist() == pytest.approx([0.2, 0.3, 0.9])
    nothing = Matches.empty()
    assert len(add_matches(nothing, coarse, 8.0)) == 3
    assert len(add_matches(fine, nothing, 8.0)) == 2
    with pytest.raises(InputError, match="cell_px"):
        add_matches(fine, coarse, 0.0)
