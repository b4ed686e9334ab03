from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from matcher import Matcher
from matcher.checkpoints.released import RELEASED_LICENCE
from matcher.cli.app import app
from matcher.geometry.pose import rotation_error_deg, translation_error_deg

pytestmark = pytest.mark.usefixtures("relief_model")
RELIEF = ("--model", "relief", "--json")


def camera_text(camera):
    return ",".join(f"{value}" for value in camera.params)


def check_rotation(values):
    rotation = np.array(values["rotation"])
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    return rotation


def test_pose_with_cameras(widebase, photographs, relief):
    run = widebase(
        "pose",
        *photographs,
        *RELIEF,
        "--camera0",
        camera_text(relief.camera0),
        "--camera1",
        camera_text(relief.camera1),
    )
    assert (run.status, run.err) == (0, "")
    values = run.json
    assert set(values) == {
        "rotation",
        "translation",
        "is_metric",
        "method",
        "focals",
        "num_matches",
        "num_inliers",
        "model",
        "licence",
        "seconds",
    }
    true = relief.cam1_from_cam0
    assert rotation_error_deg(check_rotation(values), true.rotation) < 0.15
    assert translation_error_deg(values["translation"], true.translation) < 0.5
    assert np.linalg.norm(values["translation"]) == pytest.approx(1)
    assert values["is_metric"] is False
    assert values["focals"] == [[352.0, 352.0], [352.0, 352.0]]
    assert 800 < values["num_inliers"] <= values["num_matches"]
    assert (values["model"], values["licence"]) == ("relief", "CC0-1.0")
    assert 0 < values["seconds"] < 60


@pytest.mark.parametrize("estimator", ["poselib", "magsac"])
def test_pose_without_cameras(widebase, photographs, relief, estimator):
    run = widebase("pose", *photographs, *RELIEF, "--estimator", estimator, "--seed", 3)
    assert run.status == 0
    true = relief.cam1_from_cam0
    assert rotation_error_deg(check_rotation(run.json), true.rotation) < 0.5
    assert translation_error_deg(run.json["translation"], true.translation) < 2.5
    assert run.json["focals"][0][0] == pytest.approx(relief.camera0.focals[0], rel=0.03)


def test_the_same_seed_gives_the_same_pose(widebase, photographs):
    first = widebase("pose", *photographs, *RELIEF, "--seed", 5).json
    second = widebase("pose", *photographs, *RELIEF, "--seed", 5).json
    assert first["rotation"] == second["rotation"]
    assert first["translation"] == second["translation"]


def test_pose_for_a_person(widebase, photographs, tmp_path):
    picture = tmp_path / "[bold] pose [red] :smile:.png"  # brackets that rich would take for markup
    run = widebase("pose", *photographs, "--model", "relief", "--draw", picture)
    assert run.status == 0
    assert "rotation (cam1_from_cam0)\n[[" in run.out
    assert "translation (direction only)" in run.out
    assert "with relief (CC0-1.0)" in run.out
    assert f"wrote {picture}" in run.out
    with Image.open(picture) as written:
        assert written.size[0] >= 640


@pytest.mark.parametrize("verb", ["match", "pose"])
def test_a_person_is_told_that_a_photograph_was_turned(widebase, photographs, monkeypatch, verb):
    match = Matcher.match

    def turned(*arguments, **options):
        return dataclasses.replace(match(*arguments, **options), quarter_turns1=2)

    upright = widebase(verb, *photographs, "--model", "relief")
    monkeypatch.setattr(Matcher, "match", turned)
    run = widebase(verb, *photographs, "--model", "relief")
    assert "photograph 1 was matched turned by 180 degrees" in " ".join(run.out.split())
    assert "turned" not in upright.out


def test_no_pose_is_exit_status_3(widebase, photographs):
    run = widebase("pose", photographs[0], photographs[0], *RELIEF)
    assert (run.status, run.err) == (3, "")
    assert set(run.json) == {
        "pose",
        "reason",
        "num_matches",
        "num_inliers",
        "model",
        "licence",
        "seconds",
    }
    assert run.json["pose"] is None
    assert "taken from the same place" in run.json["reason"]
    assert run.json["num_inliers"] == 0
    assert run.json["num_matches"] > 800
    for_a_person = widebase("pose", photographs[0], photographs[0], "--model", "relief")
    assert for_a_person.status == 3
    assert for_a_person.out.startswith("no pose: ")


@pytest.mark.parametrize("verb", ["match", "pose"])
def test_a_blank_photograph_is_exit_status_3(widebase, photographs, tmp_path, verb):
    blank, picture = tmp_path / "blank.png", tmp_path / "drawn.png"
    Image.new("RGB", (200, 100), (9, 9, 9)).save(blank)
    run = widebase(verb, photographs[0], blank, *RELIEF, "--draw", picture)
    assert (run.status, run.err) == (3, "")
    assert run.json["reason"] == "image1 is blank: all its values lie between 9 and 9"
    assert run.json["num_matches"] == 0
    assert picture.is_file()


