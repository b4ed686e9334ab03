"""Matching agrees with the released systems on every stored case."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from matcher.matching import (
    MatchingOptions,
    SearchBackend,
    build_search,
    reciprocal_from_starts,
    reciprocal_matches,
    reciprocal_points,
    union_matches,
)
from matcher.structures import GridMatches

BACKENDS = ("torch", "faiss", "cells")
IntArray = npt.NDArray[np.int64]


def load(folder: Path, name: str) -> dict[str, npt.NDArray[np.generic]]:
    with np.load(folder / name) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def nearest(parity_data: Path) -> dict[str, npt.NDArray[np.generic]]:
    return load(parity_data, "func_fast_nn.npz")


@pytest.fixture(scope="module")
def both_ways(parity_data: Path) -> dict[str, npt.NDArray[np.generic]]:
    return load(parity_data, "func_extract_corres.npz")


def options(backend: SearchBackend, subsample: int, symmetric: bool = False) -> MatchingOptions:
    return MatchingOptions(
        subsample=subsample,
        min_sharpness=None,
        border=0,
        backend=backend,
        symmetric=symmetric,
    )


def tensors(data: dict[str, npt.NDArray[np.generic]], *names: str) -> list[torch.Tensor]:
    return [torch.from_numpy(data[name]) for name in names]


def assert_pixels(matches: GridMatches, first: npt.ArrayLike, second: npt.ArrayLike) -> None:
    np.testing.assert_array_equal(matches.pixels0.numpy(), first)
    np.testing.assert_array_equal(matches.pixels1.numpy(), second)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("case", "subsample"),
    [
        ("dot_s8", 8),
        ("dot_s8_block8192", 8),
        ("dot_s4", 4),
        ("dot_s1", 1),
        ("dot_s1_block64", 1),
        ("dot_s4_basin", 4),
        ("l2_s4", 4),
        ("l2_s4_block64", 4),
        ("kdtree_s4", 4),
    ],
)
def test_seeded_search(nearest, backend, case, subsample):
    first, second = tensors(nearest, "A", "B")
    find = reciprocal_matches if case.startswith("dot") else reciprocal_points
    matches = find(first, second, options=options(backend, subsample))
    assert_pixels(matches, nearest[f"{case}__m1"], nearest[f"{case}__m2"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_swapped_maps(nearest, backend):
    first, second = tensors(nearest, "A", "B")
    matches = reciprocal_matches(second, first, options=options(backend, 4))
    assert_pixels(matches, nearest["dot_s4_swap__m1"], nearest["dot_s4_swap__m2"])


def test_other_forms_of_the_same_pixels(nearest):
    first, second = tensors(nearest, "A", "B")
    matches = reciprocal_matches(first, second, options=options("cells", 4))
    for side, pixels in ((1, matches.pixels0), (2, matches.pixels1)):
        width = (first if side == 1 else second).shape[1]
        raster = pixels[:, 1] * width + pixels[:, 0]
        np.testing.assert_array_equal(raster.numpy(), nearest[f"dot_s4_idx__m{side}"])
        rows_then_columns = {tuple(pixel) for pixel in pixels.flip(1).tolist()}
        stored = nearest[f"dot_s4_yx__m{side}"]
        assert rows_then_columns == {tuple(pixel) for pixel in stored.reshape(-1, 2).tolist()}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("tolerance", [0, 1, 2, 5])
def test_given_starts(nearest, backend, tolerance):
    first, second, x, y = tensors(nearest, "A", "B", "init_x", "init_y")
    matches = reciprocal_from_starts(
        first,
        second,
        torch.stack([x, y], dim=1),
        tolerance_px=tolerance,
        options=options(backend, 8),
    )
    case = f"dot_init_tol{tolerance}"
    assert_pixels(matches, nearest[f"{case}__m1"], nearest[f"{case}__m2"])


def test_repeated_starts_count_once(nearest):
    first, second, x, y = tensors(nearest, "A", "B", "init_x", "init_y")
    starts = torch.stack([x, y], dim=1)
    matches = reciprocal_from_starts(
        first,
        second,
        torch.cat([starts, starts[:10]]),
        tolerance_px=5,
        options=options("auto", 8),
    )
    assert_pixels(matches, nearest["dot_init_dup_tol5__m1"], nearest["dot_init_dup_tol5__m2"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("metric", "case"), [("dot", "bf_dot"), ("l2", "bf_l2")])
def test_plain_nearest_neighbours(nearest, backend, metric, case):
    first, second = tensors(nearest, "A", "B")
    for queries, grid, name in ((first, second, "nnA"), (second, first, "nnB")):
        allowed = torch.ones(grid.shape[:2], dtype=torch.bool)
        search = build_search(grid, allowed, metric, backend)
        index, similarity = search.query(queries.reshape(-1, 24))
        np.testing.assert_array_equal(index.numpy(), nearest[f"{case}_{name}"])
        cosine = (queries.reshape(-1, 24) * grid.reshape(-1, 24)[index]).sum(dim=1)
        expected = cosine if metric == "dot" else 2 * cosine - 2
        torch.testing.assert_close(similarity, expected, atol=2e-6, rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("case", "subsample"), [("desc_s8", 8), ("desc_s4", 4), ("pts_s4", 4)])
def test_both_directions(both_ways, backend, case, subsample):
    is_points = case.startswith("pts")
    first, second = tensors(both_ways, *(("ptsA", "ptsB") if is_points else ("A", "B")))
    find = reciprocal_points if is_points else reciprocal_matches
    matches = find(first, second, options=options(backend, subsample, symmetric=True))
    assert_pixels(matches, both_ways[f"{case}__xy1"], both_ways[f"{case}__xy2"])
    conf_a = both_ways["confA"][matches.pixels0[:, 1], matches.pixels0[:, 0]]
    conf_b = both_ways["confB"][matches.pixels1[:, 1], matches.pixels1[:, 0]]
    np.testing.assert_array_equal(np.minimum(conf_a, conf_b), both_ways[f"{case}__conf"])


def grid_starts(grid: torch.Tensor, spacing: int) -> torch.Tensor:
    rows = torch.arange(spacing // 2, grid.shape[0], spacing)
    columns = torch.arange(spacing // 2, grid.shape[1], spacing)
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=2).reshape(-1, 2)


def test_both_directions_with_tolerance(both_ways):
    a, b = tensors(both_ways, "A", "B")
    chosen = options("auto", 4)
    forth = reciprocal_from_starts(a, b, grid_starts(a, 4), tolerance_px=3, options=chosen)
    back = reciprocal_from_starts(b, a, grid_starts(b, 4), tolerance_px=3, options=chosen)
    mirrored = GridMatches(back.pixels1, back.pixels0, back.similarity)
    union = union_matches(forth, mirrored, a.shape[1], b.shape[1])
    assert_pixels(union, both_ways["desc_s4_tol3__xy1"], both_ways["desc_s4_tol3__xy2"])


def test_both_orders_of_the_network(both_ways):
    a, b, swapped_b, swapped_a = tensors(both_ways, "A", "B", "sym_feat22", "sym_feat12")
    chosen = options("auto", 4, symmetric=True)
    union = union_matches(
        reciprocal_matches(a, b, options=chosen),
        reciprocal_matches(swapped_a, swapped_b, options=chosen),
        a.shape[1],
        b.shape[1],
    )
    assert_pixels(union, both_ways["sym_s4__xy1"], both_ways["sym_s4__xy2"])
