"""A whole run: command line, self-test, report folder, calibration, page."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.calibration import unrelated_pairs
from benchmarks.core.protocols import ScoredFrame
from benchmarks.core.samples import Dataset, HomographyTruth, PairSample, PoseTruth
from benchmarks.core.tasks import Answered
from benchmarks.datasets.registry import dataset_names, find_reader
from benchmarks.match_quality import match_errors_px
from benchmarks.page import join_reports
from benchmarks.protocols import POSE_PRESETS
from benchmarks.selftest import run_selftest
from benchmarks.tasks import task_for
from matcher.errors import DatasetError, InputError
from matcher.structures import ImageSize
from tests.benchmarks.miniature import relative, render_views
from tests.benchmarks.test_cache_and_runner import Oracle

pytestmark = pytest.mark.slow  # together more than a few seconds


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of five readable pairs of two sets, and one that names an absent photograph."""
    folder = tmp_path_factory.mktemp("pairs")
    lines = []
    for name, seed in (("near", 0), ("far", 1)):
        views = render_views(seed)
        for number, view in enumerate(views):
            cv2.imwrite(str(folder / f"{name}{number}.png"), view.image[..., ::-1])
        for i, j in ((0, 1), (0, 2), (1, 2))[: 3 if seed == 0 else 2]:
            lines.append(
                {
                    "image0": f"{name}{i}.png",
                    "image1": f"{name}{j}.png",
                    "K0": views[i].k.tolist(),
                    "K1": views[j].k.tolist(),
                    "T_0to1": relative(views[i], views[j]).tolist(),
                    "set": name,
                }
            )
    lines.append({**lines[0], "image1": "absent.png"})
    (folder / "pairs.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


def test_every_name_has_a_reader_with_protocols() -> None:
    assert len(dataset_names()) == 17
    for name in dataset_names():
        reader = find_reader(name)
        assert reader.title
        assert reader.protocols
        for key, protocol in reader.protocols.items():
            assert protocol.name == key


def test_a_run_reports_what_it_did(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    arguments = ["pairs", "--root", str(root), "--methods", "sift,orb", "--threads", "1"]
    arguments += ["--cache", str(tmp_path / "cache"), "--report", str(tmp_path / "out")]
    assert main(arguments) == 0
    printed = capsys.readouterr()
    assert "AUC@20" in printed.out
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [entry["method"]["name"] for entry in record["results"]] == ["sift", "orb"]
    sift = record["results"][0]["summary"]
    assert (sift["num_units"], sift["num_failures"]) == (6, 1)
    page = (tmp_path / "out" / "report.md").read_text()
    assert "absent.png" in page
    assert "PoseLib LO-RANSAC" in page
    figures = sorted(path.name for path in (tmp_path / "out").glob("*.png"))
    assert "pairs-ours-precision-recall.png" in figures
    # The second run asks no method: another protocol is scored from the same predictions.
    again = ["--evaluate-only", "--protocol", "loftr"]
    assert main([*arguments[:-2], *again]) == 0
    joined = join_reports([tmp_path / "out"], tmp_path / "page.md", tmp_path / "fig", "# All\n")
    assert len(joined) == 1
    assert (tmp_path / "page.md").read_text().startswith("# All")
    with pytest.raises(DatasetError, match=r"report\.json"):
        join_reports([tmp_path], tmp_path / "page.md", tmp_path / "fig", "# All\n")


def test_the_selftest_passes_on_the_command_line(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pairs", "--root", str(root), "--selftest", "--protocol", "loftr"]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count(" ok") == 3


def test_a_wrong_convention_fails_the_selftest(root: Path) -> None:
    dataset = find_reader("pairs").read(root)
    task = task_for("pose")

    class Inverted:
        kind, ceiling = task.kind, task.ceiling
        summarise = staticmethod(task.summarise)
        oracle = staticmethod(task.oracle)
        write_submission = staticmethod(task.write_submission)

        def score(self, answers, protocol):
            """Scores against world-to-camera read as camera-to-world."""
            one = answers[0]
            truth = one.sample.truth
            turned = PoseTruth(truth.k0, truth.k1, np.linalg.inv(truth.cam1_from_cam0))
            sample = PairSample(one.sample.name, one.sample.image0, one.sample.image1, turned)
            return task.score([Answered(sample, one.prediction, one.frame)], protocol)

    assert run_selftest(dataset, task, POSE_PRESETS["loftr"]).passed
    result = run_selftest(dataset, Inverted(), POSE_PRESETS["loftr"])
    assert not result.cases[0].passed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wat", "--root", "x"], "NAME: expected one of aachen"),
        (["pairs"], "--root: expected the folder"),
        (["pairs", "--root", "ROOT", "--protocol", "best"], "--protocol: expected ours or"),
        (["pairs", "--root", "ROOT", "--methods", "sift,sift"], "--methods: expected different"),
        (["pairs", "--root", "ROOT", "--methods", "surf"], "method: expected one of"),
        (["hpatches", "--root", "nowhere"], "published:"),
        (["pairs", "--root", "ROOT", "--evaluate-only", "--cache", "none"], "--evaluate-only"),
    ],
)
def test_mistakes_get_a_line_and_status_2(
    root: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [str(root) if word == "ROOT" else word for word in arguments]
    assert main(given) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed


def test_a_wrong_kind_is_refused() -> None:
    with pytest.raises(InputError, match="kind"):
        task_for("depth")


def test_match_errors_are_pixels_of_the_resized_photograph(tmp_path: Path) -> None:
    views = render_views()
    oracle = Oracle()
    prediction = oracle.match(views[0].image, views[2].image)
    stored, half = ImageSize(120, 160), ImageSize(60, 80)
    frame = ScoredFrame(stored, stored, half, half)
    pose = PoseTruth(views[0].k, views[2].k, relative(views[0], views[2]))
    sample = PairSample("a", tmp_path, tmp_path, pose)
    epipolar = match_errors_px(Answered(sample, prediction, frame))
    assert epipolar is not None
    assert float(epipolar.max()) < 1e-3

    depth = tmp_path / "depth.png"
    assert cv2.imwrite(str(depth), np.round(views[0].depth * 5000).astype(np.uint16))
    exact = PoseTruth(pose.k0, pose.k1, pose.cam1_from_cam0, depth0=depth, depth_scale=5000.0)
    errors = match_errors_px(
        Answered(PairSample("a", tmp_path, tmp_path, exact), prediction, frame)
    )
    assert errors is not None
    assert float(np.median(errors)) < 0.02
    moved = type(prediction)(
        prediction.keypoints0, prediction.keypoints1 + np.array([6.0, 8.0]), prediction.confidence
    )
    errors = match_errors_px(Answered(PairSample("a", tmp_path, tmp_path, exact), moved, frame))
    assert errors is not None
    assert float(np.median(errors)) == pytest.approx(5.0, abs=0.05)

    shift = HomographyTruth(np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]]))
    same = type(prediction)(prediction.keypoints0, prediction.keypoints0, prediction.confidence)
    errors = match_errors_px(Answered(PairSample("a", tmp_path, tmp_path, shift), same, frame))
    np.testing.assert_allclose(errors, 2.5)


def test_unrelated_pairs_are_of_different_groups(root: Path) -> None:
    dataset = find_reader("pairs").read(root)
    unrelated = unrelated_pairs(dataset, 8)
    assert len(unrelated.samples) >= 6
    for sample in unrelated.samples:
        assert ("near" in sample.image0.name) != ("near" in sample.image1.name)
        assert isinstance(sample.truth, PoseTruth)
        assert not sample.truth.is_scored
    one_group = Dataset("a", "A", dataset.samples[:2], "pose", root)
    with pytest.raises(InputError, match="two groups"):
        unrelated_pairs(one_group, 4)
