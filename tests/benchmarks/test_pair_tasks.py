from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import EstimatorOptions, Protocol, ResizeRule, ScoredFrame
from benchmarks.core.samples import (
    CorrespondenceTruth,
    HomographyTruth,
    PairSample,
    PoseTruth,
)
from benchmarks.core.tasks import Answered, OracleOptions, UnitScore
from benchmarks.metrics.auc import error_auc
from benchmarks.protocols import CORRESPONDENCE_PRESETS, HOMOGRAPHY_PRESETS, POSE_PRESETS
from benchmarks.tasks.correspondences import CorrespondencesTask
from benchmarks.tasks.homography import HomographyTask
from benchmarks.tasks.oracle_points import sample_true_matches
from benchmarks.tasks.pose import PoseTask
from benchmarks.tasks.sweeps import threshold_value
from matcher.errors import InputError
from matcher.structures import ImageSize
from tests.benchmarks.miniature import relative, render_views

pytestmark = pytest.mark.slow  # together more than a few seconds

SIZE = ImageSize(480, 640)
NOWHERE = Path("absent.png")
PERFECT = OracleOptions(count=150)
NOISY = OracleOptions(noise_px=1.0, count=150)
SHUFFLED = OracleOptions(shuffled=True, count=60)


def sample(name, truth, group=""):
    return PairSample(name, NOWHERE, NOWHERE, truth, group)


@lru_cache(maxsize=1)
def pose_samples():
    """Cameras around a point, 10 to 170 degrees apart."""
    random = np.random.default_rng(0)
    samples = []
    for index, angle in enumerate((10, 25, 50, 80, 120, 170)):
        focals = random.uniform(400, 900, 2)
        k0, k1 = (np.array([[f, 0, 319.5], [0, f, 239.5], [0, 0, 1]]) for f in focals)
        pose = np.eye(4)
        pose[:3, :3] = Rotation.from_euler("yx", (angle, 5), degrees=True).as_matrix()
        center = np.array([0, 0, 5.0])
        pose[:3, 3] = center - pose[:3, :3] @ center + random.normal(0, 0.2, 3)
        samples.append(sample(f"{angle} degrees", PoseTruth(k0, k1, pose), f"scene{index % 2}"))
    return tuple(samples)


@lru_cache(maxsize=1)
def homography_samples():
    random = np.random.default_rng(0)
    samples = []
    for index in range(6):
        corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479]], dtype=np.float32)
        moved = corners + random.uniform(-90, 90, (4, 2)).astype(np.float32)
        matrix = cv2.getPerspectiveTransform(corners, moved)
        truth = HomographyTruth(matrix, "viewpoint")
        samples.append(sample(f"plane {index}", truth, "viewpoint"))
    return tuple(samples)


@lru_cache(maxsize=1)
def correspondence_samples():
    samples = []
    for number, posed in enumerate(pose_samples()[:5]):
        matches = sample_true_matches(posed.truth, SIZE, SIZE, 40, np.random.default_rng(number))
        truth = CorrespondenceTruth(matches.keypoints0, matches.keypoints1)
        samples.append(sample(posed.name, truth, "WGBS"))
    return tuple(samples)


def oracle_scores(task, samples, protocol, options, size=SIZE):
    scores = []
    for one in samples:
        frame = ScoredFrame.of(protocol.resize, size, size)
        answered = Answered(one, task.oracle(one, frame, options), frame)
        scores.append(task.score([answered], protocol))
    return scores


def metric(summary, name):
    return next(one for one in summary.metrics if one.name == name)


def quick(protocol, iterations=100):
    """Noisy and wrong matches make a search go on to its limit, for minutes in a sweep."""
    fewer = min(iterations, protocol.estimator.max_iterations)
    return replace(protocol, estimator=replace(protocol.estimator, max_iterations=fewer))


# AUC@5 degrees under 1 px of noise on both ends, as measured on these pairs. OpenCV's RANSAC, which
# does not refine, loses most.
POSE_NOISE_BAND = 0.05
POSE_NOISE_AUC5 = {
    "ours": 0.94,
    "ours-progressive": 0.94,  # the oracles are sure of every match: no order
    "ours-planes": 0.94,
    "loftr": 0.85,
    "roma": 0.86,
    "glue-factory": 0.97,
    "glue-factory-opencv": 0.89,
    "xfeat": 0.96,
}


