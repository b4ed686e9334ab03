"""The search by a sample: how much of the complete comparison it finds, and what it never does."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.matching import (
    MatchingOptions,
    NearbyNearest,
    SampledNearest,
    TorchNearest,
    descriptor_sharpness,
    reciprocal_matches,
)
from tests.unit.matching.fields import noisy, unit_field

HEIGHT, WIDTH = 90, 120


def everywhere() -> torch.Tensor:
    return torch.ones(HEIGHT, WIDTH, dtype=torch.bool)


def places() -> torch.Tensor:
    """(H * W, 2), x then y, in raster order."""
    return torch.cartesian_prod(torch.arange(HEIGHT), torch.arange(WIDTH)).flip(1)


def pairs(found) -> set[tuple[int, ...]]:
    return {tuple(row) for row in torch.cat([found.pixels0, found.pixels1], dim=1).tolist()}


@pytest.mark.parametrize("reach", [None, 20.0])
def test_finds_nearly_all_that_complete_comparison_finds(reach):
    field = unit_field(HEIGHT, WIDTH, sigma=1.5)
    grid, queries = noisy(field, 0.05), noisy(field, 0.05, seed=2).flatten(0, 1)
    search = SampledNearest(grid, everywhere(), descriptor_sharpness(grid), reach)
    index, similarity = search.query(queries, places())
    if reach is None:
        best, most = TorchNearest(grid.flatten(0, 1)).query(queries)
    else:
        best, most = NearbyNearest(grid, everywhere(), "dot", reach).query(queries, places())
    assert float((index == best).float().mean()) > 0.97
    assert bool((similarity <= most + 1e-6).all())
    torch.testing.assert_close(similarity, (grid.flatten(0, 1)[index] * queries).sum(dim=1))


@pytest.mark.parametrize("reach", [None, 20.0])
def test_finds_only_what_may_be_found(reach):
    field = unit_field(HEIGHT, WIDTH, sigma=1.5)
    allowed = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(3)) > 0.6
    sharpness = descriptor_sharpness(field)
    poisoned = torch.where(allowed[..., None], field, torch.nan)
    search = SampledNearest(poisoned, allowed, sharpness, reach)
    index, similarity = search.query(field.flatten(0, 1), places())
    assert bool(allowed.flatten()[index].all())
    assert bool(similarity.isfinite().all())
    own = allowed.flatten() & (index == torch.arange(HEIGHT * WIDTH))
    assert int(own.sum()) > 0.97 * int(allowed.sum())


def test_without_queries_there_is_no_answer():
    grid = unit_field(HEIGHT, WIDTH)
    search = SampledNearest(grid, everywhere(), descriptor_sharpness(grid))
    index, similarity = search.query(grid.flatten(0, 1)[:0], places()[:0])
    assert (index.shape, similarity.shape) == ((0,), (0,))


def test_mutual_neighbours_are_those_of_the_exact_searches():
    field = unit_field(HEIGHT, WIDTH, sigma=1.5)
    first, second = noisy(field, 0.05), noisy(field, 0.05, seed=2)
    sampled, exact = (
        pairs(reciprocal_matches(first, second, options=MatchingOptions(backend=backend)))
        for backend in ("sampled", "exact")
    )
    assert len(exact) > 150
    assert len(sampled & exact) > 0.97 * len(sampled | exact)


def test_on_the_cpu_it_is_the_default_for_sharp_seeds():
    field = unit_field(HEIGHT, WIDTH, sigma=1.5)
    second = noisy(field, 0.2)
    auto, sampled, exact, cells = (
        pairs(reciprocal_matches(field, second, options=MatchingOptions(backend=backend)))
        for backend in ("auto", "sampled", "exact", "cells")
    )
    assert auto == sampled != exact == cells


def test_who_was_chosen_knows_by_whom():
    """Noise resembles nothing around it: only pixels of the sample are found, a quarter of all.

    The other map's sample holds other pixels, so the way back is known only from the way there.
    """
    first = unit_field(HEIGHT, WIDTH, sigma=0)
    second = first.roll((1, 1), dims=(0, 1))
    options = MatchingOptions(subsample=1, border=0, min_sharpness=0, backend="sampled")
    found = reciprocal_matches(first, second, options=options)
    apart = found.pixels1 - found.pixels0
    right = int((apart == 1).all(dim=1).sum())
    assert right > 0.2 * HEIGHT * WIDTH


def test_a_map_without_sharpness_is_refused():
    grid = unit_field(24, 24)
    options = MatchingOptions(min_sharpness=None, backend="sampled")
    with pytest.raises(InputError, match="min_sharpness"):
        reciprocal_matches(grid, grid, options=options)
