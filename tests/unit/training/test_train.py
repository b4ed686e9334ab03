"""Whole runs of a second: what they write, how they go on, and what a broken one leaves behind."""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from matcher.checkpoints import load_checkpoint, read_native_info
from matcher.errors import CheckpointError, DatasetError, InputError
from matcher.training import datasets
from matcher.training import train as training
from matcher.training import validate as validation
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.datasets import PairStream
from matcher.training.train import (
    StepReport,
    TrainingState,
    build_state,
    load_state,
    report_record,
    save_state,
    train,
)

Make = Callable[..., TrainConfig]
LONG = 60.0  # minutes: such a run is ended by the test


def stop_after(steps: int) -> Callable[[StepReport], None]:
    """A listener that interrupts the run as Ctrl-C would."""

    def listen(report: StepReport) -> None:
        if report.step >= steps:
            raise KeyboardInterrupt

    return listen


def interrupted(config: TrainConfig, folder: Path, steps: int = 2, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(config, folder, on_report=stop_after(steps), report_every=1, **options)


def log_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(left, right) for left, right in pairs)


def test_a_run_writes_log_state_model_and_configuration(
    toy: Make, photos: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validation, "_NUM_PAIRS", 2)
    data = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), num_matches=64)
    config = toy(data=data, validate_minutes=0.0)
    threads, generator = torch.get_num_threads(), torch.random.get_rng_state()
    reports: list[StepReport] = []
    folder = tmp_path / "runs" / "toy"
    state = train(config, folder, on_report=reports.append, report_every=1)
    # Nothing of the process has changed.
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), generator)

    names = {path.name for path in folder.iterdir()}
    assert names == {"config.json", "log.jsonl", "last.pt", "model.safetensors"}
    stored = json.loads((folder / "config.json").read_text())
    assert TrainConfig.from_dict(stored) == config

    lines = log_of(folder)
    assert lines == [report_record(report) for report in reports]
    assert [line["step"] for line in lines] == [*range(1, state.step + 1), state.step]
    assert [line["pairs"] for line in lines[:-1]] == [2 * line["step"] for line in lines[:-1]]
    for line in lines:
        assert set(line) == {
            "step",
            "progress",
            "minutes",
            "pairs",
            "pairs_per_second",
            "learning_rate",
            "losses",
            "skipped",
            "validation",
        }
        assert line["minutes"] == pytest.approx(line["progress"] * 0.015, abs=1e-3)
        assert 3 < line["losses"]["matching_error"] < 60  # 9.7 is chance
        assert line["losses"]["num_matches"] > 30
        assert 0 <= line["validation"]["within_1px"] <= line["validation"]["within_10px"] <= 1
    assert lines[0]["learning_rate"] == pytest.approx(5e-4 / 2, rel=0.5)
    assert lines[-1]["learning_rate"] == 0
    assert lines[-1]["progress"] >= 1

    loaded = load_checkpoint(str(folder / "model.safetensors"))
    assert loaded.info.name == "toy"
    assert loaded.info.licence == "unknown"
    assert f"{state.step} steps, {state.pairs} pairs" in loaded.info.notes
    assert loaded.network.config == config.model
    for mine, stored_weight in zip(
        state.average.parameters(), loaded.network.parameters(), strict=True
    ):
        torch.testing.assert_close(stored_weight, mine, rtol=1e-3, atol=1e-6)  # float16

    again = load_state(folder / "last.pt", config)
    assert (again.step, again.pairs, again.seconds) == (state.step, state.pairs, state.seconds)
    assert same_weights(again.network, state.network)
    assert same_weights(again.average, state.average)


def test_a_resumed_run_goes_on_counting_and_keeps_its_bound(toy: Make, tmp_path: Path) -> None:
    first = train(toy(), tmp_path, report_every=1)
    assert first.step >= 1
    assert first.pairs == 2 * first.step
    assert first.seconds >= 60 * 0.015
    longer = toy(max_minutes=(first.seconds + 0.5) / 60)
    second = train(longer, tmp_path, resume=True, report_every=1)
    assert second.step > first.step
    assert second.pairs == 2 * second.step
    assert second.seconds >= first.seconds + 0.5
    lines = log_of(tmp_path)
    minutes = [line["minutes"] for line in lines]
    assert minutes == sorted(minutes)
    assert lines[-1]["step"] == second.step
    assert TrainConfig.from_dict(json.loads((tmp_path / "config.json").read_text())) == longer
    # Only the step that runs when the time is over goes beyond the bound.
    late = [line for line in lines if line["minutes"] > longer.max_minutes]
    assert len({line["step"] for line in late}) <= 1

    # Without a minute left nothing is done.
    before = (tmp_path / "last.pt").read_bytes()
    third = train(longer, tmp_path, resume=True, report_every=1)
    assert third.step == second.step
    assert (tmp_path / "last.pt").read_bytes() == before
    assert log_of(tmp_path) == lines


