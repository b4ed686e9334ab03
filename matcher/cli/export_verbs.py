"""``export``: the matches of a store for COLMAP or hloc, or as a point cloud."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from matcher.alignment.sparse import align_sparse
from matcher.cli.app import EXIT_NO_ANSWER, app, progress_bar, say, write_json
from matcher.cli.pair_verbs import AsJson, Seed
from matcher.cli.reconstruction_verbs import _known_cameras, _make_folder
from matcher.errors import InputError
from matcher.export.colmap import write_database
from matcher.export.hloc import FEATURES, MATCHES, PAIRS, write_hloc
from matcher.export.merging import MergedPairs
from matcher.export.verification import VerificationOptions
from matcher.match_store import MatchStore
from matcher.pair_records import PairRecord
from matcher.reconstruction.coloring import colored
from matcher.reconstruction.ply import write_ply
from matcher.structures import Camera

__all__ = ["export"]

_DATABASE = "database.db"
_LISTED_AT_MOST = 20


class Target(str, Enum):
    """Whom the matches are for."""

    colmap = "colmap"
    hloc = "hloc"
    ply = "ply"


@app.command()
def export(
    store: Annotated[
        Path, typer.Argument(help="A store that `widebase run` wrote.", show_default=False)
    ],
    to: Annotated[Target, typer.Option("--to", help="COLMAP's database, hloc's files, a cloud.")],
    out: Annotated[Path, typer.Option(help="A folder (colmap, hloc), or the file to write (ply).")],
    images: Annotated[
        Path | None, typer.Option(help="The folder of the photographs, if it has moved.")
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
    cell: Annotated[
        float | None,
        typer.Option(
            metavar="PIXELS",
            help="Merge keypoints of an image this close; by default 1/128 of its longer side.",
        ),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write the matches of a store as a COLMAP database, as hloc's files, or as a point cloud.

    Wrong matches are taken out pair by pair, and the keypoints of all pairs of an image are merged
    into tracks. A cloud is made by the alignment of `reconstruct`, without matching again.
    """
    opened = MatchStore.open(store, images=images)
    known = _known_cameras(camera, cameras, opened.photographs)
    with progress_bar("verifying") as report:
        records = _counted(opened, to is Target.ply, report)
        if to is Target.ply:
            values = _write_cloud(opened, records, out, known)
        else:
            _make_folder(out)
            write = _write_colmap if to is Target.colmap else _write_hloc
            values = write(opened, records, out, known, cell, VerificationOptions(seed=seed))
    values = {"to": to.value, "model": opened.model, "licence": opened.licence, **values}
    if as_json:
        write_json(values)
    else:
        _tell(values)
    if not values["files"] or not values.get("tracks", 1):
        raise typer.Exit(EXIT_NO_ANSWER)


def _counted(store: MatchStore, keep_pointmaps: bool, report: Any) -> Iterator[PairRecord]:
    total = len(store)
    for done, record in enumerate(store.records(keep_pointmaps=keep_pointmaps), 1):
        yield record
        report(done, total)


def _write_colmap(
    store: MatchStore,
    records: Iterator[PairRecord],
    out: Path,
    known: Mapping[str, Camera],
    cell: float | None,
    options: VerificationOptions,
) -> dict[str, Any]:
    made = write_database(
        records,
        out / _DATABASE,
        photographs=store.photographs,
        cameras=known,
        cell_px=cell,
        options=options,
    )
    return {
        **_merged_values(made.merged),
        "two_view_geometries": made.num_geometries,
        "files": [str(out / _DATABASE)],
    }


def _write_hloc(
    store: MatchStore,
    records: Iterator[PairRecord],
    out: Path,
    known: Mapping[str, Camera],
    cell: float | None,
    options: VerificationOptions,
) -> dict[str, Any]:
    made = write_hloc(
        records,
        out,
        photographs=store.photographs,
        cameras=known,
        cell_px=cell,
        options=options,
    )
    return {
        **_merged_values(made),
        "files": [str(out / name) for name in (FEATURES, MATCHES, PAIRS)],
    }


def _merged_values(merged: MergedPairs) -> dict[str, Any]:
    tracks = merged.tracks
    return {
        "photographs": len(merged.names),
        "pairs": merged.num_pairs,
        "verified_pairs": merged.num_verified,
        "tracks": len(tracks.lengths),
        "mean_track_length": round(tracks.mean_length, 3),
        "merge_error_px": _number(tracks.merge_error_px),
        "disagreement_px": _number(tracks.disagreement_px),
        "matches": tracks.num_matches,
        "merged_matches": tracks.num_kept,
        "without_matches": dict(merged.unmatched),
    }


def _number(value: float) -> float | None:
    return round(value, 3) if math.isfinite(value) else None


def _write_cloud(
    store: MatchStore, records: Iterator[PairRecord], out: Path, known: Mapping[str, Camera]
) -> dict[str, Any]:
    if out.suffix.lower() != ".ply" or not out.parent.is_dir():
        raise InputError("--out", "a name that ends in .ply, in a folder that exists", f"{out}")
    for name in store.photographs.names:
        if not store.photographs.path(name).is_file():
            # Now, and not after minutes of alignment.
            raise InputError("--images", "the folder of the photographs", f"no {name} there")
    found = align_sparse(records, cameras=known)
    values: dict[str, Any] = {
        "photographs": len(store.photographs),
        "registered": len(found.images),
        "without_matches": dict(found.unregistered),
        "points": 0,
        "files": [],
    }
    if not found.images:
        return values
    found = dataclasses.replace(found, model=store.model, licence=store.licence)
    cloud = colored(found, store.photographs).cloud()
    origin = f"model {store.model}, licence {store.licence}"
    write_ply(out, cloud, comments=[origin.encode("ascii", "replace").decode()])
    return {**values, "points": len(cloud), "files": [str(out)]}


def _tell(values: dict[str, Any]) -> None:
    if values["to"] == Target.ply.value:
        say(f"{values['registered']} of {values['photographs']} photographs have a place")
        say(f"{values['points']} points")
    else:
        say(
            f"{values['verified_pairs']} of {values['pairs']} pairs of {values['photographs']} "
            "photographs hold together"
        )
        say(
            f"{values['tracks']} tracks, {values['mean_track_length']:.2f} photographs each; "
            f"merging moved keypoints by {values['merge_error_px'] or 0:.2f} px"
        )
    left_out = sorted(values["without_matches"].items())
    for name, reason in left_out[:_LISTED_AT_MOST]:
        say(f"{name}: {reason}")
    if len(left_out) > _LISTED_AT_MOST:
        say(f"and {len(left_out) - _LISTED_AT_MOST} more")
    say(f"wrote {', '.join(values['files'])}" if values["files"] else "nothing to write")
