"""The rendered benchmark of extreme viewpoints: what it promises, measured from its own files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.core.protocols import ScoredFrame
from benchmarks.core.samples import PoseTruth
from benchmarks.core.tasks import Answered, OracleOptions
from benchmarks.datasets import extreme
from benchmarks.datasets.extreme_scenes import BINS_DEG, ExtremeOptions, ExtremePair, SceneMaker
from benchmarks.tasks.pose import PoseTask
from matcher.errors import DatasetError, InputError
from matcher.geometry.pose import rotation_error_deg
from matcher.images import read_image
from matcher.structures import ImageSize
from matcher.synthetic import overlap

pytestmark = pytest.mark.slow  # together more than a few seconds

SMALL = ExtremeOptions(scenes=1, seed=3, size=96, textures=12, texture_size=64)


@pytest.fixture(scope="module")
def pairs() -> list[ExtremePair]:
    return SceneMaker(SMALL).pairs(0)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("extreme")
    done: list[tuple[int, int]] = []
    path = extreme.write_extreme(folder, SMALL, progress=lambda *step: done.append(step))
    assert path == folder / "pairs.jsonl"
    assert done == [(1, 1)]
    return folder


def test_each_bin_of_rotation_has_one_pair_with_common_content(pairs: list[ExtremePair]) -> None:
    assert tuple(pair.bin_deg for pair in pairs) == BINS_DEG
    for pair in pairs:
        low, high = pair.bin_deg
        angle = rotation_error_deg(pair.cam1_from_cam0[:3, :3], np.eye(3))
        assert angle == pytest.approx(pair.rotation_deg, abs=1e-6)
        assert low <= angle <= high
        depth0, depth1 = torch.from_numpy(pair.depth0), torch.from_numpy(pair.depth1)
        k0, k1 = torch.from_numpy(pair.k0), torch.from_numpy(pair.k1)
        pose = torch.from_numpy(pair.cam1_from_cam0)
        _, share = overlap(depth0, k0, depth1, k1, pose)
        assert float(share) == pytest.approx(pair.overlap)
        assert pair.overlap >= SMALL.min_overlap


def test_common_content_looks_alike(pairs: list[ExtremePair]) -> None:
    """Pixels that the truth joins have nearly the same colours; others do not."""
    pair = pairs[0]
    rows, columns = np.nonzero(pair.depth0)
    rays = np.c_[columns, rows, np.ones(len(rows))] @ np.linalg.inv(pair.k0).T
    points = rays * pair.depth0[rows, columns, None]
    moved = points @ pair.cam1_from_cam0[:3, :3].T + pair.cam1_from_cam0[:3, 3]
    image = moved @ pair.k1.T
    landed = np.rint(image[:, :2] / image[:, 2:]).astype(int)
    height, width = pair.depth1.shape
    inside = (moved[:, 2] > 0.1) & ((landed >= 0) & (landed < [width, height])).all(1)
    x, y = landed[inside].T
    joined = np.abs(pair.depth1[y, x] / moved[inside, 2] - 1) < 0.02
    assert joined.mean() > 0.05
    colours0 = pair.image0[rows[inside], columns[inside]].astype(float)
    colours1 = pair.image1[y, x].astype(float)
    difference = np.abs(colours0 - colours1).mean(1)
    assert np.median(difference[joined]) < 0.6 * np.median(
        np.abs(colours0 - np.random.default_rng(0).permutation(colours1)).mean(1)
    )


def test_what_is_read_is_what_was_rendered(rendered: Path, pairs: list[ExtremePair]) -> None:
    dataset = extreme.read(rendered)
    assert dataset.is_synthetic
    assert "synthetic" in dataset.title.lower()
    assert "seed 3" in dataset.notes[1]
    assert (dataset.kind, dataset.problems, len(dataset.samples)) == ("pose", (), 5)
    assert [sample.group for sample in dataset.samples] == [
        "030-060 deg",
        "060-090 deg",
        "090-120 deg",
        "120-150 deg",
        "150-180 deg",
    ]
    for sample, pair in zip(dataset.samples, pairs, strict=True):
        truth = sample.truth
        assert isinstance(truth, PoseTruth)
        assert truth.depth0 is not None
        np.testing.assert_array_equal(truth.k0, pair.k0)
        np.testing.assert_allclose(truth.cam1_from_cam0, pair.cam1_from_cam0, atol=1e-12)
        assert truth.overlap == pytest.approx(pair.overlap, abs=1e-4)
        assert truth.is_metric
        depth = np.asarray(Image.open(truth.depth0)) / truth.depth_scale
        np.testing.assert_allclose(depth, pair.depth0, atol=0.51 / truth.depth_scale)
        np.testing.assert_array_equal(depth > 0, pair.depth0 > 0)
        np.testing.assert_array_equal(read_image(sample.image0), pair.image0)
        np.testing.assert_array_equal(read_image(sample.image1), pair.image1)


def test_perfect_matches_score_one_on_every_bin(rendered: Path) -> None:
    dataset, task, protocol = extreme.read(rendered), PoseTask(), extreme.PROTOCOLS["ours"]
    scores = []
    for sample in dataset.samples:
        size = ImageSize(*read_image(sample.image0).shape[:2])
        frame = ScoredFrame.of(protocol.resize, size, size)
        prediction = task.oracle(sample, frame, OracleOptions(count=200))
        scores.append(task.score([Answered(sample, prediction, frame)], protocol))
    summary = task.summarise(scores, protocol)
    assert summary.metrics[0].value > 0.98
    assert len(summary.by_group) == len(BINS_DEG)
    assert all(metrics[0].value > 0.98 for metrics in summary.by_group.values())


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def test_the_seed_decides_every_byte(rendered: Path, tmp_path: Path) -> None:
    extreme.write_extreme(tmp_path / "again", SMALL)
    assert digest(tmp_path / "again") == digest(rendered)
    other = SceneMaker(ExtremeOptions(1, 4, 96, 12, 64)).pairs(0)
    assert not np.array_equal(other[0].image0, read_image(rendered / "images/scene_0000/0a.png"))


def test_a_scene_is_the_same_whatever_was_rendered_before(pairs: list[ExtremePair]) -> None:
    maker = SceneMaker(SMALL)
    second = maker.pairs(1)
    assert second[0].image0.shape == (96, 72, 3)
    np.testing.assert_array_equal(maker.pairs(0)[2].image1, pairs[2].image1)


def test_the_command_line_renders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photograph = np.random.default_rng(0).integers(0, 255, (80, 90, 3)).astype(np.uint8)
    (tmp_path / "photographs").mkdir()
    Image.fromarray(photograph).save(tmp_path / "photographs/a.png")
    words = f"--out {tmp_path}/set --scenes 1 --size 64 --num-textures 8 --texture-size 64"
    extreme.main([*words.split(), "--textures", str(tmp_path / "photographs")])
    assert "1 of 1 scenes" in capsys.readouterr().out
    options = json.loads((tmp_path / "set/extreme.json").read_text())
    assert (options["size"], options["texture_folders"]) == (64, 1)
    assert len(extreme.read(tmp_path / "set").samples) == 5


def test_a_finished_folder_is_kept_and_an_unfinished_one_is_none(
    rendered: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="there already"):
        extreme.write_extreme(rendered, SMALL)
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match=r"python -m benchmarks\.datasets\.extreme"):
        extreme.read(tmp_path)


def test_absent_textures_and_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="texture folder not found"):
        extreme.write_extreme(tmp_path / "set", SMALL, [tmp_path / "none"])
    with pytest.raises(DatasetError, match="mesh folder not found"):
        extreme.write_extreme(tmp_path / "set", SMALL, (), [tmp_path / "none"])
    with pytest.raises(InputError, match="extreme options"):
        ExtremeOptions(scenes=0)
    with pytest.raises(InputError, match="min_overlap"):
        ExtremeOptions(min_overlap=1.5)
