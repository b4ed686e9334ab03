"""``reconstruct``: a folder of photographs becomes cameras, a point cloud, and pictures of both."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from PIL import Image

from matcher import Matcher
from matcher.alignment.reconstruct import reconstruct as reconstruct_photographs
from matcher.cli import pair_verbs
from matcher.cli.app import (
    ERRORS,
    EXIT_NO_ANSWER,
    app,
    progress_bar,
    say,
    write_json,
)
from matcher.cli.pair_verbs import (
    AsJson,
    CropChoice,
    Crops,
    Device,
    MaxSize,
    ModelName,
    PrecisionChoice,
    PrecisionName,
    Seed,
    TurnChoice,
    Turns,
)
from matcher.errors import InputError, MissingDependencyError
from matcher.export.mapping import map_with_colmap
from matcher.files import replaced
from matcher.geometry.camera import parse_camera
from matcher.images.writing import write_picture
from matcher.localization.batch import read_query_list
from matcher.many_pairs import FailedPair
from matcher.pair_records import PairRecord
from matcher.pairing import complete_pairs, name_pairs, read_pairs
from matcher.photographs import Photographs
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.coloring import colored
from matcher.reconstruction.filtering import pointmaps_hold
from matcher.reconstruction.glb import write_glb
from matcher.reconstruction.ply import write_ply
from matcher.reconstruction.still import draw_cloud
from matcher.reconstruction.viewer import write_html
from matcher.structures import Camera

__all__ = ["reconstruct"]

_SUMMARY = "summary.json"
_MODEL = Path("colmap", "sparse", "0")
"""Where COLMAP's mappers write theirs."""
_LISTED_AT_MOST = 20
_EXIF_ORIENTATION = 0x0112


class Method(str, Enum):
    """How the photographs are put together."""

    sparse = "sparse"
    pointmaps = "pointmaps"


class Mapper(str, Enum):
    """A mapper of COLMAP's instead of our own alignment."""

    colmap = "colmap"
    colmap_global = "colmap-global"


