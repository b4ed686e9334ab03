"""``widebase reconstruct``: what it writes, says, and answers where nothing can be built."""

from __future__ import annotations

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from matcher.cli import reconstruction_verbs
from matcher.geometry.pixels import camera_to_colmap
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.coloring import colored
from matcher.structures import Pose
from tests.unit.reconstruction.rendered import plane_reconstruction

pytestmark = pytest.mark.usefixtures("relief_model")
RELIEF = ("--model", "relief", "--json")
FILES = ["cloud.ply", "scene.glb", "view.png", "view.html"]


@pytest.fixture
def folder(tmp_path):
    """Four photographs, 120 x 160 px."""
    made = tmp_path / "photographs"
    made.mkdir()
    for index in range(4):
        Image.new("RGB", (160, 120), (40, 60 * index, 90)).save(made / f"{index}.png")
    return made


@pytest.fixture
def asked(monkeypatch):
    """The alignment is replaced: it notes what it was asked, and answers a known plane."""
    calls = []

    def answer(matcher, photographs, **arguments):
        calls.append((photographs, arguments))
        scene = plane_reconstruction()
        scene = dataclasses.replace(
            scene,
            images=scene.images[:3],
            unregistered={"3.png": "it shows another place"},
            model=matcher.info.name,
            licence=matcher.info.licence,
        )
        return colored(scene, photographs)

    monkeypatch.setattr(reconstruction_verbs, "reconstruct_photographs", answer)
    return calls


def test_all_files_are_written(widebase, folder, asked, tmp_path):
    out = tmp_path / "deep" / "out"
    run = widebase("reconstruct", folder, "--out", out, *RELIEF)
    assert run.status == 0, run.err
    values = run.json
    assert (values["photographs"], values["registered"]) == (4, 3)
    assert values["unregistered"] == {"3.png": "it shows another place"}
    assert (values["cloud_points"], values["cloud_from"]) == (3 * 60 * 80, "pointmaps")
    assert (values["model"], values["licence"]) == ("relief", "CC0-1.0")
    assert values["files"][:4] == FILES
    assert values["files"][-1] == "summary.json"
    tops = {path.split("/")[0] for path in values["files"]}
    assert {path.name for path in out.iterdir()} == tops
    summary = json.loads((out / "summary.json").read_text())
    assert summary["registered"] == 3
    scene = plane_reconstruction()
    for image in scene.images[:3]:
        camera = summary["cameras"][image.name]
        assert camera["params"] == list(image.camera.params)
        np.testing.assert_allclose(
            camera["cam_from_world"]["rotation"], image.cam_from_world.rotation
        )
    assert b"comment model relief, licence CC0-1.0" in (out / "cloud.ply").read_bytes()
    assert "it shows another place" in (out / "view.html").read_text()
    with Image.open(out / "view.png") as picture:
        assert picture.size == (1200, 900)
    # Points have the colours of their photographs: here green tells which.
    body = (out / "cloud.ply").read_bytes().split(b"end_header\n")[1]
    assert set(np.frombuffer(body, np.uint8).reshape(-1, 19)[:, 13]) == {0, 60, 120}
    photographs, arguments = asked[0]
    assert photographs.names == ("0.png", "1.png", "2.png", "3.png")
    assert (arguments["method"], arguments["pairs"], arguments["cameras"]) == ("sparse", None, {})


def test_a_colmap_model_where_pycolmap_is(widebase, folder, asked, tmp_path):
    pycolmap = pytest.importorskip("pycolmap")
    run = widebase("reconstruct", folder, "--out", tmp_path / "out", *RELIEF)
    assert "colmap/sparse/0" in run.json["files"]
    model = pycolmap.Reconstruction(tmp_path / "out" / "colmap" / "sparse" / "0")
    assert model.num_reg_images() == 3


def test_a_person_reads_what_happened(widebase, folder, asked, tmp_path):
    run = widebase("reconstruct", folder, "--out", tmp_path / "out", "--model", "relief")
    assert run.status == 0
    assert "3 of 4 photographs have a place" in run.out
    assert "3.png: it shows another place" in run.out
    assert "14400 points of pointmaps, in an arbitrary unit" in run.out
    assert "view.html" in run.out


def test_cameras_pairs_and_method_arrive(widebase, folder, asked, tmp_path):
    pairs, cameras = tmp_path / "pairs.txt", tmp_path / "cameras.txt"
    pairs.write_text("0.png 1.png\n2.png 1.png\n")
    cameras.write_text("1.png PINHOLE 160 120 300 300 80 60\nother.png PINHOLE 9 9 9 9 4 4\n")
    options = ("--pairs", pairs, "--method", "pointmaps")
    first = widebase("reconstruct", folder, "--out", tmp_path / "a", "--cameras", cameras, *options)
    assert first.status == 0, first.err
    second = widebase("reconstruct", folder, "--out", tmp_path / "b", "--camera", "300,301,80,60")
    assert second.status == 0, second.err
    (_, arguments), (_, shared) = asked
    assert arguments["pairs"] == [("0.png", "1.png"), ("2.png", "1.png")]
    assert arguments["method"] == "pointmaps"
    assert list(arguments["cameras"]) == ["1.png"]
    assert arguments["cameras"]["1.png"].principal_point == (79.5, 59.5)
    assert [camera.params for camera in shared["cameras"].values()] == [(300, 301, 80, 60)] * 4


