from __future__ import annotations

import copy
import dataclasses
import json

import pytest
import torch
import torch.nn.functional as F

from matcher.errors import InputError
from matcher.model import CroCoConfig, CroCoNetwork, TransformerConfig
from matcher.model.croco import denormalize_patches, patchify, unpatchify
from matcher.training.losses import masked_patch_mse

CONFIG = CroCoConfig(
    encoder=TransformerConfig(32, 2, 2),
    decoder=TransformerConfig(16, 2, 2),
    image_size=(32, 48),
    patch_size=8,
    mask_ratio=0.75,
)


@pytest.fixture(params=["rope", "cosine"])
def network(request) -> CroCoNetwork:
    torch.manual_seed(0)
    return CroCoNetwork(dataclasses.replace(CONFIG, positions=request.param))


def images(seed: int, height: int = 32, width: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(2, 3, height, width, generator=generator) * 2 - 1


def test_mask_is_seeded_and_hides_the_share_of_every_row():
    network = CroCoNetwork(CONFIG)
    first = network.random_mask(5, 24, torch.Generator().manual_seed(4))
    again = network.random_mask(5, 24, torch.Generator().manual_seed(4))
    other = network.random_mask(5, 24, torch.Generator().manual_seed(5))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.sum(dim=1).tolist() == [18] * 5
    assert len({tuple(row.tolist()) for row in first}) == 5


def test_hidden_pixels_do_not_matter(network):
    hidden = network.random_mask(2, 24, torch.Generator().manual_seed(0))
    first, second = images(0), images(1)
    noise = torch.where(hidden[..., None], patchify(images(2), 8), patchify(first, 8))
    changed = unpatchify(noise, (4, 6), 8)
    with torch.no_grad():
        expected = network(first, second, hidden)
        actual = network(changed, second, hidden)
    assert not torch.equal(first, changed)
    assert torch.equal(actual.patches, expected.patches)
    assert torch.equal(actual.hidden, hidden)


def test_only_visible_patches_are_encoded(network):
    hidden = network.random_mask(2, 24, torch.Generator().manual_seed(0))
    view = network.encode(images(0), hidden)
    assert view.tokens.shape == (2, 6, 32)
    rows, columns = view.positions[..., 0], view.positions[..., 1]
    visible = (~hidden).nonzero()[:, 1].reshape(2, 6)
    assert torch.equal(rows * 6 + columns, visible)


def test_shares_of_the_second_view_matter(network):
    hidden = network.random_mask(2, 24, torch.Generator().manual_seed(0))
    with torch.no_grad():
        first = network(images(0), images(1), hidden).patches
        second = network(images(0), images(2), hidden).patches
    assert float((first - second).abs().max()) > 1e-3


def test_rotary_positions_take_any_size():
    network = CroCoNetwork(CONFIG)
    generator = torch.Generator().manual_seed(0)
    completion = network(images(0, 24, 16), images(1, 40, 32), generator=generator)
    assert completion.patches.shape == (2, 6, 192)
    assert completion.hidden.sum(dim=1).tolist() == [4, 4]


def test_a_few_steps_of_optimisation_reduce_the_loss(network):
    smooth = [F.interpolate(images(seed, 4, 6), size=(32, 48), mode="bicubic") for seed in (0, 1)]
    first, second = smooth
    target = patchify(first, 8)
    hidden = network.random_mask(2, 24, torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(25):
        loss = masked_patch_mse(network(first, second, hidden).patches, target, hidden)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert 0.8 < losses[0] < 3.0  # patches have variance 1
    assert losses[-1] < 0.8 * losses[0]
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_patches_there_and_back():
    picture = images(0)
    patches = patchify(picture, 8)
    assert patches.shape == (2, 24, 192)
    assert torch.equal(patches[0, 7].reshape(8, 8, 3), picture[0, :, 8:16, 8:16].permute(1, 2, 0))
    assert torch.equal(unpatchify(patches, (4, 6), 8), picture)


def test_denormalized_patches_have_the_reference_statistics():
    reference = patchify(images(0), 8) * 3 + 1
    variance, mean = torch.var_mean(reference, dim=-1, keepdim=True)
    normal = (reference - mean) / (variance + 1e-6).sqrt()
    torch.testing.assert_close(denormalize_patches(normal, reference), reference)


def test_copies_are_independent(network):
    hidden = network.random_mask(2, 24, torch.Generator().manual_seed(0))
    twin = copy.deepcopy(network).double()
    with torch.no_grad():
        precise = twin(images(0).double(), images(1).double(), hidden).patches
        single = network(images(0), images(1), hidden).patches
    torch.testing.assert_close(precise.float(), single, rtol=1e-4, atol=1e-4)


def test_what_is_refused(network):
    full = network.encode(images(0))
    uneven = torch.zeros(2, 24, dtype=torch.bool)
    uneven[0, :3] = True
    with pytest.raises(InputError, match="same positive number of visible patches"):
        network.encode(images(0), uneven)
    with pytest.raises(InputError, match="same positive number of visible patches"):
        network.encode(images(0), torch.ones(2, 24, dtype=torch.bool))
    with pytest.raises(InputError, match=r"hidden: expected bool \(2, 24\)"):
        network.encode(images(0), torch.zeros(2, 23, dtype=torch.bool))
    with pytest.raises(InputError, match="pixels"):
        network.encode(images(0, 30, 48))
    with pytest.raises(InputError, match="pixels"):
        network.encode(torch.zeros(3, 32, 48))
    hidden = network.random_mask(2, 24)
    with pytest.raises(InputError, match="view1"):
        network.decode(full, network.encode(images(0), hidden))
    with pytest.raises(InputError, match="images"):
        patchify(torch.zeros(1, 3, 30, 32), 8)
    with pytest.raises(InputError, match="patches"):
        unpatchify(torch.zeros(1, 5, 192), (2, 2), 8)


def test_additive_positions_need_their_size():
    network = CroCoNetwork(dataclasses.replace(CONFIG, positions="cosine"))
    with pytest.raises(InputError, match=r"32 x 48 \(additive positions\)"):
        network.encode(images(0, 32, 32))


def test_configuration_survives_json():
    assert CroCoConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    with pytest.raises(InputError, match="surprise"):
        CroCoConfig.from_dict({**CONFIG.to_dict(), "surprise": 1})
    for change in ({"positions": "x"}, {"mask_ratio": 1.0}, {"image_size": (30, 30)}):
        with pytest.raises(InputError):
            dataclasses.replace(CONFIG, **change)
