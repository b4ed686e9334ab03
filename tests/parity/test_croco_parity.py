"""CroCo agrees with the released one on the same weights: masked, unmasked, both positions."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from matcher.model.croco import denormalize_patches, patchify, unpatchify

TOKENS = {"rtol": 2e-5, "atol": 2e-5}


@pytest.fixture(scope="module", params=["RoPE100", "cosine"])
def case(request, arrays, tiny_croco_config, fill_procedurally):
    golden = arrays(f"croco_e_{request.param}")
    if request.param == "RoPE100":
        return fill_procedurally(tiny_croco_config), golden
    config = dataclasses.replace(tiny_croco_config, positions="cosine")
    tables = {name: golden[name] for name in ("enc_pos_embed", "dec_pos_embed")}
    return fill_procedurally(config, **tables), golden


def test_mask_hides_the_ranks_below_the_share(case):
    network, golden = case
    assert torch.equal(network.mask_from_noise(golden["noise"]), golden["mask"])


def test_masked_completion(case):
    network, golden = case
    with torch.no_grad():
        visible = network.encode(golden["img1"], golden["mask"])
        other = network.encode(golden["img2"])
        completion = network(golden["img1"], golden["img2"], golden["mask"])
    torch.testing.assert_close(visible.tokens, golden["enc1_visible"], **TOKENS)
    torch.testing.assert_close(other.tokens, golden["enc2"], **TOKENS)
    torch.testing.assert_close(completion.patches, golden["out"], **TOKENS)
    restored = denormalize_patches(completion.patches, patchify(golden["img1"], 16))
    image = unpatchify(restored, (4, 4), 16)
    torch.testing.assert_close(image, golden["reconstruction"], **TOKENS)


def test_every_block_without_a_mask(case):
    network, golden = case
    with torch.no_grad():
        layers = network.encoder_layers(golden["img1"])
        view0, view1 = network.encode(golden["img1"]), network.encode(golden["img2"])
        decoded = network.decoder_layers(view0, view1)
    torch.testing.assert_close(torch.stack(layers), golden["enc_all_blocks"], **TOKENS)
    torch.testing.assert_close(torch.stack(decoded), golden["dec_all_blocks_unmasked"], **TOKENS)


def test_patches(arrays):
    golden = arrays("croco_e_RoPE100")
    patches = patchify(golden["img1"], 16)
    assert torch.equal(patches, golden["target"])
    assert torch.equal(unpatchify(patches, (4, 4), 16), golden["img1"])


def test_additive_tables_of_our_own_are_the_released_ones(arrays, tiny_croco_config):
    from matcher.model.croco import CroCoNetwork

    golden = arrays("croco_e_cosine")
    network = CroCoNetwork(dataclasses.replace(tiny_croco_config, positions="cosine"))
    close = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(network.encoder_positions, golden["enc_pos_embed"], **close)
    torch.testing.assert_close(network.decoder_positions, golden["dec_pos_embed"], **close)