def test_a_resumed_run_draws_the_next_batches(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    batch = PairStream.batch

    def counted(self: PairStream, number: int) -> Any:
        drawn.append(number)
        return batch(self, number)

    monkeypatch.setattr(PairStream, "batch", counted)
    interrupted(toy(max_minutes=LONG), tmp_path, steps=2)
    interrupted(toy(max_minutes=LONG), tmp_path, steps=4, resume=True)
    assert drawn == [0, 1, 2, 3]


def test_folders_with_and_without_a_run(toy: Make, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="output_dir: expected a run to resume"):
        train(toy(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    (tmp_path / "last.pt").write_bytes(b"")
    with pytest.raises(InputError, match="output_dir: expected a folder without a run"):
        train(toy(), tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="output_dir: expected a folder that can be written"):
        train(toy(), tmp_path / "file")


def test_wrong_data_leaves_nothing_behind(toy: Make, tmp_path: Path) -> None:
    missing = toy(data=DataConfig(scene_pools=(str(tmp_path / "nowhere"),)))
    with pytest.raises(DatasetError, match="scene_pools"):
        train(missing, tmp_path / "out")
    with pytest.raises(InputError, match="data: expected at least one source"):
        train(toy(data=DataConfig()), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_log_of_a_run_that_saved_nothing_is_replaced(toy: Make, tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("of another run\n")
    interrupted(toy(max_minutes=LONG), tmp_path, steps=1)
    assert [line["step"] for line in log_of(tmp_path)] == [1]


def test_an_interrupt_saves_first(toy: Make, tmp_path: Path) -> None:
    config = toy(max_minutes=LONG)
    interrupted(config, tmp_path, steps=3)
    state = load_state(tmp_path / "last.pt", config)
    assert (state.step, state.pairs) == (3, 6)
    assert 0 < state.seconds < 60 * LONG
    assert read_native_info(tmp_path / "model.safetensors").name == tmp_path.name
    assert len(log_of(tmp_path)) == 3
    assert not list(tmp_path.glob("*.tmp"))


def test_data_that_fails_later_saves_first(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = PairStream.batch

    def failing(self: PairStream, number: int) -> Any:
        if number >= 2:
            raise DatasetError(f"batch {number} is gone")
        return batch(self, number)

    monkeypatch.setattr(PairStream, "batch", failing)
    config = toy(max_minutes=LONG)
    with pytest.raises(DatasetError, match="^batch 2 is gone$"):
        train(config, tmp_path)
    assert load_state(tmp_path / "last.pt", config).step == 2


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_end_with_the_run(toy: Make, tmp_path: Path) -> None:
    interrupted(toy(max_minutes=LONG, num_workers=2), tmp_path / "a", steps=2)
    assert multiprocessing.active_children() == []


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_an_error_in_a_worker_is_one_line(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(self: PairStream, number: int) -> Any:
        raise DatasetError(f"no pair {number}")

    monkeypatch.setattr(PairStream, "batch", failing)
    with pytest.raises(DatasetError) as caught:
        train(toy(num_workers=1), tmp_path)
    assert str(caught.value) == "no pair 0"
    assert multiprocessing.active_children() == []
    assert not (tmp_path / "last.pt").exists()


def test_stages_follow_the_clock(toy: Make, tmp_path: Path) -> None:
    stages = (Stage(0.5, 32, 1), Stage(1.0, 48, 3))
    train(toy(max_minutes=0.03, stages=stages), tmp_path, report_every=1)
    pairs = [0, *(line["pairs"] for line in log_of(tmp_path)[:-1])]
    sizes = [late - early for early, late in pairwise(pairs)]
    assert sizes[0] == 1
    assert sizes == sorted(sizes)
    assert set(sizes) <= {1, 3}


def test_a_loss_that_is_not_finite_is_null_and_leaves_the_weights(
    toy: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = training.compute_loss

    def broken(*arguments: Any, **options: Any) -> Any:
        terms = compute(*arguments, **options)
        return dataclasses.replace(terms, total=terms.total * math.nan)

    monkeypatch.setattr(training, "compute_loss", broken)
    config = toy(max_minutes=LONG)
    interrupted(config, tmp_path, steps=2)
    assert [line["losses"]["total"] for line in log_of(tmp_path)] == [None, None]
    state, fresh = load_state(tmp_path / "last.pt", config), build_state(config)
    assert same_weights(state.network, fresh.network)
    assert same_weights(state.average, fresh.average)


# --- Broken states ---


@pytest.fixture
def saved(toy: Make, tmp_path: Path) -> tuple[TrainConfig, Path, TrainingState]:
    """A configuration, the folder of its run and its state after no step."""
    config = toy()
    state = build_state(config)
    save_state(tmp_path / "last.pt", state, config)
    return config, tmp_path, state


@pytest.mark.parametrize("kind", ["truncated", "start", "empty", "text", "list", "keys", "code"])
def test_a_broken_state_is_refused_in_one_line(
    saved: tuple[TrainConfig, Path, TrainingState], kind: str
) -> None:
    config, folder, _ = saved
    path = folder / "last.pt"
    whole = path.read_bytes()
    if kind == "list":
        torch.save([1, 2, 3], path)
    elif kind == "keys":
        torch.save({"config": json.dumps(config.to_dict()), "network": {}}, path)
    elif kind == "code":
        torch.save({"config": Path("x"), "call": print}, path)
    else:
        half = len(whole) // 2
        contents = {"truncated": whole[:half], "start": whole[:100], "empty": b"", "text": b"hi\n"}
        path.write_bytes(contents[kind])
    broken = path.read_bytes()
    with pytest.raises(CheckpointError, match="training state .*last.pt: cannot be read") as caught:
        train(config, folder, resume=True)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == broken
    assert [entry.name for entry in folder.iterdir()] == ["last.pt"]


def test_a_state_of_another_network_is_refused(
    saved: tuple[TrainConfig, Path, TrainingState], toy: Make
) -> None:
    config, folder, _ = saved
    values = config.model.to_dict()
    values["rope_base"] = 50.0  # the same shapes, another network
    other = toy(model=type(config.model).from_dict(values))
    with pytest.raises(CheckpointError, match="another network than the configuration's"):
        train(other, folder, resume=True)


def test_the_configuration_decides_over_a_stored_optimiser(
    saved: tuple[TrainConfig, Path, TrainingState], toy: Make
) -> None:
    _, folder, _ = saved
    changed = toy(weight_decay=0.3, stem_learning_rate_scale=0.7)
    groups = load_state(folder / "last.pt", changed).optimizer.param_groups
    assert {group["weight_decay"] for group in groups} == {0.0, 0.3}
    assert {group["scale"] for group in groups} == {1.0, 0.7}


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_save_that_breaks_keeps_the_last_state(
    saved: tuple[TrainConfig, Path, TrainingState],
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
) -> None:
    config, folder, state = saved
    before = (folder / "last.pt").read_bytes()

    def breaking(values: Any, path: Path) -> None:
        path.write_bytes(before[:1000])
        raise error

    monkeypatch.setattr(torch, "save", breaking)
    state.step = 5
    if isinstance(error, OSError):
        with pytest.raises(CheckpointError, match="cannot be written: .*No space left") as caught:
            save_state(folder / "last.pt", state, config)
        assert len(str(caught.value).splitlines()) == 1
    else:
        with pytest.raises(KeyboardInterrupt):
            save_state(folder / "last.pt", state, config)
    assert (folder / "last.pt").read_bytes() == before
    assert [entry.name for entry in folder.iterdir()] == ["last.pt"]
    assert load_state(folder / "last.pt", config).step == 0


def test_a_file_too_large_for_the_disk_keeps_the_last_state(
    saved: tuple[TrainConfig, Path, TrainingState],
) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    config, folder, state = saved
    before = (folder / "last.pt").read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))
    try:
        with pytest.raises(CheckpointError, match="last.pt: cannot be written") as caught:
            save_state(folder / "last.pt", state, config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(str(caught.value).splitlines()) == 1
    assert (folder / "last.pt").read_bytes() == before
    assert [entry.name for entry in folder.iterdir()] == ["last.pt"]


def test_the_stream_takes_the_sources_once(toy: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[TrainConfig] = []
    build = datasets.build_sources
    monkeypatch.setattr(datasets, "build_sources", lambda c: (calls.append(c), build(c))[1])
    PairStream(toy()).batch(0)
    assert len(calls) == 1
