"""Nearest neighbours of matches, against all distances."""

from __future__ import annotations

import pytest
import torch

from matcher.neighbourhoods import nearest_neighbours


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_nearest_of_those_that_count_without_oneself(share):
    generator = torch.Generator().manual_seed(0)
    ends = 100 * torch.rand(200, 2, generator=generator)
    among = torch.rand(200, generator=generator) < share
    distances, rows = nearest_neighbours(ends, 7, among)
    apart = torch.cdist(ends.double(), ends.double())
    apart[:, ~among] = torch.inf
    apart.fill_diagonal_(torch.inf)
    expected = apart.topk(7, largest=False)
    torch.testing.assert_close(distances.double(), expected.values, atol=1e-4, rtol=0)
    assert torch.equal(rows.sort().values, expected.indices.sort().values)


def test_just_enough_candidates():
    ends = torch.arange(12.0).reshape(6, 2)
    among = torch.tensor([True, True, True, True, False, False])
    _, rows = nearest_neighbours(ends, 3, among)
    assert rows[0].tolist() == [1, 2, 3]
    assert sorted(rows[2].tolist()) == [0, 1, 3]
    assert rows[5].tolist() == [3, 2, 1]


def test_coincident_matches_are_neighbours_but_none_of_its_own():
    ends = torch.ones(40, 2)
    distances, rows = nearest_neighbours(ends, 5, torch.ones(40, dtype=torch.bool))
    assert not bool((rows == torch.arange(40)[:, None]).any())
    assert bool((distances == 0).all())
    assert all(len(set(row)) == 5 for row in rows.tolist())
