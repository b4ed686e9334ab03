"""``map build`` and ``localize``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from matcher import Matcher
from matcher.cli import pair_verbs
from matcher.cli.app import EXIT_NO_ANSWER, app, fail, progress_bar, say, write_json
from matcher.cli.pair_verbs import (
    AsJson,
    CropChoice,
    Crops,
    Device,
    Draw,
    ModelName,
    PrecisionChoice,
    PrecisionName,
    Seed,
    TurnChoice,
    Turns,
)
from matcher.drawing import check_picture_path
from matcher.errors import InputError
from matcher.geometry.camera import parse_camera
from matcher.localization import AbsolutePose, LocalizationOptions, ReferenceMap
from matcher.localization.batch import localize_queries, read_query_list, write_submission
from matcher.localization.map_files import MAP_NAME
from matcher.localization.options import default_pair_options
from matcher.photographs import PHOTOGRAPH_SUFFIXES, file_sha256

__all__ = ["build_map", "localize"]

_LOG_SUFFIX = ".log.jsonl"
_SUMMARY, _MODEL = "summary.json", "colmap"

map_app = typer.Typer(help="Maps to localize photographs in.", no_args_is_help=True)
app.add_typer(map_app, name="map")


@map_app.command("build")
def build_map(
    out: Annotated[Path, typer.Option(help="Folder of the map.")],
    colmap: Annotated[Path | None, typer.Option(help="Folder of a COLMAP model.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the model's image names are relative to.")
    ] = None,
    rgbd: Annotated[
        Path | None,
        typer.Option(help="File with image, depth, K, cam_from_world as JSON on each line."),
    ] = None,
    reconstruction: Annotated[
        Path | None, typer.Option(help="Folder that widebase reconstruct wrote.")
    ] = None,
    metric: Annotated[
        bool, typer.Option("--metric", help="The COLMAP model is in metres.")
    ] = False,
    retrieval: Annotated[
        bool, typer.Option(help="Also make the index that finds references for a query.")
    ] = True,
    model: ModelName = "small",
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Make a map of photographs with depth and poses, or of a COLMAP model."""
    scene = _source(colmap, reconstruction, rgbd, images, metric)
    if out.exists() and not (out / MAP_NAME).is_file():
        raise InputError("--out", "a new folder, or one that holds a map", f"{out}")
    matcher = pair_verbs.load_matcher(model, device, default_pair_options()) if retrieval else None
    if matcher is not None:
        with progress_bar("encoding") as show:
            scene = scene.with_retrieval(matcher, progress=show)
    scene.save(out)
    values: dict[str, Any] = {
        "map": str(out),
        "num_references": len(scene),
        "missing": dict(scene.missing),
        "is_metric": scene.is_metric,
        "model": None if matcher is None else matcher.info.name,
        "licence": None if matcher is None else matcher.info.licence,
    }
    if as_json:
        write_json(values)
        return
    say(f"wrote {out}: {len(scene)} references")
    for name, reason in scene.missing.items():
        say(f"left out {name}: {reason}")


def _source(
    colmap: Path | None,
    reconstruction: Path | None,
    rgbd: Path | None,
    images: Path | None,
    is_metric: bool,
) -> ReferenceMap:
    given = [source for source in (colmap, reconstruction, rgbd) if source is not None]
    if len(given) != 1:
        raise InputError("--colmap, --reconstruction, --rgbd", "one of them", f"{len(given)}")
    if rgbd is not None:
        return ReferenceMap.from_rgbd_list(rgbd)
    if images is None:
        raise InputError("--images", "the folder of the photographs", "nothing")
    if colmap is not None:
        return ReferenceMap.from_colmap(colmap, images=images, is_metric=is_metric)
    assert reconstruction is not None
    try:
        summary = json.loads((reconstruction / _SUMMARY).read_text(encoding="utf-8"))
        is_metric = is_metric or bool(summary["is_metric"])
    except (OSError, ValueError, KeyError, TypeError):
        expected = f"a folder that widebase reconstruct wrote ({_SUMMARY})"
        raise InputError("--reconstruction", expected, f"{reconstruction}") from None
    return ReferenceMap.from_colmap(reconstruction / _MODEL, images=images, is_metric=is_metric)


