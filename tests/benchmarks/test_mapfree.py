"""Map-free in its official layout, rendered: reading, scoring, the submission, broken input."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import ScoredFrame
from benchmarks.core.samples import Dataset, PoseTruth
from benchmarks.core.tasks import Answered, OracleOptions, Summary, UnitScore
from benchmarks.datasets import mapfree
from benchmarks.selftest import run_selftest
from benchmarks.tasks.metric_pose import MetricPoseTask
from matcher.errors import DatasetError
from matcher.geometry.camera import resize_camera
from matcher.geometry.pose import quaternion_to_rotation, rotation_to_quaternion
from matcher.structures import Camera, FloatArray, ImageSize, Pose
from tests.benchmarks.miniature import MiniView, relative, render_views

pytestmark = pytest.mark.slow  # together more than a few seconds

SIZE = ImageSize(720, 540)
FRAME = ScoredFrame(SIZE, SIZE, SIZE, SIZE)
# The reference, and the frames 0 to 11 of the other sequence; 0, 5 and 10 are asked.
ANGLES = (0.0, *(4.0 + 3 * number for number in range(12)))
SCENES = ("s00460", "s00461")
TASK = MetricPoseTask()


def views(seed: int = 0) -> tuple[MiniView, ...]:
    return render_views(seed, ANGLES, 48, 36)


def write_scene(folder: Path, is_test: bool = False) -> None:
    """A scene as published; the world is the reference's frame."""
    reference, *queries = views()
    camera = resize_camera(Camera.from_matrix(reference.k, ImageSize(48, 36)), SIZE)
    (folder / "seq0").mkdir(parents=True)
    (folder / "seq1").mkdir()
    names = ["seq0/frame_00000.jpg", *(f"seq1/frame_{n:05d}.jpg" for n in range(len(queries)))]
    for name, view in zip(names, (reference, *queries), strict=True):
        image = cv2.resize(view.image, (SIZE.width, SIZE.height), interpolation=cv2.INTER_CUBIC)
        cv2.imwrite(str(folder / name), image[..., ::-1])
    numbers = " ".join(map(str, camera.params))
    (folder / "intrinsics.txt").write_text(
        "".join(f"{name} {numbers} {SIZE.width} {SIZE.height}\n" for name in names)
    )
    lines = ["# path qw qx qy qz tx ty tz"]
    for name, view in zip(names, (reference, *queries), strict=True):
        pose = relative(reference, view)
        row = (*rotation_to_quaternion(pose[:3, :3]), *pose[:3, 3])
        lines.append(f"{name} {' '.join(map(str, row))}")
    (folder / "poses.txt").write_text("\n".join(lines[:2] if is_test else lines) + "\n")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("mapfree")
    for scene in SCENES:
        write_scene(root / "val" / scene)
    write_scene(root / "test" / "s00525", is_test=True)
    return root


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "mapfree"))


def oracle(dataset: Dataset, options: OracleOptions | None = None) -> list[Answered]:
    options = options or OracleOptions()
    return [Answered(s, TASK.oracle(s, FRAME, options), FRAME) for s in dataset.samples]


def with_points(
    answers: list[Answered], points: Callable[[FloatArray], FloatArray]
) -> list[Answered]:
    """The answers with changed points of image 0."""
    return [
        replace(a, prediction=replace(a.prediction, points0=points(a.prediction.points0)))
        for a in answers
    ]


def summary(answers: list[Answered], protocol: str) -> Summary:
    chosen = mapfree.PROTOCOLS[protocol]
    return TASK.summarise([TASK.score([answer], chosen) for answer in answers], chosen)


def value(of: Summary, name: str) -> float:
    return next(metric.value for metric in of.metrics if metric.name == name)


def baselines(dataset: Dataset) -> FloatArray:
    truths = (sample.truth for sample in dataset.samples)
    return np.array([np.linalg.norm(t.cam1_from_cam0[:3, 3]) for t in truths])  # type: ignore[union-attr]


