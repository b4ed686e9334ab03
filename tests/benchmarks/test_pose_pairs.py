from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from benchmarks.pose_pairs import (
    NO_POSE_DEG,
    PairRecord,
    auc,
    classical,
    estimate,
    evaluate,
    main,
    pose_error_deg,
    read_pairs,
    summarise,
)
from tests.relief import relief_pair


@pytest.fixture(scope="module")
def pair():
    return relief_pair(degrees=20)


@pytest.fixture(scope="module")
def record(pair, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for name in ("image0", "image1"):
        Image.fromarray(getattr(pair, name)).save(folder / f"{name}.png")
    return PairRecord(
        folder / "image0.png",
        folder / "image1.png",
        pair.camera0.matrix,
        pair.camera1.matrix,
        pair.cam1_from_cam0.matrix,
        20.0,
        0.7,
        "relief",
    )


@pytest.mark.parametrize(
    ("errors", "threshold", "expected"),
    [
        ([0, 0, 0], 10, 1.0),
        ([180, 180], 20, 0.0),
        # Recall rises from 0 to 1/2 on [0, 5] and stays: (5 * 1/4 + 5 * 1/2) / 10.
        ([5, 180], 10, 0.375),
        # 0 -> 1/4 at 2 -> 2/4 at 4, then flat up to 10: (0.25 + 0.75 + 3) / 10.
        ([4, 2, 40, 180], 10, 0.4),
        ([12], 10, 0.0),
    ],
)
def test_auc_by_hand(errors, threshold, expected):
    assert auc(errors, threshold) == pytest.approx(expected)


def test_pose_error_is_the_larger_of_the_two_and_sign_blind():
    truth = np.eye(4)
    truth[:3, 3] = [2.0, 0.0, 0.0]
    turned = Rotation.from_euler("z", 7, degrees=True).as_matrix()
    aside = np.array([np.cos(np.radians(11)), np.sin(np.radians(11)), 0])
    assert pose_error_deg(turned, np.array([1.0, 0, 0]), truth) == pytest.approx(7)
    assert pose_error_deg(turned, aside, truth) == pytest.approx(11)
    assert pose_error_deg(turned, -aside, truth) == pytest.approx(11)


def test_the_oracle_scores_nearly_zero(pair, record):
    """True matches through the benchmark's own estimator: what it adds to the error itself."""
    x, y = np.meshgrid(np.arange(40, 280, 8.0), np.arange(40, 200, 8.0))
    keypoints0 = np.stack([x.ravel(), y.ravel()], axis=1)
    keypoints1 = pair.true_keypoints1(keypoints0)

    errors, matches, seconds = evaluate([record], lambda *_: (keypoints0, keypoints1), 1.0)
    assert errors[0] < 0.05
    assert matches == len(keypoints0)
    assert seconds >= 0
    swapped = keypoints1[::-1]
    assert estimate(keypoints0, swapped, record, 1.0) > 10


def test_too_few_matches_are_no_pose(record):
    nothing = np.zeros((0, 2))
    assert estimate(nothing, nothing, record, 1.0) == NO_POSE_DEG
    assert estimate(np.ones((4, 2)), np.ones((4, 2)), record, 1.0) == NO_POSE_DEG


def test_pair_list(tmp_path):
    entry = {
        "image0": "a/0.jpg",
        "image1": "a/1.jpg",
        "K0": np.eye(3).tolist(),
        "K1": np.eye(3).tolist(),
        "T_0to1": np.eye(4).tolist(),
        "rot_deg": 31.5,
        "overlap": 0.3,
        "set": "chapel",
    }
    lines = [json.dumps(entry), "", json.dumps(entry | {"overlap": 0.05})]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines) + "\n")
    records = read_pairs(path)
    assert [record.overlap for record in records] == [0.3, 0.05]
    assert records[0].image0 == tmp_path / "a" / "0.jpg"
    assert (records[0].rotation_deg, records[0].set_name) == (31.5, "chapel")
    assert len(read_pairs(path, min_overlap=0.1)) == 1


def test_summary_by_rotation_and_set(record):
    import dataclasses

    records = [
        dataclasses.replace(record, rotation_deg=angle, set_name=name)
        for angle, name in ((5.0, "one"), (20.0, "one"), (170.0, "two"))
    ]
    values = summarise(records, [0.0, 0.0, 180.0])
    assert values["auc@20"] == pytest.approx(66.7, abs=0.05)
    assert values["auc@20 by rotation"] == {"0-15 (1)": 100.0, "15-30 (1)": 100.0, "90-180 (1)": 0}
    assert values["auc@20 by set"] == {"one": 100.0, "two": 0.0}
    low, high = values["auc@20 95% interval"]
    assert low <= 66.7 <= high


def test_classical_methods_match_a_shifted_picture(tmp_path):
    import cv2

    noise = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
    picture = cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(picture).save(tmp_path / "0.png")
    Image.fromarray(np.roll(picture, (6, -10), axis=(0, 1))).save(tmp_path / "1.png")
    Image.fromarray(np.full((50, 50), 7, np.uint8)).save(tmp_path / "blank.png")
    for detector, norm, ratio in (
        (cv2.ORB_create(500), cv2.NORM_HAMMING, 0.85),
        (cv2.SIFT_create(500), cv2.NORM_L2, 0.8),
    ):
        match = classical(detector, norm, ratio)
        keypoints0, keypoints1 = match(tmp_path / "0.png", tmp_path / "1.png")
        assert len(keypoints0) > 50
        np.testing.assert_allclose(np.median(keypoints1 - keypoints0, axis=0), [-10, 6], atol=0.1)
        assert len(match(tmp_path / "0.png", tmp_path / "blank.png")[0]) == 0


def test_a_whole_run_writes_its_protocol(record, tmp_path, monkeypatch, capsys):
    entry = {
        "image0": str(record.image0),
        "image1": str(record.image1),
        "K0": record.k0.tolist(),
        "K1": record.k1.tolist(),
        "T_0to1": record.cam1_from_cam0.tolist(),
        "rot_deg": 20.0,
    }
    (tmp_path / "pairs.jsonl").write_text("\n".join([json.dumps(entry)] * 3))
    out = tmp_path / "results.json"
    arguments = ["--pairs", tmp_path / "pairs.jsonl", "--methods", "orb", "--limit", "2"]
    monkeypatch.setattr(sys, "argv", ["pose_pairs", *map(str, arguments), "--out", str(out)])
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)
    main()
    written = json.loads(out.read_text())
    assert written["protocol"]["num_pairs"] == 2
    assert written["protocol"]["threshold_px"] == 1.0
    assert 0 <= written["results"]["orb"]["auc@20"] <= 100
    assert capsys.readouterr().out.startswith("orb {")