@app.command()
def localize(
    query: Annotated[Path | None, typer.Argument(help="A photograph.", show_default=False)] = None,
    scene: Annotated[
        Path, typer.Option("--map", help="Folder of a map (map build), or one photograph.")
    ] = Path(),
    camera: Annotated[
        str | None, typer.Option(help="fx,fy,cx,cy of the query, in its pixels.")
    ] = None,
    queries: Annotated[
        Path | None, typer.Option(help="A list instead: name MODEL width height params.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder that the names of the list are relative to.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the list's poses: name qw qx qy qz tx ty tz.")
    ] = None,
    map_images: Annotated[
        Path | None, typer.Option(help="Where the map's photographs are now, if they moved.")
    ] = None,
    references: Annotated[int, typer.Option(help="Match with so many references.")] = 10,
    max_error: Annotated[
        float, typer.Option(help="Largest reprojection error, share of the diagonal.")
    ] = LocalizationOptions().max_error,
    model: ModelName = "small",
    max_size: Annotated[
        int, typer.Option(help="Long side of the network's view, pixels.")
    ] = default_pair_options().max_size,
    crops: CropChoice = Crops.auto,
    turns: TurnChoice = Turns.auto,
    precision: PrecisionChoice = PrecisionName.auto,
    draw: Draw = None,
    device: Device = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Find where a photograph, or each of a list, was taken in a map."""
    _check_arguments(query, queries, camera, images, out, draw)
    pair = dataclasses.replace(
        default_pair_options(),
        max_size=max_size,
        crops=crops.value,
        turns=turns.value,
        precision=precision.value,
    )
    options = LocalizationOptions(
        num_references=references, pair=pair, max_error=max_error, seed=seed
    )
    known = None if camera is None else parse_camera(camera, "--camera")
    reference_map = _open_map(scene, map_images)
    matcher = pair_verbs.load_matcher(model, device, pair)
    if queries is not None:
        assert images is not None
        assert out is not None
        _localize_list(reference_map, scene, matcher, options, queries, images, out, as_json)
        return
    assert query is not None
    answer = reference_map.localize(matcher, query, known, options=options)
    if draw is not None:
        reference_map.draw(answer, query, draw)
    if as_json:
        values = answer.to_dict()
        write_json(values | {"model": matcher.info.name, "licence": matcher.info.licence})
    else:
        _say_answer(answer)
        if draw is not None:
            say(f"wrote {draw}")
    if not answer:
        raise typer.Exit(EXIT_NO_ANSWER)


def _check_arguments(
    query: Path | None,
    queries: Path | None,
    camera: str | None,
    images: Path | None,
    out: Path | None,
    draw: Path | None,
) -> None:
    if (query is None) == (queries is None):
        raise InputError("QUERY, --queries", "one of them", "neither" if query is None else "both")
    if queries is None:
        for name, value in (("--images", images), ("--out", out)):
            if value is not None:
                raise InputError(name, "--queries beside it", "a single query")
        if draw is not None:
            try:
                check_picture_path(draw)
            except InputError as error:
                raise InputError("--draw", error.expected, error.actual) from None
        return
    for name, is_given in (("--camera", camera is not None), ("--draw", draw is not None)):
        if is_given:
            raise InputError(name, "a single query", "--queries beside it")
    if images is None or not images.is_dir():
        raise InputError("--images", "the folder of the queries", f"{images or 'nothing'}")
    if out is None or not out.parent.is_dir() or out.is_dir():
        raise InputError("--out", "a file in a folder that exists", f"{out or 'nothing'}")


def _open_map(path: Path, images: Path | None) -> ReferenceMap:
    if path == Path():
        raise InputError("--map", "the folder of a map, or a photograph", "nothing")
    if path.is_file() and path.suffix.lower() in PHOTOGRAPH_SUFFIXES:
        return ReferenceMap.from_image(path)
    return ReferenceMap.load(path, images=images)


def _localize_list(
    reference_map: ReferenceMap,
    map_folder: Path,
    matcher: Matcher,
    options: LocalizationOptions,
    queries: Path,
    images: Path,
    out: Path,
    as_json: bool,
) -> None:
    listed = read_query_list(queries)
    log = out.with_name(out.name + _LOG_SUFFIX)
    described = map_folder / MAP_NAME if map_folder.is_dir() else map_folder
    bound_to = {
        "model": matcher.info.sha256,
        "options": options.to_dict(),
        "map": file_sha256(described),
    }
    with reference_map.localizer(matcher, options) as localizer, progress_bar("localizing") as show:
        summary = localize_queries(
            localizer,
            listed,
            images,
            log,
            bound_to=bound_to,
            progress=lambda done, total, _: show(done, total),
        )
    written = write_submission(log, out)
    values = {
        "out": str(out),
        "num_queries": summary.num_queries,
        "num_localized": summary.num_localized,
        "num_reused": summary.num_reused,
        "without_pose": dict(summary.without_pose),
        "model": matcher.info.name,
        "licence": matcher.info.licence,
    }
    if as_json:
        write_json(values)
    else:
        say(f"wrote {out}: {written} of {summary.num_queries} queries have a pose")
        for name, reason in summary.without_pose.items():
            fail(f"{name}: {reason}")
    if not summary.num_localized:
        raise typer.Exit(EXIT_NO_ANSWER)


def _say_answer(answer: AbsolutePose) -> None:
    if answer.cam_from_world is None:
        say(f"no pose: {answer.reason}")
        return
    unit = "metres" if answer.is_metric else "in the map's unit"
    if answer.method == "relative" and not answer.is_metric:
        unit = "direction only"
    with np.printoptions(precision=6, suppress=True):
        say(f"rotation (cam_from_world)\n{answer.cam_from_world.rotation}")
        say(f"translation ({unit})\n{answer.cam_from_world.translation}")
    best = ", ".join(f"{used.name} ({used.num_inliers})" for used in answer.references[:3])
    count = len(answer.correspondences)
    say(f"{answer.num_inliers} of {count} correspondences agree; {answer.method}; best: {best}")