def test_every_fifth_frame_of_the_validation_split_is_asked(pristine: Path) -> None:
    dataset = mapfree.read(pristine)
    expected = [f"{scene}/frame_{n:05d}" for scene in SCENES for n in (0, 5, 10)]
    assert [sample.name for sample in dataset.samples] == expected
    assert [sample.group for sample in dataset.samples] == ["s00460"] * 3 + ["s00461"] * 3
    assert dataset.kind == "metric_pose"
    assert dataset.problems == ()
    assert "val split" in dataset.title
    assert any("2 of 65 scenes" in note for note in dataset.notes)
    reference, *queries = views()
    for sample, number in zip(dataset.samples, (0, 5, 10, 0, 5, 10), strict=True):
        truth = sample.truth
        assert isinstance(truth, PoseTruth)
        assert truth.is_metric
        assert truth.is_scored
        assert truth.rotation_deg == pytest.approx(ANGLES[number + 1] * 0.87, rel=0.15)
        expected_pose = relative(reference, queries[number])
        np.testing.assert_allclose(truth.cam1_from_cam0, expected_pose, atol=1e-9)
        np.testing.assert_allclose(truth.k0[:2, 2], [269.5, 359.5])
        assert sample.image0.name == "frame_00000.jpg"
        assert sample.image0.parent.name == "seq0"


def test_split_itself_can_be_the_root(pristine: Path) -> None:
    assert len(mapfree.read(pristine / "val").samples) == 6
    assert "test split" in mapfree.read(pristine / "test").title


@pytest.mark.parametrize("protocol", sorted(mapfree.PROTOCOLS))
def test_perfect_matches_score_one_and_shuffled_ones_nothing(pristine: Path, protocol: str) -> None:
    chosen = mapfree.PROTOCOLS[protocol]
    quick = replace(chosen, estimator=replace(chosen.estimator, max_iterations=3000))
    result = run_selftest(mapfree.read(pristine), TASK, quick)
    assert result.passed, result
    assert result.num_units == 6
    assert result.cases[0].value == 1.0
    assert result.cases[0].metric == "VCRE precision@90px"


@pytest.mark.parametrize("protocol", sorted(mapfree.PROTOCOLS))
def test_perfect_matches_leave_no_error(pristine: Path, protocol: str) -> None:
    found = summary(oracle(mapfree.read(pristine)), protocol)
    for name in ("VCRE AUC", "pose precision@0.25m,5deg", "pose AUC", "answered share"):
        assert value(found, name) == 1.0
    assert value(found, "VCRE median px") < 0.01
    assert value(found, "median translation m") < 1e-4
    assert value(found, "median rotation deg") < 1e-3
    assert value(found, "metric scale share") == 1.0
    assert list(found.by_group) == list(SCENES)
    assert sum(metric.count for metric in found.by_viewpoint.values()) == 6


@pytest.mark.parametrize(("protocol", "low", "high"), [("ours", 0.3, 4.0), ("pnp", 0.03, 0.5)])
def test_a_pixel_of_noise_moves_the_virtual_points_by_about_a_pixel(
    pristine: Path, protocol: str, low: float, high: float
) -> None:
    answers = oracle(mapfree.read(pristine), OracleOptions(noise_px=1.0))
    assert low < value(summary(answers, protocol), "VCRE median px") < high


def test_depths_ten_percent_too_long_lengthen_the_translation_so_much(pristine: Path) -> None:
    dataset = mapfree.read(pristine)
    expected = np.median(0.1 * baselines(dataset)[:3])
    for protocol in mapfree.PROTOCOLS:
        found = summary(with_points(oracle(dataset), lambda points: 1.1 * points), protocol)
        assert value(found, "median translation m") == pytest.approx(expected, rel=1e-3)
        assert value(found, "median rotation deg") < 1e-3


def test_a_third_of_wild_depths_does_not_move_the_scale(pristine: Path) -> None:
    def spoil(points: FloatArray) -> FloatArray:
        spoilt = points * np.where(np.arange(len(points)) % 3, 1.0, 7.0)[:, None]
        spoilt[1] = np.nan
        return spoilt

    # Points along their rays: only the depth is wrong. A median over two thirds of exact ratios
    # is exact; the mean would be off by a factor of 3.
    answers = with_points(oracle(mapfree.read(pristine)), spoil)
    for protocol in mapfree.PROTOCOLS:
        assert value(summary(answers, protocol), "median translation m") < 1e-3


@pytest.mark.parametrize("protocol", sorted(mapfree.PROTOCOLS))
def test_without_points_the_translation_is_one_metre_and_that_is_said(
    pristine: Path, protocol: str
) -> None:
    dataset = mapfree.read(pristine)
    found = summary(with_points(oracle(dataset), lambda points: points[:0]), protocol)
    assert value(found, "metric scale share") == 0.0
    assert value(found, "median rotation deg") < 1e-3
    expected = np.median(np.abs(baselines(dataset)[:3] - 1))
    assert value(found, "median translation m") == pytest.approx(expected, abs=1e-3)
    assert "1 m" in mapfree.PROTOCOLS[protocol].note