@pytest.mark.parametrize("name", sorted(POSE_PRESETS))
def test_pose_oracles(name):
    protocol, task = POSE_PRESETS[name], PoseTask()

    def auc5(options, under):
        scores = oracle_scores(task, pose_samples(), under, options)
        return metric(task.summarise(scores, under), "AUC@5").value

    assert auc5(PERFECT, protocol) > 0.99
    assert auc5(NOISY, quick(protocol)) == pytest.approx(POSE_NOISE_AUC5[name], abs=POSE_NOISE_BAND)
    assert auc5(SHUFFLED, quick(protocol)) < 0.02


# AUC at 5, 5 and 10 px, and mAA.
HOMOGRAPHY_NOISE = {"ours": 0.8, "glue-factory": 0.87, "loftr": 0.9, "evd": 1.0}


@pytest.mark.parametrize("name", sorted(HOMOGRAPHY_PRESETS))
def test_homography_oracles(name):
    protocol, task = HOMOGRAPHY_PRESETS[name], HomographyTask()

    def last_accuracy(options):
        scores = oracle_scores(task, homography_samples(), quick(protocol), options)
        summary = task.summarise(scores, protocol)
        family = summary.metrics[0].name.partition("@")[0]
        return [one for one in summary.metrics if one.name.startswith(family)][-1].value

    assert last_accuracy(PERFECT) > 0.99
    assert last_accuracy(NOISY) == pytest.approx(HOMOGRAPHY_NOISE[name], abs=0.05)
    assert last_accuracy(SHUFFLED) < 0.02


def test_correspondence_oracles():
    protocol, task = CORRESPONDENCE_PRESETS["wxbs"], CorrespondencesTask()

    def measured(options, name="mAA@10px"):
        scores = oracle_scores(task, correspondence_samples(), quick(protocol), options)
        return metric(task.summarise(scores, protocol), name).value

    assert measured(PERFECT) == pytest.approx(10 / 11, abs=0.01)
    assert measured(PERFECT, "recall@1px") > 0.99
    assert measured(NOISY) == pytest.approx(0.87, abs=0.04)
    assert measured(SHUFFLED) < 0.02


def test_the_oracle_is_the_same_in_every_run_and_another_for_every_pair():
    task, (first, second, *_) = PoseTask(), pose_samples()
    frame = ScoredFrame.of(ResizeRule(), SIZE, SIZE)
    answers = [task.oracle(one, frame, NOISY) for one in (first, first, second)]
    assert np.array_equal(answers[0].keypoints1, answers[1].keypoints1)
    assert not np.allclose(answers[0].keypoints0, answers[2].keypoints0)
    assert len(answers[0]) == NOISY.count


def test_the_oracle_agrees_with_rendered_depth():
    views = render_views()
    truth = PoseTruth(views[0].k, views[2].k, relative(views[0], views[2]), is_metric=True)
    frame = ScoredFrame.of(ResizeRule(), ImageSize(120, 160), ImageSize(120, 160))
    found = PoseTask().oracle(sample("rendered", truth), frame, OracleOptions(count=50))
    projected = found.points0 @ truth.k0.T
    assert projected[:, :2] / projected[:, 2:] == pytest.approx(found.keypoints0, abs=1e-9)
    moved = (found.points0 @ truth.cam1_from_cam0[:3, :3].T + truth.cam1_from_cam0[:3, 3]).T
    seen = (truth.k1 @ moved).T
    assert seen[:, :2] / seen[:, 2:] == pytest.approx(found.keypoints1, abs=1e-9)


@pytest.mark.parametrize(
    ("translation", "count"),
    [
        ((0, 0, 4.0), 80),  # face to face
        ((0, 0, -4.0), 0),  # back to back
    ],
)
def test_true_matches_of_opposite_cameras(translation, count):
    k = np.array([[500.0, 0, 319.5], [0, 500, 239.5], [0, 0, 1]])
    pose = np.eye(4)
    pose[:3, :3] = np.diag([-1.0, 1.0, -1.0])
    pose[:3, 3] = translation
    truth = PoseTruth(k, k, pose)
    found = sample_true_matches(truth, SIZE, SIZE, 80, np.random.default_rng(0))
    assert len(found.points0) == count
    if not count:
        frame = ScoredFrame.of(ResizeRule(), SIZE, SIZE)
        answer = PoseTask().oracle(sample("away", truth), frame, PERFECT)
        assert "in front of both" in answer.failure


