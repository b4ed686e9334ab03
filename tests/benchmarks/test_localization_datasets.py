from __future__ import annotations

import dataclasses
import math
import sys

import cv2
import numpy as np
import pytest

from benchmarks.core.predictions import MatchPrediction, MethodInfo
from benchmarks.core.protocols import EstimatorOptions, Protocol, ScoredFrame
from benchmarks.core.runner import cache_path, evaluate, export, open_cache
from benchmarks.core.samples import DepthReference, PointReference
from benchmarks.core.tasks import Answered, OracleOptions
from benchmarks.datasets import aachen, cambridge, inloc, redkitchen, sevenscenes
from benchmarks.datasets.building import stored_size
from benchmarks.datasets.localization_pairs import evenly_spaced, find_retrieval
from benchmarks.datasets.nvm_files import read_nvm
from benchmarks.metrics.localization import (
    PoseThreshold,
    absolute_pose_error,
    median_error,
    pose_recall,
)
from benchmarks.selftest import run_selftest
from benchmarks.tasks.localization import LocalizationTask
from benchmarks.tasks.localization_options import LocalizationOptions, localization_options
from benchmarks.tasks.query_pose import localize_query, query_camera
from benchmarks.tasks.reference_points import world_points
from matcher.errors import DatasetError, InputError, MissingDependencyError
from matcher.geometry.camera import project
from matcher.geometry.pose import axis_angle_to_rotation, quaternion_to_rotation
from matcher.structures import ImageSize, Pose
from tests.benchmarks.layouts_localization import (
    room_pose,
    write_aachen,
    write_cambridge,
    write_inloc,
    write_redkitchen,
    write_sevenscenes,
)

pytestmark = pytest.mark.slow  # together more than a few seconds

TASK = LocalizationTask()
SIXTY = OracleOptions(count=60)
PUBLIC = [
    (sevenscenes, write_sevenscenes, 3),
    (cambridge, write_cambridge, 3),
    (redkitchen, write_redkitchen, 3),
]


def frame_of(sample, protocol):
    sizes = stored_size(sample.image0), stored_size(sample.image1)
    return ScoredFrame.of(protocol.resize, *sizes)


def oracle_answers(samples, protocol, options=SIXTY):
    answers = {}
    for sample in samples:
        frame = frame_of(sample, protocol)
        answered = Answered(sample, TASK.oracle(sample, frame, options), frame)
        answers.setdefault(sample.unit_name, []).append(answered)
    return answers


def metric(metrics, name):
    return next(entry.value for entry in metrics if entry.name == name)


def with_truth(sample, cam_from_world):
    truth = dataclasses.replace(sample.truth, cam_from_world=cam_from_world)
    return dataclasses.replace(sample, truth=truth)


def moved(cam_from_world, metres):
    """The pose of a camera whose centre lies ``metres`` further along the world's x."""
    pose = cam_from_world.copy()
    pose[:3, 3] -= pose[:3, :3] @ [metres, 0, 0]
    return pose


# Metrics


def test_absolute_errors_by_hand():
    truth, estimated = np.eye(4), np.eye(4)
    estimated[:3, :3] = axis_angle_to_rotation([0, 0, np.radians(30)])
    estimated[:3, 3] = -estimated[:3, :3] @ [3, 4, 0]
    error = absolute_pose_error(estimated, truth)
    assert (error.metres, error.degrees) == pytest.approx((5, 30))
    with pytest.raises(InputError, match="expected two of shape"):
        absolute_pose_error(np.eye(3), truth)


def test_medians_and_recalls_count_failures():
    assert median_error([1, 3, math.inf]) == 3
    assert median_error([1, 3]) == 2
    assert median_error([math.inf, math.inf]) == math.inf
    assert math.isnan(median_error([]))
    metres, degrees = [0.04, 0.2, 0.3, math.inf], [1, 3, 1, math.inf]
    assert pose_recall(metres, degrees, PoseThreshold(0.25, 2)) == 0.25
    assert pose_recall(metres, degrees, PoseThreshold(0.5, 5)) == 0.75
    assert PoseThreshold(0.05, 5).label == "5cm,5deg"
    assert PoseThreshold(0.25, 2).label == "0.25m,2deg"


