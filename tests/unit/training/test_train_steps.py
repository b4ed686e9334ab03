"""One step of training: its losses, the update, the average, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from heads import DenseOutput
from matcher.checkpoints import CheckpointInfo, save_native
from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.training.config import TrainConfig
from matcher.training.datasets import PairStream
from matcher.training.losses import PointmapTargets, total_loss
from matcher.training.samples import TrainingBatch, collate
from matcher.training.sources import homography_pair
from matcher.training.state import TrainingState, build_state, freeze
from matcher.training.steps import (
    compute_loss,
    learning_rate_at,
    loss_options,
    set_learning_rate,
    update,
)

Make = Callable[..., TrainConfig]


def homography_batch(photo: npt.NDArray[np.uint8], pairs: int = 2) -> TrainingBatch:
    random = np.random.default_rng(11)
    samples = [homography_pair(random, photo, (48, 48), 64) for _ in range(4 * pairs)]
    return collate([sample for sample in samples if sample is not None][:pairs])


def test_the_learning_rate_warms_up_and_decays() -> None:
    config = TrainConfig(learning_rate=1e-3, warmup_steps=10)
    for step, progress, expected in (
        (0, 0.0, 1e-4),
        (4, 0.0, 5e-4),
        (9, 0.0, 1e-3),
        (99, 0.0, 1e-3),
        (99, 0.25, 1e-3 * (0.01 + 0.99 * (0.5 + math.sqrt(0.125)))),
        (99, 0.5, 5.05e-4),
        (99, 1.0, 1e-5),
        (99, 1.7, 1e-5),
        (4, 0.5, 2.525e-4),
    ):
        assert learning_rate_at(config, step, progress) == pytest.approx(expected)


def test_a_run_can_start_from_a_checkpoint(toy: Make, tmp_path: Path) -> None:
    path = tmp_path / "first.safetensors"
    first = build_state(toy(seed=5))
    save_native(path, first.network, CheckpointInfo("first"))
    again = build_state(toy(seed=6, initialise=str(path)))
    for name, value in first.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[name], value)
        assert torch.equal(again.average.state_dict()[name], value)
    values = ModelConfig.tiny().to_dict()
    values["rope_base"] = 50.0
    with pytest.raises(InputError, match="initialise: expected a checkpoint of the network"):
        build_state(toy(model=ModelConfig.from_dict(values), initialise=str(path)))
    with pytest.raises(InputError):
        build_state(toy(initialise="nobody's model"))


def test_the_stem_learns_slower_and_later(toy: Make) -> None:
    config = toy(learning_rate=1e-3, warmup_steps=0, stem_learning_rate_scale=0.2)
    state = build_state(config)
    assert set_learning_rate(state, config, 0.0) == pytest.approx(1e-3)
    stem = state.network.encoder.stem
    rates = {group["in_stem"]: group["lr"] for group in state.optimizer.param_groups}
    assert rates == {False: pytest.approx(1e-3), True: pytest.approx(2e-4)}
    assert freeze(state.network, config, 0.0)
    assert not freeze(state.network, config, 0.1)
    assert not stem.stages[0][0].depthwise.weight.requires_grad
    assert stem.proj.weight.requires_grad
    assert freeze(state.network, config, 0.5)
    assert stem.stages[0][0].depthwise.weight.requires_grad


def test_vectors_have_no_weight_decay_and_no_parameter_is_left_out(toy: Make) -> None:
    state = build_state(toy(weight_decay=0.05))
    groups = state.optimizer.param_groups
    for group in groups:
        expected = 0.05 if group["params"][0].ndim > 1 else 0.0
        assert group["weight_decay"] == expected
        assert all((one.ndim > 1) == (expected > 0) for one in group["params"])
    count = sum(one.numel() for group in groups for one in group["params"])
    assert count == state.network.num_parameters


def test_the_seed_decides_the_weights_and_the_global_generator_stays(toy: Make) -> None:
    before = torch.random.get_rng_state()
    one, same, other = (build_state(toy(seed=seed)).network for seed in (3, 3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [network.decoder.embed.weight for network in (one, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "meta:x"])
def test_a_device_that_is_not_there_is_refused(toy: Make, device: str) -> None:
    with pytest.raises(InputError, match="device: expected a device of this machine") as caught:
        build_state(toy(device=device))
    assert len(str(caught.value).splitlines()) == 1


def first_weights(state: TrainingState) -> tuple[Tensor, Tensor]:
    names = [name for name, _ in state.network.named_parameters()]
    name = next(name for name in names if name.startswith("decoder.embed.weight"))
    return state.network.get_parameter(name), state.average.get_parameter(name)


@pytest.mark.parametrize(("step", "decay"), [(0, 0.1), (8, 0.5), (80, 0.9), (100_000, 0.999)])
def test_the_average_moves_by_its_decay(toy: Make, step: int, decay: float) -> None:
    config = toy(ema_decay=0.999)
    state = build_state(config)
    state.step = step
    weight, average = first_weights(state)
    before = average.clone()
    with torch.no_grad():
        weight += 1.0  # the average must follow it by 1 - decay
    assert update(state, sum(one.sum() for one in state.network.parameters()), config)
    assert not torch.equal(weight, before + 1)
    torch.testing.assert_close(average, decay * before + (1 - decay) * weight.detach())


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_a_step_without_a_finite_gradient_is_left_out(toy: Make, factor: float) -> None:
    config = toy()
    state = build_state(config)
    before = [one.clone() for one in state.network.parameters()]
    broken = sum(one.square().sum() for one in state.network.parameters()) * factor
    assert not update(state, broken, config)
    for old, new, average in zip(
        before, state.network.parameters(), state.average.parameters(), strict=True
    ):
        assert torch.equal(old, new)
        assert torch.equal(old, average)
    assert all(not entry for entry in state.optimizer.state.values())
    good = sum(one.square().sum() for one in state.network.parameters())
    assert update(state, good, config)
    assert all(one.isfinite().all() for one in state.network.parameters())
    assert all(one.isfinite().all() for one in state.average.parameters())
    assert not torch.equal(before[0], next(state.network.parameters()))


def test_gradients_are_clipped(toy: Make) -> None:
    config = toy(gradient_clip=0.5)
    state = build_state(config)
    update(state, 1e3 * sum(one.square().sum() for one in state.network.parameters()), config)
    squares = sum(
        one.grad.square().sum() for one in state.network.parameters() if one.grad is not None
    )
    assert float(squares) ** 0.5 == pytest.approx(0.5, rel=1e-3)


def thin(output: DenseOutput) -> DenseOutput:
    return DenseOutput(output.points[:, 2::4, 2::4], output.confidence[:, 2::4, 2::4])


@pytest.mark.parametrize("separate", [True, False])
def test_the_cheap_loss_is_the_full_loss(toy: Make, separate: bool) -> None:
    """Descriptors at the correspondences, and points on every fourth pixel, give the same."""
    values = ModelConfig.tiny().to_dict()
    values["head"]["separate_descriptor_confidence"] = separate
    config = toy(
        model=ModelConfig.from_dict(values),
        matching_weight=0.7,
        pointmap_weight=0.3,
        match_alpha=2.0,
    )
    state = build_state(config)
    batch = PairStream(config).batch(0)
    assert batch.correspondences.valid.sum() > 60
    with torch.no_grad():
        terms = compute_loss(state.network, batch, config)
        full = state.network(batch.pixels0, batch.pixels1)
        options = loss_options(config)
        matched = total_loss(
            full.output0, full.output1, batch.targets, batch.correspondences, options
        )
        targets = batch.targets
        thinned = PointmapTargets(
            targets.points0[:, 2::4, 2::4],
            targets.points1[:, 2::4, 2::4],
            targets.valid0[:, 2::4, 2::4],
            targets.valid1[:, 2::4, 2::4],
            targets.is_metric,
        )
        pointed = total_loss(thin(full.output0), thin(full.output1), thinned, None, options)
    if separate:
        assert float(terms.matching) == pytest.approx(float(matched.matching), rel=1e-5)
    assert float(terms.matching_error) == pytest.approx(float(matched.matching_error), rel=1e-5)
    assert float(terms.pointmap) == pytest.approx(float(pointed.pointmap), rel=1e-5)
    assert float(terms.pointmap_error) == pytest.approx(float(pointed.pointmap_error), rel=1e-5)
    expected = 0.3 * float(terms.pointmap) + 0.7 * float(terms.matching)
    assert float(terms.total) == pytest.approx(expected, rel=1e-5)
    assert int(terms.num_matches) == int(batch.correspondences.valid.sum())
    assert int(terms.num_pixels) == int(thinned.valid0.sum() + thinned.valid1.sum())


def test_every_parameter_learns(toy: Make) -> None:
    config = toy(stem_frozen_until=0.0)
    state = build_state(config)
    compute_loss(state.network, PairStream(config).batch(0), config).total.backward()
    without = [
        name
        for name, one in state.network.named_parameters()
        if one.grad is None or not one.grad.isfinite().all()
    ]
    assert without == []


def test_half_precision_is_near_full_precision(toy: Make, photo: npt.NDArray[np.uint8]) -> None:
    batch = homography_batch(photo)
    network = build_state(toy()).network
    with torch.no_grad():
        full = compute_loss(network, batch, toy())
        half = compute_loss(network, batch, toy(precision="bf16"))
    assert half.total.dtype == torch.float32
    assert float(half.matching_error) == pytest.approx(float(full.matching_error), rel=0.05)


@pytest.mark.slow
def test_steps_on_one_batch_lower_the_matching_loss(
    toy: Make, photo: npt.NDArray[np.uint8]
) -> None:
    config = toy(learning_rate=2e-3, stem_frozen_until=0.0, weight_decay=0.0)
    state, batch = build_state(config), homography_batch(photo)
    errors = []
    for _ in range(40):
        set_learning_rate(state, config, 0.0)
        terms = compute_loss(state.network, batch, config)
        assert update(state, terms.total, config)
        state.step += 1
        errors.append(float(terms.matching_error))
    assert np.mean(errors[-5:]) < 0.4 * errors[0], errors