def test_noise_and_thresholds_count_in_resized_pixels():
    # The same noise in stored pixels, seen at a quarter of the size, is a quarter of the noise.
    task, protocol = PoseTask(), quick(POSE_PRESETS["ours"], 2000)
    small = replace(protocol, resize=ResizeRule("long", 160))
    stored = ScoredFrame.of(protocol.resize, SIZE, SIZE)
    shrunk = ScoredFrame.of(small.resize, SIZE, SIZE)
    one = pose_samples()[1]
    answer = task.oracle(one, stored, OracleOptions(noise_px=2.0, count=200))
    at_stored = task.score([Answered(one, answer, stored)], protocol)
    at_shrunk = task.score([Answered(one, answer, shrunk)], small)
    assert at_stored.values["precision_1px"] < 0.35
    assert at_shrunk.values["precision_1px"] > 0.65
    assert at_shrunk.values["num_inliers"] > 1.4 * at_stored.values["num_inliers"]
    spoiled = task.oracle(one, shrunk, OracleOptions(noise_px=0.5, count=200))
    clean = task.oracle(one, shrunk, OracleOptions(count=200))
    assert (spoiled.keypoints0 - clean.keypoints0).std() == pytest.approx(2.0, rel=0.1)


def test_homography_errors_count_in_resized_pixels_of_image_1():
    protocol = Protocol("small", resize=ResizeRule("short", 240), auc_thresholds=(3.0,))
    frame = ScoredFrame.of(protocol.resize, ImageSize(480, 640), ImageSize(960, 1280))
    one = sample("shifted", HomographyTruth(np.diag([2.0, 2.0, 1.0])))
    random = np.random.default_rng(0)
    pixels = random.uniform(0, 470, (60, 2))
    # Eight stored pixels of image 1 are two at a quarter of its size.
    answer = MatchPrediction(pixels, 2 * pixels + [8, 0], np.ones(60))
    score = HomographyTask().score([Answered(one, answer, frame)], protocol)
    assert score.errors == pytest.approx((2.0,), abs=1e-6)
    assert score.values["precision_1px"] == 0
    assert score.values["precision_3px"] == 1


@pytest.mark.parametrize(
    ("task", "protocol", "one"),
    [
        (PoseTask(), POSE_PRESETS["roma"], pose_samples()[0]),
        (PoseTask(), POSE_PRESETS["glue-factory"], pose_samples()[0]),
        (HomographyTask(), HOMOGRAPHY_PRESETS["ours"], homography_samples()[0]),
        (HomographyTask(), HOMOGRAPHY_PRESETS["evd"], homography_samples()[0]),
        (CorrespondencesTask(), CORRESPONDENCE_PRESETS["wxbs"], correspondence_samples()[0]),
    ],
)
@pytest.mark.parametrize("answer", [MatchPrediction.failed("out of memory"), "few", "same"])
def test_what_a_method_answers_never_raises(task, protocol, one, answer):
    if answer == "few":
        answer = MatchPrediction(np.ones((3, 2)), np.ones((3, 2)), np.ones(3))
    elif answer == "same":
        answer = MatchPrediction(np.ones((40, 2)), np.ones((40, 2)), np.ones(40))
    frame = ScoredFrame.of(protocol.resize, SIZE, SIZE)
    score = task.score([Answered(one, answer, frame)], quick(protocol))
    if len(answer) < 40:
        assert score.error == math.inf
        assert score.failure.startswith("out of memory" if answer.failure else "no ")
    whole = task.summarise([score], protocol)
    assert whole.num_units == 1
    assert whole.metrics[0].value < 0.2 or len(answer) == 40
    assert math.isnan(whole.metrics[0].low)


