"""``data validate`` and ``data from-colmap``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from matcher.cli.app import EXIT_USAGE, app, fail, say, write_json
from matcher.cli.training_runs import data_changes
from matcher.images.writing import check_picture_path, write_picture
from matcher.training.colmap_pairs import pairs_from_reconstruction
from matcher.training.config import Stage, TrainConfig
from matcher.training.data_check import ManifestReport, check_manifest
from matcher.training.datasets import PairStream
from matcher.training.draw_batch import draw_batch
from matcher.training.guided_matches import GuidedOptions

__all__ = ["from_colmap", "validate"]

_PAIRS_NAME = "pairs.jsonl"
data_app = typer.Typer(help="Training data: check a manifest, make one.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def validate(
    manifest: Annotated[Path, typer.Argument(help="Manifest of views, of pairs or of both.")],
    draw: Annotated[Path | None, typer.Option(help="Picture of what the losses see.")] = None,
    samples: Annotated[int, typer.Option(min=1, max=32, help="Pairs in the picture.")] = 6,
    image_size: Annotated[int, typer.Option(min=32, help="Their side, pixels.")] = 224,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Read every file of a manifest, and draw what a training would see of it."""
    if draw is not None:
        check_picture_path(draw)
    report = check_manifest(manifest)
    drawn = draw if report.is_valid and report.num_views + report.num_pairs else None
    if drawn is not None:
        stage = Stage(1.0, image_size, samples)
        config = TrainConfig(seed=seed, stages=(stage,), initialise="random", num_workers=0)
        batch = PairStream(data_changes(config, [manifest], None, None, None, None)).batch(0)
        write_picture(drawn, draw_batch(batch))
    if as_json:
        write_json(
            {**dataclasses.asdict(report), "manifest": str(manifest), "valid": report.is_valid}
        )
    else:
        _say_report(report, drawn)
    if not report.is_valid:
        raise SystemExit(EXIT_USAGE)


@data_app.command()
def from_colmap(
    model: Annotated[Path, typer.Argument(help="Folder of a COLMAP model.")],
    images: Annotated[Path, typer.Option(help="Folder of its photographs.")],
    out: Annotated[Path, typer.Option(help="Receives pairs.jsonl and undistorted photographs.")],
    min_shared_points: Annotated[
        int, typer.Option(min=1, help="Points that two photographs share to make a pair.")
    ] = 40,
    guided: Annotated[
        bool, typer.Option("--guided", help="Add matches along the epipolar lines.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Turn a COLMAP model into training pairs; needs the extra colmap."""
    pairs = pairs_from_reconstruction(
        model,
        images,
        out,
        min_shared_points=min_shared_points,
        guided=GuidedOptions() if guided else None,
    )
    written = out / _PAIRS_NAME
    if as_json:
        write_json({"manifest": str(written), "pairs": len(pairs)})
    else:
        say(f"wrote {written}: {len(pairs)} pairs; look at them: widebase data validate {written}")


def _say_report(report: ManifestReport, drawn: Path | None) -> None:
    for problem in report.problems:
        text = f"{report.manifest}:{problem.line}: {problem.message}"
        if problem.is_error:
            fail(text)
        else:
            say(f"left out: {text}")
    errors = sum(problem.is_error for problem in report.problems)
    say(
        f"{report.manifest}: {report.num_views} views with depth and {report.num_pairs} pairs with "
        f"{report.num_matches} matches in {report.num_groups} places; {errors} errors, "
        f"{len(report.problems) - errors} lines left out"
        + ("" if drawn is None else f"; wrote {drawn}")
    )