def test_numbers_of_a_summary_by_hand() -> None:
    def unit(group: str, vcre: float, metres: float, degrees: float, inliers: int) -> UnitScore:
        values = {
            "translation_m": metres,
            "rotation_error_deg": degrees,
            "num_inliers": float(inliers),
        }
        return UnitScore(f"{group}{vcre}{inliers}", group, (vcre,), values)

    scores = [
        unit("a", 10.0, 0.1, 1.0, 900),
        unit("a", 30.0, 0.3, 2.0, 800),
        unit("a", 200.0, 2.0, 40.0, 50),
        unit("b", 50.0, 0.2, 4.0, 300),
        unit("b", 89.0, 0.2, 6.0, 20),
        UnitScore("lost", "b", (np.inf,), failure="no pose"),
        UnitScore("c", "c", (np.inf,), failure="no pose"),
        UnitScore("unreadable", "", (np.inf,), failure="no file"),
    ]
    found = TASK.summarise(scores, mapfree.PROTOCOLS["ours"])
    assert value(found, "VCRE precision@90px") == 4 / 8
    # Ranked: right, right, right, wrong, right, three never answered; a step of coverage is 1/8.
    assert value(found, "VCRE AUC") == pytest.approx((1 + 1 + 1 + 3 / 4 + 4 / 5) / 8)
    assert value(found, "VCRE median px") == pytest.approx((30 + 69.5) / 2)
    assert value(found, "median translation m") == pytest.approx((0.3 + 0.2) / 2)
    assert value(found, "median rotation deg") == pytest.approx((2 + 5) / 2)
    assert value(found, "pose precision@0.25m,5deg") == 2 / 8
    assert value(found, "pose AUC") == pytest.approx((1 + 1 / 2 + 2 / 3 + 2 / 4 + 2 / 5) / 8)
    assert value(found, "answered share") == 5 / 8
    assert (found.num_units, found.num_failures) == (8, 3)
    assert {name: metric[0].value for name, metric in found.by_group.items()} == {
        "a": 2 / 3,
        "b": 2 / 3,
        "c": 0.0,
    }


def test_no_or_hopeless_matches_are_a_failure_not_an_exception(pristine: Path) -> None:
    dataset = mapfree.read(pristine)
    random = np.random.default_rng(0)
    for count in (0, 1, 4):
        pixels = random.uniform(0, 500, (count, 2))
        for points in (np.zeros((0, 3)), np.full((count, 3), np.nan)):
            prediction = MatchPrediction(pixels, pixels, np.ones(count), points)
            for protocol in mapfree.PROTOCOLS.values():
                answered = Answered(dataset.samples[0], prediction, FRAME)
                score = TASK.score([answered], protocol)
                assert score.error == np.inf
                assert score.failure


def test_submission_holds_every_scene_and_the_poses_that_were_found(
    pristine: Path, tmp_path: Path
) -> None:
    dataset = mapfree.read(pristine)
    answers = oracle(dataset)
    answers[1] = replace(answers[1], prediction=MatchPrediction.failed("it raised"))
    # A scene without any answer must have its file: the server counts all its frames otherwise.
    for index in (3, 4, 5):
        answers[index] = replace(answers[index], prediction=MatchPrediction.failed("it raised"))
    path = tmp_path / "new" / "submission.zip"
    said = TASK.write_submission(dataset, answers, mapfree.PROTOCOLS["pnp"], path)
    assert said == f"file written: {path}, 2 poses of 2 scenes"
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.zip"]
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["pose_s00460.txt", "pose_s00461.txt"]
        assert archive.read("pose_s00461.txt") == b""
        rows = [line.split() for line in archive.read("pose_s00460.txt").decode().splitlines()]
    assert [row[0] for row in rows] == ["seq1/frame_00000.jpg", "seq1/frame_00010.jpg"]
    truth = dataset.samples[2].truth
    assert isinstance(truth, PoseTruth)
    numbers = np.array(rows[1][1:], dtype=np.float64)
    assert len(numbers) == 8
    pose = Pose(quaternion_to_rotation(numbers[:4]), numbers[4:7])
    np.testing.assert_allclose(pose.matrix, truth.cam1_from_cam0, atol=1e-4)
    assert numbers[7] == len(answers[2].prediction)