# Readers, each in its official layout


@pytest.mark.parametrize(("module", "write", "references"), PUBLIC)
def test_public_sets_are_read_and_scored(module, write, references, tmp_path):
    truth = write(tmp_path)
    dataset = module.read(tmp_path)
    assert (dataset.name, dataset.kind, dataset.problems) == (module.NAME, "localization", ())
    assert len(dataset.samples) == 2 * references
    assert {sample.unit for sample in dataset.samples} == set(truth)
    for sample in dataset.samples:
        np.testing.assert_allclose(sample.truth.cam_from_world, truth[sample.unit], atol=1e-6)
        assert sample.image0.is_file()
        assert sample.image1.is_file()

    protocol = module.PROTOCOLS["ours"]
    scores = [
        TASK.score(unit, protocol) for unit in oracle_answers(dataset.samples, protocol).values()
    ]
    # Depth is stored in whole millimetres.
    assert max(score.error for score in scores) < 0.001
    assert max(score.values["rotation_deg"] for score in scores) < 0.02
    summary = TASK.summarise(scores, protocol)
    assert metric(summary.metrics, "recall@5cm,5deg") == 1
    assert metric(summary.metrics, "median translation cm") < 0.1
    assert (summary.num_units, summary.num_failures) == (2, 0)


def test_the_selftest_holds_for_every_protocol(tmp_path):
    write_redkitchen(tmp_path)
    dataset = redkitchen.read(tmp_path)
    dataset = dataclasses.replace(dataset, samples=dataset.samples[:3])
    for protocol in redkitchen.PROTOCOLS.values():
        # Shuffled matches use up all iterations.
        estimator = dataclasses.replace(protocol.estimator, max_iterations=2000)
        result = run_selftest(dataset, TASK, dataclasses.replace(protocol, estimator=estimator))
        assert result.passed, result


def test_seven_scenes_reads_depth_along_the_colour_ray(tmp_path):
    write_sevenscenes(tmp_path)
    dataset = sevenscenes.read(tmp_path)
    sample = dataset.samples[0]
    assert sample.name == (
        "chess/seq-02/frame-000000.color.png--chess/seq-01/frame-000000.color.png"
    )
    assert isinstance(sample.truth.reference, DepthReference)
    assert sample.truth.reference.k[0, 0] == pytest.approx(525 / 4)
    # Rows whose depth is 65535 hold nothing; row 12 of colour is row 6.7 of depth.
    size = ImageSize(120, 160)
    points = world_points(sample.truth.reference, np.array([[80.0, 8], [80, 12]]), size)
    assert np.isnan(points[0]).all()
    assert np.isfinite(points[1]).all()
    notes = " ".join(dataset.notes)
    assert "KinectFusion" in notes
    assert "focal 525 for colour, 585 for depth" in notes
    assert "no retrieval list was found" in notes
    assert "scenes not there: fire" in notes


def test_seven_scenes_names_what_is_broken(tmp_path):
    write_sevenscenes(tmp_path)
    scene = tmp_path / "chess"
    (scene / "seq-02" / "frame-000000.pose.txt").write_text("1 0 0 nan\n" * 4)
    (scene / "seq-01" / "frame-000001.depth.png").unlink()
    (tmp_path / "fire").mkdir()
    (tmp_path / "fire" / "TestSplit.txt").write_text("sequences?\n")
    dataset = sevenscenes.read(tmp_path)
    assert [sample.truth.query for sample in dataset.samples] == [
        "chess/seq-02/frame-000001.color.png"
    ] * 2
    problems = dict(dataset.problems)
    assert "expected finite numbers" in problems["chess/seq-02/frame-000000.color.png"]
    assert "expected 'sequence1', got 'sequences?'" in problems["fire"]
    assert any("1 references left out" in note for note in dataset.notes)


