from __future__ import annotations

import argparse
import dataclasses
import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

from matcher.checkpoints import (
    load_checkpoint,
    load_croco,
    read_hub,
    read_released,
    write_hub,
    write_released,
)
from matcher.checkpoints.constructor import config_from_constructor, constructor_from_config
from matcher.checkpoints.names import released_names
from matcher.errors import CheckpointError, InputError
from matcher.model import ModelConfig, TwoViewNetwork, two_view_from_croco

NAMESPACE = [argparse.Namespace]


def raw_load(path):
    with torch.serialization.safe_globals(NAMESPACE):
        return torch.load(path, weights_only=True)


def same_tensors(first, second) -> bool:
    return sorted(first) == sorted(second) and all(
        torch.equal(first[name], second[name]) for name in first
    )


def change(path, edit):
    content = raw_load(path)
    edit(content)
    torch.save(content, path)


def test_round_trip_is_bit_equal(released_network, tmp_path):
    first, second = tmp_path / "a_metric.pth", tmp_path / "b.weights"
    write_released(first, released_network, licence="MIT")
    change(first, lambda content: content["model"].update(mask_token=torch.ones(1, 1, 8)))
    checkpoint = read_released(first)
    assert same_tensors(checkpoint.network.state_dict(), released_network.state_dict())
    assert checkpoint.network.config == released_network.config
    assert checkpoint.info.licence == "MIT"
    assert not checkpoint.network.training
    write_released(
        second,
        checkpoint.network,
        licence=checkpoint.info.licence,
        constructor=checkpoint.constructor,
        unused=checkpoint.unused,
    )
    before, after = raw_load(first), raw_load(second)
    assert same_tensors(before["model"], after["model"])
    assert before["args"] == after["args"]
    assert float(after["model"]["mask_token"].sum()) == 8


def test_both_names_of_one_tensor_are_written_once(mast3r, tmp_path):
    path = tmp_path / "model.pth"
    write_released(path, mast3r, licence="MIT")
    state = raw_load(path)["model"]
    aliases = [name for name in state if ".layer_rn." in name]
    assert len(aliases) == 8
    kept = state["downstream_head2.dpt.scratch.layer3_rn.weight"]
    alias = state["downstream_head2.dpt.scratch.layer_rn.2.weight"]
    assert kept.data_ptr() == alias.data_ptr()


def test_either_name_of_one_tensor_is_enough(mast3r, tmp_path):
    path = tmp_path / "model.pth"
    for gone in (".layer_rn.", "_rn.weight"):
        write_released(path, mast3r, licence="MIT")

        def drop(content, gone=gone):
            state = content["model"]
            content["model"] = {k: v for k, v in state.items() if gone not in k}

        change(path, drop)
        loaded = read_released(path).network
        assert same_tensors(loaded.state_dict(), mast3r.state_dict())


def test_two_names_with_different_tensors(mast3r, tmp_path):
    path = tmp_path / "model.pth"
    write_released(path, mast3r, licence="MIT")
    name = "downstream_head1.dpt.scratch.layer_rn.0.weight"
    change(path, lambda content: content["model"].update({name: content["model"][name] + 1}))
    with pytest.raises(CheckpointError, match="should be the same tensor"):
        read_released(path)


def test_missing_second_decoder_is_a_copy_of_the_first(dust3r, tmp_path):
    path = tmp_path / "model.pth"
    write_released(path, dust3r, licence="MIT")

    def drop(content):
        state = content["model"]
        content["model"] = {k: v for k, v in state.items() if not k.startswith("dec_blocks2")}
        content["model"]["prediction_head.weight"] = torch.zeros(768, 8)
        content["model"]["prediction_head.bias"] = torch.zeros(768)

    change(path, drop)
    checkpoint = read_released(path)
    decoder = checkpoint.network.decoder
    assert same_tensors(decoder.blocks0.state_dict(), decoder.blocks1.state_dict())
    assert decoder.blocks0[0].norm1.weight.data_ptr() != decoder.blocks1[0].norm1.weight.data_ptr()
    assert sorted(checkpoint.unused) == [
        "mask_token",
        "prediction_head.bias",
        "prediction_head.weight",
    ]