def test_test_split_is_written_and_not_scored(pristine: Path, tmp_path: Path) -> None:
    dataset = mapfree.read(pristine / "test")
    assert [sample.name for sample in dataset.samples] == [
        f"s00525/frame_{number:05d}" for number in (0, 5, 10)
    ]
    assert "the server keeps the poses: file written, not scored" in dataset.notes
    truths = [sample.truth for sample in dataset.samples]
    assert all(isinstance(t, PoseTruth) and not t.is_scored for t in truths)
    assert "kept by a server" in TASK.oracle(dataset.samples[0], FRAME, OracleOptions()).failure
    # The same views as the validation split: its oracle's matches are answers here.
    answers = [
        replace(answered, sample=sample)
        for answered, sample in zip(oracle(mapfree.read(pristine)), dataset.samples, strict=False)
    ]
    for protocol in mapfree.PROTOCOLS:
        found = summary(answers, protocol)
        assert [np.isnan(metric.value) for metric in found.metrics] == [True]
        assert found.num_failures == 0
        path = tmp_path / f"{protocol}.zip"
        said = TASK.write_submission(dataset, answers, mapfree.PROTOCOLS[protocol], path)
        assert said == f"file written, not scored: {path}, 3 poses of 1 scenes"


def test_missing_data_prints_the_tree_and_the_place(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        mapfree.read(tmp_path)
    message = str(caught.value)
    assert str(tmp_path) in message
    assert "poses.txt" in message
    assert "nianticlabs.com" in message


def test_broken_lines_and_absent_photographs_are_named_and_counted(root: Path) -> None:
    scene = root / "val" / "s00460"
    lines = (scene / "poses.txt").read_text().splitlines()
    at = next(n for n, line in enumerate(lines) if line.startswith("seq1/frame_00005"))
    lines[at] = lines[at].rpartition(" ")[0]
    (scene / "poses.txt").write_text("\n".join(lines))
    (scene / "seq1" / "frame_00010.jpg").unlink()
    dataset = mapfree.read(root)
    assert len(dataset.samples) == 4
    problems = dict(dataset.problems)
    assert list(problems) == ["s00460/frame_00005", "s00460/frame_00010"]
    assert problems["s00460/frame_00005"].endswith(
        f"s00460/poses.txt:{at + 1}: expected 7 numbers, got 6"
    )
    assert "no image at" in problems["s00460/frame_00010"]


@pytest.mark.parametrize(
    ("file", "words", "reason"),
    [
        ("poses.txt", "seq1/frame_00005.jpg 1 0 zero 0 0 0 0", "zero"),
        ("poses.txt", "seq1/frame_00005.jpg 0 0 0 0 1 1 1", "quaternion has no length"),
        ("poses.txt", "seq1/frame_00005.jpg 1 0 0 0 nan 1 1", "finite"),
        ("intrinsics.txt", "seq1/frame_00005.jpg 600 600 269 359 540", "expected 6 numbers"),
        ("intrinsics.txt", "seq1/frame_00005.jpg -600 600 269 359 540 720", "focal"),
        ("intrinsics.txt", "seq1/frame_00005.jpg 600 600 359 269 720 540", "540 x 720"),
    ],
)
def test_one_broken_line_costs_one_pair(root: Path, file: str, words: str, reason: str) -> None:
    path = root / "val" / "s00461" / file
    kept = [x for x in path.read_text().splitlines() if not x.startswith("seq1/frame_00005")]
    path.write_text("\n".join([*kept, words]))
    dataset = mapfree.read(root)
    assert len(dataset.samples) == 5
    ((name, why),) = dataset.problems
    assert name == "s00461/frame_00005"
    assert reason in why


@pytest.mark.parametrize("file", ["poses.txt", "intrinsics.txt"])
def test_scene_without_a_file_counts_all_its_queries(root: Path, file: str) -> None:
    (root / "val" / "s00461" / file).unlink()
    dataset = mapfree.read(root)
    assert len(dataset.samples) == 3
    assert [name for name, _ in dataset.problems] == [
        f"s00461/frame_{number:05d}" for number in (0, 5, 10)
    ]
    assert all(why.endswith(f"{file}: no such file") for _, why in dataset.problems)
    assert not any("not scored" in note for note in dataset.notes)


def test_published_values_name_our_metrics(pristine: Path) -> None:
    ours = {metric.name for metric in summary(oracle(mapfree.read(pristine)), "ours").metrics}
    assert {entry.metric for entry in mapfree.PUBLISHED_VALUES} <= ours
    assert len(mapfree.PUBLISHED_VALUES) == 21
