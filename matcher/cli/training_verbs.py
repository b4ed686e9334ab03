"""``train`` and ``pretrain``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer

from matcher.checkpoints import load_checkpoint
from matcher.cli.app import app
from matcher.cli.training_runs import (
    chosen_config,
    data_changes,
    finish,
    run_session,
    stage_changes,
)
from matcher.errors import InputError
from matcher.training.config import ConfigT, PretrainConfig, TrainConfig
from matcher.training.pretrain import PICTURE_NAME
from matcher.training.pretrain import pretrain as run_pretraining
from matcher.training.train import train as run_training

__all__ = ["pretrain", "train"]

_Out = Annotated[Path, typer.Option(help="Folder of the run.")]
_Config = Annotated[
    Path | None, typer.Option(help="A config.json of another run; options override it.")
]
_Data = Annotated[
    list[Path] | None, typer.Option(help="Manifest of views, of pairs or of both (docs/training).")
]
_Scenes = Annotated[
    list[Path] | None, typer.Option(help="Folder of rendered scenes (matcher.synthetic.pool).")
]
_Photos = Annotated[list[Path] | None, typer.Option(help="Folder of photographs.")]
_Pairs = Annotated[list[Path] | None, typer.Option(help="Manifest of matched pairs.")]
_Views = Annotated[list[Path] | None, typer.Option(help="Manifest of posed depth views.")]
_Minutes = Annotated[float | None, typer.Option(help="Bound of the whole run.")]
_Steps = Annotated[
    int | None, typer.Option(help="Bound in steps, which learning rate and stages then follow.")
]
_ImageSize = Annotated[int | None, typer.Option(help="One resolution for all of it.")]
_BatchSize = Annotated[int | None, typer.Option(help="Pairs a step, with --image-size.")]
_Freeze = Annotated[
    list[str] | None, typer.Option(help="stem, encoder, decoder or heads: does not learn.")
]
_Device = Annotated[str | None, typer.Option(help="cpu or cuda.")]
_Threads = Annotated[int | None, typer.Option(help="CPU threads of the training.")]
_Rate = Annotated[float | None, typer.Option(help="Peak of the learning rate.")]
_Initialise = Annotated[
    str | None, typer.Option(help="Name or file of a checkpoint to start from, with its network.")
]
_Licence = Annotated[
    str | None, typer.Option(help="Of the weights; it follows from your data and --initialise.")
]
_Resume = Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")]
_Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
_Scratch = Annotated[
    bool, typer.Option("--from-scratch", help="Do not start from the ImageNet trunk.")
]


@app.command()
def train(
    out: _Out,
    config: _Config = None,
    data: _Data = None,
    scenes: _Scenes = None,
    photos: _Photos = None,
    pairs: _Pairs = None,
    views: _Views = None,
    initialise: _Initialise = None,
    freeze: _Freeze = None,
    max_minutes: _Minutes = None,
    max_steps: _Steps = None,
    image_size: _ImageSize = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    device: _Device = None,
    threads: _Threads = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    licence: _Licence = None,
    from_scratch: _Scratch = False,
    resume: _Resume = False,
    as_json: _Json = False,
) -> None:
    """Train or fine-tune a model, bounded in time; stop it at will and --resume it later."""
    start = chosen_config(TrainConfig, out, config, resume)
    start = _with_start(start, initialise, from_scratch, resume)
    start = _with_values(
        start,
        max_minutes=max_minutes,
        max_steps=max_steps,
        learning_rate=learning_rate,
        device=device,
        num_threads=threads,
        seed=seed,
        licence=licence,
    )
    start = data_changes(start, data, scenes, photos, pairs, views)
    start = stage_changes(start, image_size, batch_size, freeze)
    last = run_session(run_training, start, out, resume, "train")
    finish(out, last, as_json)


@app.command()
def pretrain(
    out: _Out,
    config: _Config = None,
    data: _Data = None,
    scenes: _Scenes = None,
    photos: _Photos = None,
    pairs: _Pairs = None,
    views: _Views = None,
    initialise: _Initialise = None,
    mask_ratio: Annotated[
        float | None, typer.Option(help="Share of the first view that is hidden.")
    ] = None,
    max_minutes: _Minutes = None,
    max_steps: _Steps = None,
    image_size: _ImageSize = None,
    batch_size: _BatchSize = None,
    learning_rate: _Rate = None,
    device: _Device = None,
    threads: _Threads = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    from_scratch: _Scratch = False,
    resume: _Resume = False,
    as_json: _Json = False,
) -> None:
    """Pretrain by masked cross-view completion; train --initialise goes on from its model."""
    start = chosen_config(PretrainConfig, out, config, resume)
    start = _with_start(start, initialise, from_scratch, resume)
    start = _with_values(
        start,
        max_minutes=max_minutes,
        max_steps=max_steps,
        learning_rate=learning_rate,
        device=device,
        num_threads=threads,
        seed=seed,
        mask_ratio=mask_ratio,
    )
    start = data_changes(start, data, scenes, photos, pairs, views)
    start = stage_changes(start, image_size, batch_size, None)
    last = run_session(run_pretraining, start, out, resume, "pretrain")
    finish(out, last, as_json, picture=out / PICTURE_NAME)


def _with_start(
    config: ConfigT, initialise: str | None, from_scratch: bool, resume: bool
) -> ConfigT:
    """The configuration with the weights that a run starts from, and with their network."""
    if from_scratch and initialise is not None:
        raise InputError("--from-scratch", "it or --initialise", "both")
    if resume and (from_scratch or initialise is not None):
        raise InputError("--resume", "no other weights than those of --out", "other weights")
    if from_scratch:
        return dataclasses.replace(config, initialise="random")
    if initialise is None:
        return config
    loaded = load_checkpoint(initialise)
    # What has been trained needs no time at rest; what is not ours keeps its licence.
    licence = config.licence if loaded.info.layout == "native" else loaded.info.licence
    return dataclasses.replace(
        config,
        initialise=initialise,
        model=loaded.network.config,
        stem_frozen_until=0.0,
        licence=licence,
    )


def _with_values(config: ConfigT, **values: object) -> ConfigT:
    """The configuration with what was given on the command line."""
    given: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    return dataclasses.replace(config, **given)
