"""Masked completion: what is hidden stays hidden, it learns, and a training starts from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from matcher.checkpoints import load_checkpoint
from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.model.croco import patchify
from matcher.model.network import TwoViewNetwork
from matcher.training import validate
from matcher.training.completion import (
    CompletionNetwork,
    blank_hidden,
    completed_image,
    completion_terms,
    num_hidden,
    random_hidden,
)
from matcher.training.config import DataConfig, PretrainConfig, Stage, TrainConfig
from matcher.training.distributed import World
from matcher.training.plot import plot_log
from matcher.training.pretrain import CompletionObjective, build_completion_state, pretrain
from matcher.training.state import build_state
from matcher.training.steps import set_learning_rate, update

Make = Callable[..., TrainConfig]


@pytest.fixture
def toy_pretraining(pool: Path) -> Callable[..., PretrainConfig]:
    def make(**changes: Any) -> PretrainConfig:
        values: dict[str, Any] = {
            "model": ModelConfig.tiny(),
            "data": DataConfig(scene_pools=(str(pool),), num_matches=64),
            "stages": (Stage(1.0, 64, 2),),
            "max_minutes": 60.0,
            "max_steps": 3,
            "warmup_steps": 2,
            "initialise": "random",
            "precision": "fp32",
            "num_threads": 1,
            "num_workers": 0,
        }
        return PretrainConfig(**{**values, **changes})

    return make


def patch_config() -> ModelConfig:
    values = ModelConfig.tiny().to_dict()
    head = {"points": "linear", "local_features": "mlp"}
    values.update(stem="patch", share_views=False, head=head, points_depth=0)
    return ModelConfig.from_dict(values)


def networks() -> list[CompletionNetwork]:
    torch.manual_seed(0)
    configs = (ModelConfig.tiny(), patch_config())
    return [CompletionNetwork(TwoViewNetwork(config), 0.75).eval() for config in configs]


@pytest.mark.parametrize("index", [0, 1])
def test_hidden_pixels_reach_nothing(index: int) -> None:
    """Neither through the convolutions of the stem nor through its padding."""
    network = networks()[index]
    random = np.random.default_rng(2)
    images = torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(1)) * 2 - 1
    hidden = random_hidden(random, 2, 24, 0.75)
    pixels0 = images[0].clone().requires_grad_()
    pixels1 = images[1].clone().requires_grad_()
    patches = network(pixels0, pixels1, hidden)
    assert patches.shape == (2, 24, 768)
    patches.square().sum().backward()
    assert pixels0.grad is not None
    assert pixels1.grad is not None
    gradient = patchify(pixels0.grad, 16).abs().amax(dim=2)
    assert float(gradient[hidden].max()) == 0
    assert float(gradient[~hidden].min()) > 0
    assert float(patchify(pixels1.grad, 16).abs().amax(dim=2).min()) > 0  # view 1 is seen whole
    unseen = 1 - blank_hidden(torch.ones_like(images[0]), hidden, 16)
    other = images[0] + torch.rand(2, 3, 64, 96) * unseen
    assert torch.equal(network(other, images[1], hidden), patches)


def test_masks_have_the_same_number_in_every_row_and_are_random() -> None:
    hidden = random_hidden(np.random.default_rng(0), 400, 20, 0.9)
    assert (hidden.sum(dim=1) == 18).all()
    share = hidden.float().mean(dim=0)
    assert float((share - 0.9).abs().max()) < 0.06
    assert [num_hidden(count, 0.9) for count in (2, 4, 100)] == [1, 3, 90]


def test_only_hidden_patches_count() -> None:
    pixels = torch.rand(1, 3, 32, 32)
    hidden = torch.tensor([[True, False, False, True]])
    true = patchify(pixels, 16)
    variance, mean = torch.var_mean(true, dim=-1, keepdim=True)
    normal = (true - mean) / (variance + 1e-6).sqrt()
    wrong_where_seen = torch.where(hidden[..., None], normal, normal + 5)
    terms = completion_terms(wrong_where_seen, pixels, hidden, 16)
    assert float(terms.total) == pytest.approx(0, abs=1e-9)
    assert terms.values().num_patches == 2
    guessed = completion_terms(torch.zeros_like(normal), pixels, hidden, 16)
    assert float(guessed.total) == pytest.approx(1, abs=0.01)
    torch.testing.assert_close(completed_image(wrong_where_seen, pixels, hidden, 16), pixels)


def test_a_pretraining_writes_what_a_training_starts_from(
    toy_pretraining: Callable[..., PretrainConfig],
    toy: Make,
    photos: Path,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(validate, "_NUM_PAIRS", 1)
    data = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), num_matches=64)
    config = toy_pretraining(data=data, max_steps=2)
    before = build_completion_state(config).network.two_view
    state = pretrain(config, tmp_path / "pre", report_every=1)
    names = {path.name for path in (tmp_path / "pre").iterdir()}
    assert names == {"config.json", "log.jsonl", "last.pt", "model.safetensors", "completions.png"}
    picture = cv2.imread(str(tmp_path / "pre" / "completions.png"))
    assert picture is not None
    assert picture.shape[1] in {4 * (side + 6) + 6 for side in (48, 64, 80)}
    assert picture.std() > 10

    path = str(tmp_path / "pre" / "model.safetensors")
    loaded = load_checkpoint(path)
    assert "heads know nothing" in loaded.info.notes
    changed = dict.fromkeys(("encoder.", "decoder.", "head0."), 0.0)
    for (name, start), end in zip(
        before.named_parameters(), state.network.two_view.parameters(), strict=True
    ):
        part = next(part for part in changed if name.startswith(part))
        changed[part] += float((start - end).detach().abs().max())
    assert changed["encoder."] > 0
    assert changed["decoder."] > 0
    assert changed["head0."] == 0  # not even by weight decay

    start_of_training = build_state(toy(initialise=path)).network
    pretrained = state.average.two_view.state_dict()
    started = start_of_training.state_dict()
    for name in started:
        # The pointmaps' own last block begins as the decoder's.
        source = name.replace("points_decoder.blocks.0.", "decoder.blocks0.1.")
        source = source.replace("points_decoder.norm.", "decoder.norm.")
        source = source.replace("head0.fused_points.", "head0.fused.")
        torch.testing.assert_close(
            started[name], pretrained[source], rtol=1e-3, atol=1e-4
        )  # float16

    pytest.importorskip("matplotlib")
    plot_log(tmp_path / "pre" / "log.jsonl", tmp_path / "curve.png")
    assert (tmp_path / "curve.png").stat().st_size > 5000


def test_what_a_pretraining_refuses(toy_pretraining: Callable[..., PretrainConfig]) -> None:
    for changes, message in (
        ({"mask_ratio": 1.0}, "mask_ratio: expected a share"),
        ({"stages": (Stage(1.0, 64, 2, frozen=("encoder", "decoder")),)}, "stage frozen"),
        ({"stages": (Stage(1.0, 64, 2, matching_weight=1.0),)}, "stage weights"),
    ):
        with pytest.raises(InputError, match=message):
            toy_pretraining(**changes)
    values = toy_pretraining(mask_ratio=0.8).to_dict()
    assert PretrainConfig.from_dict(values) == toy_pretraining(mask_ratio=0.8)
    with pytest.raises(InputError, match="mask_ratio"):
        TrainConfig.from_dict(values)


@pytest.mark.slow
def test_the_error_of_hidden_patches_falls(
    toy_pretraining: Callable[..., PretrainConfig],
) -> None:
    """Other patches are hidden in every step; 1 is what each patch's mean would leave."""
    config = toy_pretraining(
        learning_rate=3e-3,
        mask_ratio=0.75,
        warmup_steps=10,
        stem_frozen_until=0.0,
        stem_learning_rate_scale=1.0,
    )
    state = build_completion_state(config)
    objective = CompletionObjective(config, World(), [], None)
    noise = np.random.default_rng(0).uniform(-1, 1, (4, 3, 8, 8)).astype(np.float32)
    images = torch.nn.functional.interpolate(torch.from_numpy(noise), (64, 64), mode="bicubic")
    errors = []
    for step in range(100):
        set_learning_rate(state, config, 0.0)
        hidden = random_hidden(np.random.default_rng(step), 4, 16, 0.75)
        patches = objective.forward(state.network)(images, images, hidden)
        terms = completion_terms(patches, images, hidden, 16)
        update(state, terms.total, config)
        state.step += 1
        errors.append(float(terms.total.detach()))
    assert errors[0] > 0.98
    assert np.mean(errors[-10:]) < 0.94, errors[-10:]
