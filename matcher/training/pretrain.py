"""Pretrain by masked cross-view completion; ``train`` starts from what comes out."""

from __future__ import annotations

import copy
import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from matcher.checkpoints import CheckpointInfo, save_native
from matcher.images.writing import write_picture
from matcher.training.completion import (
    CompletionNetwork,
    CompletionTerms,
    blank_hidden,
    completed_image,
    completion_terms,
    random_hidden,
)
from matcher.training.config import PretrainConfig, Stage
from matcher.training.datasets import PairStream, held_out_photos
from matcher.training.distributed import World, joined
from matcher.training.loop import MODEL_NAME, Listener, Loop, open_run, session_folder
from matcher.training.samples import TrainingBatch
from matcher.training.sheets import RgbArray, picture_rows, to_bytes
from matcher.training.state import (
    LAST_NAME,
    TrainingState,
    device_of,
    initial_network,
    new_state,
    restore,
    without_own_points,
)
from matcher.training.steps import step_precision
from matcher.training.validate import make_validation_set

__all__ = [
    "PICTURE_NAME",
    "CompletionObjective",
    "CompletionResult",
    "build_completion_state",
    "draw_completions",
    "pretrain",
]

PICTURE_NAME = "completions.png"
_PICTURE_PAIRS = 6
_PICTURE_SEED = 77_001
_VALIDATION_SEED = 77_002
_MASK_STREAM = 1
"""Beside seed and step: the masks are drawn apart from the pairs."""


@dataclass(frozen=True, slots=True)
class CompletionResult:
    """Mean squared error of normalised hidden patches on held-out photographs."""

    completion_error: float


def build_completion_state(config: PretrainConfig) -> TrainingState[CompletionNetwork]:
    """A fresh completion network around the initial two-view network; raises as that does.

    Only the shared trunk is pretrained: what starts from it copies blocks for its pointmaps.
    """
    two_view = initial_network(config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed + 1)
        two_view = without_own_points(two_view)
        network = CompletionNetwork(two_view, config.mask_ratio)
    return new_state(network, config)


