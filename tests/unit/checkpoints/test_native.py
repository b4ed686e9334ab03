from __future__ import annotations

import dataclasses
import hashlib
import json
import stat

import pytest
import torch
from safetensors.torch import load_file, save_file

from matcher.checkpoints import CheckpointInfo, load_checkpoint, load_croco, save_native
from matcher.checkpoints.native import METADATA_KEY, read_native_info
from matcher.errors import CheckpointError, InputError
from matcher.model import ModelConfig, TwoViewNetwork

CARD = CheckpointInfo("tiny", licence="Apache-2.0", source="a test", notes="two lines\nof notes")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return TwoViewNetwork(dataclasses.replace(ModelConfig.tiny(), is_metric=True)).eval()


@pytest.fixture
def saved(network, tmp_path):
    path = tmp_path / "tiny.anything"
    return path, save_native(path, network, CARD)


def same_state(first, second) -> bool:
    first, second = first.state_dict(), second.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def rewrite(path, network, **changes):
    """The file again, with other metadata or tensors."""
    save_native(path, network, CARD)
    tensors = load_file(path)
    header = {"version": 1, "kind": "two_view", "config": network.config.to_dict(), "name": "x"}
    header |= changes.pop("header", {})
    tensors |= changes.pop("tensors", {})
    for name in changes.pop("without", ()):
        del tensors[name]
    save_file(tensors, path, {METADATA_KEY: changes.pop("text", json.dumps(header))})


def test_round_trip(network, saved):
    path, info = saved
    loaded = load_checkpoint(path)
    assert same_state(network, loaded.network)
    assert loaded.network.config == network.config
    assert not loaded.network.training
    assert loaded.info == info
    assert info.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (info.name, info.licence, info.is_metric) == ("tiny", "Apache-2.0", True)
    assert (info.layout, info.notes) == ("native", "two lines\nof notes")
    assert read_native_info(path) == info


def test_half_precision_on_disk_is_float32_in_memory(network, tmp_path):
    path = tmp_path / "half.safetensors"
    save_native(path, network, CARD, dtype=torch.float16)
    loaded = load_checkpoint(path).network
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, network.state_dict()[name].half().float())
    assert path.stat().st_size < 2.2 * network.num_parameters + 20_000


def test_loaded_network_can_be_trained(saved):
    loaded = load_checkpoint(saved[0]).network
    prediction = loaded(torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32))
    prediction.output0.points.sum().backward()
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert float(loaded.encoder.norm.weight.grad.abs().sum()) > 0


def test_croco_round_trip(croco, tmp_path):
    path = tmp_path / "croco.safetensors"
    save_native(path, croco, CARD)
    loaded = load_croco(path)
    assert same_state(croco, loaded.network)
    assert loaded.network.config == croco.config
    with pytest.raises(CheckpointError, match="CroCo network, which predicts hidden patches"):
        load_checkpoint(path)


def test_two_view_network_is_no_croco(saved):
    with pytest.raises(CheckpointError, match="expected a CroCo network"):
        load_croco(saved[0])


def test_nothing_half_written(network, tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"before")
    broken = TwoViewNetwork(network.config)
    with torch.no_grad():
        broken.encoder.norm.weight[0] = 1e6
    with pytest.raises(InputError, match=r"finite as torch.float16, got others in encoder.norm"):
        save_native(path, broken, CARD, dtype=torch.float16)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.safetensors"]
    with pytest.raises(InputError, match="a writable file in an existing folder"):
        save_native(tmp_path / "absent" / "model.safetensors", network, CARD)
    with pytest.raises(InputError, match="dtype"):
        save_native(path, network, CARD, dtype=torch.int8)


def test_written_file_has_the_usual_permissions(saved, tmp_path):
    other = tmp_path / "other"
    other.touch()
    assert stat.S_IMODE(saved[0].stat().st_mode) == stat.S_IMODE(other.stat().st_mode)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["encoder.norm.weight"]}, r"1 missing: encoder\.norm\.weight$"),
        ({"tensors": {"extra": torch.zeros(2)}}, r"1 unexpected: extra$"),
        (
            {"tensors": {"encoder.norm.weight": torch.zeros(2)}},
            r"1 of another shape: encoder\.norm\.weight is \(2,\), not \(32,\)$",
        ),
        (
            {"tensors": {"encoder.norm.weight": torch.zeros(32, dtype=torch.int32)}},
            r"1 that are not float32, float16 or bfloat16: encoder\.norm\.weight$",
        ),
        ({"header": {"version": 2}}, "metadata of a version other than 1"),
        ({"header": {"kind": "other"}}, "metadata without a known kind"),
        ({"header": {"kind": ["two_view"]}}, "metadata without a known kind"),
        ({"header": {"config": {"encoder": {}}}}, "bad configuration"),
        ({"header": {"licence": 5}}, "model card fields that are not text"),
        ({"text": "{"}, "unreadable metadata"),
        ({"text": "[" * 200_000}, "unreadable metadata"),
        ({"text": "[]"}, "metadata of a version"),
    ],
)
def test_files_that_do_not_fit(network, tmp_path, changes, message):
    path = tmp_path / "model.safetensors"
    rewrite(path, network, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value)


def test_unreasonable_sizes_are_refused_at_once(network, tmp_path):
    path = tmp_path / "model.safetensors"
    config = network.config.to_dict()
    config["encoder"]["depth"] = 10**9
    rewrite(path, network, header={"config": config})
    with pytest.raises(CheckpointError, match="no network of sane size"):
        load_checkpoint(path)


def test_the_first_ten_of_many_names(network, tmp_path):
    path = tmp_path / "model.safetensors"
    gone = [name for name in network.state_dict() if name.startswith("decoder.")]
    rewrite(path, network, without=gone)
    with pytest.raises(
        CheckpointError, match=rf"{len(gone)} missing: .*, and {len(gone) - 10} more$"
    ):
        load_checkpoint(path)


def test_safetensors_of_someone_else(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match=r"pass the folder that holds config\.json"):
        load_checkpoint(path)


def test_truncated(saved):
    path, _ = saved
    content = path.read_bytes()
    for length in (len(content) - 1, len(content) // 2, 40):
        path.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="truncated or damaged safetensors file"):
            load_checkpoint(path)