@app.command()
def reconstruct(
    folder: Annotated[Path, typer.Argument(help="A folder of photographs.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the cloud, the cameras, the pictures.")],
    method: Annotated[
        Method, typer.Option(help="Align matches (sparse), or the network's pointmaps.")
    ] = Method.sparse,
    mapper: Annotated[
        Mapper | None, typer.Option(help="Let COLMAP put our matches together instead.")
    ] = None,
    camera: Annotated[
        str | None, typer.Option(help="fx,fy,cx,cy of all photographs, in their pixels.")
    ] = None,
    cameras: Annotated[
        Path | None,
        typer.Option(
            help="A list of known cameras, as hloc's: NAME MODEL WIDTH HEIGHT PARAMETERS."
        ),
    ] = None,
    pairs: Annotated[
        Path | None, typer.Option(help="A pair file: match these only, instead of all with all.")
    ] = None,
    model: ModelName = "small",
    max_size: MaxSize = 512,
    crops: CropChoice = Crops.never,
    turns: TurnChoice = Turns.auto,
    precision: PrecisionChoice = PrecisionName.auto,
    device: Device = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Reconstruct the place that a folder of photographs shows.

    Writes cloud.ply, scene.glb, view.png, view.html (open it in a browser), summary.json, and,
    where pycolmap is installed, a COLMAP model. Photographs without a place are listed with the
    reason.
    """
    start = time.perf_counter()
    photographs = _photographs(folder, out)
    known = _known_cameras(camera, cameras, photographs)
    named = None if pairs is None else _named_pairs(pairs, photographs)
    _make_folder(out)
    options = pair_verbs._options(max_size, crops, turns, precision, seed, symmetric=True)
    matcher = pair_verbs.load_matcher(model, device, options)
    if mapper is None:
        with progress_bar("reconstructing") as report:
            found = reconstruct_photographs(
                matcher,
                photographs,
                pairs=named,
                cameras=known,
                method=method.value,
                progress=report,
            )
    else:
        found = _mapped(matcher, photographs, named, known, mapper, out)
    values = {
        "photographs": len(photographs),
        "method": method.value if mapper is None else mapper.value,
        **_write(found, out, folder.resolve().name),
    }
    values["seconds"] = round(time.perf_counter() - start, 3)
    _write_summary(values, found, out)
    if as_json:
        write_json(values)
    else:
        _tell(values, found)
    if not found.images:
        raise typer.Exit(EXIT_NO_ANSWER)


def _photographs(folder: Path, out: Path) -> Photographs:
    """Those of the folder, without the pictures that an earlier run wrote below it."""
    photographs = Photographs.from_folder(folder)
    inside = out.resolve()
    if inside == folder.resolve():
        raise InputError("--out", "another folder than that of the photographs", f"{out}")
    names = tuple(
        name
        for name in photographs.names
        if inside not in (photographs.root / name).resolve().parents
    )
    if len(names) < 2:
        raise InputError("folder", "at least two photographs", f"{len(names)} in {folder}")
    return Photographs(photographs.root, names)


def _known_cameras(
    camera: str | None, listed: Path | None, photographs: Photographs
) -> dict[str, Camera]:
    if camera is not None and listed is not None:
        raise InputError("--camera, --cameras", "one of them at most", "both")
    if camera is not None:
        _check_one_size(photographs)
        return dict.fromkeys(photographs.names, parse_camera(camera, "--camera"))
    if listed is None:
        return {}
    try:
        queries = read_query_list(listed)
    except InputError as error:
        raise InputError("--cameras", error.expected, error.actual) from None
    found = {query.name: query.camera for query in queries if query.camera is not None}
    known = {name: found[name] for name in photographs.names if name in found}
    if not known:
        raise InputError("--cameras", f"cameras of {photographs.root}", f"none in {listed}")
    return known


def _check_one_size(photographs: Photographs) -> None:
    """One camera took photographs of one size; raises ``InputError`` where there are several."""
    sizes: dict[tuple[int, int], str] = {}
    for name in photographs.names:
        # What cannot be read is told, with its reason, when its turn comes.
        with suppress(OSError), Image.open(photographs.path(name)) as opened:
            turned = opened.getexif().get(_EXIF_ORIENTATION, 1) > 4
            sizes.setdefault(opened.size[::-1] if turned else opened.size, name)
    if len(sizes) > 1:
        listed = ", ".join(
            f"{width} x {height} ({name})" for (width, height), name in sizes.items()
        )
        raise InputError("--camera", "photographs of one size, or --cameras instead", listed)


def _named_pairs(path: Path, photographs: Photographs) -> list[tuple[str, str]]:
    named = read_pairs(path)
    there = set(photographs.names)
    for name in (name for both in named for name in both):
        if name not in there:
            raise InputError("--pairs", f"photographs of {photographs.root}", name)
    if not named:
        raise InputError("--pairs", "at least one pair", f"none in {path}")
    return named


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--out", "a folder that can be made", f"{out}: {error.strerror}") from None


def _mapped(
    matcher: Matcher,
    photographs: Photographs,
    named: list[tuple[str, str]] | None,
    known: Mapping[str, Camera],
    mapper: Mapper,
    out: Path,
) -> Reconstruction:
    """COLMAP's answer to our matches."""
    copies = {copy: kept for kept, copy in photographs.duplicates()}
    unique = tuple(name for name in photographs.names if name not in copies)
    if named is None:
        asked = name_pairs(unique, complete_pairs(len(unique)))
    else:
        asked = [both for both in named if not copies.keys() & set(both)]
    records: list[PairRecord] = []
    with progress_bar("matching") as report:
        answers = matcher.match_records(photographs, asked, keep_pointmaps=False)
        for done, record in enumerate(answers, 1):
            report(done, len(asked))
            if isinstance(record, FailedPair):
                ERRORS.print(f"{record.name0} {record.name1}: {record.reason}", markup=False)
            else:
                records.append(record)
    kind: Literal["incremental", "global"] = "incremental" if mapper is Mapper.colmap else "global"
    found = map_with_colmap(
        records,
        Photographs(photographs.root, unique),
        out / _MODEL.parts[0],
        mapper=kind,
        cameras={name: camera for name, camera in known.items() if name in unique},
    )
    same = {copy: f"same file as {kept}" for copy, kept in copies.items()}
    found = dataclasses.replace(
        found,
        unregistered={**found.unregistered, **same},
        model=matcher.info.name,
        licence=matcher.info.licence,
    )
    return colored(found, photographs)


def _write(found: Reconstruction, out: Path, title: str) -> dict[str, Any]:
    """Write all files; what they are, and what is in them."""
    values: dict[str, Any] = {
        "registered": len(found.images),
        "unregistered": dict(found.unregistered),
        "triangulated_points": len(found.points),
        "cloud_points": 0,
        "cloud_from": None,
        "is_metric": found.is_metric,
        "model": found.model,
        "licence": found.licence,
        "out": str(out),
        "files": [],
    }
    if not found.images:
        return values
    cloud = found.cloud()
    origin = {"model": found.model, "licence": found.licence}
    comment = f"model {found.model}, licence {found.licence}"
    write_ply(out / "cloud.ply", cloud, comments=[comment.encode("ascii", "replace").decode()])
    write_glb(out / "scene.glb", cloud, cameras=found.images, extras=origin)
    write_picture(out / "view.png", draw_cloud(cloud, found.images))
    write_html(out / "view.html", found, cloud, title=title)
    values["cloud_points"] = len(cloud)
    values["cloud_from"] = "pointmaps" if pointmaps_hold(found) else "matches"
    values["files"] = ["cloud.ply", "scene.glb", "view.png", "view.html"]
    try:
        found.write_colmap(out / _MODEL)
        values["files"].append(_MODEL.as_posix())
    except MissingDependencyError as missing:
        ERRORS.print(f"no COLMAP model written: {missing}", markup=False)
    return values


def _write_summary(values: dict[str, Any], found: Reconstruction, out: Path) -> None:
    """``summary.json``: what the verb prints with --json, and the cameras."""
    cameras = {
        image.name: {
            "model": image.camera.model,
            "params": list(image.camera.params),
            "size": [image.size.height, image.size.width],
            "cam_from_world": {
                "rotation": image.cam_from_world.rotation.tolist(),
                "translation": image.cam_from_world.translation.tolist(),
            },
        }
        for image in found.images
    }
    with replaced(out / _SUMMARY) as temporary:
        text = json.dumps({**values, "cameras": cameras}, indent=1, allow_nan=False)
        temporary.write_text(text + "\n", "utf-8")
    values["files"].append(_SUMMARY)


def _tell(values: dict[str, Any], found: Reconstruction) -> None:
    say(f"{values['registered']} of {values['photographs']} photographs have a place")
    for name, reason in sorted(found.unregistered.items())[:_LISTED_AT_MOST]:
        say(f"{name}: {reason}")
    more = len(found.unregistered) - _LISTED_AT_MOST
    if more > 0:
        say(f"and {more} more; {values['out']}/{_SUMMARY} lists them")
    if not found.images:
        say("nothing could be reconstructed")
        return
    unit = "metres" if found.is_metric else "an arbitrary unit"
    say(
        f"{values['cloud_points']} points of {values['cloud_from']}, in {unit}; "
        f"{values['seconds']:.1f} s with "
        f"{found.model} ({found.licence})"
    )
    say(f"wrote {', '.join(values['files'])} in {values['out']}")
