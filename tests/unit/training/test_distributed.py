"""Two processes that share every batch end where one process with the whole batch ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from matcher.training import distributed, validate
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.distributed import World, joined, prepared
from matcher.training.state import load_state
from matcher.training.train import train

Make = Callable[..., TrainConfig]
ROOT = Path(__file__).resolve().parents[3]
# Each process stores its own weights beside those that the first one saved.
PROGRAM = """
import json, sys, torch
from matcher.training.config import TrainConfig
from matcher.training.train import train
from matcher.training import validate
validate._NUM_PAIRS = 1
config = TrainConfig.from_dict(json.load(open(sys.argv[1])))
state = train(config, sys.argv[2], report_every=1)
import os
torch.save(state.network.state_dict(), sys.argv[2] + f"/rank{os.environ['RANK']}.pt")
"""


@pytest.mark.slow
def test_two_processes_train_as_one(
    toy: Make, photos: Path, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "_NUM_PAIRS", 1)
    # Homographies have no points: the processes count different numbers of pixels. The second
    # stage freezes parts, and has no pointmap loss.
    data = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), num_matches=64)
    stages = (
        Stage(0.5, 48, 4),
        Stage(1.0, 48, 4, pointmap_weight=0.0, frozen=("encoder",)),
    )
    config = toy(data=data, stages=stages, max_steps=4, max_minutes=60.0, learning_rate=1e-3)
    alone = train(config, tmp_path / "alone", report_every=1)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    arguments = [sys.executable, "-c", PROGRAM, tmp_path / "config.json", tmp_path / "shared"]
    processes = [
        subprocess.Popen(
            list(map(str, arguments)),
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    messages = [process.communicate(timeout=280)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], messages
    folder = tmp_path / "shared"
    ranks = [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    for name, value in ranks[0].items():
        assert torch.equal(value, ranks[1][name]), name
    shared = load_state(folder / "last.pt", config)
    assert (shared.step, shared.pairs) == (alone.step, alone.pairs) == (4, 16)
    moved = []
    start = train(toy(data=data, stages=stages, max_minutes=1e-9), tmp_path / "start").network
    for (name, one), both, first in zip(
        alone.network.named_parameters(),
        shared.network.parameters(),
        start.parameters(),
        strict=True,
    ):
        # Adam divides by a gradient's size: where it is noise, its sign is too.
        away = float((one - first).detach().norm())
        apart = float((one - both).detach().norm())
        assert apart <= 0.02 * away + 1e-6, (name, apart, away)
        moved.append(away)
    assert max(moved) > 1e-3
    logs = [
        [json.loads(line)["losses"] for line in (path / "log.jsonl").read_text().splitlines()]
        for path in (tmp_path / "alone", folder)
    ]
    for one, other in zip(*logs, strict=True):
        assert one["num_matches"] == other["num_matches"]
        assert one["num_pixels"] == other["num_pixels"]
        assert one["matching_error"] == pytest.approx(other["matching_error"], rel=1e-3)
        assert one["total"] == pytest.approx(other["total"], rel=1e-3)


def test_alone_without_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as world:
        assert world == World(0, 1, torch.device("cpu"))
        assert world.is_first
        assert world.agree(0.25, 3) == (0.25, 3)
        module = nn.Linear(2, 2)
        assert prepared(module, TrainConfig(device="cpu"), world) is module


@pytest.mark.parametrize(
    ("device", "option", "compiled"),
    [("cuda", True, True), ("cuda:1", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_steps_are_compiled_on_a_gpu_only(
    monkeypatch: pytest.MonkeyPatch, device: str, option: bool, compiled: bool
) -> None:
    seen: list[Any] = []

    def compiling(module: nn.Module) -> str:
        seen.append(module)
        return "fast"

    monkeypatch.setattr(distributed.torch, "compile", compiling)
    module = nn.Linear(2, 2)
    config = TrainConfig(device=device, compile_steps=option)
    called = prepared(module, config, World())
    assert seen == ([module] if compiled else [])
    assert called == ("fast" if compiled else module)
