"""Query lists, runs that go on where they stopped, and submissions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from matcher import DatasetError, InputError
from matcher.geometry.pose import quaternion_to_rotation
from matcher.localization.batch import (
    Query,
    localize_queries,
    read_query_list,
    write_submission,
)


def camera_line(camera):
    """The camera in COLMAP's convention, whose (0, 0) is the image's corner."""
    fx, fy, cx, cy = camera.params
    return f"PINHOLE 256 192 {fx} {fy} {cx + 0.5} {cy + 0.5}"


@pytest.fixture
def queries(scene):
    return [Query("query.png", scene.camera), Query("gone.png"), Query("images/2.png")]


BOUND = {"model": "a", "map": "b"}


def test_a_list_is_read_in_colmaps_convention(scene, tmp_path):
    path = tmp_path / "queries.txt"
    path.write_text(
        "# comment\n\n"
        f"q/1.jpg {camera_line(scene.camera)}\n"
        "2.jpg SIMPLE_RADIAL 640 480 500 320 240 -0.1\n"
        "3.jpg SIMPLE_PINHOLE 640 480 500 320 240\n"
        "4.jpg RADIAL 640 480 500 320 240 -0.1 0.01\n"
        "5.jpg\n"
    )
    first, second, third, fourth, fifth = read_query_list(path)
    assert first.name == "q/1.jpg"
    assert first.camera.params == pytest.approx(scene.camera.params)
    assert (second.camera.model, second.camera.params) == (
        "SIMPLE_RADIAL",
        (500, 319.5, 239.5, -0.1),
    )
    assert (third.camera.model, third.camera.params) == ("PINHOLE", (500, 500, 319.5, 239.5))
    assert fourth.camera.params == (500, 500, 319.5, 239.5, -0.1, 0.01, 0, 0)
    assert fifth.camera is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("a.jpg PINHOLE 640", "line 1 of .*: PINHOLE 640"),
        ("a.jpg PINHOLE 640 480 500 500 x 240", "line 1 of"),
        ("a.jpg PINHOLE 640 480 500 320 240", "4 numbers .* for PINHOLE, got 3"),
        ("a.jpg SIMPLE_PINHOLE 640 480 500 500 320 240", "3 numbers, got 4"),
        ("a.jpg FISHEYE 640 480 500 320 240", "camera model"),
        ("a.jpg PINHOLE 640 480 -5 5 320 240", "a positive number"),
        ("a.jpg\na.jpg", "a.jpg again in line 2"),
        ("# nothing", "at least one query"),
    ],
)
def test_a_broken_list_is_refused_by_its_line(tmp_path, line, expected):
    path = tmp_path / "queries.txt"
    path.write_text(line)
    with pytest.raises(InputError, match=expected):
        read_query_list(path)
    with pytest.raises(InputError, match="a text file"):
        read_query_list(tmp_path / "absent.txt")


def test_a_list_is_localized_and_submitted(scene, rgbd_map, matcher, queries, tmp_path):
    log, shown = tmp_path / "log.jsonl", []
    with rgbd_map.localizer(matcher) as localizer:
        summary = localize_queries(
            localizer,
            queries,
            scene.folder,
            log,
            bound_to=BOUND,
            progress=lambda done, count, reason: shown.append((done, count, bool(reason))),
        )
    assert (summary.num_queries, summary.num_localized, summary.num_reused) == (3, 2, 0)
    assert summary.without_pose.keys() == {"gone.png"}
    assert "no file at" in summary.without_pose["gone.png"]
    assert shown == [(1, 3, False), (2, 3, True), (3, 3, False)]
    assert write_submission(log, tmp_path / "poses.txt") == 2
    lines = [line.split() for line in (tmp_path / "poses.txt").read_text().splitlines()]
    assert [line[0] for line in lines] == ["query.png", "images/2.png"]
    numbers = np.array(lines[0][1:], dtype=float)
    truth = scene.query.cam_from_world
    np.testing.assert_allclose(quaternion_to_rotation(numbers[:4]), truth.rotation, atol=2e-3)
    np.testing.assert_allclose(numbers[4:], truth.translation, atol=0.01)
    write_submission(log, tmp_path / "names.txt", names_only=True)
    assert (tmp_path / "names.txt").read_text().splitlines()[1].startswith("2.png ")


def test_an_interrupted_run_goes_on(scene, rgbd_map, matcher, queries, tmp_path):
    log = tmp_path / "log.jsonl"
    localizer = rgbd_map.localizer(matcher)

    def interrupt(done, count, reason):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        localize_queries(localizer, queries, scene.folder, log, bound_to=BOUND, progress=interrupt)
    whole = log.read_text()
    log.write_text(whole + '{"name": "images/2.png", "cam_from')  # a line that was cut off
    before = matcher.network.num_encoded
    summary = localize_queries(localizer, queries, scene.folder, log, bound_to=BOUND)
    assert (summary.num_reused, summary.num_localized) == (2, 2)
    assert matcher.network.num_encoded == before + 1
    assert log.read_text().startswith(whole)
    names = [json.loads(line).get("name") for line in log.read_text().splitlines()]
    assert names == [None, "query.png", "gone.png", "images/2.png"]


@pytest.mark.parametrize("content", ["mine, not a log\n", '{"bound_to": {"model": "x"}}\n'])
def test_another_log_is_not_touched(scene, rgbd_map, matcher, queries, tmp_path, content):
    log = tmp_path / "log.jsonl"
    log.write_text(content)
    with pytest.raises(InputError, match="one of the same model, options and map"):
        localize_queries(rgbd_map.localizer(matcher), queries, scene.folder, log, bound_to=BOUND)
    assert log.read_text() == content


def test_places_that_cannot_be_written(scene, rgbd_map, matcher, queries, tmp_path):
    with pytest.raises(InputError, match="log: expected a file that can be written"):
        localize_queries(
            rgbd_map.localizer(matcher),
            queries,
            scene.folder,
            tmp_path / "absent" / "log",
            bound_to=BOUND,
        )
    with pytest.raises(DatasetError, match="no log of queries"):
        write_submission(tmp_path / "log", tmp_path / "poses.txt")
    (tmp_path / "log").write_text('{"bound_to": {}}\n')
    with pytest.raises(InputError, match="submission: expected a file that can be written"):
        write_submission(tmp_path / "log", tmp_path / "absent" / "poses.txt")
