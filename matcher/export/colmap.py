"""COLMAP databases from the matches of many pairs."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from matcher.colmap import camera_to_pycolmap, import_pycolmap, quiet, reason_of
from matcher.errors import DatasetError, InputError
from matcher.export.merging import MergedPairs, merge_pairs
from matcher.export.photograph_cameras import PhotographCamera
from matcher.export.verification import VerificationOptions
from matcher.geometry.pixels import keypoints_to_colmap
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.structures import Camera

__all__ = ["ColmapExport", "camera_numbers", "write_database"]

# Keypoints of tracks are moved a little; COLMAP's check comes after ours, and may be wider.
_COLMAP_ERROR_FACTOR = 1.5


@dataclass(frozen=True, slots=True, eq=False)
class ColmapExport:
    """What a COLMAP database holds.

    Attributes:
        merged: the photographs, whose numbers in the database are their places from 1, and tracks.
        num_geometries: verified pairs that COLMAP's own check accepted as well.
    """

    merged: MergedPairs
    num_geometries: int


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
            and focals that are not known are read from EXIF. Other focals are guessed from the
            matches, and marked as guesses.
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
    target = Path(path)
    if not target.parent.is_dir() or target.is_dir():
        raise InputError("path", "a file in a folder that exists", f"{target}")
    merged = merge_pairs(
        records, photographs=photographs, cameras=cameras, cell_px=cell_px, options=options
    )
    try:
        # Beside the target: a rename cannot cross file systems.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target.parent) as staging:
            made = Path(staging) / "database.db"
            with quiet(pycolmap):
                _fill(pycolmap, made, merged)
                _verify_by_colmap(pycolmap, made, merged, options)
            num_geometries = _check_whole(made, merged)
            made.replace(target)
    except Exception as error:  # pycolmap raises whatever its checks and SQLite throw
        raise DatasetError(f"{target}: cannot write the database ({reason_of(error)})") from None
    return ColmapExport(merged, num_geometries)


def _fill(pycolmap: Any, path: Path, merged: MergedPairs) -> None:
    """Cameras, images, keypoints and matches."""
    tracks = merged.tracks
    number = {name: index + 1 for index, name in enumerate(merged.names)}
    with pycolmap.Database.open(str(path)) as database, pycolmap.DatabaseTransaction(database):
        _write_images(pycolmap, database, merged)
        for name, keypoints in zip(tracks.names, tracks.keypoints, strict=True):
            if len(keypoints):
                values = keypoints_to_colmap(keypoints).astype(np.float32)
                database.write_keypoints(number[name], values)
        for (index0, index1), matches in tracks.matches.items():
            ends = number[tracks.names[index0]], number[tracks.names[index1]]
            database.write_matches(*ends, matches.indices.astype(np.uint32))


def camera_numbers(cameras: Mapping[str, PhotographCamera]) -> dict[str, int]:
    """COLMAP's number for the camera of each photograph; equal known cameras are one."""
    first: dict[PhotographCamera, int] = {}
    numbers = {}
    for number, (name, camera) in enumerate(cameras.items(), 1):
        # A guess holds for one photograph only: COLMAP refines each on its own.
        numbers[name] = first.setdefault(camera, number) if camera.is_known else number
    return numbers


def _write_images(pycolmap: Any, database: Any, merged: MergedPairs) -> None:
    cameras = camera_numbers(merged.cameras)
    for number, (name, camera) in enumerate(merged.cameras.items(), 1):
        if cameras[name] == number:
            made = camera_to_pycolmap(
                camera.camera, camera.size, identifier=number, is_known=camera.has_focal
            )
            database.write_camera(made, use_camera_id=True)
            rig = pycolmap.Rig(rig_id=number)
            rig.add_ref_sensor(pycolmap.sensor_t(pycolmap.SensorType.CAMERA, number))
            database.write_rig(rig, use_rig_id=True)
        image = pycolmap.Image(name=name, camera_id=cameras[name], image_id=number)
        database.write_image(image, use_image_id=True)
        frame = pycolmap.Frame(frame_id=number, rig_id=cameras[name])
        frame.add_data_id(image.data_id)
        database.write_frame(frame, use_frame_id=True)


def _verify_by_colmap(
    pycolmap: Any, path: Path, merged: MergedPairs, options: VerificationOptions
) -> None:
    """Let COLMAP classify the geometry of each pair, as its mappers expect it."""
    if not merged.tracks.matches:
        return
    verifier = pycolmap.GeometricVerifierOptions()
    two_view = pycolmap.TwoViewGeometryOptions()
    limits = [options.max_error_px(camera.size, camera.size) for camera in merged.cameras.values()]
    two_view.ransac.max_error = _COLMAP_ERROR_FACTOR * max(limits)
    two_view.ransac.random_seed = options.seed
    two_view.min_num_inliers = options.min_inliers
    pycolmap.geometric_verification(
        str(path), verifier_options=verifier, two_view_geometry_options=two_view
    )


def _check_whole(path: Path, merged: MergedPairs) -> int:
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
    if answer != "ok" or counts != [len(merged.names), len(merged.tracks.matches)]:
        raise OSError("what was written does not read back")
    return int(verified)
