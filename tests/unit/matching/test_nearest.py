from __future__ import annotations

import faiss
import pytest
import torch

from matcher.errors import InputError
from matcher.matching import CellNearest, FaissNearest, TorchNearest, build_search
from tests.unit.matching.fields import noisy, unit_field

BACKENDS = ("torch", "faiss", "cells")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sigma", [0.0, 1.0, 4.0])
@pytest.mark.parametrize("shape", [(64, 72), (61, 67), (5, 3), (1, 200)])
def test_finds_the_largest_dot_product(backend, sigma, shape):
    grid = unit_field(*shape, sigma=sigma)
    queries = noisy(unit_field(20, 20, sigma=1.0, seed=5), 0.1).reshape(-1, 24)
    queries = torch.cat([queries, grid.reshape(-1, 24)[:50], -grid.reshape(-1, 24)[:50]])
    search = build_search(grid, torch.ones(shape, dtype=torch.bool), "dot", backend)
    index, similarity = search.query(queries)
    table = queries @ grid.reshape(-1, 24).T
    best = table.amax(dim=1)
    torch.testing.assert_close(similarity, best, atol=1e-6, rtol=0)
    torch.testing.assert_close(table.gather(1, index[:, None])[:, 0], best, atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("channels", [3, 24])
def test_finds_the_smallest_distance(backend, channels):
    grid = 50 + 10 * unit_field(45, 50, channels=channels)
    queries = grid[::3, ::3].reshape(-1, channels) + 0.05
    search = build_search(grid, torch.ones(45, 50, dtype=torch.bool), "l2", backend)
    index, similarity = search.query(queries)
    distances = torch.cdist(queries.double(), grid.reshape(-1, channels).double())
    found = distances.gather(1, index[:, None])[:, 0]
    tolerance = 1e-4 if channels == 3 else 5e-3
    torch.testing.assert_close(found, distances.amin(dim=1), atol=tolerance, rtol=0)
    torch.testing.assert_close(
        similarity.double(), -(found**2), atol=0.2 if backend == "faiss" else 1e-3, rtol=0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_never_finds_what_is_forbidden(backend):
    grid = unit_field(40, 44)
    allowed = torch.rand(40, 44, generator=torch.Generator().manual_seed(3)) > 0.7
    allowed[:16, :16] = False
    grid[~allowed] = torch.nan if backend != "cells" else 1e3
    queries = noisy(unit_field(40, 44), 0.05).reshape(-1, 24)
    index, _ = build_search(grid, allowed, "dot", backend).query(queries)
    table = queries @ torch.where(allowed[:, :, None], grid, -grid.new_ones(1)).reshape(-1, 24).T
    table[:, ~allowed.reshape(-1)] = -torch.inf
    assert bool(allowed.reshape(-1)[index].all())
    torch.testing.assert_close(
        table.gather(1, index[:, None])[:, 0], table.amax(dim=1), atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("size", [(24, 24), (72, 80)])
def test_lowest_index_wins_among_equals(backend, size):
    # One-hot descriptors: products are exactly 0 or 1, every value occurs many times.
    label = torch.arange(size[0] * size[1]).view(size) * 7 % 24
    grid = torch.nn.functional.one_hot(label, 24).float()
    allowed = torch.ones(size, dtype=torch.bool)
    allowed[0, :5] = False
    index, _ = build_search(grid, allowed, "dot", backend).query(torch.eye(24))
    flat = torch.where(allowed, label, -1).reshape(-1)
    assert index.tolist() == [int(torch.nonzero(flat == value)[0]) for value in range(24)]


def test_blank_map_answers_with_the_first_pixel():
    grid = torch.nn.functional.normalize(torch.ones(96, 96, 24), dim=2)
    index, similarity = CellNearest(grid).query(noisy(grid, 0.1)[:, 0])
    assert index.tolist() == [0] * 96
    assert float(similarity.min()) > 0.8


@pytest.mark.parametrize("margin", [0.0, 0.3, 2.5])
def test_a_known_bound_changes_no_answer(margin):
    grid = unit_field(64, 64)
    queries = noisy(grid, 0.1).reshape(-1, 24)
    search = CellNearest(grid)
    index, similarity = search.query(queries)
    bounded_index, bounded_similarity = search.query(queries, similarity - margin)
    assert torch.equal(index, bounded_index)
    torch.testing.assert_close(similarity, bounded_similarity, atol=1e-6, rtol=0)


def test_queries_of_any_length_give_the_same_pixels():
    grid = unit_field(64, 64)
    queries = noisy(grid, 0.1)[::4, ::4].reshape(-1, 24)
    search = CellNearest(grid)
    index, similarity = search.query(queries)
    long_index, long_similarity = search.query(3 * queries, 3 * similarity - 0.1)
    assert torch.equal(index, long_index)
    torch.testing.assert_close(3 * similarity, long_similarity, atol=1e-5, rtol=0)


def test_pruning_compares_few_pixels():
    grid = unit_field(128, 128, sigma=6.0)
    queries = noisy(grid, 0.01)[4::8, 4::8].reshape(-1, 24)
    search = CellNearest(grid)
    compared = 0
    compare = search._compare_pixels

    def counting(local, children, best, index):
        nonlocal compared
        compared += 16 * len(children.query)
        compare(local, children, best, index)

    search._compare_pixels = counting
    search.query(queries)
    assert 0 < compared < 0.02 * len(queries) * 128 * 128


def test_faiss_settings_are_put_back():
    before = faiss.cvar.distance_compute_blas_threshold
    index, _ = FaissNearest(torch.eye(24)).query(torch.eye(24))
    assert index.tolist() == list(range(24))
    assert faiss.cvar.distance_compute_blas_threshold == before


@pytest.mark.parametrize("search", [TorchNearest, FaissNearest])
def test_no_queries(search):
    index, similarity = search(torch.eye(4)).query(torch.zeros(0, 4))
    assert index.shape == similarity.shape == (0,)


def test_auto_takes_cells_only_for_unit_vectors():
    allowed = torch.ones(16, 16, dtype=torch.bool)
    grid = unit_field(16, 16)
    assert isinstance(build_search(grid, allowed), CellNearest)
    assert isinstance(build_search(2 * grid, allowed), TorchNearest)
    assert isinstance(build_search(2 * grid, allowed, "l2"), CellNearest)


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="vectors of unit length"):
        CellNearest(2 * unit_field(16, 16))
    with pytest.raises(InputError, match=r"grid: expected shape \(H, W, D\)"):
        CellNearest(torch.eye(4))
    with pytest.raises(InputError, match="at least one row"):
        TorchNearest(torch.eye(4), torch.zeros(4, dtype=torch.bool))
    with pytest.raises(InputError, match=r"rows: expected floating point of shape \(N, D\)"):
        FaissNearest(torch.zeros(4))
