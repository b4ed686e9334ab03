"""Subpixel ends from whole patches under an affine map."""

from __future__ import annotations

import cv2
import pytest
import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.matching import refine_patches, refine_subpixel
from matcher.structures import GridMatches
from tests.unit.matching.fields import noisy, unit_field

# Pixel (x, y) of map 0 lies at LINEAR @ (x, y) + SHIFT in map 1.
LINEAR = torch.tensor([[1.1, 0.3], [-0.2, 0.9]])
SHIFT = torch.tensor([4.3, 14.6])


def warped_maps(noise: float) -> tuple[Tensor, Tensor, GridMatches, Tensor]:
    """Two maps, matches between whole pixels, and where in map 1 they really end."""
    first = unit_field(64, 64, sigma=3.0)
    matrix = torch.cat([LINEAR, SHIFT[:, None]], dim=1).numpy()
    channels = [
        cv2.warpAffine(first[..., c].numpy(), matrix, (96, 88), flags=cv2.INTER_CUBIC)
        for c in range(first.shape[2])
    ]
    second = torch.nn.functional.normalize(
        torch.stack([torch.from_numpy(channel) for channel in channels], dim=2), dim=2
    )
    grid = torch.meshgrid(torch.arange(10, 54, 4), torch.arange(10, 54, 4), indexing="xy")
    pixels = torch.stack(grid, dim=2).reshape(-1, 2)
    ends = pixels.float() @ LINEAR.T + SHIFT
    matches = GridMatches(pixels, ends.round().long(), torch.ones(len(pixels)))
    return noisy(first, noise, seed=2), noisy(second, noise, seed=3), matches, ends


def error(found: Tensor, ends: Tensor) -> float:
    return float((found - ends).norm(dim=1).median())


def test_patches_are_exact_without_noise_and_finer_than_pixels_with_it() -> None:
    maps = LINEAR.expand(121, 2, 2)
    first, second, matches, ends = warped_maps(0.0)
    exact = refine_patches(matches, first, second, maps)
    assert bool(exact.refined.all())
    assert error(exact.keypoints1, ends) < 0.02  # 0.38 between whole pixels
    first, second, matches, ends = warped_maps(0.08)
    patches = refine_patches(matches, first, second, maps)
    pixels = refine_subpixel(matches, first, second)
    assert error(patches.keypoints1, ends) < 0.12
    assert error(patches.keypoints1, ends) < 0.5 * error(pixels.keypoints1, ends)


def test_the_map_around_a_match_matters() -> None:
    first, second, matches, ends = warped_maps(0.0)
    turned = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(121, 2, 2)
    wrong = refine_patches(matches, first, second, turned)
    right = refine_patches(matches, first, second, LINEAR.expand(121, 2, 2))
    assert error(right.keypoints1, ends) < 0.2 * error(wrong.keypoints1, ends)
    assert float(wrong.offsets1.norm(dim=1).max()) <= 1.5


def test_what_cannot_be_refined_stays() -> None:
    first, second, matches, _ = warped_maps(0.0)
    corner = GridMatches(torch.tensor([[1, 30]]), torch.tensor([[30, 30]]), torch.ones(1))
    kept = refine_patches(corner, first, second, LINEAR[None])
    assert kept.refined.tolist() == [False]
    assert kept.keypoints1.tolist() == [[30.0, 30.0]]
    one = matches.select(torch.tensor([60]))
    huge = refine_patches(one, first, second, 100 * LINEAR[None])  # leaves map 1
    assert huge.refined.tolist() == [False]
    broken = first.clone()
    broken[tuple(one.pixels0[0].flip(0).tolist())] = torch.nan
    kept = refine_patches(one, broken, second, LINEAR[None])
    assert kept.refined.tolist() == [False]
    assert torch.equal(kept.offsets1, torch.zeros(1, 2))
    plain = torch.ones_like(first) / first.shape[2] ** 0.5
    kept = refine_patches(one, plain, second, LINEAR[None])
    assert torch.equal(kept.offsets1, torch.zeros(1, 2))
    none = refine_patches(
        matches.select(torch.zeros(121, dtype=torch.bool)), first, second, one_map(0)
    )
    assert none.offsets1.shape == (0, 2)


def one_map(count: int) -> Tensor:
    return torch.eye(2).expand(count, 2, 2)


def test_bad_input_is_named() -> None:
    first, second, matches, _ = warped_maps(0.0)
    with pytest.raises(InputError, match="view1_from_view0"):
        refine_patches(matches, first, second, one_map(3))
    with pytest.raises(InputError, match="max_offset"):
        refine_patches(matches, first, second, one_map(121), max_offset=0)
    with pytest.raises(InputError, match="descriptors1"):
        refine_patches(matches, first, second[..., :4], one_map(121))