def test_what_tells_a_metric_model(dust3r, tmp_path):
    path = tmp_path / "model.pth"
    args = argparse.Namespace(model=constructor_from_config(dust3r.config))

    def is_metric(path, args):
        write_released(path, dust3r, licence="MIT")
        change(path, lambda content: content.update(args=args))
        checkpoint = read_released(path)
        assert checkpoint.network.config.is_metric == checkpoint.info.is_metric
        return checkpoint.info.is_metric

    assert not is_metric(path, args)
    assert is_metric(tmp_path / "model_metric.pth", args)
    args.train_criterion = "ConfLoss(Regr3D(L21, norm_mode='?avg_dis'), alpha=0.2)"
    assert is_metric(path, args)
    args.is_metric = False
    assert not is_metric(path, args)


def test_licence_is_assumed_and_said_once(dust3r, tmp_path, caplog):
    path = tmp_path / "model.pth"
    write_released(path, dust3r, licence="MIT")
    args = argparse.Namespace(model=constructor_from_config(dust3r.config), lr=0.1)
    change(path, lambda content: content.update(args=args, best_so_far=0.5))
    info = load_checkpoint(path).info
    assert (info.licence, info.layout) == ("CC BY-NC-SA 4.0", "released")
    assert info.notes == "licence assumed from the layout: the file does not state one"
    load_checkpoint(path)
    said = [record.getMessage() for record in caplog.records]
    assert said == ["the weights of model are under the licence CC BY-NC-SA 4.0, not Apache-2.0"]


def test_croco_round_trip(croco, tmp_path):
    path = tmp_path / "croco.pth"
    write_released(path, croco, licence="MIT")
    checkpoint = load_croco(path)
    assert checkpoint.network.config == croco.config
    assert same_tensors(checkpoint.network.state_dict(), croco.state_dict())
    again = tmp_path / "again.pth"
    write_released(again, checkpoint.network, licence="MIT")
    assert same_tensors(raw_load(path)["model"], raw_load(again)["model"])
    expected = {"enc_pos_embed", "dec_pos_embed"} if croco.config.positions == "cosine" else set()
    assert {name for name in raw_load(path)["model"] if "pos_embed" in name} == expected


def test_croco_with_a_constructor_string(croco, tmp_path):
    path = tmp_path / "croco.pth"
    text = constructor_from_config(croco.config)
    write_released(path, croco, licence="MIT", constructor=text)
    assert raw_load(path)["args"].model == text
    assert load_croco(path).network.config == croco.config


def test_constructor_of_another_network_is_not_written(mast3r, tmp_path):
    text = constructor_from_config(mast3r.config).replace("dec_depth=2", "dec_depth=3")
    with pytest.raises(InputError, match="one for another network"):
        write_released(tmp_path / "a.pth", mast3r, licence="MIT", constructor=text)
    with pytest.raises(InputError, match="a released constructor"):
        write_released(tmp_path / "a.pth", mast3r, licence="MIT", constructor="exit()")
    assert list(tmp_path.iterdir()) == []


def test_networks_of_our_own_have_no_released_counterpart(tmp_path):
    network = TwoViewNetwork(ModelConfig.tiny())
    with pytest.raises(InputError, match="a patch stem and separate decoders"):
        write_released(tmp_path / "a.pth", network, licence="MIT")
    with pytest.raises(InputError, match="a patch stem and separate decoders"):
        write_hub(tmp_path / "a", network, licence="MIT")
    assert list(tmp_path.iterdir()) == []


def test_hub_round_trip(released_network, tmp_path):
    folder = tmp_path / "model_metric"
    network = released_network
    write_hub(folder, network, licence="MIT", unused={"mask_token": torch.ones(1, 1, 8)})
    checkpoint = read_hub(folder)
    assert same_tensors(checkpoint.network.state_dict(), network.state_dict())
    expected = dataclasses.replace(network.config, is_metric=True)
    assert checkpoint.network.config == expected
    assert (checkpoint.info.licence, checkpoint.info.layout) == ("MIT", "hub")
    again = tmp_path / "again"
    write_hub(again, checkpoint.network, licence="MIT", unused=checkpoint.unused)
    first, second = (load_file(path / "model.safetensors") for path in (folder, again))
    assert same_tensors(first, second)
    assert not any(".layer_rn." in name for name in first)
    assert (folder / "config.json").read_text() == (again / "config.json").read_text()
    assert read_hub(again).info.is_metric


