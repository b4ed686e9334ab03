"""Lens effects leave geometry alone; batches of pairs are complete and repeatable."""

from __future__ import annotations

import itertools

import pytest
import torch

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import Cameras, MipAtlas, RenderedViews, build_atlas
from matcher.synthetic.batches import PlaceOptions, render_pairs
from matcher.synthetic.lens import LensOptions, photograph
from matcher.synthetic.patterns import ROLES, role_of_file, role_textures

SIZE = ImageSize(32, 40)
NOTHING = dict.fromkeys(LensOptions.__dataclass_fields__, 0.0)


def views_of(image: torch.Tensor, depth: torch.Tensor) -> RenderedViews:
    k = torch.eye(3, dtype=torch.float64).expand(1, len(image), 3, 3)
    pose = torch.eye(4, dtype=torch.float64).expand(1, len(image), 4, 4)
    nobody = torch.zeros_like(depth, dtype=torch.bool)
    return RenderedViews(image[None], depth[None], nobody[None], Cameras(k, pose))


def test_a_perfect_lens_changes_nothing() -> None:
    image = torch.rand(3, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    views = views_of(image, torch.ones(3, 32, 40))
    taken = photograph(torch.Generator().manual_seed(1), views, LensOptions(**NOTHING))
    assert torch.equal(taken.image, views.image)


@pytest.mark.parametrize("effect", sorted(NOTHING))
def test_each_effect_changes_the_picture_only(effect: str) -> None:
    image = torch.rand(4, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    depth = torch.linspace(1, 9, 40).expand(4, 32, 40).contiguous()
    views = views_of(image, depth)
    options = LensOptions(**{**NOTHING, effect: 1.0})
    taken = photograph(torch.Generator().manual_seed(1), views, options)
    assert taken.depth is views.depth
    assert taken.cameras is views.cameras
    change = (taken.image - views.image).abs().mean((0, 2, 3, 4))
    assert float(change.min()) > 5e-5
    assert float(taken.image.min()) >= 0
    assert float(taken.image.max()) <= 1
    again = photograph(torch.Generator().manual_seed(1), views, options)
    assert torch.equal(again.image, taken.image)


def test_shake_keeps_the_mean_and_blurs() -> None:
    image = torch.rand(2, 3, 48, 256, generator=torch.Generator().manual_seed(0))
    views = views_of(image, torch.ones(2, 48, 256))
    taken = photograph(
        torch.Generator().manual_seed(2), views, LensOptions(**{**NOTHING, "shake": 1.0})
    )
    assert torch.allclose(taken.image.mean(), image.mean(), atol=2e-3)
    assert float(taken.image.std()) < 0.8 * float(image.std())


def test_focus_blurs_by_depth() -> None:
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    depth = torch.full((1, 64, 64), 2.0)
    depth[:, :, 32:] = 20.0
    sharpness = []
    options = LensOptions(**{**NOTHING, "focus": 1.0})
    for seed in range(6):
        taken = photograph(torch.Generator().manual_seed(seed), views_of(noise, depth), options)
        left, right = taken.image[..., 4:28], taken.image[..., 36:60]
        sharpness.append(float(left.std() - right.std()))
    assert max(sharpness) > 0.02 or min(sharpness) < -0.02


def test_role_textures_cover_every_role() -> None:
    images, roles = role_textures(torch.Generator().manual_seed(0), 2, 32)
    assert images.shape == (2 * (len(ROLES) - 1), 3, 32, 32)
    assert set(roles.tolist()) == set(range(1, len(ROLES)))
    plain = images[roles == ROLES.index("plain")].float()
    books = images[roles == ROLES.index("books")].float()
    assert float(plain.std((1, 2, 3)).max()) < float(books.std((1, 2, 3)).min())


def test_roles_of_files(tmp_path: object) -> None:
    from pathlib import Path

    for name, role in (
        ("alpine_dirt_grass_50.jpg", "ground"),
        ("bridge_wood_b.jpg", "wood"),
        ("rubble_stone.jpg", "wall"),
        ("DSC_0423.jpg", "picture"),
    ):
        assert ROLES[role_of_file(Path(name))] == role


def test_an_atlas_needs_one_role_a_texture() -> None:
    images, roles = role_textures(torch.Generator().manual_seed(0), 1, 16)
    with pytest.raises(InputError, match="roles: expected one for each of 12 textures"):
        build_atlas(images, roles[:-1])


def test_mip_levels_keep_the_mean_colour() -> None:
    images, roles = role_textures(torch.Generator().manual_seed(3), 1, 64)
    atlas = build_atlas(images, roles)
    texels = atlas.packed.view(torch.uint8).reshape(-1, 4)[:, :3].double()
    expected = images.double().mean((2, 3))
    ends = [*atlas.level_offsets.tolist()[1:], len(texels)]
    for start, end in zip(atlas.level_offsets.tolist(), ends, strict=True):
        mean = texels[start:end].reshape(len(images), -1, 3).mean(1)
        assert float((mean - expected).abs().max()) < 0.51  # each level is rounded once


def test_batches_of_pairs_are_whole_and_repeatable(atlas: MipAtlas) -> None:
    def first(count: int) -> list[torch.Tensor]:
        generator = torch.Generator().manual_seed(9)
        batches = render_pairs(generator, atlas, 1, SIZE, block=2)
        return [batch.image for batch in itertools.islice(batches, count)]

    once, again = first(3), first(3)
    assert [tuple(image.shape) for image in once] == [(1, 2, 3, 32, 40)] * 3
    for one, other in zip(once, again, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(once[0], once[1])


def test_a_block_is_a_multiple_of_the_batch(atlas: MipAtlas) -> None:
    with pytest.raises(InputError, match="block: expected a multiple of the batch of 3, got 4"):
        next(render_pairs(torch.Generator(), atlas, 3, SIZE, PlaceOptions(), block=4))
    with pytest.raises(InputError, match="lens options"):
        LensOptions(noise=2.0)
