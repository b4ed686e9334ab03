"""Train a network to match: bounded, resumable, logged, the same on a CPU and on a GPU."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from matcher.checkpoints import CheckpointInfo, save_native
from matcher.model.network import TwoViewNetwork
from matcher.training.config import Stage, TrainConfig
from matcher.training.datasets import PairStream, held_out_photos
from matcher.training.distributed import World, joined
from matcher.training.loop import (
    LOG_NAME,
    MODEL_NAME,
    Listener,
    Loop,
    open_run,
    session_folder,
)
from matcher.training.losses import LossTerms
from matcher.training.reports import StepReport, report_record
from matcher.training.samples import TrainingBatch
from matcher.training.state import (
    LAST_NAME,
    TrainingState,
    build_state,
    device_of,
    load_state,
    save_state,
)
from matcher.training.steps import RawForward, compute_loss
from matcher.training.validate import ValidationResult, make_validation_set, validate

__all__ = [
    "LAST_NAME",
    "LOG_NAME",
    "MODEL_NAME",
    "StepReport",
    "TrainingState",
    "build_state",
    "compute_loss",
    "export_model",
    "load_state",
    "report_record",
    "save_state",
    "train",
]


def export_model(
    path: Path,
    state: TrainingState[TwoViewNetwork],
    *,
    name: str = "",
    licence: str = "unknown",
    notes: str = "",
) -> CheckpointInfo:
    """Write the averaged weights as a checkpoint of our own format, float16.

    Args:
        path: the file.
        state: a run.
        name: how to call the model; by default the folder's name.
        licence: of the weights; it follows from the training data and the initial weights, which
            only the caller knows.
        notes: for the model card.
    """
    recipe = notes or f"{state.step} steps, {state.pairs} pairs, {state.seconds / 60:.0f} minutes"
    info = CheckpointInfo(
        name=name or path.resolve().parent.name, licence=licence, layout="native", notes=recipe
    )
    return save_native(path, state.average, info, dtype=torch.float16)


@dataclass(frozen=True, slots=True, eq=False)
class MatchingObjective:
    """Matching and pointmaps.

    Attributes:
        config: the run.
        world: this process among those of the run.
        validation: prepared batches of held-out photographs; empty: nothing is measured.
    """

    config: TrainConfig
    world: World
    validation: list[TrainingBatch]

    def forward(self, network: TwoViewNetwork) -> nn.Module:
        """The raw maps of both views."""
        return RawForward(network)

    def loss(
        self, network: TwoViewNetwork, batch: TrainingBatch, stage: Stage, step: int, forward: Any
    ) -> LossTerms:
        """The losses of a batch, with the weights of its stage."""
        return compute_loss(
            network, batch, self.config, stage=stage, forward=forward, mean=self.world.masked_mean
        )

    def validate(self, average: TwoViewNetwork) -> ValidationResult | None:
        """How well descriptors find their counterparts on held-out photographs."""
        return validate(average, self.validation) if self.validation else None

    def export(self, folder: Path, state: TrainingState[TwoViewNetwork]) -> None:
        """The averaged weights."""
        export_model(folder / MODEL_NAME, state, licence=self.config.licence)


def train(
    config: TrainConfig,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    on_report: Listener | None = None,
    report_every: int = 20,
) -> TrainingState[TwoViewNetwork]:
    """Train until the minutes or the steps of ``config`` are spent, over all resumed parts.

    Writes ``config.json``, ``log.jsonl`` (a line every ``report_every`` steps), ``last.pt`` and
    ``model.safetensors`` (at least every ``checkpoint_minutes``, at the end, and before an
    interrupt is passed on) into ``output_dir``. A run that is over is left as it is.

    Under ``torchrun`` the processes share every batch (``DistributedDataParallel``).

    Args:
        config: the run.
        output_dir: created if missing.
        resume: continue from ``last.pt`` in ``output_dir``.
        on_report: called with every log line, for a progress bar.
        report_every: steps between log lines.

    Raises:
        InputError: ``output_dir`` holds a run already and ``resume`` is false, or the other way
            round; it cannot be written; or the device is not there.
        CheckpointError, DatasetError: what is read is broken, or the state cannot be written.
        Interrupted: SIGINT or SIGTERM came; the step was finished and saved.
    """
    folder = session_folder(output_dir, report_every, resume)
    with joined(device_of(config.device)) as world:
        state = load_state(folder / LAST_NAME, config) if resume else build_state(config)
        stream = PairStream(config, state.step, rank=world.rank, world_size=world.size)
        photos = held_out_photos(config) if config.data.photos and world.is_first else []
        validation = make_validation_set(photos) if photos else []
        if world.is_first:
            open_run(folder, config, state.step, resume)
        objective = MatchingObjective(config, world, validation)
        Loop(config, folder, state, objective, world, on_report, report_every).run(stream)
    return state