def test_cambridge_takes_focals_from_the_model(tmp_path):
    write_cambridge(tmp_path)
    path = tmp_path / "KingsCollege" / "reconstruction.nvm"
    lines = path.read_text().splitlines()
    name, numbers = lines[6].split("\t")
    words = numbers.split()
    lines[6] = f"{name}\t{' '.join([*words[:-2], '-0.05', '0'])}"
    path.write_text("\n".join(lines))
    dataset = cambridge.read(tmp_path)
    cameras = {
        sample.unit: (sample.truth.camera_model, sample.truth.camera_params)
        for sample in dataset.samples
    }
    assert cameras["KingsCollege/seq2/frame00002.png"] == ("PINHOLE", (166, 166, 95.5, 53.5))
    # VisualSFM's distortion takes the lens away, COLMAP's puts it on.
    assert cameras["KingsCollege/seq2/frame00001.png"] == (
        "SIMPLE_RADIAL",
        (166, 95.5, 53.5, 0.05),
    )
    assert isinstance(dataset.samples[0].truth.reference, PointReference)
    assert len(dataset.samples[0].truth.reference.points) > 100


def test_cambridge_without_the_focal(tmp_path):
    write_cambridge(tmp_path)
    protocol = cambridge.PROTOCOLS["ours-unknown-focal"]
    samples = cambridge.read(tmp_path).samples
    # 192 x 108 pixels of an almost flat wall: with noise the focal is known to a few percent only.
    for noise_px, ratio, metres in ((0.0, 1e-6, 1e-6), (0.1, 0.06, 0.2)):
        options = OracleOptions(count=100, noise_px=noise_px)
        for unit in oracle_answers(samples, protocol, options).values():
            score = TASK.score(unit, protocol)
            assert score.values["focal_ratio"] == pytest.approx(1, abs=ratio)
            assert score.error < metres
    told = cambridge.PROTOCOLS["ours"]
    assert "ground-truth focal is given" in told.note
    assert "not told" in protocol.note


