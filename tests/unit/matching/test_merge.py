from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.matching import add_matches, merge_matches
from matcher.structures import Matches


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
