"""``train`` and ``calibrate``."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from matcher.checkpoints import load_checkpoint, save_native
from matcher.cli.app import app, say, write_json
from matcher.errors import InputError, MissingDependencyError
from matcher.training.calibrate import CalibrationOptions, draw_known_pairs, fit_calibration
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.plot import plot_log
from matcher.training.train import LAST_NAME, LOG_NAME, MODEL_NAME, StepReport, report_record
from matcher.training.train import train as run_training

__all__ = ["calibrate", "train"]

_log = logging.getLogger(__name__)


@app.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    config: Annotated[
        Path | None, typer.Option(help="A config.json of another run; options override it.")
    ] = None,
    scenes: Annotated[
        list[Path] | None, typer.Option(help="Folder of rendered scenes (matcher.synthetic.pool).")
    ] = None,
    photos: Annotated[list[Path] | None, typer.Option(help="Folder of photographs.")] = None,
    pairs: Annotated[list[Path] | None, typer.Option(help="Manifest of matched pairs.")] = None,
    views: Annotated[list[Path] | None, typer.Option(help="Manifest of posed depth views.")] = None,
    max_minutes: Annotated[float | None, typer.Option(help="Bound of the whole run.")] = None,
    image_size: Annotated[int | None, typer.Option(help="One resolution for all of it.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pairs a step, with --image-size.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of the training.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    from_scratch: Annotated[
        bool, typer.Option("--from-scratch", help="Do not start from the ImageNet trunk.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Train a model, bounded in time; stop it at will and --resume it later."""
    if resume and not (out / LAST_NAME).exists():
        raise InputError("--resume", f"a run in --out ({LAST_NAME})", f"{out}")
    chosen = _read_config(out / "config.json" if resume and config is None else config)
    changes: dict[str, Any] = {}
    sources = {"scene_pools": scenes, "photos": photos, "pair_manifests": pairs}
    sources |= {"view_manifests": views}
    given: dict[str, Any] = {
        name: tuple(map(str, paths)) for name, paths in sources.items() if paths
    }
    if given:
        changes["data"] = dataclasses.replace(chosen.data, **given)
    for name, value in (
        ("max_minutes", max_minutes),
        ("device", device),
        ("num_threads", threads),
        ("seed", seed),
        ("initialise", "random" if from_scratch else None),
    ):
        if value is not None:
            changes[name] = value
    if image_size is not None:
        changes["stages"] = (Stage(1.0, image_size, batch_size or 4),)
    elif batch_size is not None:
        raise InputError("--batch-size", "--image-size beside it", "--batch-size alone")
    chosen = dataclasses.replace(chosen, **changes)
    if chosen.data == DataConfig():
        raise InputError("--photos, --scenes, --pairs, --views", "at least one source", "none")
    last = _run(chosen, out, resume)
    curve = _plot(out)
    if as_json:
        write_json(
            {
                "model": str(out / MODEL_NAME),
                "curve": None if curve is None else str(curve),
                "last": None if last is None else report_record(last),
            }
        )
    else:
        say(f"wrote {out / MODEL_NAME}" + ("" if curve is None else f" and {curve}"))


@app.command()
def calibrate(
    model: Annotated[str, typer.Argument(help="Name or file of a checkpoint.")],
    out: Annotated[Path, typer.Option(help="Where to write it with its calibration.")],
    scenes: Annotated[
        list[Path] | None, typer.Option(help="Folder of rendered scenes it was not trained on.")
    ] = None,
    photos: Annotated[
        list[Path] | None, typer.Option(help="Folder of photographs it was not trained on.")
    ] = None,
    pairs: Annotated[int, typer.Option(help="How many pairs to match.")] = 240,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Fit a model's match confidence to the truth, and store the mapping with its weights."""
    if out.suffix != ".safetensors" or not out.parent.is_dir():
        raise InputError("--out", "a .safetensors file in a folder that exists", f"{out}")
    options = CalibrationOptions(num_pairs=pairs, seed=seed)
    loaded = load_checkpoint(model)
    known = draw_known_pairs(
        [str(path) for path in scenes or ()], [str(path) for path in photos or ()], options
    )
    calibration, report = fit_calibration(loaded.network, known, options)
    info = dataclasses.replace(loaded.info, calibration=calibration)
    save_native(out, loaded.network, info, dtype=torch.float16)
    if as_json:
        write_json({"model": str(out), **dataclasses.asdict(report)})
    else:
        say(
            f"wrote {out}; on pairs left out of the fit: expected calibration error "
            f"{report.expected_calibration_error:.3f}, ROC area of matches {report.match_auc:.3f}, "
            f"of pairs {report.pair_auc:.3f}"
        )


def _plot(out: Path) -> Path | None:
    """The picture of the curve; without matplotlib the run is no less a success."""
    curve = out / "curve.png"
    try:
        plot_log(out / LOG_NAME, curve)
    except MissingDependencyError as error:
        _log.warning("%s", error)
        return None
    return curve


def _read_config(path: Path | None) -> TrainConfig:
    if path is None:
        return TrainConfig()
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise InputError("--config", "a config.json", f"{path} ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError("--config", "JSON", f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise InputError("--config", "a JSON object", f"{path}")
    return TrainConfig.from_dict(values)


def _run(config: TrainConfig, out: Path, resume: bool) -> StepReport | None:
    last: StepReport | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # On standard error: standard output is for the answer.
    console = Console(stderr=True)
    bar = Progress(*columns, transient=True, console=console, disable=not console.is_terminal)
    with bar as progress:
        task = progress.add_task("starting", total=1.0)

        def show(report: StepReport) -> None:
            nonlocal last
            last = report
            text = (
                f"step {report.step}  {report.pairs_per_second:.1f} pairs/s  "
                f"points {report.losses.pointmap_error:.3f}  "
                f"matching {report.losses.matching_error:.3f}"
            )
            progress.update(task, completed=min(1.0, report.progress), description=text)

        run_training(config, out, resume=resume, on_report=show)
    return last
