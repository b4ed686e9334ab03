"""A run that was interrupted ends with the very weights of one that was not."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from matcher.errors import CheckpointError
from matcher.training import loop, state, validate
from matcher.training.config import DataConfig, PretrainConfig, Stage, TrainConfig
from matcher.training.interrupts import Interrupted
from matcher.training.pretrain import pretrain
from matcher.training.state import TrainingState, load_state
from matcher.training.train import StepReport, train

Make = Callable[..., TrainConfig]
Report = StepReport[Any, Any]
STAGES = (Stage(0.5, 32, 2), Stage(1.0, 48, 2, frozen=("stem",), matching_weight=0.5))


def signal_at(step: int, number: int) -> Callable[[Report], None]:
    """A listener that sends this process a signal, as a terminal or a scheduler would."""

    def listen(report: Report) -> None:
        if report.step == step:
            os.kill(os.getpid(), number)

    return listen


def differences(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    mine, theirs = one.state_dict(), other.state_dict()
    return [name for name in mine if not torch.equal(mine[name], theirs[name])]


def assert_same(one: TrainingState[Any], other: TrainingState[Any]) -> None:
    assert (one.step, one.pairs) == (other.step, other.pairs)
    assert differences(one.network, other.network) == []
    assert differences(one.average, other.average) == []
    moments = zip(one.optimizer.state.values(), other.optimizer.state.values(), strict=True)
    for mine, theirs in moments:
        for name in ("step", "exp_avg", "exp_avg_sq"):
            assert torch.equal(mine[name], theirs[name])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_and_resumed_run_is_the_same_run(
    toy: Make,
    photos: Path,
    pool: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    monkeypatch.setattr(validate, "_NUM_PAIRS", 1)
    data = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), num_matches=64)
    config = toy(data=data, stages=STAGES, max_steps=6, max_minutes=60.0, stem_frozen_until=0.3)
    whole = train(config, tmp_path / "whole", report_every=1)
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(Interrupted) as caught:
        train(config, tmp_path / "parts", report_every=1, on_report=signal_at(2, number))
    assert (caught.value.step, caught.value.signal_number) == (2, number)
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_state(tmp_path / "parts" / "last.pt", config).step == 2
    parts = train(config, tmp_path / "parts", resume=True, report_every=1)
    assert whole.step == 6
    assert_same(whole, parts)


def test_a_pretraining_resumes_exactly_too(toy: Make, pool: Path, tmp_path: Path) -> None:
    config = PretrainConfig(
        model=toy().model,
        data=DataConfig(scene_pools=(str(pool),), num_matches=64),
        stages=(Stage(1.0, 64, 2),),
        max_steps=4,
        warmup_steps=2,
        initialise="random",
        precision="fp32",
        num_threads=1,
        num_workers=0,
    )
    whole = pretrain(config, tmp_path / "whole", report_every=1)
    with pytest.raises(Interrupted):
        pretrain(config, tmp_path / "parts", report_every=1, on_report=signal_at(2, signal.SIGTERM))
    parts = pretrain(config, tmp_path / "parts", resume=True, report_every=1)
    assert_same(whole, parts)


def test_a_signal_in_the_middle_of_a_step_waits_for_its_end(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = loop.update

    def interrupted(state: Any, *rest: Any) -> bool:
        if state.step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return update(state, *rest)

    monkeypatch.setattr(loop, "update", interrupted)
    config = toy(max_minutes=60.0)
    with pytest.raises(Interrupted, match="stopped after step 2"):
        train(config, tmp_path)
    assert load_state(tmp_path / "last.pt", config).step == 2


def test_a_step_that_was_torn_is_not_saved(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second Ctrl-C does not wait; the optimiser may be half-way through the parameters."""
    update = loop.update

    def torn(state: Any, *rest: Any) -> bool:
        if state.step == 2:
            with torch.no_grad():
                next(state.network.parameters()).add_(1.0)
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return update(state, *rest)

    monkeypatch.setattr(loop, "update", torn)
    config = toy(max_minutes=60.0, max_steps=4, checkpoint_minutes=0.0)
    with pytest.raises(KeyboardInterrupt) as caught:
        train(config, tmp_path / "parts")
    assert not isinstance(caught.value, Interrupted)
    assert load_state(tmp_path / "parts" / "last.pt", config).step == 2
    monkeypatch.undo()
    parts = train(config, tmp_path / "parts", resume=True)
    assert_same(train(config, tmp_path / "whole"), parts)


def test_a_full_disk_ends_the_run_and_keeps_the_last_state(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = toy(max_minutes=60.0, checkpoint_minutes=0.0)
    save, saves = torch.save, 0

    def full(values: Any, path: Path) -> None:
        nonlocal saves
        saves += 1
        if saves > 2:
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        save(values, path)

    monkeypatch.setattr(state.torch, "save", full)
    with pytest.raises(CheckpointError, match="cannot be written: .*No space left"):
        train(config, tmp_path)
    assert load_state(tmp_path / "last.pt", config).step == 2
    assert not list(tmp_path.glob("*.tmp"))


def test_the_log_ends_where_the_state_ends(toy: Make, tmp_path: Path) -> None:
    config = toy(max_steps=2, max_minutes=60.0)
    train(config, tmp_path, report_every=1)
    log = tmp_path / "log.jsonl"
    lines = log.read_text().splitlines()
    later = json.dumps({**json.loads(lines[-1]), "step": 9})
    log.write_text("\n".join([*lines, later, '{"step": 3, "cut']))
    train(config, tmp_path, resume=True)
    assert log.read_text().splitlines() == lines


def test_minutes_that_are_up_end_a_run_before_its_steps(toy: Make, tmp_path: Path) -> None:
    config = toy(max_steps=10_000, max_minutes=0.005)
    first = train(config, tmp_path)
    assert 1 <= first.step < 10_000
    longer = toy(max_steps=first.step + 1, max_minutes=60.0)
    assert train(longer, tmp_path, resume=True).step == first.step + 1


def test_processor_time_is_another_clock(toy: Make, tmp_path: Path) -> None:
    state_ = train(toy(clock="cpu", max_minutes=0.01), tmp_path)
    assert state_.step >= 1
    assert state_.seconds >= 0.6


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_a_signal_to_the_whole_group_ends_the_step_and_not_the_workers(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = loop.update

    def interrupted(state: Any, *rest: Any) -> bool:
        if state.step == 1:
            workers = multiprocessing.active_children()
            assert len(workers) == 1
            # From outside: torch takes a signal of the training process itself for its own.
            subprocess.run(["kill", "-TERM", str(workers[0].pid), str(os.getpid())], check=True)
            time.sleep(0.3)  # the death of a worker would be an error here
        return update(state, *rest)

    monkeypatch.setattr(loop, "update", interrupted)
    config = toy(max_minutes=60.0, num_workers=1)
    with pytest.raises(Interrupted, match="stopped after step 2"):
        train(config, tmp_path)
    assert load_state(tmp_path / "last.pt", config).step == 2
    assert multiprocessing.active_children() == []