def test_broken_lines_of_cambridge(tmp_path):
    write_cambridge(tmp_path)
    folder = tmp_path / "KingsCollege"
    test = folder / "dataset_test.txt"
    lines = test.read_text().splitlines()
    test.write_text("\n".join([*lines[:3], "seq2/frame00001.png 1 2 x", *lines[4:]]))
    (problem,) = cambridge.read(tmp_path).problems
    assert problem[0] == "KingsCollege/seq2/frame00001.png"
    assert "dataset_test.txt:4: could not convert" in problem[1]

    model = folder / "reconstruction.nvm"
    text = model.read_text()
    for broken, message in (
        (text.replace("NVM_V3", "NVM_V2"), "begins with NVM_V3"),
        (text[: len(text) // 2], "truncated|broken list"),
        (text.replace("\n5\n", "\nfive\n", 1), "expected the number of images"),
    ):
        model.write_text(broken)
        with pytest.raises(DatasetError, match=message):
            read_nvm(model, ["seq1/frame00001.jpg"])
    with pytest.raises(DatasetError, match="no usable query .* begins with|no usable query"):
        cambridge.read(tmp_path)


def test_aachen_writes_a_submission(tmp_path):
    pytest.importorskip("pycolmap")
    truth = write_aachen(tmp_path / "data")
    dataset = aachen.read(tmp_path / "data")
    assert dataset.problems == ()
    assert {sample.group for sample in dataset.samples} == {"day", "night"}
    assert all(sample.truth.cam_from_world is None for sample in dataset.samples)
    # The model's pixels count from the image's corner; its points project onto ours.
    reference = dataset.samples[0].truth.reference
    k, pose = np.array([[140, 0, 79.5], [0, 140, 59.5], [0, 0, 1]]), Pose.from_matrix(room_pose(0))
    in_camera = pose.transform(reference.points) @ k.T
    np.testing.assert_allclose(in_camera[:, :2] / in_camera[:, 2:], reference.keypoints, atol=1e-6)
    assert dataset.samples[0].truth.camera_params[1:3] == pytest.approx((79.5, 59.5))

    lines, summary = submission(dataset, truth, aachen.PROTOCOLS["hloc"], tmp_path / "out.txt")
    assert sorted(lines) == ["a.jpg", "b.jpg"]
    for query, pose in truth.items():
        numbers = lines[query.rpartition("/")[2]]
        np.testing.assert_allclose(quaternion_to_rotation(numbers[:4]), pose[:3, :3], atol=1e-6)
        np.testing.assert_allclose(numbers[4:], pose[:3, 3], atol=1e-6)
    assert [entry.name for entry in summary.metrics] == [
        "queries with a pose (written, not scored)"
    ]
    assert summary.metrics[0].value == 1


def test_inloc_writes_a_submission(tmp_path):
    truth = write_inloc(tmp_path / "data")
    dataset = inloc.read(tmp_path / "data")
    assert dataset.problems == ()
    assert len(dataset.samples) == 4
    assert dataset.samples[0].truth.camera_params[0] == pytest.approx(160 * 28 / 36)
    lines, _ = submission(dataset, truth, inloc.PROTOCOLS["ours"], tmp_path / "out.txt")
    assert sorted(lines) == ["IMG_0700.JPG", "IMG_0701.JPG"]
    for query, pose in truth.items():
        np.testing.assert_allclose(lines[query[-12:]][4:], pose[:3, 3], atol=1e-6)


def submission(dataset, truth, protocol, path):
    """Lines of the file that perfect answers give, by name, and the summary."""
    known = [with_truth(sample, truth[sample.unit]) for sample in dataset.samples]
    units = oracle_answers(known, protocol)
    answers = [
        Answered(sample, answered.prediction, answered.frame)
        for unit in units.values()
        for answered in unit
        for sample in dataset.samples
        if sample.name == answered.sample.name
    ]
    said = TASK.write_submission(dataset, answers, protocol, path)
    assert said == f"{path}: 2 of 2 queries have a pose; written, not scored"
    lines = {}
    for line in path.read_text().splitlines():
        name, *numbers = line.split(" ")
        assert len(numbers) == 7
        lines[name] = [float(number) for number in numbers]
    by_unit = {}
    for answered in answers:
        by_unit.setdefault(answered.sample.unit, []).append(answered)
    scores = [TASK.score(unit, protocol) for unit in by_unit.values()]
    assert [score.errors for score in scores] == [(), ()]
    return lines, TASK.summarise(scores, protocol)


def test_the_digits_of_a_submission(tmp_path, monkeypatch):
    write_inloc(tmp_path)
    dataset = inloc.read(tmp_path)
    turned = Pose(np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]]), np.array([1.5, -2.25, 1 / 3]))
    monkeypatch.setattr(
        "benchmarks.tasks.localization.localize_query",
        lambda *_: type("Found", (), {"pose": turned})(),
    )
    protocol, path = inloc.PROTOCOLS["ours"], tmp_path / "poses.txt"
    sample = dataset.samples[0]
    failed = Answered(dataset.samples[-1], MatchPrediction.failed("no"), frame_of(sample, protocol))
    answered = Answered(sample, MatchPrediction.failed(""), frame_of(sample, protocol))
    answered = dataclasses.replace(answered, prediction=_nothing())
    said = TASK.write_submission(dataset, [answered, failed], protocol, path)
    assert path.read_text() == (
        "IMG_0700.JPG 0.707106781187 0 0 0.707106781187 1.5 -2.25 0.333333333333\n"
    )
    assert "1 of 2 queries" in said


def _nothing():
    return MatchPrediction(np.zeros((0, 2)), np.zeros((0, 2)), np.zeros(0))


def test_public_poses_need_no_submission(tmp_path):
    write_redkitchen(tmp_path)
    dataset = redkitchen.read(tmp_path)
    path = tmp_path / "out.txt"
    assert TASK.write_submission(dataset, [], redkitchen.PROTOCOLS["ours"], path) is None
    assert not path.exists()


@pytest.mark.parametrize("module", [sevenscenes, cambridge, aachen, inloc, redkitchen])
def test_missing_data_says_what_was_looked_for(module, tmp_path):
    with pytest.raises(DatasetError) as caught:
        module.read(tmp_path)
    message = str(caught.value)
    assert f"{module.TITLE}: not found at {tmp_path}" in message
    assert f"expected:\n    {tmp_path}/\n" in message
    assert module.PUBLISHED in message


