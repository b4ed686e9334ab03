"""COLMAP databases from the matches of many pairs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from matcher.colmap import camera_to_pycolmap, import_pycolmap, quiet, reason_of
from matcher.errors import DatasetError, InputError
from matcher.export.photograph_cameras import PhotographCamera, photograph_cameras
from matcher.export.tracks import Tracks, merge_tracks
from matcher.export.verification import VerificationOptions, verify_all
from matcher.geometry.pixels import keypoints_to_colmap
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.structures import Camera

__all__ = ["ColmapExport", "write_database"]

# Keypoints of tracks are moved a little; COLMAP's check comes after ours, and may be wider.
_COLMAP_ERROR_FACTOR = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class ColmapExport:
    """What a COLMAP database holds.

    Attributes:
        images: names, in the order of COLMAP's numbers for them, which begin at 1.
        cameras: of each image: its intrinsics, and whether they are known.
        tracks: the tracks of the verified matches.
        num_pairs: pairs that came in.
        num_verified: those whose matches agree with one geometry, by our check.
        num_geometries: those that COLMAP accepted as well.
        unmatched: name of every image without a track, with the reason.
    """

    images: tuple[str, ...]
    cameras: tuple[PhotographCamera, ...]
    tracks: Tracks
    num_pairs: int
    num_verified: int
    num_geometries: int
    unmatched: Mapping[str, str]


def write_database(
    records: Iterable[PairRecord],
    path: str | os.PathLike[str],
    *,
    photographs: Photographs | None = None,
    cameras: Mapping[str, Camera] | None = None,
    cell_px: float | None = None,
    options: VerificationOptions | None = None,
) -> ColmapExport:
    """Write the matches of many pairs as a COLMAP database, with verified two-view geometries.

    Wrong matches are taken out pair by pair, the rest becomes tracks (``matcher.export.tracks``).
    Keypoints are those of upright photographs, so that COLMAP has to read photographs that were
    stored turned (EXIF) from turned copies.

    Args:
        records: the pairs; their pointmaps are not needed.
        path: of the database; a file that is there is replaced once the new one is whole.
        photographs: where the photographs are. Those without a pair get into the database as well,
            and focals that are not known are read from EXIF.
        cameras: known intrinsics by name, in original pixels; COLMAP trusts them. Photographs with
            equal ones share a camera of the database.
        cell_px: how widely keypoints are merged, original pixels; see ``merge_tracks``.
        options: when matches agree.

    Raises:
        DatasetError: the database cannot be written; what was at ``path`` is as it was.
        InputError: a camera for a photograph of another size, or of none; a photograph with two
            sizes.
        MissingDependencyError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap("writing COLMAP databases")
    options = options or VerificationOptions()
    known = dict(cameras or {})
    left, reasons, num_pairs = _verified(records, known, options)
    tracks = merge_tracks(left, cell_px)
    sizes = dict(zip(tracks.names, tracks.sizes, strict=True))
    described = photograph_cameras(sizes, known, photographs)
    names = tuple(sorted(described))
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise InputError("path", "a file in a folder that exists", f"{target}")
    export = ColmapExport(
        images=names,
        cameras=tuple(described[name] for name in names),
        tracks=tracks,
        num_pairs=num_pairs,
        num_verified=sum(len(record) > 0 for record in left),
        num_geometries=0,
        unmatched=_unmatched(names, tracks, reasons),
    )
    try:
        # Beside the target: a rename cannot cross file systems.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as staging:
            made = Path(staging) / "database.db"
            with quiet(pycolmap):
                _fill(pycolmap, made, export)
                _verify_by_colmap(pycolmap, made, export, options)
            num_geometries = _check_whole(made, export)
            made.replace(target)
    except Exception as error:  # pycolmap raises whatever its checks and SQLite throw
        raise DatasetError(f"{target}: cannot write the database ({reason_of(error)})") from None
    return replace(export, num_geometries=num_geometries)