def test_hub_files_say_infinity_and_aliases(mast3r, tmp_path):
    write_hub(tmp_path, mast3r, licence="MIT")
    text = (tmp_path / "config.json").read_text()
    assert "-Infinity" in text
    assert json.loads(text)["conf_mode"] == ["exp", 1.0, float("inf")]
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    name = "downstream_head1.dpt.scratch.layer_rn.0.weight"
    assert metadata[name] == "downstream_head1.dpt.scratch.layer1_rn.weight"
    assert len(metadata) == 9


def test_same_network_from_every_layout(mast3r, tmp_path):
    write_released(tmp_path / "model.pth", mast3r, licence="MIT")
    write_hub(tmp_path / "model", mast3r, licence="MIT")
    images = torch.rand(2, 1, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        points = [
            load_checkpoint(path).network(*images).output1.points
            for path in (tmp_path / "model.pth", tmp_path / "model")
        ]
        expected = mast3r(*images).output1.points
    assert torch.equal(points[0], expected)
    assert torch.equal(points[1], expected)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not a JSON file"),
        ("[]", "expected a JSON object, got a list"),
        ('{"surprise": 1}', "unknown keywords: surprise"),
        ('{"pos_embed": "RoPE100", "head_type": "conv"}', "head_type and output_mode"),
    ],
)
def test_bad_hub_configurations(dust3r, tmp_path, config, message):
    write_hub(tmp_path, dust3r, licence="MIT")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_hub_folder_without_weights(dust3r, tmp_path):
    write_hub(tmp_path, dust3r, licence="MIT")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="truncated or damaged safetensors"):
        load_checkpoint(tmp_path)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"there is no model\.safetensors"):
        load_checkpoint(tmp_path)


def test_hub_file_with_missing_names(dust3r, tmp_path):
    write_hub(tmp_path, dust3r, licence="MIT")
    weights = tmp_path / "model.safetensors"
    tensors = load_file(weights)
    del tensors["enc_norm.bias"]
    tensors["enc_norm.scale"] = torch.zeros(16)
    save_file(tensors, weights)
    with pytest.raises(
        CheckpointError, match=r"1 missing: enc_norm\.bias; 1 unexpected: enc_norm\.scale$"
    ):
        load_checkpoint(tmp_path)


class _Evil:
    def __reduce__(self):
        return os.system, ("echo pwned",)


def _zip_of_text() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("hello.txt", "hello")
    return buffer.getvalue()


def _saved(content) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"this is a text file\n", "neither a safetensors file nor one of torch.save"),
        (b"\x89PNG\r\n\x1a\n", "neither a safetensors file nor one of torch.save"),
        (_zip_of_text(), "not written by torch.save"),
        (pickle.dumps({"model": {}}), "not written by torch.save"),
        (pickle.dumps({"model": {}}, protocol=2), "not written by torch.save"),
        (pickle.dumps(_Evil()), "not written by torch.save|asks for code to be run"),
        (_saved(_Evil()), r"the pickle asks for code to be run \((posix|nt)\.system\)"),
        (_saved({"model": {}, "args": _Evil()}), "asks for code to be run"),
        (_saved([1, 2]), "unknown layout: a list"),
        (_saved({"state_dict": {}}), r"no tensors under 'model' \(keys: state_dict\)"),
        (_saved({"model": {"a": 1}}), "no tensors under 'model'"),
        (_saved({"model": {"a": torch.zeros(1)}}), "neither args.model nor croco_kwargs"),
        (
            _saved({"model": {}, "croco_kwargs": {"enc_depht": 2}}),
            "unknown keywords: enc_depht",
        ),
    ],
)
def test_foreign_files(tmp_path, content, message, capfd):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    assert capfd.readouterr().out == ""


