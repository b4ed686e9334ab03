"""What ``train`` and ``pretrain`` share: their configuration, a session, and its end."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from matcher.cli.app import fail, say, write_json
from matcher.errors import InputError, MissingDependencyError
from matcher.training.config import ConfigT, DataConfig, RunConfig, Stage
from matcher.training.interrupts import Interrupted
from matcher.training.manifest import CorrespondencePair, PosedView, read_manifest
from matcher.training.plot import plot_log
from matcher.training.train import LAST_NAME, LOG_NAME, MODEL_NAME, StepReport, report_record

__all__ = ["chosen_config", "data_changes", "finish", "run_session", "stage_changes"]

_log = logging.getLogger(__name__)
Report = StepReport[Any, Any]


def chosen_config(kind: type[ConfigT], out: Path, config: Path | None, resume: bool) -> ConfigT:
    """The configuration to begin with: of a file, of the run that is resumed, or the usual one."""
    if resume and not (out / LAST_NAME).exists():
        raise InputError("--resume", f"a run in --out ({LAST_NAME})", f"{out}")
    path = out / "config.json" if resume and config is None else config
    if path is None:
        return kind()
    try:
        values = json.loads(path.read_text())
    except OSError as error:
        raise InputError("--config", "a config.json", f"{path} ({error.strerror})") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError("--config", "JSON", f"{path}: {error}") from None
    if not isinstance(values, dict):
        raise InputError("--config", "a JSON object", f"{path}")
    return kind.from_dict(values)


def data_changes(
    config: ConfigT,
    data: list[Path] | None,
    scenes: list[Path] | None,
    photos: list[Path] | None,
    pairs: list[Path] | None,
    views: list[Path] | None,
) -> ConfigT:
    """The configuration with the sources that were given, if any; there must be one."""
    pairs, views = list(pairs or ()), list(views or ())
    for manifest in data or ():
        records = read_manifest(manifest)
        has_pairs = any(isinstance(record, CorrespondencePair) for record in records)
        has_depth = any(isinstance(one, PosedView) and one.depth is not None for one in records)
        pairs += [manifest] if has_pairs else []
        views += [manifest] if has_depth or not has_pairs else []
    sources = {"scene_pools": scenes, "photos": photos, "pair_manifests": pairs}
    sources |= {"view_manifests": views}
    given: dict[str, Any] = {
        name: tuple(map(str, paths)) for name, paths in sources.items() if paths
    }
    if given:
        config = dataclasses.replace(config, data=dataclasses.replace(config.data, **given))
    if config.data == DataConfig():
        raise InputError("--data, --photos, --scenes, --pairs, --views", "one source", "none")
    return config


def stage_changes(
    config: ConfigT, image_size: int | None, batch_size: int | None, freeze: list[str] | None
) -> ConfigT:
    """The configuration with one resolution, and with parts that rest in every stage."""
    stages = config.stages
    if image_size is not None:
        stages = (Stage(1.0, image_size, batch_size or 4),)
    elif batch_size is not None:
        raise InputError("--batch-size", "--image-size beside it", "--batch-size alone")
    if freeze:
        stages = tuple(
            dataclasses.replace(stage, frozen=tuple(dict.fromkeys((*stage.frozen, *freeze))))
            for stage in stages
        )
    return dataclasses.replace(config, stages=stages)


def run_session(
    run: Callable[..., Any], config: RunConfig, out: Path, resume: bool, verb: str
) -> Report | None:
    """Run until the end or an interrupt, with a bar; says how to go on after an interrupt."""
    last: Report | None = None
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    # On standard error: standard output is for the answer.
    console = Console(stderr=True)
    bar = Progress(*columns, transient=True, console=console, disable=not console.is_terminal)
    command = f"widebase {verb} --out {out} --resume"
    try:
        with bar as progress:
            task = progress.add_task("starting", total=1.0)

            def show(report: Report) -> None:
                nonlocal last
                last = report
                text = f"step {report.step}  {report.pairs_per_second:.1f} pairs/s  {_text(report)}"
                progress.update(task, completed=min(1.0, report.progress), description=text)

            run(config, out, resume=resume, on_report=show)
    except Interrupted as wish:
        if _is_first():
            fail(f"stopped after step {wish.step}, which is saved; to go on: {command}")
        raise SystemExit(128 + wish.signal_number) from None
    except KeyboardInterrupt:
        if _is_first():
            kept = (out / LAST_NAME).exists()
            how = f"the last saved step is kept; to go on: {command}" if kept else "nothing is kept"
            fail(f"interrupted in the middle of a step; {how}")
        raise SystemExit(128 + signal.SIGINT) from None
    return last


def finish(out: Path, last: Report | None, as_json: bool, picture: Path | None = None) -> None:
    """Draw the curve and say what was written."""
    if not _is_first():
        return
    curve = _plot(out)
    files = [out / MODEL_NAME, *([curve] if curve else []), *([picture] if picture else [])]
    if as_json:
        answer = {
            "model": str(out / MODEL_NAME),
            "curve": None if curve is None else str(curve),
            "last": None if last is None else report_record(last),
        }
        write_json(answer if picture is None else {**answer, "picture": str(picture)})
    else:
        say("wrote " + " and ".join(map(str, files)))


def _text(report: Report) -> str:
    losses = report.losses
    if hasattr(losses, "matching_error"):
        return f"points {losses.pointmap_error:.3f}  matching {losses.matching_error:.3f}"
    return f"completion {losses.total:.3f}"


def _is_first() -> bool:
    """Whether this is the process that speaks, of those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


def _plot(out: Path) -> Path | None:
    """The picture of the curve; without matplotlib the run is no less a success."""
    curve = out / "curve.png"
    try:
        plot_log(out / LOG_NAME, curve)
    except MissingDependencyError as error:
        _log.warning("%s", error)
        return None
    return curve