def _verified(
    records: Iterable[PairRecord], cameras: Mapping[str, Camera], options: VerificationOptions
) -> tuple[list[PairRecord], dict[str, str], int]:
    """What is left of the pairs, and for each photograph why one of its pairs was given up."""
    left: list[PairRecord] = []
    reasons: dict[str, str] = {}
    for verified in verify_all(records, cameras, options):
        left.append(verified.record)
        if verified.reason is not None:
            for name in verified.record.names:
                reasons.setdefault(name, verified.reason)
    return left, reasons, len(left)


def _unmatched(
    names: tuple[str, ...], tracks: Tracks, reasons: Mapping[str, str]
) -> dict[str, str]:
    counts = dict(zip(tracks.names, map(len, tracks.keypoints), strict=True))
    unmatched = {}
    for name in names:
        if counts.get(name):
            continue
        if name not in counts:
            unmatched[name] = "it was matched with no other photograph"
        else:
            why = reasons.get(name, "its matches contradict those of other pairs")
            unmatched[name] = f"no pair of it has matches that hold together; one of them: {why}"
    return unmatched


def _fill(pycolmap: Any, path: Path, export: ColmapExport) -> None:
    """Cameras, images, keypoints and matches."""
    tracks = export.tracks
    number = {name: index + 1 for index, name in enumerate(export.images)}
    with pycolmap.Database.open(str(path)) as database, pycolmap.DatabaseTransaction(database):
        _write_images(pycolmap, database, export)
        for name, keypoints in zip(tracks.names, tracks.keypoints, strict=True):
            if len(keypoints):
                values = keypoints_to_colmap(keypoints).astype(np.float32)
                database.write_keypoints(number[name], values)
        for (index0, index1), matches in tracks.matches.items():
            ends = number[tracks.names[index0]], number[tracks.names[index1]]
            database.write_matches(*ends, matches.indices.astype(np.uint32))


def _write_images(pycolmap: Any, database: Any, export: ColmapExport) -> None:
    numbers: dict[PhotographCamera, int] = {}
    for index, (name, camera) in enumerate(zip(export.images, export.cameras, strict=True), 1):
        # A guess holds for one photograph only: COLMAP refines each on its own.
        if not camera.is_known or camera not in numbers:
            numbers[camera] = index
            database.write_camera(
                camera_to_pycolmap(
                    camera.camera, camera.size, identifier=index, is_known=camera.has_focal
                ),
                use_camera_id=True,
            )
            rig = pycolmap.Rig(rig_id=index)
            rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, index))
            database.write_rig(rig, use_rig_id=True)
        image = pycolmap.Image(name=name, camera_id=numbers[camera], image_id=index)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=index, rig_id=numbers[camera])
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)


def _verify_by_colmap(
    pycolmap: Any, path: Path, export: ColmapExport, options: VerificationOptions
) -> None:
    """Let COLMAP classify the geometry of each pair, as its mappers expect it."""
    if not export.tracks.matches:
        return
    verifier = pycolmap.GeometricVerifierOptions()
    two_view = pycolmap.TwoViewGeometryOptions()
    limits = [options.max_error_px(camera.size, camera.size) for camera in export.cameras]
    two_view.ransac.max_error = _COLMAP_ERROR_FACTOR * max(limits)
    two_view.ransac.random_seed = options.seed
    two_view.min_num_inliers = options.min_inliers
    pycolmap.geometric_verification(
        str(path), verifier_options=verifier, two_view_geometry_options=two_view
    )


def _check_whole(path: Path, export: ColmapExport) -> int:
    """The number of two-view geometries in a database that is complete; raises ``OSError`` else."""
    with closing(sqlite3.connect(path)) as database:
        (answer,) = database.execute("PRAGMA quick_check").fetchone()
        counts = [
            database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]
            for table in ("images", "matches")
        ]
        (verified,) = database.execute(
            "SELECT COUNT(*) FROM two_view_geometries WHERE rows > 0"
        ).fetchone()
    if answer != "ok" or counts != [len(export.images), len(export.tracks.matches)]:
        raise OSError("what was written does not read back")
    return int(verified)
