"""Fitting a calibration: pairs with known truth, and what is made of them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from matcher.checkpoints import CheckpointInfo, read_native, save_native
from matcher.cli.entry import app
from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork
from matcher.synthetic.pool import PoolOptions, write_pool
from matcher.training.calibrate import (
    CalibrationOptions,
    draw_known_pairs,
    expected_calibration_error,
    fit_calibration,
)

SMALL = CalibrationOptions(num_pairs=24, image_size=96, unrelated_share=0.35)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pool")
    assert len(list(write_pool(folder, [], PoolOptions(4, views=3, size=96, textures=8)))) == 4
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for number in range(4):
        small = random.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        picture = cv2.resize(small, (320, 240), interpolation=cv2.INTER_CUBIC)
        assert cv2.imwrite(str(folder / f"{number}.png"), picture)
    return folder


@pytest.fixture(scope="module")
def network() -> TwoViewNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TwoViewNetwork(ModelConfig.tiny()).eval()


def test_known_pairs_are_known(pool: Path, photos: Path) -> None:
    pairs = list(draw_known_pairs([str(pool)], [str(photos)], SMALL))
    assert len(pairs) == 24
    overlaps = [pair.overlap for pair in pairs]
    assert 2 <= sum(overlap == 0 for overlap in overlaps) <= 18
    for pair in pairs:
        target = pair.target[pair.visible]
        assert (target >= -0.01).all()
        assert (target <= [pair.image1.shape[1] - 0.99, pair.image1.shape[0] - 0.99]).all()
    # The two ends of a true correspondence look alike: far more than those of a shifted one.
    best = max(pairs, key=lambda pair: pair.overlap)
    rows, columns = np.nonzero(best.visible)
    x, y = np.rint(best.target[rows, columns]).astype(int).T
    grey0, grey1 = (cv2.cvtColor(i, cv2.COLOR_RGB2GRAY) for i in (best.image0, best.image1))
    true = np.corrcoef(grey0[rows, columns], grey1[y, x])[0, 1]
    shifted = np.corrcoef(grey0[rows, columns], np.roll(grey1, (17, 23), (0, 1))[y, x])[0, 1]
    assert true > 0.5
    assert true > shifted + 0.2


def test_the_same_seed_draws_the_same_pairs(pool: Path, photos: Path) -> None:
    first, second = (
        list(draw_known_pairs([str(pool)], [str(photos)], CalibrationOptions(8, image_size=96)))
        for _ in range(2)
    )
    for one, two in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.image1, two.image1)


@pytest.mark.slow
def test_a_fit_is_reported_on_pairs_left_out(
    network: TwoViewNetwork, pool: Path, photos: Path
) -> None:
    pairs = draw_known_pairs([str(pool)], [str(photos)], SMALL)
    calibration, report = fit_calibration(network, pairs, SMALL)
    assert calibration.radius_px == 5.0
    assert report.num_pairs == 24
    assert report.num_matches > 100
    assert 0 <= report.expected_calibration_error < 0.5
    assert 0 <= report.pair_auc <= 1


def test_without_unrelated_pairs_there_is_no_fit(network: TwoViewNetwork, pool: Path) -> None:
    pairs = (p for p in draw_known_pairs([str(pool)], [], SMALL) if p.overlap >= 0.1)
    with pytest.raises(InputError, match="with and without a common place"):
        fit_calibration(network, pairs, SMALL)


def test_no_source_is_refused() -> None:
    with pytest.raises(InputError, match="at least one source"):
        next(draw_known_pairs([], [], SMALL))


def test_expected_calibration_error_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.1, 0.1])
    assert expected_calibration_error(confidence, np.array([1, 1, 0, 0], bool)) == pytest.approx(
        0.1
    )
    # 0.9 against 0.5 right, 0.1 against 0.5 right.
    assert expected_calibration_error(confidence, np.array([1, 0, 1, 0], bool)) == pytest.approx(
        0.4
    )
    assert np.isnan(expected_calibration_error(np.zeros(0), np.zeros(0, bool)))


@pytest.mark.slow
def test_the_command_stores_the_mapping(
    tmp_path: Path, network: TwoViewNetwork, pool: Path, photos: Path
) -> None:
    source, target = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_native(source, network, CheckpointInfo("tiny", licence="MIT"))
    arguments = ["calibrate", str(source), "--out", str(target), "--scenes", str(pool)]
    arguments += ["--photos", str(photos), "--pairs", "30", "--seed", "1", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["num_pairs"] == 30
    read, info = read_native(target)
    assert info.calibration is not None
    assert info.licence == "MIT"
    state, before = read.state_dict(), network.state_dict()
    assert all(torch.allclose(state[name], before[name], atol=1e-3) for name in state)