def test_nothing_is_an_answer_too(widebase, folder, tmp_path, monkeypatch):
    reasons = {f"{index}.png": "no pair has matches" for index in range(4)}
    monkeypatch.setattr(
        reconstruction_verbs,
        "reconstruct_photographs",
        lambda *_, **__: Reconstruction((), unregistered=reasons),
    )
    run = widebase("reconstruct", folder, "--out", tmp_path / "out", *RELIEF)
    assert run.status == 3
    assert run.json["registered"] == 0
    assert run.json["unregistered"] == reasons
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["summary.json"]
    told = widebase("reconstruct", folder, "--out", tmp_path / "out", "--model", "relief")
    assert told.status == 3
    assert "nothing could be reconstructed" in told.out
    assert "2.png: no pair has matches" in told.out


def test_its_own_pictures_are_no_photographs(widebase, folder, asked, tmp_path):
    for _ in range(2):
        run = widebase("reconstruct", folder, "--out", folder / "out", *RELIEF)
        assert run.status == 0, run.err
        assert run.json["photographs"] == 4


def bad(widebase, *arguments):
    run = widebase("reconstruct", *arguments)
    assert run.status == 2
    assert run.out == ""
    assert run.err.startswith("error: ")
    assert run.err.count("\n") == 1
    return run.err


def test_bad_input_is_one_line(widebase, folder, asked, tmp_path):
    out = ("--out", tmp_path / "out")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "folder: expected photographs" in bad(widebase, empty, *out)
    assert "folder: expected a folder" in bad(widebase, tmp_path / "gone", *out)
    Image.new("RGB", (9, 9)).save(empty / "one.png")
    assert "at least two photographs, got 1" in bad(widebase, empty, *out)
    assert "--out: expected another folder" in bad(widebase, folder, "--out", folder)
    (tmp_path / "file").write_text("")
    assert "--out: expected a folder" in bad(widebase, folder, "--out", tmp_path / "file" / "x")
    assert "--camera, --cameras" in bad(
        widebase, folder, *out, "--camera", "9,9,4,4", "--cameras", tmp_path / "file"
    )
    assert "--camera: expected fx,fy,cx,cy" in bad(widebase, folder, *out, "--camera", "1,2")
    assert "--cameras: expected" in bad(widebase, folder, *out, "--cameras", tmp_path / "file")
    (tmp_path / "file").write_text("other.png PINHOLE 9 9 9 9 4 4\n")
    message = bad(widebase, folder, *out, "--cameras", tmp_path / "file")
    assert "--cameras: expected cameras of" in message
    (tmp_path / "file").write_text("0.png nobody.png\n")
    assert "--pairs: expected photographs of" in bad(
        widebase, folder, *out, "--pairs", tmp_path / "file"
    )
    Image.new("RGB", (120, 160)).save(folder / "upright.png")
    message = bad(widebase, folder, *out, "--camera", "300,300,80,60")
    assert "--camera: expected photographs of one size" in message
    assert "120 x 160 (upright.png)" in message
    assert asked == []
    assert not (tmp_path / "out").exists()


def test_two_photographs_become_a_reconstruction(widebase, photographs, relief, tmp_path):
    """The alignment itself, on matches that are true; a third file is a copy of the first."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, path in (("a.png", photographs[0]), ("b.png", photographs[1])):
        shutil.copy(path, folder / name)
    shutil.copy(photographs[0], folder / "c.png")
    cameras = tmp_path / "cameras.txt"
    lines = []
    for name, camera in (("a.png", relief.camera0), ("b.png", relief.camera1)):
        shifted = camera_to_colmap(camera)
        numbers = " ".join(map(str, shifted.params))
        lines.append(f"{name} PINHOLE {camera.size.width} {camera.size.height} {numbers}\n")
    cameras.write_text("".join(lines))
    run = widebase("reconstruct", folder, "--out", tmp_path / "out", "--cameras", cameras, *RELIEF)
    assert run.status == 0, run.err
    assert run.json["registered"] == 2
    assert run.json["unregistered"] == {"c.png": "same file as a.png"}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    poses = [summary["cameras"][name]["cam_from_world"] for name in ("a.png", "b.png")]
    first, second = (Pose(np.array(p["rotation"]), np.array(p["translation"])) for p in poses)
    found, true = second @ first.inverse, relief.cam1_from_cam0
    assert rotation_error_deg(found.rotation, true.rotation) < 0.3
    assert translation_error_deg(found.translation, true.translation) < 1


def test_colmap_maps_our_matches(widebase, photographs, tmp_path, monkeypatch):
    """The verb hands records, photographs and known cameras to the mapper, copies left out."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    for name, path in zip(("a.png", "b.png", "c.png"), (*photographs, photographs[0]), strict=True):
        shutil.copy(path, folder / name)
    seen = []

    def mapped(records, known, out, **arguments):
        seen.append((records, known, out, arguments))
        reasons = dict.fromkeys(known.names, "too few matches")
        return Reconstruction((), unregistered=reasons)

    monkeypatch.setattr(reconstruction_verbs, "map_with_colmap", mapped)
    run = widebase(
        "reconstruct", folder, "--out", tmp_path / "out", "--mapper", "colmap-global", *RELIEF
    )
    assert run.status == 3, run.err
    assert run.json["method"] == "colmap-global"
    assert run.json["unregistered"]["c.png"] == "same file as a.png"
    assert run.json["unregistered"]["a.png"] == "too few matches"
    ((records, known, out, arguments),) = seen
    assert [record.names for record in records] == [("a.png", "b.png")]
    assert len(records[0]) > 100
    assert known.names == ("a.png", "b.png")
    assert (out, arguments) == (tmp_path / "out" / "colmap", {"mapper": "global", "cameras": {}})