@dataclass(frozen=True, slots=True, eq=False)
class CompletionObjective:
    """Completion of view 0 from its visible patches and view 1.

    Attributes:
        config: the run.
        world: this process among those of the run.
        validation: prepared batches of held-out photographs; empty: nothing is measured.
        pictured: the batch that the picture shows, or ``None``.
    """

    config: PretrainConfig
    world: World
    validation: list[TrainingBatch]
    pictured: TrainingBatch | None

    def forward(self, network: CompletionNetwork) -> nn.Module:
        """The whole network."""
        return network

    def loss(
        self,
        network: CompletionNetwork,
        batch: TrainingBatch,
        stage: Stage,
        step: int,
        forward: Any,
    ) -> CompletionTerms:
        """The error of the hidden patches; which are hidden follows from seed and step."""
        rows = len(batch.sources)
        random = np.random.default_rng([self.config.seed, step, _MASK_STREAM])
        everyone = self._hidden(random, batch.pixels0, rows * self.world.size)
        start = self.world.rank * rows
        hidden = everyone[start : start + rows].to(batch.pixels0.device)
        with step_precision(batch.pixels0.device.type, self.config):
            patches = forward(batch.pixels0, batch.pixels1, hidden)
        return completion_terms(patches, batch.pixels0, hidden, self.config.model.patch_size)

    @torch.inference_mode()
    def validate(self, average: CompletionNetwork) -> CompletionResult | None:
        """The error on held-out photographs, always with the same masks."""
        random = np.random.default_rng(_VALIDATION_SEED)
        errors = []
        for batch in self.validation:
            moved = batch.to(self.world.device)
            hidden = self._hidden(random, moved.pixels0, len(batch.sources))
            hidden = hidden.to(self.world.device)
            patches = average(moved.pixels0, moved.pixels1, hidden)
            size = self.config.model.patch_size
            errors.append(float(completion_terms(patches, moved.pixels0, hidden, size).total))
        return CompletionResult(float(np.mean(errors))) if errors else None

    def export(self, folder: Path, state: TrainingState[CompletionNetwork]) -> None:
        """The averaged two-view network, and the picture of completions."""
        notes = (
            f"encoder and decoder pretrained by masked completion ({state.step} steps, "
            f"{state.pairs} pairs, {state.seconds / 60:.0f} minutes); its heads know nothing"
        )
        info = CheckpointInfo(
            folder.resolve().name, self.config.licence, layout="native", notes=notes
        )
        save_native(folder / MODEL_NAME, state.average.two_view, info, dtype=torch.float16)
        if self.pictured is not None:
            random = np.random.default_rng(_PICTURE_SEED)
            batch = self.pictured.to(self.world.device)
            hidden = self._hidden(random, batch.pixels0, len(batch.sources))
            sheet = draw_completions(state.average, batch, hidden.to(self.world.device))
            write_picture(folder / PICTURE_NAME, sheet)

    def _hidden(self, random: np.random.Generator, pixels: Tensor, rows: int) -> Tensor:
        patch = self.config.model.patch_size
        count = (pixels.shape[2] // patch) * (pixels.shape[3] // patch)
        return random_hidden(random, rows, count, self.config.mask_ratio)


@torch.inference_mode()
def draw_completions(network: CompletionNetwork, batch: TrainingBatch, hidden: Tensor) -> RgbArray:
    """(H, W, 3) uint8: a row a pair: input, masked, completed, second view.

    Args:
        network: in evaluation mode.
        batch: pairs on its device.
        hidden: (B, N) bool, the hidden patches.
    """
    patch = network.two_view.config.patch_size
    patches = network(batch.pixels0, batch.pixels1, hidden)
    columns = (
        batch.pixels0,
        blank_hidden(batch.pixels0, hidden, patch),
        completed_image(patches, batch.pixels0, hidden, patch),
        batch.pixels1,
    )
    rows = [[to_bytes(column[row]) for column in columns] for row in range(len(batch.sources))]
    return picture_rows(rows, ("input", "visible", "completed", "second view"))


def pretrain(
    config: PretrainConfig,
    output_dir: str | os.PathLike[str],
    *,
    resume: bool = False,
    on_report: Listener | None = None,
    report_every: int = 20,
) -> TrainingState[CompletionNetwork]:
    """Pretrain until the minutes or the steps of ``config`` are spent, over all resumed parts.

    Writes what ``train`` writes; ``model.safetensors`` is a two-view network whose heads are as
    they were, made to be the ``initialise`` of a training; ``completions.png`` shows six pairs.

    Args:
        config: the run.
        output_dir: created if missing.
        resume: continue from ``last.pt`` in ``output_dir``.
        on_report: called with every log line.
        report_every: steps between log lines.

    Raises:
        InputError, CheckpointError, DatasetError, Interrupted: as ``train``.
    """
    folder = session_folder(output_dir, report_every, resume)
    with joined(device_of(config.device)) as world:
        start = dataclasses.replace(config, initialise="random") if resume else config
        state = build_completion_state(start)
        if resume:
            restore(folder / LAST_NAME, state, config)
        stream = PairStream(config, state.step, rank=world.rank, world_size=world.size)
        pictured = _pictured(stream) if world.is_first else None
        photos = held_out_photos(config) if config.data.photos and world.is_first else []
        validation = make_validation_set(photos) if photos else []
        if world.is_first:
            open_run(folder, config, state.step, resume)
        objective = CompletionObjective(config, world, validation, pictured)
        Loop(config, folder, state, objective, world, on_report, report_every).run(stream)
    return state


def _pictured(stream: PairStream) -> TrainingBatch:
    """Pairs of the training's sources, drawn with another seed, at the last stage's size."""
    config, alone = stream.config, copy.copy(stream)
    last = dataclasses.replace(config.stages[-1], until=1.0, batch_size=_PICTURE_PAIRS)
    alone.config = dataclasses.replace(config, seed=config.seed + _PICTURE_SEED, stages=(last,))
    alone.rank, alone.world_size = 0, 1
    alone.set_stage(0)
    return alone.batch(0)
