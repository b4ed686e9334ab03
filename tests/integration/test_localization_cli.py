"""``map build`` and ``localize`` as a shell runs them, on an exact relief."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from matcher.geometry.pose import rotation_error_deg
from matcher.localization.map_files import MAP_NAME
from tests.localization_scene import scene_matcher, sparse_reconstruction, write_scene


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    return write_scene(tmp_path_factory.mktemp("relief"))


@pytest.fixture(autouse=True)
def relief_models(monkeypatch, scene):
    """``--model relief`` (or ``other``) is the stand-in network."""
    from matcher.cli import pair_verbs

    load = pair_verbs.load_matcher

    def load_relief(model: str, device: str | None, options: Any) -> Any:
        if model not in ("relief", "other"):
            return load(model, device, options)
        sha256 = ("1" if model == "relief" else "2") * 64
        matcher = scene_matcher(scene, sha256=sha256, name=model)
        matcher.options = options
        return matcher

    monkeypatch.setattr(pair_verbs, "load_matcher", load_relief)


@pytest.fixture
def built(widebase, scene, tmp_path):
    out = tmp_path / "map"
    run = widebase(
        "map", "build", "--rgbd", scene.folder / "map.jsonl", "--out", out, "--model", "relief",
        "--json",
    )  # fmt: skip
    assert (run.status, run.json["num_references"], run.json["missing"]) == (0, 5, {})
    return out


def camera_text(scene):
    return ",".join(map(str, scene.camera.params))


def test_a_photograph_is_localized(widebase, scene, built, tmp_path):
    picture = tmp_path / "query.jpg"
    run = widebase(
        "localize", scene.query_path, "--map", built, "--camera", camera_text(scene),
        "--model", "relief", "--max-size", 256, "--references", 3, "--draw", picture, "--json",
    )  # fmt: skip
    assert run.status == 0
    values = run.json
    truth = scene.query.cam_from_world
    pose = values["cam_from_world"]
    assert rotation_error_deg(np.array(pose["rotation"]), truth.rotation) < 0.1
    np.testing.assert_allclose(pose["translation"], truth.translation, atol=0.01)
    assert values["num_inliers"] > 1000
    assert values["references"][0]["name"] in ("images/2.png", "images/3.png")
    assert len(values["references"]) == 3
    assert np.shape(values["covariance"]) == (6, 6)
    assert (values["model"], values["licence"], values["is_metric"]) == ("relief", "CC0-1.0", True)
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 400


@pytest.mark.parametrize("option", ["--colmap", "--reconstruction"])
def test_a_reconstruction_is_a_map(widebase, scene, tmp_path, option):
    pytest.importorskip("pycolmap")
    from matcher.reconstruction.colmap_model import write_model

    folder = tmp_path / "made"
    folder.mkdir()
    write_model(sparse_reconstruction(scene), folder / "colmap")
    (folder / "summary.json").write_text('{"is_metric": true}')
    out = tmp_path / "map"
    source = folder / "colmap" if option == "--colmap" else folder
    run = widebase(
        "map", "build", option, source, "--images", scene.folder / "images", "--out", out,
        "--model", "relief", "--json",
    )  # fmt: skip
    assert (run.status, run.json["num_references"]) == (0, 5)
    assert run.json["is_metric"] is (option == "--reconstruction")
    found = widebase(
        "localize", scene.query_path, "--map", out, "--camera", camera_text(scene),
        "--model", "relief", "--max-size", 256, "--json",
    )  # fmt: skip
    truth = scene.query.cam_from_world.translation
    np.testing.assert_allclose(found.json["cam_from_world"]["translation"], truth, atol=0.01)
    wrong = widebase(
        "map", "build", "--reconstruction", tmp_path, "--images", scene.folder, "--out", out
    )
    assert wrong.status == 2
    assert "a folder that widebase reconstruct wrote" in wrong.err


def test_a_person_reads_it_too(widebase, scene, built):
    run = widebase(
        "localize", scene.query_path, "--map", built, "--model", "relief", "--max-size", 256
    )
    assert run.status == 0
    assert "rotation (cam_from_world)" in run.out
    assert "translation (metres)" in run.out
    assert "correspondences agree; pnp_focal; best: images/" in run.out


def test_no_answer_is_null_with_a_reason_and_status_3(widebase, built, tmp_path):
    blank = tmp_path / "blank.png"
    Image.new("RGB", (256, 192), (90, 90, 90)).save(blank)
    run = widebase("localize", blank, "--map", built, "--model", "relief", "--json")
    assert run.status == 3
    assert run.json["cam_from_world"] is None
    assert run.json["num_inliers"] == 0
    assert run.json["reason"].startswith("the query is blank")
    said = widebase("localize", blank, "--map", built, "--model", "relief")
    assert said.status == 3
    assert "no pose: the query is blank" in said.out


def test_a_photograph_alone_is_a_map(widebase, scene):
    run = widebase(
        "localize", scene.query_path, "--map", scene.images[3], "--camera", camera_text(scene),
        "--model", "relief", "--max-size", 256, "--json",
    )  # fmt: skip
    assert run.status == 0
    assert run.json["method"] == "relative"
    assert run.json["is_metric"] is False
    assert np.linalg.norm(run.json["cam_from_world"]["translation"]) == pytest.approx(1)


def test_a_list_is_localized_and_goes_on(widebase, scene, built, tmp_path):
    fx, fy, cx, cy = scene.camera.params
    listed = tmp_path / "queries.txt"
    line = f"PINHOLE 256 192 {fx} {fy} {cx + 0.5} {cy + 0.5}"
    listed.write_text(f"query.png {line}\nimages/1.png {line}\nabsent.png\n")
    out = tmp_path / "poses.txt"
    arguments = (
        "localize", "--queries", listed, "--images", scene.folder, "--map", built, "--out", out,
        "--max-size", 256,
    )  # fmt: skip
    run = widebase(*arguments, "--model", "relief", "--json")
    assert (run.status, run.json["num_localized"], run.json["num_reused"]) == (0, 2, 0)
    assert run.json["without_pose"].keys() == {"absent.png"}
    assert [line.split()[0] for line in out.read_text().splitlines()] == [
        "query.png",
        "images/1.png",
    ]
    again = widebase(*arguments, "--model", "relief")
    assert again.status == 0
    assert "2 of 3 queries have a pose" in again.out
    assert "absent.png: query: expected an image file" in again.err
    options = widebase(*arguments, "--model", "relief", "--seed", 1)
    assert options.status == 2
    assert "one of the same model, options and map" in options.err


def test_what_is_left_out_is_said(widebase, scene, tmp_path):
    entries = [json.loads(line) for line in (scene.folder / "map.jsonl").read_text().splitlines()]
    for entry in entries:
        entry["image"] = str(scene.folder / entry["image"])
        entry["depth"] = str(scene.folder / entry["depth"])
    entries[1]["depth"] = "absent.png"
    (tmp_path / "map.jsonl").write_text("\n".join(map(json.dumps, entries)))
    run = widebase(
        "map", "build", "--rgbd", tmp_path / "map.jsonl", "--out", tmp_path / "map",
        "--no-retrieval",
    )  # fmt: skip
    assert run.status == 0
    assert "4 references" in run.out
    assert "left out" in run.out
    assert "nothing at" in run.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("map", "build", "--out", "m"),
            "--colmap, --reconstruction, --rgbd: expected one of them, got 0",
        ),
        (("map", "build", "--out", "m", "--colmap", "x"), "--images: expected the folder"),
        (("map", "build", "--out", "m", "--rgbd", "absent.jsonl"), "No such file"),
        (("localize", "--map", "m"), "QUERY, --queries: expected one of them, got neither"),
        (("localize", "q.png"), "--map: expected the folder of a map"),
        (("localize", "q.png", "--map", "absent"), "no map at absent"),
        (("localize", "q.png", "--map", "m", "--camera", "1,2"), "--camera: expected fx,fy,cx,cy"),
        (("localize", "q.png", "--map", "m", "--out", "p.txt"), "--out: expected --queries"),
        (("localize", "q.png", "--map", "m", "--draw", "p.gif"), "--draw: expected a name that"),
        (("localize", "--queries", "l", "--map", "m"), "--images: expected the folder of the"),
        (
            ("localize", "--queries", "l", "--images", ".", "--map", "m"),
            "--out: expected a file in a folder that exists",
        ),
        (
            ("localize", "--queries", "l", "--images", ".", "--map", "m", "--camera", "1,1,1,1"),
            "--camera: expected a single query",
        ),
    ],
)
def test_mistakes_are_one_line_and_status_2(widebase, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    run = widebase(*arguments)
    assert run.status == 2
    assert message in run.err
    assert run.err.count("\n") == 1
    assert run.out == ""


def test_a_map_of_another_model_is_refused(widebase, scene, built):
    run = widebase("localize", scene.query_path, "--map", built, "--model", "other")
    assert run.status == 2
    assert "which made the retrieval index, got other" in run.err


def test_a_folder_that_is_no_map_is_not_overwritten(widebase, scene, tmp_path):
    (tmp_path / "mine").mkdir()
    run = widebase(
        "map", "build", "--rgbd", scene.folder / "map.jsonl", "--out", tmp_path / "mine",
        "--no-retrieval",
    )  # fmt: skip
    assert run.status == 2
    assert "a new folder, or one that holds a map" in run.err
    assert not (tmp_path / "mine" / MAP_NAME).exists()
