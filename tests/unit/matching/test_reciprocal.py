from __future__ import annotations

import pytest
import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching import (
    MatchingOptions,
    TorchNearest,
    reciprocal_from_starts,
    reciprocal_matches,
    reciprocal_points,
)
from matcher.structures import GridMatches
from tests.unit.matching.fields import mutual_pairs, noisy, unit_field

EVERY = MatchingOptions(subsample=1, border=0, min_sharpness=None)


def pairs(matches: GridMatches, width0: int, width1: int) -> list[tuple[int, int]]:
    first = matches.pixels0[:, 1] * width0 + matches.pixels0[:, 0]
    second = matches.pixels1[:, 1] * width1 + matches.pixels1[:, 0]
    return list(zip(first.tolist(), second.tolist(), strict=True))


def maps() -> tuple[Tensor, Tensor]:
    field = unit_field(48, 56)
    return field, noisy(field.flip(1)[4:, 6:], 0.05)


@pytest.mark.parametrize("backend", ["torch", "faiss", "cells"])
def test_subsample_one_is_every_mutual_pair(backend):
    first, second = maps()
    matches = reciprocal_matches(
        first,
        second,
        options=MatchingOptions(subsample=1, border=0, backend=backend, min_sharpness=None),
    )
    found = pairs(matches, first.shape[1], second.shape[1])
    assert set(found) == mutual_pairs(first, second)
    assert found == sorted(set(found))
    assert len(found) > 400