def test_a_failed_unit_weighs_as_much_as_any_other():
    protocol, task = POSE_PRESETS["roma"], PoseTask()
    good = UnitScore("a", "x", (0.0,) * 5, {"rotation_deg": 10.0}, 100)
    lost = UnitScore("b", "x", (math.inf,), failure="unreadable")
    empty = UnitScore("c", "x", (), failure="unreadable")
    summary = task.summarise([good, lost, empty], protocol)
    assert metric(summary, "AUC@5").value == pytest.approx(1 / 3)
    assert metric(summary, "AUC@5").count == 3
    assert metric(summary, "precision@1px").value == 0.0
    assert summary.num_failures == 2
    swept = replace(good, values={threshold_value(0.5): 0.0, threshold_value(1.0): 0.0})
    several = Protocol("several", estimator=EstimatorOptions(thresholds=(0.5, 1.0)))
    assert metric(task.summarise([swept, lost], several), "AUC@5").value == 0.5


def test_the_best_threshold_is_chosen_for_the_data_set_not_for_the_pair():
    protocol = Protocol(
        "several", estimator=EstimatorOptions(thresholds=(0.5, 1.0)), auc_thresholds=(10.0,)
    )
    errors = {"a": (0.0, 2.0), "b": (math.inf, 2.0), "c": (math.inf, 2.0)}
    scores = [
        UnitScore(name, "", (low,), {threshold_value(0.5): low, threshold_value(1.0): high})
        for name, (low, high) in errors.items()
    ]
    summary = PoseTask().summarise(scores, protocol)
    assert metric(summary, "best threshold px").value == 1.0
    assert metric(summary, "AUC@10").value == pytest.approx(error_auc([2, 2, 2], 10))
    # The best for each pair would have been better.
    assert error_auc([0, 2, 2], 10) > metric(summary, "AUC@10").value


def test_a_sweep_keeps_every_error():
    protocol, task = quick(POSE_PRESETS["glue-factory"], 1000), PoseTask()
    [score] = oracle_scores(task, pose_samples()[:1], protocol, NOISY)
    kept = [score.values[threshold_value(t)] for t in protocol.estimator.thresholds]
    assert len(set(kept)) > 1
    assert score.errors == (kept[2],)
    twice = replace(protocol, estimator=replace(protocol.estimator, repeats=2))
    with pytest.raises(InputError, match="several"):
        oracle_scores(task, pose_samples()[:1], twice, NOISY)


def test_pose_summary_by_viewpoint_and_group():
    def unit(name, group, angle, error):
        values = {"rotation_deg": angle, "rotation_error_deg": error, "translation_error_deg": 0.0}
        return UnitScore(name, group, (error,), values, 10)

    scores = [
        unit("a", "one", 14.9, 0.0),
        unit("b", "one", 15.0, math.inf),
        unit("c", "two", 89.0, 0.0),
        unit("d", "two", 180.0, 10.0),
        UnitScore("e", "two", (math.inf,), failure="unreadable"),
    ]
    summary = PoseTask().summarise(scores, POSE_PRESETS["ours"])
    assert {label: entry.value for label, entry in summary.by_viewpoint.items()} == pytest.approx(
        {"0-15": 1.0, "15-30": 0.0, "60-90": 1.0, "90-180": 0.75}
    )
    assert {entry.name for entry in summary.by_viewpoint.values()} == {"AUC@20"}
    assert [entry.name for entry in summary.by_group["one"]] == ["AUC@5", "AUC@10", "AUC@20"]
    assert summary.by_group["one"][0].value == 0.5
    assert [entry.name for entry in summary.metrics[:4]] == ["AUC@5", "AUC@10", "AUC@20", "mAA(20)"]
    first = summary.metrics[0]
    assert first.low <= first.value <= first.high
    co3d = Protocol("co3d", auc_thresholds=(30.0,))
    by_category = PoseTask().summarise(scores, co3d)
    # Category one has 1 of 2 rotations within 5 degrees, category two 1 of 3.
    assert metric(by_category, "RRA@5").value == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert metric(by_category, "RRA@15").value == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert metric(by_category, "RTA@5").value == pytest.approx((1 + 2 / 3) / 2)
    assert metric(by_category, "RRA@5").count == 2


