"""COLMAP databases: what is in them, read by SQLite and pycolmap, and when they are written."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matcher.errors import DatasetError, InputError
from matcher.export.colmap import ColmapExport, write_database
from matcher.export.verification import VerificationOptions
from matcher.photographs import Photographs
from matcher.structures import Camera, ImageSize
from tests.unit.export.relief_records import (
    CAMERA,
    SIZE,
    empty_record,
    name,
    pose,
    record,
    records,
)

pycolmap = pytest.importorskip("pycolmap")

OPTIONS = VerificationOptions(max_error=0.005)
KNOWN = {name(index): CAMERA for index in range(3)}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ColmapExport]:
    """Three photographs that fit, and one whose only pair shows nothing in common."""
    path = tmp_path_factory.mktemp("database") / "database.db"
    pairs = [*records(3, wrong=0.1), empty_record(0, 7)]
    export = write_database(pairs, path, cameras=KNOWN, cell_px=8.0, options=OPTIONS)
    return path, export


def test_the_export_says_what_it_wrote(written: tuple[Path, ColmapExport]) -> None:
    path, export = written
    assert [child.name for child in path.parent.iterdir()] == ["database.db"]
    merged = export.merged
    assert merged.names == (name(0), name(1), name(2), name(7))
    assert (merged.num_pairs, merged.num_verified, export.num_geometries) == (4, 3, 3)
    assert merged.tracks.mean_length > 2.3
    assert list(merged.unmatched) == [name(7)]
    assert merged.unmatched[name(7)].endswith("no overlap")


def test_pycolmap_reads_cameras_keypoints_and_matches(written: tuple[Path, ColmapExport]) -> None:
    path, export = written
    with pycolmap.Database.open(str(path)) as database:
        images = {image.name: image for image in database.read_all_images()}
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        # The three known cameras are one; the fourth is a guess.
        assert len(cameras) == 2
        known = cameras[images[name(1)].camera_id]
        guessed = cameras[images[name(7)].camera_id]
        assert images[name(0)].camera_id == images[name(2)].camera_id == known.camera_id
        assert known.params.tolist() == [300.0, 300.0, 160.0, 120.0]
        assert known.has_prior_focal_length
        assert guessed.params.tolist() == [1.2 * 320, 160.0, 120.0, 0.0]
        assert not guessed.has_prior_focal_length
        keypoints = database.read_keypoints(images[name(1)].image_id)
        ours = export.merged.tracks.keypoints[1]
        np.testing.assert_array_equal(np.asarray(keypoints)[:, :2], (ours + 0.5).astype(np.float32))
        assert database.num_keypoints_for_image(images[name(7)].image_id) == 0
        ids = images[name(0)].image_id, images[name(2)].image_id
        np.testing.assert_array_equal(
            database.read_matches(*ids), export.merged.tracks.matches[(0, 2)].indices
        )


def test_geometries_are_calibrated_and_right(written: tuple[Path, ColmapExport]) -> None:
    path, export = written
    with pycolmap.Database.open(str(path)) as database:
        geometry = database.read_two_view_geometry(1, 3)
        assert geometry.config == int(pycolmap.TwoViewGeometryConfiguration.CALIBRATED)
        share = len(geometry.inlier_matches) / len(export.merged.tracks.matches[(0, 2)])
        assert share > 0.95
        relative = (pose(2) @ pose(0).inverse).matrix
        x, y, z = relative[:3, 3]
        essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ relative[:3, :3]
        found = geometry.E / np.linalg.norm(geometry.E) * np.linalg.norm(essential)
        sign = np.sign(np.sum(found * essential))
        np.testing.assert_allclose(sign * found, essential, atol=0.02)


def test_without_cameras_the_geometry_is_fundamental(tmp_path: Path) -> None:
    path = tmp_path / "database.db"
    export = write_database(records(2), path, cell_px=8.0, options=OPTIONS)
    assert (export.merged.num_verified, export.num_geometries) == (1, 1)
    with pycolmap.Database.open(str(path)) as database:
        assert database.num_cameras() == 2
        geometry = database.read_two_view_geometry(1, 2)
        assert geometry.config == int(pycolmap.TwoViewGeometryConfiguration.UNCALIBRATED)


def test_photographs_without_a_pair_are_harmless(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for index in (0, 1, 5):
        Image.new("RGB", (SIZE.width, SIZE.height)).save(folder / name(index))
    exif = Image.Exif()
    exif[0x0110], exif[0x010F] = "Model", "Maker"
    exif.get_ifd(0x8769)[0xA405] = 35  # focal in millimetres of 35 mm film
    Image.new("RGB", (300, 200)).save(folder / "turned.jpg", exif=exif)
    (folder / "broken.jpg").write_bytes(b"no image")
    export = write_database(
        records(2),
        tmp_path / "database.db",
        photographs=Photographs.from_folder(folder),
        cell_px=8.0,
        options=OPTIONS,
    )
    assert export.merged.names == (name(0), name(1), name(5), "turned.jpg")
    reason = "it was matched with no other photograph"
    assert export.merged.unmatched == {name(5): reason, "turned.jpg": reason}
    described = export.merged.cameras
    assert not described[name(0)].has_focal
    from_exif = described["turned.jpg"]
    assert (from_exif.has_focal, from_exif.is_known) == (True, False)
    assert from_exif.camera.focals[0] == pytest.approx(35 / 36 * 300, rel=0.03)


def test_no_pair_at_all_is_an_empty_database(tmp_path: Path) -> None:
    export = write_database([], tmp_path / "database.db")
    assert (export.merged.names, export.merged.num_pairs, export.num_geometries) == ((), 0, 0)
    with closing(sqlite3.connect(tmp_path / "database.db")) as database:
        assert database.execute("SELECT COUNT(*) FROM images").fetchone() == (0,)


@pytest.mark.parametrize("when", ["_fill", "_verify_by_colmap"])
def test_an_interrupted_write_leaves_the_old_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path = tmp_path / "database.db"
    path.write_bytes(b"the old one")

    def full(*_: Any) -> None:
        raise RuntimeError("[sqlite3_utils.h:41] SQLite error: database or disk is full")

    monkeypatch.setattr(f"matcher.export.colmap.{when}", full)
    with pytest.raises(DatasetError, match=r"cannot write the database \(SQLite error: .*full\)"):
        write_database(records(2), path, options=OPTIONS)
    assert path.read_bytes() == b"the old one"
    assert [child.name for child in tmp_path.iterdir()] == ["database.db"]


def test_a_database_that_lost_rows_is_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose(_: Any, path: Path, *__: Any) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.execute("DELETE FROM matches")
            database.commit()

    monkeypatch.setattr("matcher.export.colmap._verify_by_colmap", lose)
    with pytest.raises(DatasetError, match="does not read back"):
        write_database(records(2), tmp_path / "database.db", options=OPTIONS)
    assert list(tmp_path.iterdir()) == []


def test_senseless_arguments_are_named(tmp_path: Path) -> None:
    pairs = [record(0, 1, rng=np.random.default_rng(0))]
    with pytest.raises(InputError, match="path: expected a file in a folder that exists"):
        write_database(pairs, tmp_path / "none" / "database.db", options=OPTIONS)
    with pytest.raises(InputError, match=r"cameras: expected names of photographs, got z\.jpg"):
        write_database(pairs, tmp_path / "a.db", cameras={"z.jpg": CAMERA}, options=OPTIONS)
    other = Camera.pinhole(300, 300, 100, 100, ImageSize(201, 201))
    with pytest.raises(InputError, match=r"camera of sub/00\.jpg: expected size"):
        write_database(pairs, tmp_path / "a.db", cameras={name(0): other}, options=OPTIONS)
