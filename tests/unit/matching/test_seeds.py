"""Where a search starts, and which pixels may be matched at all."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.matching import (
    MatchingOptions,
    descriptor_sharpness,
    is_sharp,
    reciprocal_matches,
    seed_pixels,
)
from tests.unit.matching.fields import noisy, unit_field


def everywhere(height: int, width: int) -> torch.Tensor:
    return torch.ones(height, width, dtype=torch.bool)


def test_a_plain_patch_and_an_edge_are_not_sharp_but_a_corner_is() -> None:
    descriptors = torch.zeros(40, 40, 2)
    descriptors[..., 0] = 1
    descriptors[20:, 20:] = torch.tensor([0.0, 1.0])
    sharpness = descriptor_sharpness(descriptors)
    assert sharpness.shape == (40, 40)
    assert float(sharpness[8, 8]) == 0
    assert float(sharpness[35, 20]) == pytest.approx(0, abs=1e-7)  # along the edge nothing changes
    assert float(sharpness[20, 20]) > 0.02
    assert int(sharpness.argmax()) // 40 in range(18, 22)


def test_sharpness_of_a_linear_field_is_its_slope() -> None:
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    sharpness = descriptor_sharpness(torch.stack([0.3 * x, 0.5 * y], dim=2))
    torch.testing.assert_close(sharpness[5:-5, 5:-5], torch.full((10, 20), 0.09))
    with pytest.raises(InputError, match="descriptors"):
        descriptor_sharpness(torch.zeros(4, 4))


def test_what_is_not_finite_is_not_sharp() -> None:
    field = unit_field(24, 24)
    field[12, 12] = torch.nan
    sharpness = descriptor_sharpness(field)
    assert bool(sharpness.isfinite().all())
    assert float(sharpness[11, 12]) == 0
    assert float(sharpness[3, 3]) > 0


def test_sharp_pixels_are_measured_against_the_sharp_ones_of_the_map() -> None:
    sharpness = torch.arange(100.0).view(10, 10)
    allowed = everywhere(10, 10)
    sharp = is_sharp(sharpness, allowed, 0.5)
    assert torch.equal(sharp, sharpness > 45)
    assert torch.equal(is_sharp(1000 * sharpness, allowed, 0.5), sharp)
    allowed[9] = False  # what is not allowed does not count either
    assert torch.equal(is_sharp(sharpness, allowed, 0.5), allowed & (sharpness > 40.5))
    # A map without any structure is matched wherever it may be; one without a pixel nowhere.
    assert torch.equal(is_sharp(torch.zeros(10, 10), allowed, 0.5), allowed)
    assert not bool(is_sharp(sharpness, ~everywhere(10, 10), 0.5).any())


def test_seeds_are_the_sharpest_pixels_of_the_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    sharpness = torch.rand(13, 18, generator=generator)
    allowed = torch.rand(13, 18, generator=generator) < 0.5
    allowed[5:10, 5:10] = False
    seeds = seed_pixels(allowed, 5, sharpness).tolist()
    expected = []
    for top in range(0, 13, 5):
        for left in range(0, 18, 5):
            inside = [
                (float(sharpness[y, x]), y * 18 + x)
                for y in range(top, min(top + 5, 13))
                for x in range(left, min(left + 5, 18))
                if bool(allowed[y, x])
            ]
            if inside:
                expected.append(max(inside)[1])
    assert seeds == expected
    assert len(seeds) == 11
    assert (
        sorted(seed_pixels(allowed, 1, sharpness).tolist())
        == allowed.flatten().nonzero()[:, 0].tolist()
    )


def test_seeds_of_a_grid_are_the_middles_of_the_squares() -> None:
    allowed = everywhere(10, 17)
    allowed[4, 4] = False
    assert seed_pixels(allowed, 8).tolist() == [4 * 17 + 12]


def test_flat_parts_are_not_matched() -> None:
    field = unit_field(48, 64)
    field[:, 32:] = field[20, 20]  # a plain wall: every pixel of it is as good as another
    other = noisy(field, 0.02)
    for symmetric in (False, True):
        options = MatchingOptions(subsample=4, border=0, symmetric=symmetric, min_sharpness=0.1)
        matches = reciprocal_matches(field, other, options=options)
        assert int(matches.pixels0[:, 0].max()) < 36
        assert int(matches.pixels1[:, 0].max()) < 36
        assert len(matches) > 40
        assert len(matches) <= matches.num_seeds
    anywhere = MatchingOptions(subsample=4, border=0, min_sharpness=None)
    assert reciprocal_matches(field, other, options=anywhere).num_seeds == 12 * 16


def test_the_number_of_seeds_survives_a_selection() -> None:
    field = unit_field(32, 40)
    matches = reciprocal_matches(field, field, options=MatchingOptions(border=0))
    assert matches.num_seeds > 10
    assert matches.select(torch.tensor([0, 1])).num_seeds == matches.num_seeds


@pytest.mark.parametrize("least", [-0.1, 1.5, float("nan"), "much"])
def test_sharpness_is_a_share(least: object) -> None:
    with pytest.raises(InputError, match="min_sharpness"):
        MatchingOptions(min_sharpness=least)  # type: ignore[arg-type]