def test_homography_summary_by_group():
    scores = [UnitScore("a", "viewpoint", (2.5,)), UnitScore("b", "illumination", (0.0,))]
    summary = HomographyTask().summarise(scores, HOMOGRAPHY_PRESETS["ours"])
    assert metric(summary, "MHA@1").value == 0.5
    assert metric(summary, "MHA@3").value == 1.0
    assert summary.by_group["illumination"][0].value == 1.0
    evd = HomographyTask().summarise(scores, HOMOGRAPHY_PRESETS["evd"])
    # Of 1, 1.39, 1.95, 2.71, ... 20 px, seven let 2.5 px through.
    assert metric(evd, "mAA").value == pytest.approx((0.7 + 1.0) / 2)


def test_correspondence_errors_are_those_of_the_marks():
    task, protocol = CorrespondencesTask(), CORRESPONDENCE_PRESETS["wxbs"]
    one = correspondence_samples()[0]
    frame = ScoredFrame.of(protocol.resize, SIZE, SIZE)
    answer = PoseTask().oracle(pose_samples()[0], frame, OracleOptions(count=200))
    score = task.score([Answered(one, answer, frame)], protocol)
    assert len(score.errors) == len(one.truth.keypoints0) == 40
    assert max(score.errors) < 0.1
    assert (score.values["recall_0px"], score.values["recall_1px"]) == (0.0, 1.0)
    assert score.values["mAA_10px"] == pytest.approx(10 / 11)


def test_a_wrong_kind_of_truth_names_the_pair():
    one = homography_samples()[0]
    frame = ScoredFrame.of(ResizeRule(), SIZE, SIZE)
    for task in (PoseTask(), CorrespondencesTask()):
        with pytest.raises(InputError, match="plane 0"):
            task.oracle(one, frame, PERFECT)
    answered = Answered(one, MatchPrediction.failed("no"), frame)
    with pytest.raises(InputError, match="unit"):
        HomographyTask().score([answered, answered], HOMOGRAPHY_PRESETS["ours"])


def sift_matches(paths):
    found = [
        cv2.SIFT_create(2048).detectAndCompute(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), None)
        for path in paths
    ]
    nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(found[0][1], found[1][1], k=2)
    kept = [best for best, second in nearest if best.distance < 0.8 * second.distance]
    ends = (
        np.array([found[0][0][match.queryIdx].pt for match in kept]),
        np.array([found[1][0][match.trainIdx].pt for match in kept]),
    )
    return MatchPrediction(*ends, np.ones(len(kept)))


def size_of(path):
    return ImageSize(*cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).shape)


@pytest.mark.slow
def test_sift_on_narrow_photographs(shared_dir):
    folder = shared_dir / "data" / "dev"
    entries = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    narrow = [one for one in entries if one["set"] == "strecha" and one["rot_deg"] < 20][:5]
    task, protocol, scores = PoseTask(), POSE_PRESETS["ours"], []
    for entry in narrow:
        paths = [folder / entry["image0"], folder / entry["image1"]]
        truth = PoseTruth(*(np.array(entry[key]) for key in ("K0", "K1", "T_0to1")))
        frame = ScoredFrame.of(protocol.resize, *(size_of(path) for path in paths))
        answered = Answered(PairSample(str(paths), *paths, truth), sift_matches(paths), frame)
        scores.append(task.score([answered], protocol))
    summary = task.summarise(scores, protocol)
    assert metric(summary, "AUC@5").value > 0.9
    assert metric(summary, "precision@3px").value > 0.7


@pytest.mark.slow
def test_sift_on_a_photographed_plane(shared_dir):
    folder = shared_dir / "data" / "dev_homography" / "homography_seq"
    entries = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    entry = next(one for one in entries if one["scene"] == "graf")
    paths = [folder / entry["image0"], folder / entry["image1"]]
    protocol = HOMOGRAPHY_PRESETS["ours"]
    frame = ScoredFrame.of(protocol.resize, *(size_of(path) for path in paths))
    one = PairSample("graf", *paths, HomographyTruth(np.array(entry["H_0to1"])))
    score = HomographyTask().score([Answered(one, sift_matches(paths), frame)], protocol)
    assert score.error < 2.0