def test_aachen_without_pycolmap(tmp_path, monkeypatch):
    write_aachen(tmp_path)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match="widebase\\[colmap\\]"):
        aachen.read(tmp_path)


def test_broken_files_of_aachen(tmp_path):
    pytest.importorskip("pycolmap")
    write_aachen(tmp_path)
    night = tmp_path / "queries" / "night_time_queries_with_intrinsics.txt"
    night.write_text(night.read_text() + "query/night/c.jpg SIMPLE_RADIAL 160 120 -5 80 60 0\n")
    pairs = tmp_path / "pairs-query-netvlad50.txt"
    pairs.write_text(pairs.read_text() + "lonely\nquery/day/milestone/a.jpg db/9.jpg\n")
    dataset = aachen.read(tmp_path)
    problems = dict(dataset.problems)
    assert "focal f: expected a positive number" in problems["query/night/c.jpg"]
    assert "got 'lonely'" in problems["pairs-query-netvlad50.txt:7"]
    assert any("the 3-D model lacks db/9.jpg" in note for note in dataset.notes)
    (tmp_path / "3D-models" / "aachen_v_1_1" / "images.bin").write_bytes(b"\x09")
    with pytest.raises(DatasetError, match="cannot read the COLMAP model"):
        aachen.read(tmp_path)


