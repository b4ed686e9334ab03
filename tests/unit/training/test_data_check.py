"""The validator finds what is wrong, names the line and the file, and draws what losses see."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from matcher.cli import main
from matcher.errors import DatasetError
from matcher.structures import ImageSize
from matcher.synthetic.fixtures import TestPair, make_test_pair
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.data_check import check_manifest
from matcher.training.datasets import PairStream
from matcher.training.draw_batch import draw_batch
from matcher.training.manifest import read_pairs, read_views, write_correspondences

Make = Callable[..., TrainConfig]
Record = dict[str, Any]


def moved(pose: np.ndarray, distance: float) -> list[list[float]]:
    shift = np.eye(4)
    shift[0, 3] = distance
    result: list[list[float]] = (shift @ pose).tolist()
    return result


@pytest.fixture(scope="module")
def pair() -> TestPair:
    """Two views of a small rendered place."""
    return make_test_pair(size=ImageSize(96, 128))


@pytest.fixture
def records(tmp_path: Path, pair: TestPair) -> list[Record]:
    """Two views with depth of one scene, and a pair with matches and nothing else."""
    images = (pair.image0, pair.image1)
    for index, (image, depth) in enumerate(zip(images, (pair.depth0, pair.depth1), strict=True)):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), np.asarray(image)[..., ::-1])
        stored = np.rint(np.asarray(depth) * 1000).astype(np.uint16)
        assert cv2.imwrite(str(tmp_path / f"{index}_depth.png"), stored)
    poses = (np.eye(4), pair.cam1_from_cam0)
    views = [
        {
            "image": f"{index}.png",
            "K": pair.k.tolist(),
            "cam_from_world": poses[index].tolist(),
            "depth": f"{index}_depth.png",
            "depth_scale": 1000.0,
        }
        for index in range(2)
    ]
    grid = np.stack(np.meshgrid(np.arange(8, 120, 8), np.arange(8, 88, 8)), -1).reshape(-1, 2)
    write_correspondences(tmp_path / "matches.npz", grid, grid)
    return [*views, {"image0": "0.png", "image1": "1.png", "correspondences": "matches.npz"}]


def written(folder: Path, records: list[Record]) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_a_manifest_may_hold_views_and_pairs(tmp_path: Path, records: list[Record]) -> None:
    manifest = written(tmp_path, records)
    report = check_manifest(manifest)
    assert report.problems == ()
    assert report.is_valid
    assert (report.num_views, report.num_pairs, report.num_groups) == (2, 1, 1)
    assert report.num_matches == 140
    assert [view.image.name for view in read_views(manifest)] == ["0.png", "1.png"]
    (pair,) = read_pairs(manifest)
    assert pair.camera0 is None
    assert pair.cam1_from_cam0 is None


def broken(name: str, folder: Path, records: list[Record]) -> None:
    first, pair = records[0], records[2]
    if name == "missing image":
        first["image"] = "nowhere.png"
    elif name == "image":
        (folder / "broken.png").write_bytes(b"no picture")
        first["image"] = "broken.png"
    elif name == "depth":
        (folder / "0_depth.png").write_bytes((folder / "0_depth.png").read_bytes()[:40])
    elif name == "depth size":
        assert cv2.imwrite(str(folder / "0_depth.png"), np.ones((4, 4), np.uint16))
    elif name == "empty depth":
        assert cv2.imwrite(str(folder / "0_depth.png"), np.zeros((96, 128), np.uint16))
    elif name == "NaN depth":
        depth = np.ones((96, 128), np.float32)
        depth[3, 4] = np.nan
        assert cv2.imwrite(str(folder / "d.tiff"), depth)
        first["depth"] = "d.tiff"
    elif name == "NaN pose":
        first["cam_from_world"][0][3] = float("nan")
    elif name == "K":
        first["K"][0][2] = 4000.0
    elif name == "NaN matches":
        write_correspondences(folder / "matches.npz", [[np.nan, 1.0]], [[1.0, 1.0]])
    elif name == "outside":
        write_correspondences(folder / "matches.npz", [[127.4, 1.0]] * 40, [[128.0, 1.0]] * 40)
    elif name == "cut":
        (folder / "matches.npz").write_bytes((folder / "matches.npz").read_bytes()[:200])
    elif name == "no JSON":
        pair.clear()


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("missing image", 1, "image: no such file: .*nowhere.png"),
        ("image", 1, "cannot read .*broken.png"),
        ("depth", 1, "depth: cannot read .*0_depth.png"),
        ("depth size", 1, r"depth: expected the size of its picture \(96, 128\), got \(4, 4\)"),
        ("empty depth", 1, "depth: expected a known pixel, got none in .*0_depth.png"),
        ("NaN depth", 1, "depth: expected finite numbers .* in .*d.tiff"),
        ("NaN pose", 1, "cam_from_world: expected finite numbers"),
        ("K", 1, "K: expected a principal point inside the 128 x 96 picture, got 4000.0"),
        ("NaN matches", 3, "matches.npz: expected finite pixels"),
        ("outside", 3, "correspondences: 40 of 40 outside the 128 x 96 picture .*1.png"),
        ("cut", 3, "matches.npz: cannot read correspondences"),
        ("no JSON", 3, "image: expected a string"),
    ],
)
def test_every_error_names_its_line(
    tmp_path: Path, records: list[Record], name: str, line: int, message: str
) -> None:
    broken(name, tmp_path, records)
    report = check_manifest(written(tmp_path, records))
    assert not report.is_valid
    (error,) = [problem for problem in report.problems if problem.is_error]
    assert error.line == line
    assert len(error.message.splitlines()) == 1
    assert re.search(message, error.message), error.message


def test_what_is_never_drawn_is_said(tmp_path: Path, records: list[Record]) -> None:
    records[1]["cam_from_world"] = moved(np.array(records[1]["cam_from_world"]), 500.0)
    write_correspondences(tmp_path / "few.npz", [[1.0, 1.0]] * 9, [[1.0, 1.0]] * 9)
    records[2]["correspondences"] = "few.npz"
    lone = {**records[0], "group": "elsewhere"}
    flat = {key: value for key, value in records[0].items() if not key.startswith("depth")}
    report = check_manifest(written(tmp_path, [*records, lone, flat]))
    assert report.is_valid
    said = {problem.line: problem.message for problem in report.problems}
    assert set(said) == {1, 2, 3, 4, 5}
    assert said[1].startswith("zero overlap: shares 0% with the nearest other view")
    assert said[2].endswith("1.png")
    assert said[3].startswith("9 correspondences in ")
    assert "only view with depth of 'elsewhere'" in said[4]
    assert "without depth gives no pair" in said[5]


def test_a_manifest_without_lines_is_refused(tmp_path: Path) -> None:
    for content in (None, "\n\n"):
        path = tmp_path / "data.jsonl"
        if content is not None:
            path.write_text(content)
        with pytest.raises(DatasetError, match="data.jsonl: "):
            check_manifest(path)


def test_the_picture_shows_the_batch(tmp_path: Path, records: list[Record], toy: Make) -> None:
    manifest = written(tmp_path, records)
    data = DataConfig(
        view_manifests=(str(manifest),), pair_manifests=(str(manifest),), num_matches=64
    )
    batch = PairStream(toy(data=data, stages=(Stage(1.0, 64, 6),))).batch(1)
    assert set(batch.sources) == {"views", "pairs"}
    sheet = draw_batch(batch)
    height, width = batch.pixels0.shape[2:]
    assert sheet.shape == (22 + 6 * (height + 6) + 6, 6 * (width + 6) + 6, 3)
    for row, source in enumerate(batch.sources):
        top = 22 + row * (height + 6)
        mask = sheet[top : top + height, 6 + 4 * (width + 6) :][:, :width]
        known = batch.targets.valid0[row].numpy()
        assert np.array_equal(mask[..., 0] == 255, known)
        assert known.any() == (source == "views")


def test_the_command_line(
    tmp_path: Path,
    records: list[Record],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> int:
        monkeypatch.setattr(sys, "argv", ["widebase", "data", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
        return 0

    manifest, sheet = written(tmp_path, records), tmp_path / "sheet.png"
    drawing = ("--draw", sheet, "--samples", 2, "--image-size", 64)
    assert run("validate", manifest, *drawing) == 0
    text = capsys.readouterr().out
    assert "2 views with depth and 1 pairs with 140 matches in 1 places; 0 errors" in text
    assert cv2.imread(str(sheet)) is not None
    sheet.unlink()

    records[0]["image"] = "nowhere.png"
    assert run("validate", written(tmp_path, records), *drawing) == 2
    printed = capsys.readouterr()
    assert f"{manifest}:1: image: no such file" in printed.err
    assert not sheet.exists()
    assert run("validate", manifest, "--json") == 2
    answer = json.loads(capsys.readouterr().out)
    assert answer["valid"] is False
    assert [problem["line"] for problem in answer["problems"]] == [1, 2]
    assert run("validate", manifest, "--draw", tmp_path / "sheet.txt") == 2