def test_match_prints_its_matches(widebase, photographs, relief):
    run = widebase("match", *photographs, *RELIEF, "--top-k", 100)
    assert (run.status, run.err) == (0, "")
    values = run.json
    assert set(values) == {
        "keypoints0",
        "keypoints1",
        "confidence",
        "size0",
        "size1",
        "num_matches",
        "overlap_score",
        "quarter_turns1",
        "reason",
        "model",
        "licence",
        "seconds",
        "out",
        "draw",
    }
    assert values["num_matches"] == len(values["keypoints0"]) == 100
    errors = np.array(values["keypoints1"]) - relief.true_keypoints1(values["keypoints0"])
    assert np.median(np.abs(errors)) < 0.3
    assert 0 < min(values["confidence"]) <= max(values["confidence"]) <= 1
    assert values["size0"] == values["size1"] == [240, 320]
    assert values["reason"] is values["out"] is values["draw"] is None


def test_match_writes_its_matches(widebase, photographs, tmp_path):
    out, picture = tmp_path / "pair.npz", tmp_path / "pair.jpg"
    options = ("--out", out, "--draw", picture, "--symmetric", "--max-size", 160)
    run = widebase("match", *photographs, *RELIEF, *options, "--crops", "never")
    assert run.status == 0
    assert "keypoints0" not in run.json
    assert (run.json["out"], run.json["draw"]) == (str(out), str(picture))
    with np.load(out) as saved:
        assert saved["keypoints0"].shape == (run.json["num_matches"], 2)
        assert str(saved["licence"]) == "CC0-1.0"
    assert sorted(os.listdir(tmp_path)) == ["pair.jpg", "pair.npz"]


def test_match_for_a_person(widebase, photographs, tmp_path):
    out = tmp_path / "pair.npz"
    run = widebase("match", *photographs, "--model", "relief", "--out", out)
    assert run.status == 0
    assert "matches in" in run.out
    assert run.out.endswith(f"wrote {out}\n")


def test_an_untrained_checkpoint_runs(widebase, photographs, tiny_checkpoint):
    options = ("--model", tiny_checkpoint, "--json", "--max-size", 96, "--crops", "never")
    found = widebase("match", *photographs, *options)
    assert found.status in (0, 3)
    assert (found.json["model"], found.json["licence"]) == ("tiny", "CC0-1.0")
    answer = widebase("pose", *photographs, *options)
    assert answer.status == 3
    assert answer.json["pose"] is None


def test_info(widebase):
    run = widebase("info", "--json")
    assert (run.status, run.err) == (0, "")
    values = run.json
    assert set(values) == {"python", "packages", "devices", "threads", "models"}
    assert values["packages"]["torch"].count(".") >= 2
    assert values["devices"][0] == "cpu"
    small = values["models"][0]
    assert small["name"] == "small"
    assert small["origin"] == "bundled"
    assert len(small["sha256"]) == (64 if small["is_present"] else 0)
    assert {m["licence"] for m in values["models"][1:]} == {RELEASED_LICENCE}
    assert "NC" in RELEASED_LICENCE
    for_a_person = widebase("info")
    assert for_a_person.status == 0
    assert "naver/MASt3R_ViTLarge_BaseDecoder_512_catmlpdpt_metric" in for_a_person.out


def test_every_verb_has_help():
    runner = CliRunner()
    listing = runner.invoke(app, ["--help"])
    assert listing.exit_code == 0
    for verb in ("match", "pose", "demo", "info", "train"):
        assert verb in listing.output
        assert runner.invoke(app, [verb, "--help"]).exit_code == 0


@pytest.mark.slow
def test_as_a_program_of_its_own(photographs, tiny_checkpoint, tmp_path):
    """``python -m matcher``: statuses and streams as a shell sees them."""

    def run(*arguments):
        command = [sys.executable, "-W", "ignore", "-m", "matcher", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    options = ("--model", tiny_checkpoint, "--json", "--max-size", 96, "--crops", "never")
    blank = tmp_path / "blank.png"
    Image.new("RGB", (96, 72), "grey").save(blank)
    nothing = run("pose", photographs[0], blank, *options)
    assert (nothing.returncode, nothing.stderr) == (3, "")
    assert json.loads(nothing.stdout)["pose"] is None
    wrong = run("pose", photographs[0], "nowhere.jpg", *options)
    assert wrong.returncode == 2
    assert wrong.stdout == ""
    assert wrong.stderr == "error: image1: expected an image file, got no file at nowhere.jpg\n"
