"""The two-view networks agree with the released ones on the same weights (float32)."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from heads import ActivationRange, DenseOutput, HeadConfig
from heads.activations import (
    confidence_from_raw,
    dense_output,
    points_from_raw,
    unit_descriptors,
)
from matcher.model import ModelConfig, TransformerConfig, TwoViewNetwork
from matcher.model.rope import rotary_tables, rotate, sincos_table

MAPS = {"rtol": 2e-5, "atol": 2e-5}
TOKENS = {"rtol": 2e-5, "atol": 2e-5}
DESCRIPTORS = {"rtol": 1e-5, "atol": 5e-6}


def assert_close(actual, expected, tolerance):
    torch.testing.assert_close(actual, expected, **tolerance)


def check_output(output: DenseOutput, golden, side: int, rows=slice(None)) -> None:
    points = "pts3d1" if side == 1 else "pts3d_in_other_view2"
    assert_close(output.points, golden[points][rows], MAPS)
    assert_close(output.confidence, golden[f"conf{side}"][rows], MAPS)
    if f"desc_conf{side}" not in golden:
        assert output.descriptors is None
        return
    assert_close(output.descriptor_confidence, golden[f"desc_conf{side}"][rows], MAPS)
    if f"desc{side}" in golden:
        assert_close(output.descriptors, golden[f"desc{side}"][rows], DESCRIPTORS)
    else:
        sparse = output.descriptors[:, ::2, ::2]
        assert_close(sparse, golden[f"desc{side}_s2"][rows], DESCRIPTORS)


def check_network(network: TwoViewNetwork, golden, hooks) -> None:
    with torch.no_grad():
        view0, view1 = network.encode(golden["img1"]), network.encode(golden["img2"])
        layers = network.decoder(view0, view1)
        prediction = network.decode(view0, view1)
    for side, view in ((1, view0), (2, view1)):
        assert_close(view.tokens, golden[f"enc{side}"], TOKENS)
        for hook in hooks:
            assert_close(layers[side - 1][hook], golden[f"dec{side}_{hook}"], TOKENS)
    check_output(prediction.output0, golden, 1)
    check_output(prediction.output1, golden, 2)


def test_mast3r_landscape_pair(arrays, tiny_mast3r):
    golden = arrays("mast3r_a_landscape")
    check_network(tiny_mast3r, golden, (6, 9, 12))
    with torch.no_grad():
        view0, view1 = tiny_mast3r.encode(golden["img1"]), tiny_mast3r.encode(golden["img2"])
        layers, _ = tiny_mast3r.decoder(view0, view1)
        raw = tiny_mast3r.head0.points(layers, view0.grid)
    assert_close(raw, golden["dpt_raw1"], MAPS)


def test_mast3r_portrait_and_landscape_in_one_batch(arrays, tiny_mast3r):
    golden = arrays("mast3r_b_manyar")

    def upright(side):
        # Portrait images are stored transposed, to fit into one landscape batch.
        return [
            image.transpose(1, 2) if shape[0] > shape[1] else image
            for image, shape in zip(golden[f"img{side}"], golden[f"true_shape{side}"], strict=True)
        ]

    def stored(output: DenseOutput, is_portrait: bool) -> DenseOutput:
        if not is_portrait:
            return output
        return DenseOutput(
            output.points.transpose(1, 2),
            output.confidence.transpose(1, 2),
            output.descriptors.transpose(1, 2),
            output.descriptor_confidence.transpose(1, 2),
        )

    with torch.no_grad():
        views0 = tiny_mast3r.encode_each(upright(1))
        views1 = tiny_mast3r.encode_each(upright(2))
        predictions = tiny_mast3r.decode_each(views0, views1)
    assert [view.grid for view in views0] == [(2, 3), (3, 2), (2, 3), (3, 2)]
    for row, prediction in enumerate(predictions):
        assert_close(views0[row].tokens, golden["enc1"][row : row + 1], TOKENS)
        assert_close(views1[row].tokens, golden["enc2"][row : row + 1], TOKENS)
        rows = slice(row, row + 1)
        for side, output in ((1, prediction.output0), (2, prediction.output1)):
            height, width = golden[f"true_shape{side}"][row]
            check_output(stored(output, bool(height > width)), golden, side, rows)


def test_mast3r_mixed_sizes(arrays, tiny_mast3r):
    golden = arrays("mast3r_c_mixed_sizes")
    with torch.no_grad():
        prediction = tiny_mast3r(golden["img1"], golden["img2"])
    check_output(prediction.output0, golden, 1)
    check_output(prediction.output1, golden, 2)


def test_dust3r_linear(arrays, tiny_dust3r_linear):
    check_network(tiny_dust3r_linear, arrays("dust3r_d_linear"), (6, 9, 12))


def test_dust3r_dpt_with_ten_decoder_blocks(arrays, tiny_dust3r_dpt):
    golden = arrays("dust3r_d_dpt")
    assert tiny_dust3r_dpt.head0.points.hooks == tuple(golden["hooks"].tolist())
    check_network(tiny_dust3r_dpt, golden, (5, 7, 10))


@pytest.mark.parametrize("head_dim", [8, 16, 64])
def test_rotary_positions(arrays, head_dim):
    golden = arrays("func_rope2d")
    tables = rotary_tables(golden[f"pos_hd{head_dim}"], head_dim, 100.0)
    rotated = rotate(golden[f"tokens_hd{head_dim}"], tables)
    assert_close(rotated, golden[f"out_hd{head_dim}"], {"rtol": 1e-5, "atol": 1e-5})


def test_additive_positions(arrays):
    expected = arrays("func_rope2d")["sincos_32_4x6"]
    assert_close(sincos_table(4, 6, 32), expected, {"rtol": 0, "atol": 1e-6})


@pytest.mark.parametrize("kind", ["exp", "square", "linear"])
def test_point_activations(arrays, kind):
    golden = arrays("func_postprocess")
    points = points_from_raw(golden["xyz"], ActivationRange(kind))
    assert_close(points, golden[f"depth_{kind}"], {"rtol": 1e-5, "atol": 1e-6})


@pytest.mark.parametrize(
    ("kind", "low", "high", "name"),
    [
        ("exp", 1, float("inf"), "exp_1_inf"),
        ("exp", 0, float("inf"), "exp_0_inf"),
        ("exp", 1, 30, "exp_1_30"),
        ("sigmoid", 0, 1, "sigmoid_0_1"),
        ("sigmoid", 2, 5, "sigmoid_2_5"),
    ],
)
def test_confidence_activations(arrays, kind, low, high, name):
    golden = arrays("func_postprocess")
    confidence = confidence_from_raw(golden["conf_in"], ActivationRange(kind, low, high))
    assert_close(confidence, golden[f"conf_{name}"], {"rtol": 1e-5, "atol": 1e-6})


def test_descriptors_agree_except_that_a_zero_vector_stays_zero(arrays):
    golden = arrays("func_postprocess")
    expected = golden["desc_out"]
    is_zero = (golden["desc_in"] == 0).all(dim=-1)
    # The released code divides 0 by 0 there. A NaN descriptor would win every nearest-neighbour
    # search, so this is a wanted deviation.
    assert expected[is_zero].isnan().all()
    assert int(is_zero.sum()) == 1
    descriptors = unit_descriptors(golden["desc_in"])
    assert torch.equal(descriptors[is_zero], torch.zeros(1, descriptors.shape[-1]))
    assert_close(descriptors[~is_zero], expected[~is_zero], DESCRIPTORS)


@pytest.mark.parametrize("case", ["two", "two_default", "one", "dust3r"])
def test_post_processing(arrays, case):
    golden = arrays("func_postprocess")
    raw = golden["fmap29"]
    one_and_up = ActivationRange("exp", 1.0)
    if case == "dust3r":
        output = dense_output(raw[:, :4], None, HeadConfig(local_features="none"))
        assert_close(output.points, golden["dust3r_pts3d"], MAPS)
        assert_close(output.confidence, golden["dust3r_conf"], MAPS)
        assert output.descriptors is None
        return
    if case == "two":
        output = dense_output(raw[:, :4], raw[:, 4:], HeadConfig())
        assert_close(output.points, golden["mast3r_two_pts3d"], MAPS)
        assert_close(output.confidence, golden["mast3r_two_conf"], MAPS)
        assert_close(output.descriptors, golden["mast3r_two_desc"], DESCRIPTORS)
        expected = golden["mast3r_two_desc_conf"]
    elif case == "two_default":
        config = HeadConfig(descriptor_confidence_activation=one_and_up)
        output = dense_output(raw[:, :4], raw[:, 4:], config)
        expected = golden["mast3r_two_default_desc_conf"]
    else:
        config = HeadConfig(separate_descriptor_confidence=False)
        output = dense_output(raw[:, :4], raw[:, 4:28], config)
        expected = golden["mast3r_one_desc_conf"]
    assert_close(output.descriptor_confidence, expected, MAPS)


def test_procedural_weights_are_those_of_the_reference_files(shared_dir, tiny_mast3r):
    from safetensors.torch import load_file

    from matcher.checkpoints.names import released_names

    stored = load_file(shared_dir / "golden" / "mast3r_tiny.safetensors")
    state = tiny_mast3r.state_dict()
    names = released_names(tiny_mast3r)
    assert set(stored) - set(names.values()) == {"mask_token"}
    assert all(torch.equal(state[ours], stored[released]) for ours, released in names.items())


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("WIDEBASE_FULL_MODEL") != "1", reason="minutes and 4 GB; WIDEBASE_FULL_MODEL=1"
)
def test_full_size_mast3r(shared_dir: Path, fill_procedurally):
    with np.load(shared_dir / "golden" / "mast3r_full_procedural.npz") as file:
        golden = {key: torch.from_numpy(file[key]) for key in file}
    config = ModelConfig(
        encoder=TransformerConfig(1024, 24, 16),
        decoder=TransformerConfig(768, 12, 12),
        is_metric=True,
    )
    network = fill_procedurally(config)
    assert network.num_parameters == 688_638_856 - 768  # the released count has the mask token

    def image(seed):
        noise = np.random.RandomState(seed).uniform(-1, 1, (1, 3, 384, 512))
        return torch.from_numpy(noise.astype(np.float32))

    with torch.no_grad():
        view0, view1 = network.encode(image(1001)), network.encode(image(1002))
        layers0, layers1 = network.decoder(view0, view1)
        prediction = network.decode(view0, view1)
    tokens = {"enc1": view0.tokens, "dec2_12": layers1[12]}
    tokens |= {f"dec1_{hook}": layers0[hook] for hook in (6, 9, 12)}
    actual = {f"{name}_s16": value[:, ::16, ::8] for name, value in tokens.items()}
    for side, output in ((1, prediction.output0), (2, prediction.output1)):
        points = "pts3d1" if side == 1 else "pts3d_in_other_view2"
        actual[points] = output.points[:, ::8, ::8]
        actual[f"conf{side}"] = output.confidence[:, ::8, ::8]
        actual[f"desc_conf{side}"] = output.descriptor_confidence[:, ::8, ::8]
        actual[f"desc{side}"] = output.descriptors[:, ::16, ::16]
    assert set(actual) == set(golden)
    worst = {
        name: float((value - golden[name]).abs().max() / golden[name].abs().max())
        for name, value in actual.items()
    }
    assert max(worst.values()) < 1e-4, worst