def test_broken_lines_of_the_red_kitchen(tmp_path):
    write_redkitchen(tmp_path)
    path = tmp_path / "queries.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "{broken", '{"image": "images/x.jpg", "K": [[1]]}']))
    dataset = redkitchen.read(tmp_path)
    assert len(dataset.samples) == 3
    assert [name for name, _ in dataset.problems] == ["queries.jsonl:2", "images/x.jpg"]


def test_retrieval_lists(tmp_path):
    (tmp_path / "pairs-query-b.txt").write_text("# list\nq a\nq b\nq a\nq c\np a\n")
    found = find_retrieval(tmp_path, ("none*.txt", "pairs-query*.txt"), most=2)
    assert found.references == {"q": ("a", "b"), "p": ("a",)}
    assert found.note == "references: pairs-query-b.txt, first 2"
    assert find_retrieval(tmp_path, ("other*.txt",)) is None
    assert evenly_spaced([str(n) for n in range(9)], 3) == ("0", "4", "8")
    assert evenly_spaced(["a", "b"], 5) == ("a", "b")


# The task


@pytest.fixture(scope="module")
def kitchen(tmp_path_factory):
    root = tmp_path_factory.mktemp("kitchen")
    write_redkitchen(root)
    return redkitchen.read(root)


def test_known_disturbances_give_known_recalls(kitchen):
    """Four times a query, its truth moved by 0, 3, 20 and 70 cm."""
    protocol = redkitchen.PROTOCOLS["ours"]
    (unit, *_) = oracle_answers(kitchen.samples, protocol).values()
    scores = []
    for number, metres in enumerate((0.0, 0.03, 0.2, 0.7)):
        answers = [
            dataclasses.replace(
                answered,
                sample=with_truth(
                    dataclasses.replace(answered.sample, group="ab"[number // 2]),
                    moved(answered.sample.truth.cam_from_world, metres),
                ),
            )
            for answered in unit
        ]
        scores.append(TASK.score(answers, protocol))
        assert scores[-1].error == pytest.approx(metres, abs=0.001)
    summary = TASK.summarise(scores, protocol)
    expected = {"5cm,5deg": 0.5, "0.25m,2deg": 0.75, "0.5m,5deg": 0.75, "1m,10deg": 1}
    for label, share in expected.items():
        assert metric(summary.metrics, f"recall@{label}") == share
    assert metric(summary.metrics, "median translation cm") == pytest.approx(11.5, abs=0.1)
    assert metric(summary.by_group["b"], "median translation cm") == pytest.approx(45, abs=0.1)
    mean = metric(summary.metrics, "mean of scene median translation cm")
    assert mean == pytest.approx((1.5 + 45) / 2, abs=0.1)
    low, high = summary.metrics[-4].low, summary.metrics[-4].high
    assert low <= 11.5 <= high


def test_a_third_of_wrong_matches_does_not_move_the_pose(kitchen):
    protocol = redkitchen.PROTOCOLS["ours"]
    options = OracleOptions(count=60)
    for unit in oracle_answers(kitchen.samples, protocol, options).values():
        spoiled = []
        for answered in unit:
            wrong = TASK.oracle(
                answered.sample, answered.frame, OracleOptions(count=30, shuffled=True, seed=1)
            )
            joined = MatchPrediction(
                np.concatenate([answered.prediction.keypoints0, wrong.keypoints0]),
                np.concatenate([answered.prediction.keypoints1, wrong.keypoints1]),
                np.ones(len(answered.prediction) + len(wrong)),
            )
            spoiled.append(dataclasses.replace(answered, prediction=joined))
        assert TASK.score(spoiled, protocol).error < 0.002


def test_no_matches_are_an_infinite_error(kitchen):
    protocol = redkitchen.PROTOCOLS["ours"]
    sample = kitchen.samples[0]
    score = TASK.score([Answered(sample, _nothing(), frame_of(sample, protocol))], protocol)
    assert score.error == math.inf
    assert score.failure == "no pose from 0 correspondences"
    summary = TASK.summarise([score], protocol)
    assert summary.num_failures == 1
    assert metric(summary.metrics, "recall@5m,10deg") == 0
    assert metric(summary.metrics, "median translation cm") == math.inf


def test_an_unreadable_map_is_named_and_the_other_references_count(kitchen):
    protocol = redkitchen.PROTOCOLS["ours"]
    (unit, *_) = oracle_answers(kitchen.samples, protocol).values()
    reference = dataclasses.replace(unit[0].sample.truth.reference, depth=kitchen.root / "gone.png")
    truth = dataclasses.replace(unit[0].sample.truth, reference=reference)
    broken = dataclasses.replace(unit[0], sample=dataclasses.replace(unit[0].sample, truth=truth))
    score = TASK.score([broken, *unit[1:]], protocol)
    assert (score.failure, score.values["map_unread"]) == ("", 1)
    assert score.error < 0.002
    alone = TASK.score([broken], protocol)
    assert "no depth image at" in alone.failure


def test_repeated_correspondences_count_once(kitchen):
    options = LocalizationOptions("poselib", (5.0,))
    (unit, *_) = oracle_answers(kitchen.samples, redkitchen.PROTOCOLS["ours"]).values()
    once, thrice = localize_query(unit, options), localize_query([*unit, *unit, *unit], options)
    assert thrice.num_correspondences == once.num_correspondences
    few = localize_query(unit, dataclasses.replace(options, max_matches=20))
    assert few.num_correspondences == 20


def test_thresholds_count_where_they_say():
    frame = ScoredFrame(
        ImageSize(1200, 1600), ImageSize(10, 10), ImageSize(600, 800), ImageSize(10, 10)
    )
    for unit, threshold, pixels in (
        ("resized", 5.0, 5.0),
        ("stored", 12.0, 6.0),
        ("diagonal", 0.008, 8.0),
    ):
        options = LocalizationOptions("poselib", (threshold,), threshold_unit=unit)
        assert options.threshold_px(frame) == pytest.approx(pixels)
    plain = localization_options(Protocol("x", estimator=EstimatorOptions(thresholds=(3.0,))))
    assert plain.threshold_px(frame) == 3
    with pytest.raises(InputError, match="one threshold"):
        LocalizationOptions("poselib", (1.0, 2.0))
    assert aachen.PROTOCOLS["hloc"].estimator.thresholds == (12,)
    assert inloc.PROTOCOLS["hloc"].estimator.thresholds == (48,)
    assert aachen.PROTOCOLS["hloc"].to_dict()["estimator"]["threshold_unit"] == "stored"


def test_matches_of_a_resized_pair_are_scored_at_their_scale(kitchen):
    """A protocol that doubles the photographs sees the same pose."""
    protocol = dataclasses.replace(
        redkitchen.PROTOCOLS["ours"],
        resize=dataclasses.replace(
            redkitchen.PROTOCOLS["ours"].resize, side=320, only_shrink=False
        ),
    )
    answers = oracle_answers(kitchen.samples, protocol, OracleOptions(count=60, noise_px=0.5))
    for unit in answers.values():
        assert unit[0].frame.resized0 == ImageSize(240, 320)
        assert TASK.score(unit, protocol).error < 0.03


def test_points_of_a_sparse_map_need_a_keypoint_nearby():
    reference = PointReference(np.array([[10.0, 10], [50, 50]]), np.arange(6.0).reshape(2, 3))
    keypoints = np.array([[13.0, 14], [13, 14.1], [51, 50]])
    points = world_points(reference, keypoints, ImageSize(100, 100))
    np.testing.assert_array_equal(points[[0, 2]], reference.points)
    assert np.isnan(points[1]).all()


def test_the_oracle_sees_what_the_map_knows(kitchen):
    sample = kitchen.samples[0]
    frame = frame_of(sample, redkitchen.PROTOCOLS["ours"])
    prediction = TASK.oracle(sample, frame, OracleOptions(count=50))
    points = world_points(sample.truth.reference, prediction.keypoints1, frame.stored1)
    pose = Pose.from_matrix(sample.truth.cam_from_world)
    projected = project(pose.transform(points), query_camera(sample.truth))
    np.testing.assert_allclose(projected, prediction.keypoints0, atol=1e-9)
    assert len(prediction) == 50
    private = TASK.oracle(with_truth(sample, None), frame, OracleOptions())
    assert private.failure == "the pose of this query is not public"


class Sift:
    info = MethodInfo("sift", "Apache-2.0", cv2.__version__, "ratio 0.8")

    def match(self, image0, image1):
        sift = cv2.SIFT_create(1000)
        found = [
            sift.detectAndCompute(cv2.cvtColor(i, cv2.COLOR_RGB2GRAY), None)
            for i in (image0, image1)
        ]
        pairs = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
        good = [first for first, second in pairs if first.distance < 0.8 * second.distance]
        ends = [
            np.array([found[0][0][m.queryIdx].pt for m in good]),
            np.array([found[1][0][m.trainIdx].pt for m in good]),
        ]
        return MatchPrediction(*ends, np.ones(len(good)))


def test_a_method_through_the_whole_run(tmp_path):
    """Photographs to cache to poses, as on the command line, and a truncated photograph."""
    write_sevenscenes(tmp_path, ImageSize(192, 256))
    broken = tmp_path / "chess" / "seq-02" / "frame-000001.color.png"
    dataset = sevenscenes.read(tmp_path)
    broken.write_bytes(broken.read_bytes()[:2000])
    protocol, method = sevenscenes.PROTOCOLS["ours"], Sift()
    path = cache_path(tmp_path / "cache", dataset, method.info, protocol.resize)
    with open_cache(path, dataset, method.info, protocol.resize) as cache:
        summary = export(dataset, method, protocol.resize, cache)
        scores, answers = evaluate(dataset, cache, TASK, protocol)
    assert (summary.computed, len(summary.failures), len(answers)) == (6, 3, 6)
    good, bad = scores
    assert good.error < 0.02
    assert good.values["rotation_deg"] < 0.3
    assert bad.error == math.inf
    assert "frame-000001.color.png" in bad.failure


def test_the_real_red_kitchen(shared_dir):
    root = shared_dir / "data" / "dev_localization" / "redkitchen"
    if not root.is_dir():
        pytest.skip("the development set is not there")
    dataset = redkitchen.read(root)
    assert (len(dataset.samples), dataset.problems) == (480, ())
    protocol = redkitchen.PROTOCOLS["ours"]
    samples = [sample for sample in dataset.samples if sample.unit == dataset.samples[0].unit]
    (unit,) = oracle_answers(samples[:4], protocol).values()
    assert TASK.score(unit, protocol).error < 0.001
