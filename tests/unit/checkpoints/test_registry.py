from __future__ import annotations

import shutil

import huggingface_hub
import pytest
import torch

from matcher.checkpoints import (
    CheckpointInfo,
    available_checkpoints,
    layout_of,
    load_checkpoint,
    load_croco,
    registry,
    save_native,
    write_hub,
    write_released,
)
from matcher.errors import CheckpointError, InputError
from matcher.model import ModelConfig, TwoViewNetwork

MAST3R = "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric"


@pytest.fixture
def hub(mast3r, tmp_path, monkeypatch):
    """A stand-in for the hub that knows one tiny model; it notes what it was asked for."""
    write_hub(tmp_path / "remote", mast3r, licence="MIT")
    asked = []

    def hf_hub_download(repo_id, filename, local_files_only):
        asked.append((repo_id, filename, local_files_only))
        folder = tmp_path / "cache" / "snapshots" / "0123"
        folder.mkdir(parents=True, exist_ok=True)
        return str(shutil.copy(tmp_path / "remote" / filename, folder / filename))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hf_hub_download)
    return asked


def test_released_model_by_name(hub, mast3r, caplog):
    loaded = load_checkpoint(MAST3R)
    assert hub == [(MAST3R, "config.json", False), (MAST3R, "model.safetensors", False)]
    state = loaded.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in mast3r.state_dict().items())
    assert loaded.info.name == MAST3R
    assert loaded.info.licence == "CC BY-NC-SA 4.0"
    assert loaded.info.is_metric
    assert loaded.network.config.is_metric
    assert len(loaded.info.sha256) == 64
    load_checkpoint(MAST3R)
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        f"the weights of {MAST3R} are under the licence CC BY-NC-SA 4.0, not Apache-2.0"
    ]


def test_cache_only(hub):
    load_checkpoint(MAST3R, allow_download=False)
    assert [local_only for _, _, local_only in hub] == [True, True]


def test_no_network(monkeypatch):
    def fail(**_):
        raise huggingface_hub.errors.LocalEntryNotFoundError("no connection\nand no cache")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(MAST3R)
    message = str(caught.value)
    assert "\n" not in message
    for hint in (MAST3R, "cannot be downloaded", "hf download", "pass its path", "HF_HUB_OFFLINE"):
        assert hint in message


def test_copied_folder_keeps_name_and_licence(mast3r, tmp_path):
    folder = tmp_path / MAST3R.split("/")[1]
    write_hub(folder, mast3r, licence="MIT")
    info = load_checkpoint(folder).info
    assert (info.name, info.licence, info.is_metric) == (MAST3R, "CC BY-NC-SA 4.0", True)


@pytest.mark.parametrize("name", ["naver/nothing", "no/such/file.pth", "Small", "x" * 5000])
def test_unknown_names(name):
    with pytest.raises(
        InputError, match="name_or_path: expected .* one of small, naver/"
    ) as caught:
        load_checkpoint(name)
    assert len(str(caught.value)) < 700


@pytest.mark.parametrize("name", ["", "  ", None, 3, b"small"])
def test_what_is_no_name(name):
    with pytest.raises(InputError, match="a model name or a path"):
        load_checkpoint(name)


def test_missing_croco():
    with pytest.raises(InputError, match="no such file"):
        load_croco("absent.pth")


def test_bundled_name(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_asset", lambda name: tmp_path / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="'small' is missing from this installation"):
        load_checkpoint("small")
    assert not available_checkpoints()[0].is_present
    torch.manual_seed(0)
    card = CheckpointInfo("small", licence="Apache-2.0")
    save_native(tmp_path / "small.safetensors", TwoViewNetwork(ModelConfig.tiny()), card)
    assert load_checkpoint("small").info.licence == "Apache-2.0"
    bundled = available_checkpoints()[0]
    assert (bundled.info.name, bundled.origin, bundled.is_present) == ("small", "bundled", True)


def test_available_checkpoints(monkeypatch):
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda name, _: "x" if name == MAST3R else None
    )
    on_hub = [entry for entry in available_checkpoints() if entry.origin == "hub"]
    assert len(on_hub) == 4
    assert {entry.info.licence for entry in on_hub} == {"CC BY-NC-SA 4.0"}
    assert [entry.info.name for entry in on_hub if entry.is_present] == [MAST3R]
    assert [entry.info.name for entry in on_hub if entry.info.is_metric] == [MAST3R]


def test_layouts_are_told_by_content(mast3r, tmp_path):
    save_native(tmp_path / "a.pth", mast3r, CheckpointInfo("a"))
    write_released(tmp_path / "b.safetensors", mast3r, licence="MIT")
    write_hub(tmp_path / "c.zip", mast3r, licence="MIT")
    found = [layout_of(tmp_path / name) for name in ("a.pth", "b.safetensors", "c.zip")]
    assert found == ["native", "released", "hub"]
    for name in ("a.pth", "b.safetensors", "c.zip"):
        state = load_checkpoint(tmp_path / name).network.state_dict()
        assert all(torch.equal(state[key], value) for key, value in mast3r.state_dict().items())


def test_device_that_is_not_there(mast3r, tmp_path):
    save_native(tmp_path / "a.safetensors", mast3r, CheckpointInfo("a"))
    with pytest.raises(InputError, match="device: expected a device that is there, got tpu"):
        load_checkpoint(tmp_path / "a.safetensors", "tpu")
