"""The atlas samples what was put in; crops and patterns follow their seed."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from matcher.errors import DatasetError, InputError
from matcher.synthetic import (
    MipAtlas,
    build_atlas,
    find_images,
    load_textures,
    procedural_textures,
)
from matcher.synthetic.textures import sample_atlas


def random_textures(count: int = 3, size: int = 16) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


def test_texel_centres_are_exact() -> None:
    textures = random_textures()
    atlas = build_atlas(textures)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    uv = (torch.stack((x, y), -1) + 0.5) / 16
    for index in range(3):
        seen = sample_atlas(atlas, torch.full((16, 16), index), uv, torch.zeros(16, 16))
        expected = textures[index].permute(1, 2, 0) / 255
        assert torch.allclose(seen, expected, atol=1e-6)
        # The texture repeats.
        again = sample_atlas(atlas, torch.full((16, 16), index), uv - 3, torch.zeros(16, 16))
        assert torch.allclose(again, expected, atol=1e-5)


def test_levels_are_means() -> None:
    textures = random_textures()
    atlas = build_atlas(textures)
    assert atlas.levels == 5
    mean = sample_atlas(atlas, torch.tensor([1]), torch.tensor([[0.3, 0.8]]), torch.tensor([9.0]))
    assert torch.allclose(mean[0], textures[1].float().mean((1, 2)) / 255, atol=0.005)
    level1 = torch.nn.functional.avg_pool2d(textures[2:].float(), 2)[0, :, 3, 5] / 255
    uv = torch.tensor([[5.5 / 8, 3.5 / 8]])
    seen = sample_atlas(atlas, torch.tensor([2]), uv, torch.tensor([1.0]))
    assert torch.allclose(seen[0], level1, atol=0.003)


@pytest.mark.parametrize(
    "bad",
    [
        torch.zeros(1, 3, 12, 12, dtype=torch.uint8),
        torch.zeros(1, 3, 16, 16),
        torch.zeros(3, 16, 16, dtype=torch.uint8),
    ],
)
def test_bad_textures_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(InputError, match="textures"):
        build_atlas(bad)


def test_procedural_textures_have_contrast_and_follow_the_seed() -> None:
    first = procedural_textures(torch.Generator().manual_seed(1), 5, 64)
    second = procedural_textures(torch.Generator().manual_seed(1), 5, 64)
    other = procedural_textures(torch.Generator().manual_seed(2), 5, 64)
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert float(first.float().flatten(1).std(1).min()) > 15


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("b.png", "a.jpg"):
        cv2.imwrite(str(tmp_path / name), rng.integers(0, 255, (90, 120, 3), dtype=np.uint8))
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_photographs_become_crops(folder: Path) -> None:
    files = find_images([folder])
    assert [file.name for file in files] == ["a.jpg", "b.png"]
    crops = load_textures(files, 32, seed=5, count=5)
    assert crops.shape == (5, 3, 32, 32)
    assert torch.equal(crops, load_textures(files, 32, seed=5, count=5))
    assert float(crops.float().std()) > 10


def test_channels_are_rgb(tmp_path: Path) -> None:
    red = np.zeros((64, 64, 3), dtype=np.uint8)
    red[..., 2] = 240  # OpenCV writes BGR
    cv2.imwrite(str(tmp_path / "red.png"), red)
    crop = load_textures([tmp_path / "red.png"], 16)
    assert float(crop[0, 0].float().mean()) > 200
    assert float(crop[0, 1:].float().max()) == 0


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere"):
        find_images([tmp_path / "nowhere"])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    with pytest.raises(DatasetError, match=r"broken\.jpg"):
        load_textures([broken], 16)
    with pytest.raises(DatasetError, match="no texture"):
        load_textures([], 16)


def test_atlas_knows_its_size(atlas: MipAtlas) -> None:
    assert (atlas.count, atlas.size, atlas.levels) == (10, 64, 7)
