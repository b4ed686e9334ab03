"""COLMAP's mappers on our tracks: poses are those the matches were made with."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcher.errors import DatasetError, InputError
from matcher.export.mapping import map_with_colmap
from matcher.export.verification import VerificationOptions
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.colmap_model import read_model
from tests.unit.export.relief_records import (
    CAMERA,
    empty_record,
    name,
    pose,
    record,
    records,
)

pytest.importorskip("pycolmap")

OPTIONS = VerificationOptions(max_error=0.005)


def worst_errors(found: Reconstruction) -> tuple[float, float]:
    """The largest rotation and translation direction errors of all pairs, degrees."""
    rotations, translations = [], []
    for image0 in found.names:
        for image1 in found.names:
            if image0 < image1:
                expected = pose(int(image1[4:6])) @ pose(int(image0[4:6])).inverse
                answer = found.cam1_from_cam0(image0, image1)
                rotations.append(rotation_error_deg(answer.rotation, expected.rotation))
                translations.append(translation_error_deg(answer.translation, expected.translation))
    return max(rotations), max(translations)


def photographs(folder: Path, *indices: int) -> Photographs:
    return Photographs(folder, tuple(name(index) for index in indices))


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_known_cameras_give_the_poses(tmp_path: Path, mapper: Any) -> None:
    cameras = {name(index): CAMERA for index in range(5)}
    pairs = [*records(5, wrong=0.2, noise_px=0.3), empty_record(0, 8)]
    out = tmp_path / "deep" / "out"
    found = map_with_colmap(
        pairs,
        photographs(tmp_path, 0, 1, 2, 3, 4, 8, 9),
        out,
        mapper=mapper,
        cameras=cameras,
        cell_px=8.0,
        options=OPTIONS,
    )
    assert sorted(found.names) == sorted(cameras)
    rotation, translation = worst_errors(found)
    # COLMAP works in several threads, and not to the digit the same twice.
    assert rotation < 0.3
    assert translation < 1.5
    assert found.points.track_lengths.mean() > 3.0
    assert found.points.errors_px.mean() < 0.8
    # Known intrinsics come back as they went in, to the half pixel.
    for image in found.images:
        np.testing.assert_allclose(image.camera.params, CAMERA.params, atol=1e-9)
    assert found.unregistered[name(8)].endswith("no overlap")
    assert found.unregistered[name(9)] == "it cannot be read"
    assert sorted(child.name for child in out.iterdir()) == ["database.db", "sparse"]
    assert sorted(read_model(out / "sparse" / "0").names) == sorted(cameras)


@pytest.mark.parametrize("mapper", [pytest.param("incremental", marks=pytest.mark.slow), "global"])
def test_known_cameras_stay_among_unknown_ones(tmp_path: Path, mapper: Any) -> None:
    found = map_with_colmap(
        records(4, noise_px=0.2),
        photographs(tmp_path, 0, 1, 2, 3),
        tmp_path / "out",
        mapper=mapper,
        cameras={name(0): CAMERA, name(2): CAMERA},
        cell_px=8.0,
        options=OPTIONS,
    )
    assert len(found.images) == 4
    for index in (0, 2):
        np.testing.assert_allclose(found.image(name(index)).camera.params, CAMERA.params, atol=1e-9)
    for index in (1, 3):
        assert found.image(name(index)).camera.focals[0] == pytest.approx(300, rel=0.03)
    assert worst_errors(found)[0] < 0.5
    assert found.points.errors_px.mean() < 0.5


@pytest.mark.slow
def test_unknown_focals_are_found(tmp_path: Path) -> None:
    found = map_with_colmap(
        records(5, noise_px=0.2),
        photographs(tmp_path, 0, 1, 2, 3, 4),
        tmp_path / "out",
        cell_px=8.0,
        options=OPTIONS,
    )
    assert len(found.images) == 5
    focals = [image.camera.focals[0] for image in found.images]
    # The guess was 384, the truth is 300.
    assert max(abs(focal - 300) for focal in focals) < 15
    assert worst_errors(found)[0] < 2.0


def renamed(pair: PairRecord, offset: int) -> PairRecord:
    index0, index1 = int(pair.name0[4:6]) + offset, int(pair.name1[4:6]) + offset
    return dataclasses.replace(pair, name0=name(index0), name1=name(index1))


def test_of_two_places_the_larger_is_the_answer(tmp_path: Path) -> None:
    pairs = [*records(4), *(renamed(pair, 20) for pair in records(3, seed=1))]
    indices = (0, 1, 2, 3, 20, 21, 22)
    found = map_with_colmap(
        pairs,
        photographs(tmp_path, *indices),
        tmp_path / "out",
        cameras={name(index): CAMERA for index in indices},
        cell_px=8.0,
        options=OPTIONS,
    )
    assert sorted(found.names) == [name(index) for index in range(4)]
    assert found.unregistered == {
        name(index): "it is in another, smaller model (1; 3 images)" for index in (20, 21, 22)
    }
    assert len(read_model(tmp_path / "out" / "sparse" / "1").images) == 3


@pytest.mark.parametrize("mapper", ["incremental", "global"])
def test_nothing_to_reconstruct_is_an_answer(tmp_path: Path, mapper: Any) -> None:
    stale = tmp_path / "out" / "sparse" / "0"
    stale.mkdir(parents=True)
    pairs = [record(0, 1, rng=np.random.default_rng(0), wrong=1.0)]
    found = map_with_colmap(
        pairs, photographs(tmp_path, 0, 1), tmp_path / "out", mapper=mapper, options=OPTIONS
    )
    assert (found.images, len(found.points)) == ((), 0)
    assert sorted(found.unregistered) == [name(0), name(1)]
    assert "chance" in found.unregistered[name(0)]
    assert not stale.exists()


def test_no_baseline_is_an_answer(tmp_path: Path) -> None:
    same = record(0, 0 + 1, rng=np.random.default_rng(0))
    matches = dataclasses.replace(same.matches, keypoints1=same.matches.keypoints0)
    found = map_with_colmap(
        [dataclasses.replace(same, matches=matches)],
        photographs(tmp_path, 0, 1),
        tmp_path / "out",
        cell_px=8.0,
        options=OPTIONS,
    )
    assert found.images == ()
    assert "a rotation alone explains the matches" in found.unregistered[name(0)]


def test_a_mapper_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("[incremental_pipeline.cc:1] Check failed: x")

    monkeypatch.setattr("matcher.export.mappers.MapperRun.models", fail)
    with pytest.raises(DatasetError, match=r"COLMAP's mapper failed \(Check failed: x\)"):
        map_with_colmap(records(2), photographs(tmp_path, 0, 1), tmp_path / "out", options=OPTIONS)
    # The database is whole all the same.
    assert [child.name for child in (tmp_path / "out").iterdir()] == ["database.db"]


def test_senseless_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="mapper: expected incremental or global"):
        map_with_colmap([], photographs(tmp_path), tmp_path, mapper="fast")  # type: ignore[arg-type]
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="out: expected a folder that can be made"):
        map_with_colmap([], photographs(tmp_path), tmp_path / "file")