def test_truncated_pth(dust3r, tmp_path):
    path = tmp_path / "model.pth"
    write_released(path, dust3r, licence="MIT")
    content = path.read_bytes()
    for length in (len(content) - 30, len(content) // 2, 10):
        path.write_bytes(content[:length])
        with pytest.raises(
            CheckpointError, match=r"truncated, damaged or not written by torch\.save"
        ):
            load_checkpoint(path)


def test_wrong_shapes_and_names(mast3r, tmp_path):
    path = tmp_path / "model.pth"
    names = set(released_names(mast3r).values())
    for name in ("enc_norm.weight", "downstream_head2.dpt.scratch.layer2_rn.weight"):
        assert name in names
        write_released(path, mast3r, licence="MIT")
        alias = name.replace("layer2_rn", "layer_rn.1")  # the same name for the first one
        wrong = dict.fromkeys((name, alias), torch.zeros(3, 3))
        change(path, lambda content, wrong=wrong: content["model"].update(wrong))
        with pytest.raises(CheckpointError, match=rf"1 of another shape: {name} is \(3, 3\), not"):
            load_checkpoint(path)
    write_released(path, mast3r, licence="MIT")
    change(path, lambda content: content["model"].update(surprise=torch.zeros(1)))
    with pytest.raises(CheckpointError, match="1 unexpected: surprise"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AsymmetricMASt3R(", "cannot be parsed"),
        ("__import__('os').system('x')", "is not a call"),
        ("[AsymmetricMASt3R()]", "is not a call"),
        ("Unknown(enc_depth=1)", "names 'Unknown', expected one of CroCoNet"),
        ("CroCoNet(12)", "arguments without a keyword"),
        ("CroCoNet(**{'enc_depth': 12})", "arguments without a keyword"),
        ("CroCoNet(enc_depth=exit())", "not a literal \\(Call\\)"),
        ("CroCoNet(enc_depth=nan)", "not a literal \\(Name\\)"),
        ("CroCoNet(enc_depth=2**99999999)", "not a literal \\(BinOp\\)"),
        ("CroCoNet(enc_depth='12')", "enc_depth: expected a whole number, got '12'"),
        ("CroCoNet(output_mode='pts3d')", "unknown keywords: output_mode"),
        ("CroCoNet(pos_embed='learned')", "pos_embed"),
        ("CroCoNet(norm_im2_in_dec=False)", "norm_im2_in_dec"),
        ("CroCoNet(img_size=(100, 100))", "image_size"),
        ("CroCoNet(patch_size=0)", "patch_size"),
        ("AsymmetricCroCo3DStereo()", "in a two-view network"),
        ("AsymmetricCroCo3DStereo(pos_embed='RoPE100', two_confs=True)", "unknown keywords"),
        ("AsymmetricMASt3R(pos_embed='RoPE100', output_mode='pts3d+desc24')", "head_type"),
        (
            "AsymmetricMASt3R(pos_embed='RoPE100', head_type='catmlp+dpt', "
            "output_mode='pts3d+desc24', conf_mode='exp')",
            "conf_mode: expected",
        ),
        ("CroCoNet(" + "(" * 5000 + ")", "cannot be parsed"),
        ("a" * 20_000, "too long"),
    ],
)
def test_constructors_that_are_refused(text, message):
    with pytest.raises(CheckpointError, match=message) as caught:
        config_from_constructor(text)
    assert "\n" not in str(caught.value)


def test_landscape_handling_and_patch_embedding_change_nothing():
    text = "AsymmetricCroCo3DStereo(pos_embed='RoPE100'{})"
    plain = config_from_constructor(text.format(""))
    portrait = ", patch_embed_cls='ManyAR_PatchEmbed', landscape_only=True, img_size=(512, 512)"
    assert config_from_constructor(text.format(portrait)) == plain


def test_two_view_network_from_croco(croco):
    config = ModelConfig(
        encoder=croco.config.encoder, decoder=croco.config.decoder, head=_linear_head()
    )
    if croco.config.positions == "cosine":
        with pytest.raises(InputError, match="rotary positions"):
            two_view_from_croco(croco, config)
        return
    network = two_view_from_croco(croco, config)
    assert same_tensors(network.encoder.state_dict(), croco.encoder.state_dict())
    for blocks in (network.decoder.blocks0, network.decoder.blocks1):
        assert same_tensors(blocks.state_dict(), croco.decoder.blocks.state_dict())
    with torch.no_grad():
        croco.encoder.norm.weight.zero_()
        croco.decoder.blocks[0].norm1.weight.zero_()
    assert float(network.encoder.norm.weight.detach().sum()) == 16
    assert float(network.decoder.blocks1[0].norm1.weight.detach().sum()) == 8
    with pytest.raises(InputError, match="config encoder"):
        two_view_from_croco(
            croco,
            dataclasses.replace(config, encoder=dataclasses.replace(config.encoder, depth=3)),
        )
    with pytest.raises(InputError, match="patch stem"):
        two_view_from_croco(croco, ModelConfig.tiny())


def _linear_head():
    from heads import HeadConfig

    return HeadConfig(points="linear", local_features="none")
