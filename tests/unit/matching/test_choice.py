"""Options, the choice among matches, subpixel ends."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.matching import (
    MatchingOptions,
    refine_soft_argmax,
    refine_subpixel,
    select_matches,
    top_k_rows,
)
from matcher.structures import GridMatches, ImageSize
from tests.unit.matching.fields import unit_field

SIZE = ImageSize(80, 80)


def test_options_survive_a_round_trip():
    options = MatchingOptions(4, top_k=100, backend="faiss", symmetric=True, min_confidence=0.2)
    assert MatchingOptions.from_dict(options.to_dict()) == options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("subsample", 0),
        ("subsample", True),
        ("max_iterations", 0),
        ("border", -1),
        ("top_k", 0),
        ("balance", 1.5),
        ("backend", "annoy"),
        ("symmetric", 1),
        ("min_confidence", 1.1),
        ("min_confidence", float("nan")),
        ("min_confidence", "high"),
        ("seed", -1),
        ("subsampel", 8),
    ],
)
def test_bad_options_are_named(name, value):
    with pytest.raises(InputError, match=name):
        MatchingOptions.from_dict({name: value})


def test_top_k_without_balance_is_the_most_confident():
    confidence = torch.tensor([0.1, 0.9, 0.5, 0.9, 0.3])
    rows = top_k_rows(torch.zeros(5, 2), confidence, 3, SIZE, balance=0)
    assert rows.tolist() == [1, 2, 3]


def test_balance_leaves_room_for_weaker_places():
    # 90 confident keypoints in one corner, 10 weak ones in ten other cells.
    corner = torch.rand(90, 2, generator=torch.Generator().manual_seed(0)) * 9
    elsewhere = torch.stack(
        [torch.arange(10) % 5 * 14 + 15.0, torch.arange(10) // 5 * 40 + 25.0], 1
    )
    keypoints = torch.cat([corner, elsewhere])
    confidence = torch.cat([torch.linspace(0.9, 0.8, 90), torch.full((10,), 0.2)])
    rows = top_k_rows(keypoints, confidence, 22, SIZE, balance=8)
    assert rows.tolist() == [*range(12), *range(90, 100)]
    assert torch.equal(rows, top_k_rows(keypoints, confidence, 22, SIZE, balance=8))


def test_min_confidence_and_top_k_keep_the_order():
    pixels = torch.tensor([[5, 5], [70, 5], [5, 70], [70, 70]])
    matches = GridMatches(pixels, pixels, torch.ones(4))
    confidence = torch.tensor([0.3, 0.05, 0.9, 0.4])
    kept, scores = select_matches(
        matches, confidence, SIZE, MatchingOptions(top_k=2, min_confidence=0.1)
    )
    assert kept.pixels0.tolist() == [[5, 70], [70, 70]]
    assert scores.tolist() == pytest.approx([0.9, 0.4])
    assert len(select_matches(matches, confidence, SIZE, MatchingOptions())[0]) == 4
    with pytest.raises(InputError, match=r"confidence: expected shape \(4,\)"):
        select_matches(matches, confidence[:2], SIZE, MatchingOptions())


def quadratic_maps(top: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One descriptor, and a map whose product with it is a paraboloid with its top at ``top``."""
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    dx, dy = x - 4 - top[0], y - 4 - top[1]
    similarity = 0.9 - 0.02 * dx**2 - 0.03 * dy**2 + 0.01 * dx * dy
    descriptors1 = torch.stack([similarity, torch.zeros_like(similarity)], dim=2)
    descriptors0 = torch.tensor([1.0, 0.0]).expand(9, 9, 2)
    return descriptors0, descriptors1


MIDDLE = GridMatches(torch.tensor([[2, 3]]), torch.tensor([[4, 4]]), torch.ones(1))


@pytest.mark.parametrize("top", [(0.0, 0.0), (0.31, -0.22), (-0.5, 0.5), (0.9, 0.4)])
def test_subpixel_is_exact_on_a_paraboloid(top):
    refined = refine_subpixel(MIDDLE, *quadratic_maps(top))
    assert refined.refined.tolist() == [True]
    assert refined.offsets1[0].tolist() == pytest.approx(top, abs=2e-5)
    assert refined.keypoints0.tolist() == [[2.0, 3.0]]
    assert refined.keypoints1[0].tolist() == pytest.approx([4 + top[0], 4 + top[1]], abs=2e-5)


def test_subpixel_is_cut_back_and_gives_up_without_a_top():
    far = refine_subpixel(MIDDLE, *quadratic_maps((2.0, 0.1)), max_offset=0.5)
    assert far.offsets1[0, 0] == 0.5
    descriptors0, descriptors1 = quadratic_maps((0.2, 0.2))
    for hopeless in (-descriptors1, torch.zeros_like(descriptors1), descriptors1 / 0):
        refined = refine_subpixel(MIDDLE, descriptors0, hopeless)
        assert refined.offsets1.tolist() == [[0.0, 0.0]]
        assert refined.refined.tolist() == [False]
    corner = GridMatches(torch.tensor([[2, 3]]), torch.tensor([[0, 4]]), torch.ones(1))
    assert refine_subpixel(corner, descriptors0, descriptors1).refined.tolist() == [False]


def test_subpixel_follows_a_shifted_field():
    fine = unit_field(240, 240, sigma=16.0)
    first, second = fine[::4, ::4], fine[1::4, 2::4]  # second is shifted by (0.5, 0.25)
    grid = torch.stack(torch.meshgrid(torch.arange(10, 50), torch.arange(10, 50), indexing="xy"), 2)
    pixels = grid.reshape(-1, 2)
    matches = GridMatches(pixels, pixels, torch.ones(len(pixels)))
    truth = torch.tensor([-0.5, -0.25])
    quadratic = refine_subpixel(matches, first, second).offsets1 - truth
    soft = refine_soft_argmax(matches, first, second).offsets1 - truth
    assert float(quadratic.norm(dim=1).median()) < 0.1  # 0.56 without
    assert float(soft.norm(dim=1).median()) < 0.25


def test_soft_argmax_is_centred_on_a_symmetric_peak_and_at_the_border():
    descriptors0, descriptors1 = quadratic_maps((0.0, 0.0))
    refined = refine_soft_argmax(MIDDLE, descriptors0, descriptors1)
    assert refined.offsets1[0].tolist() == pytest.approx([0.0, 0.0], abs=1e-5)
    corner = GridMatches(torch.tensor([[2, 3]]), torch.tensor([[0, 8]]), torch.ones(1))
    refined = refine_soft_argmax(corner, descriptors0, descriptors1)
    assert refined.offsets1.tolist() == [[0.0, 0.0]]
    with pytest.raises(InputError, match="radius"):
        refine_soft_argmax(MIDDLE, descriptors0, descriptors1, radius=0)
    with pytest.raises(InputError, match="max_offset"):
        refine_subpixel(MIDDLE, descriptors0, descriptors1, max_offset=0)
    with pytest.raises(InputError, match="descriptors1: expected 2 channels"):
        refine_subpixel(MIDDLE, descriptors0, descriptors1[:, :, :1])
