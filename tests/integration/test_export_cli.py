"""``widebase export``: a store for COLMAP, for hloc, as a cloud."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher import MatchStore, PairOptions, Photographs
from matcher.checkpoints import CheckpointInfo
from tests.unit.export.relief_records import (
    CAMERA,
    SIZE,
    empty_record,
    name,
    record,
    records,
)

CAMERA_TEXT = ",".join(f"{value}" for value in (*CAMERA.focals, *CAMERA.principal_point))
INFO = CheckpointInfo("relief", licence="CC0-1.0", notes="rendered")


def make_store(folder: Path, pairs: list, count: int = 4) -> Path:
    """A store of the pairs, and the photographs beside it."""
    (folder / "photographs" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        pixels = rng.integers(0, 256, (SIZE.height, SIZE.width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "photographs" / name(index))
    photographs = Photographs.from_folder(folder / "photographs")
    with MatchStore.create(folder / "store", photographs, INFO, PairOptions()) as store:
        for pair in pairs:
            store.add(pair)
    return folder / "store"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs that fit, and one that shows another place."""
    pairs = [*records(3, wrong=0.1), empty_record(0, 3, "they show different places")]
    return make_store(tmp_path_factory.mktemp("collection"), pairs)


def test_a_database_for_colmap(widebase, store, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    out = tmp_path / "deep" / "colmap"
    run = widebase(
        "export", store, "--to", "colmap", "--out", out, "--camera", CAMERA_TEXT, "--json"
    )
    assert run.status == 0, run.err
    values = run.json
    assert (values["to"], values["model"], values["licence"]) == ("colmap", "relief", "CC0-1.0")
    assert (values["photographs"], values["pairs"], values["verified_pairs"]) == (4, 4, 3)
    assert values["two_view_geometries"] == 3
    assert values["mean_track_length"] > 2
    assert 0 < values["merge_error_px"] < 2.5
    assert values["disagreement_px"] < 0.3
    assert values["merged_matches"] < values["matches"]
    assert list(values["without_matches"]) == [name(3)]
    assert values["files"] == [str(out / "database.db")]
    with pycolmap.Database.open(str(out / "database.db")) as database:
        assert (database.num_images(), database.num_cameras()) == (4, 1)
        assert database.read_all_cameras()[0].has_prior_focal_length


def test_files_for_hloc(widebase, store, tmp_path):
    pytest.importorskip("h5py")
    run = widebase("export", store, "--to", "hloc", "--out", tmp_path, "--cell", 16, "--seed", 3)
    assert run.status == 0, run.err
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "features.h5",
        "matches.h5",
        "pairs.txt",
    ]
    lines = run.out.splitlines()
    assert lines[0] == "3 of 4 pairs of 4 photographs hold together"
    assert "photographs each; merging moved keypoints by" in lines[1]
    assert lines[2].startswith(f"{name(3)}: no pair of it has matches that hold together")
    assert lines[3].startswith("wrote ")


@pytest.mark.slow
def test_a_cloud(widebase, store, tmp_path):
    out = tmp_path / "cloud.ply"
    run = widebase("export", store, "--to", "ply", "--out", out, "--camera", CAMERA_TEXT, "--json")
    assert run.status == 0, run.err
    values = run.json
    assert (values["photographs"], values["registered"]) == (4, 3)
    assert list(values["without_matches"]) == [name(3)]
    header = out.read_bytes().split(b"end_header")[0].decode("ascii")
    assert f"element vertex {values['points']}" in header
    assert values["points"] > 100
    assert "model relief, licence CC0-1.0" in header


@pytest.mark.parametrize("to", ["colmap", "hloc", "ply"])
def test_nothing_that_holds_together_has_status_3(widebase, tmp_path, to):
    pytest.importorskip("pycolmap")
    store = make_store(tmp_path, [record(0, 1, rng=np.random.default_rng(0), wrong=1.0)], 2)
    out = tmp_path / ("cloud.ply" if to == "ply" else "out")
    run = widebase("export", store, "--to", to, "--out", out, "--json")
    assert run.status == 3, run.err
    assert sorted(run.json["without_matches"]) == [name(0), name(1)]
    assert out.exists() == (to != "ply")


def test_photographs_that_moved(widebase, store, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(store.parent / "photographs", moved)
    run = widebase(
        "export",
        store,
        "--to",
        "hloc",
        "--out",
        tmp_path,
        "--images",
        moved,
        "--camera",
        CAMERA_TEXT,
    )
    assert run.status == 0, run.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--to", "colmap", "--out", "{file}"), "--out: expected a folder that can be made"),
        (("--to", "ply", "--out", "{new}/cloud.xyz"), "--out: expected a name that ends in .ply"),
        (("--to", "ply", "--out", "{new}/none/a.ply"), "in a folder that exists"),
        (("--to", "hloc", "--out", "{new}", "--cell", "0"), "cell_px: expected a positive number"),
        (("--to", "hloc", "--out", "{new}", "--camera", "1,2"), "--camera"),
        (("--to", "hloc", "--out", "{new}", "--images", "{new}/none"), "images: expected a folder"),
    ],
)
def test_what_cannot_be_done_is_named(widebase, store, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    filled = [one.format(file=tmp_path / "file", new=tmp_path) for one in arguments]
    run = widebase("export", store, *filled)
    assert run.status == 2
    assert message in run.err
    assert run.err.count("\n") == 1


def test_no_store_is_named(widebase, tmp_path):
    run = widebase("export", tmp_path, "--to", "hloc", "--out", tmp_path / "out")
    assert run.status == 2
    assert not (tmp_path / "out").exists()


def test_a_store_needs_its_photographs_for_colours(widebase, tmp_path):
    store = make_store(tmp_path, records(2), 2)
    (tmp_path / "photographs" / name(0)).unlink()
    run = widebase("export", store, "--to", "ply", "--out", tmp_path / "cloud.ply")
    assert run.status == 2
    assert name(0) in run.err
    assert len(MatchStore.open(store)) == 1
