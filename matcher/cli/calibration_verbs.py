"""``calibrate``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import torch
import typer

from matcher.checkpoints import load_checkpoint, save_native
from matcher.cli.app import app, say, write_json
from matcher.errors import InputError
from matcher.training.calibrate import CalibrationOptions, draw_known_pairs, fit_calibration

__all__ = ["calibrate"]


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
