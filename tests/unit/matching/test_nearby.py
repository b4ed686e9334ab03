"""The search around a place: against complete comparison with everything far away left out."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.matching import MatchingOptions, NearbyNearest, TorchNearest, reciprocal_matches
from tests.unit.matching.fields import mutual_pairs, noisy, unit_field


def pixels(height: int, width: int) -> torch.Tensor:
    """(H * W, 2), x then y, in raster order."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([x, y], dim=2).reshape(-1, 2)


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("reach", [4, 7.5, 16, 100])
def test_finds_the_best_of_the_squares_around(metric, reach):
    height, width = 37, 50
    grid = unit_field(height, width)
    allowed = torch.rand(height, width, generator=torch.Generator().manual_seed(1)) > 0.5
    grid[~allowed] = torch.nan
    places = pixels(height, width)[::7]
    queries = noisy(unit_field(height, width), 0.3).reshape(-1, 24)[::7]
    index, similarity = NearbyNearest(grid, allowed, metric, reach).query(queries, places)
    rows = torch.where(allowed[..., None], grid, 0).reshape(-1, 24).double()
    if metric == "dot":
        table = queries.double() @ rows.T
    else:
        table = -torch.cdist(queries.double(), rows).square()
    side = max(16, -(-reach // 1))
    squares = pixels(height, width) // side
    near = ((places // side)[:, None] - squares).abs().amax(dim=2) <= 1
    table[~(near & allowed.reshape(-1))] = -torch.inf
    torch.testing.assert_close(similarity.double(), table.amax(dim=1), atol=1e-5, rtol=0)
    assert torch.equal(index, table.argmax(dim=1))


def test_where_nothing_near_may_be_found_everything_is_searched():
    grid = unit_field(40, 60)
    allowed = torch.zeros(40, 60, dtype=torch.bool)
    allowed[:, 50:] = True
    places = torch.tensor([[0, 0], [55, 20]])
    queries = grid[[5, 20], [52, 55]]
    index, similarity = NearbyNearest(grid, allowed, "dot", 8).query(queries, places)
    assert index.tolist() == [5 * 60 + 52, 20 * 60 + 55]
    torch.testing.assert_close(similarity, torch.ones(2))


def test_a_map_where_nothing_may_be_found_and_a_reach_of_nothing_are_refused():
    grid = unit_field(8, 8)
    with pytest.raises(InputError, match="at least one pixel that may be found"):
        NearbyNearest(grid, torch.zeros(8, 8, dtype=torch.bool), "dot", 4)
    with pytest.raises(InputError, match="reach_px"):
        NearbyNearest(grid, torch.ones(8, 8, dtype=torch.bool), "dot", 0)


def every(reach: float | None) -> MatchingOptions:
    return MatchingOptions(subsample=1, border=0, min_sharpness=None, reach=reach)


def test_a_reach_over_the_whole_map_changes_nothing():
    first = unit_field(48, 56)
    second = noisy(first, 0.2)
    found, whole = (reciprocal_matches(first, second, options=every(r)) for r in (1.0, None))
    assert torch.equal(found.pixels0, whole.pixels0)
    assert torch.equal(found.pixels1, whole.pixels1)
    assert len(found) == len(mutual_pairs(first, second))


def test_copies_of_a_texture_far_away_do_not_compete():
    """Two equal halves: anywhere, half of the pixels go to the other copy; nearby, none does."""
    half = unit_field(32, 64)
    first = torch.cat([half, half], dim=1)
    second = noisy(first, 0.03)
    near = reciprocal_matches(first, second, options=every(0.125))
    anywhere = reciprocal_matches(first, second, options=every(None))

    def share_in_place(found) -> float:
        apart = (found.pixels0 - found.pixels1).abs().amax(dim=1)
        return float((apart <= 3).float().mean())

    assert share_in_place(near) > 0.9 > 0.7 > share_in_place(anywhere)
    assert len(near) > 1.5 * len(anywhere)
    assert int((near.pixels0 - near.pixels1).abs().max()) < 2 * 16


def test_a_search_of_the_callers_own_and_a_reach_are_refused():
    grid = unit_field(24, 24)
    with pytest.raises(InputError, match="None with a reach"):
        reciprocal_matches(
            grid, grid, options=every(0.5), backend=lambda maps, allowed, metric: TorchNearest(maps)
        )


@pytest.mark.parametrize("reach", [0, -0.1, 1.5, float("nan"), True, "far"])
def test_a_reach_that_is_no_share_is_refused(reach):
    with pytest.raises(InputError, match="reach"):
        MatchingOptions(reach=reach)