@pytest.mark.parametrize("subsample", [2, 5, 8])
def test_seeds_find_mutual_pairs_only(subsample):
    first, second = maps()
    matches = reciprocal_matches(
        first, second, options=MatchingOptions(subsample=subsample, border=0, min_sharpness=None)
    )
    found = set(pairs(matches, first.shape[1], second.shape[1]))
    assert found <= mutual_pairs(first, second)
    assert len(found) > 0.3 * (48 // subsample) * (56 // subsample)


@pytest.mark.parametrize("subsample", [1, 8])
def test_symmetric_search_is_mirrored_by_a_swap(subsample):
    first, second = maps()
    options = MatchingOptions(subsample=subsample, border=0, symmetric=True, min_sharpness=None)
    forth = reciprocal_matches(first, second, options=options)
    back = reciprocal_matches(second, first, options=options)
    widths = first.shape[1], second.shape[1]
    mirrored = sorted((j, i) for i, j in pairs(back, *widths[::-1]))
    assert pairs(forth, *widths) == mirrored
    assert len(forth) > 20


def test_similarity_is_the_cosine():
    first, second = maps()
    matches = reciprocal_matches(first, second)
    rows0 = first[matches.pixels0[:, 1], matches.pixels0[:, 0]]
    rows1 = second[matches.pixels1[:, 1], matches.pixels1[:, 0]]
    cosine = torch.nn.functional.cosine_similarity(rows0, rows1)
    torch.testing.assert_close(matches.similarity, cosine, atol=1e-6, rtol=0)


def test_identical_maps_match_every_seed_with_itself():
    field = unit_field(40, 48)
    matches = reciprocal_matches(
        field, field, options=MatchingOptions(8, border=0, min_sharpness=None)
    )
    assert torch.equal(matches.pixels0, matches.pixels1)
    assert len(matches) == matches.num_seeds == 5 * 6


@pytest.mark.parametrize("border", [0, 3, 7])
def test_border(border):
    field = unit_field(40, 48)
    options = MatchingOptions(subsample=1, border=border, min_sharpness=None)
    matches = reciprocal_matches(field, field, options=options)
    assert len(matches) == (40 - 2 * border) * (48 - 2 * border)
    assert int(matches.pixels0.min()) == border
    assert matches.pixels1.amax(dim=0).tolist() == [47 - border, 39 - border]


@pytest.mark.parametrize("backend", ["torch", "faiss", "cells"])
def test_masks(backend):
    first, second = maps()
    mask0, mask1 = torch.zeros(48, 56, dtype=torch.bool), torch.ones(44, 50, dtype=torch.bool)
    mask0[10:40, 5:50] = True
    mask1[:, 20:30] = False
    options = MatchingOptions(subsample=1, border=0, backend=backend, min_sharpness=None)
    matches = reciprocal_matches(first, second, options=options, mask0=mask0, mask1=mask1)
    assert bool(mask0[matches.pixels0[:, 1], matches.pixels0[:, 0]].all())
    assert bool(mask1[matches.pixels1[:, 1], matches.pixels1[:, 0]].all())
    # Forbidden pixels do not compete either: the answer is that of maps without them.
    inside = first[10:40, 5:50]
    left = {(i, j) for i, j in mutual_pairs(inside, torch.where(mask1[..., None], second, 0.0))}
    width = inside.shape[1]
    expected = {((i // width + 10) * 56 + i % width + 5, j) for i, j in left}
    allowed = {(i, j) for i, j in expected if bool(mask1.reshape(-1)[j])}
    assert set(pairs(matches, 56, 50)) == allowed


@pytest.mark.parametrize("backend", ["torch", "faiss", "cells"])
@pytest.mark.parametrize("poison", [float("nan"), float("inf"), 0.0])
def test_poisoned_descriptors_neither_match_nor_attract(backend, poison):
    first, second = maps()
    clean = mutual_pairs(first, second)
    second = second.clone()
    second[20, 10:14] = poison
    options = MatchingOptions(subsample=1, border=0, backend=backend, min_sharpness=None)
    found = set(pairs(reciprocal_matches(first, second, options=options), 56, 50))
    bad = {20 * 50 + x for x in range(10, 14)}
    assert not {j for _, j in found} & bad
    assert {(i, j) for i, j in clean if j not in bad} <= found


@pytest.mark.parametrize("value", [float("nan"), 0.0])
def test_nothing_to_match(value):
    matches = reciprocal_matches(unit_field(16, 16), torch.full((16, 16, 24), value))
    assert len(matches) == 0
    none = torch.zeros(16, 16, dtype=torch.bool)
    field = unit_field(16, 16)
    assert len(reciprocal_matches(field, field, mask0=none)) == 0
    starts = torch.tensor([[3, 4]])
    assert len(reciprocal_from_starts(field, field, starts, mask1=none)) == 0


def test_blank_maps_give_one_match():
    blank = torch.nn.functional.normalize(torch.ones(32, 32, 24), dim=2)
    matches = reciprocal_matches(
        blank, blank, options=MatchingOptions(border=0, min_sharpness=None)
    )
    assert matches.pixels0.tolist() == matches.pixels1.tolist() == [[0, 0]]


def test_points_by_distance():
    rows, columns = torch.meshgrid(torch.arange(30.0), torch.arange(40.0), indexing="ij")
    plane = torch.stack([0.1 * columns, 0.1 * rows, torch.full_like(rows, 80.0)], dim=2)
    shifted = plane + torch.tensor([0.21, -0.1, 0.001])
    matches = reciprocal_points(plane, shifted, options=EVERY)
    # 2 columns and 1 row of the grid, where the neighbour is inside.
    inner = (matches.pixels1 - matches.pixels0 == torch.tensor([-2, 1])).all(dim=1)
    assert int(inner.sum()) == 38 * 29
    torch.testing.assert_close(
        matches.similarity[inner],
        torch.full((38 * 29,), -(0.01**2 + 0.001**2)),
        atol=2e-6,
        rtol=0,
    )


def test_iterations_are_limited():
    first, second = maps()
    counts = [
        len(
            reciprocal_matches(
                first, second, options=MatchingOptions(2, iterations, 0, min_sharpness=None)
            )
        )
        for iterations in (1, 2, 10)
    ]
    assert counts[0] < counts[1] <= counts[2]


def test_no_pixel_is_searched_twice():
    first, second = maps()
    searched: list[int] = []

    class Counting:
        def __init__(self, grid: Tensor) -> None:
            self.inner = TorchNearest(grid.reshape(-1, 24))

        def query(
            self, queries: Tensor, lower_bound: Tensor | None = None
        ) -> tuple[Tensor, Tensor]:
            searched.append(len(queries))
            return self.inner.query(queries)

    matches = reciprocal_matches(
        first,
        second,
        options=MatchingOptions(1, symmetric=True, border=0, min_sharpness=None),
        backend=lambda grid, allowed, metric: Counting(grid),
    )
    assert len(matches) == len(mutual_pairs(first, second))
    assert sum(searched) <= 48 * 56 + 44 * 50


def test_arguments_are_left_alone_and_half_precision_works():
    first, second = maps()
    copies = first.clone(), second.clone()
    reciprocal_matches(first, second)
    assert torch.equal(first, copies[0])
    assert torch.equal(second, copies[1])
    matches = reciprocal_matches(
        first.half(), second.half(), options=MatchingOptions(4, min_sharpness=None)
    )
    assert matches.similarity.dtype == torch.float32
    assert len(matches) > 30


def test_bad_arguments_are_named():
    field = unit_field(16, 16)
    with pytest.raises(InputError, match="descriptors0: expected floating point"):
        reciprocal_matches(field[0], field)
    with pytest.raises(InputError, match="descriptors1: expected 24 channels"):
        reciprocal_matches(field, field[:, :, :5])
    with pytest.raises(InputError, match=r"mask1: expected bool of shape \(16, 16\)"):
        reciprocal_matches(field, field, mask1=torch.ones(16, 15, dtype=torch.bool))
    with pytest.raises(InputError, match="starts0: expected pixels inside 16 x 16"):
        reciprocal_from_starts(field, field, torch.tensor([[16, 2]]))
    with pytest.raises(InputError, match="starts0: expected integers"):
        reciprocal_from_starts(field, field, torch.tensor([[1.5, 2.0]]))
    with pytest.raises(InputError, match="tolerance_px"):
        reciprocal_from_starts(field, field, torch.tensor([[1, 2]]), tolerance_px=-1)
