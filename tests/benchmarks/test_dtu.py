from __future__ import annotations

import dataclasses
import math
import sys

import numpy as np
import pytest

from benchmarks.core.protocols import EstimatorOptions, Protocol, ScoredFrame
from benchmarks.core.tasks import Answered, OracleOptions
from benchmarks.datasets import dtu
from benchmarks.datasets.building import stored_size
from benchmarks.metrics.surface import (
    ObservedVolume,
    SurfaceOptions,
    clipped_mean,
    score_surface,
    thin,
)
from benchmarks.metrics.surface_files import read_observed_volume, read_plane, read_points
from benchmarks.tasks.fusion import FusionOptions, fuse_reference
from benchmarks.tasks.multiview import MultiViewTask
from matcher.errors import DatasetError, InputError, MissingDependencyError
from tests.benchmarks.layouts_localization import DTU_DEPTH_MM, write_dtu

pytestmark = pytest.mark.slow  # together more than a few seconds

TASK = MultiViewTask()
PROTOCOL = dtu.PROTOCOLS["ours"]
EVERYWHERE = ObservedVolume(np.ones((9, 9, 9), dtype=bool), np.full(3, -40.0), 10.0)
ABOVE_ALL = (0.0, 0.0, 0.0, 1.0)


def sheet(half=10.0, spacing=0.5, z=0.0):
    x, y = np.meshgrid(np.arange(-half, half, spacing), np.arange(-half, half, spacing))
    return np.stack([x, y, np.full_like(x, z)], -1).reshape(-1, 3)


def answer(samples, options):
    answers = []
    for sample in samples:
        sizes = stored_size(sample.image0), stored_size(sample.image1)
        frame = ScoredFrame.of(PROTOCOL.resize, *sizes)
        answers.append(Answered(sample, TASK.oracle(sample, frame, options), frame))
    return answers


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    root = tmp_path_factory.mktemp("dtu")
    return root, write_dtu(root)


# The metric


def test_a_lifted_sheet_is_off_by_its_height():
    score = score_surface(sheet(z=0.3), sheet(), EVERYWHERE, ABOVE_ALL)
    assert score.accuracy == pytest.approx(0.3)
    assert score.completeness == pytest.approx(0.3)
    assert score.overall == pytest.approx(0.3)
    assert score.precision == (1, 1)
    assert score.num_points == len(sheet())


def test_accuracy_and_completeness_are_two_things():
    half = sheet()[sheet()[:, 0] < 0]
    score = score_surface(half, sheet(), EVERYWHERE, ABOVE_ALL)
    assert score.accuracy == 0
    # Half of the surface is met; the other half, x = 0 ... 9.5, is nearest to x = -0.5.
    assert score.completeness == pytest.approx(
        np.mean(np.r_[np.zeros(20), np.arange(20) / 2 + 0.5])
    )
    extra = np.concatenate([sheet(), sheet(z=4.0)])
    score = score_surface(extra, sheet(), EVERYWHERE, ABOVE_ALL)
    assert score.accuracy == pytest.approx(2)
    assert score.completeness == 0
    assert score.precision == (0.5, 1)


def test_far_unobserved_and_lower_points_do_not_count():
    far = np.array([[0.0, 0, 30], [0, 0, -21]])
    unobserved = np.array([[0.0, 0, 100], [46, 0, 0]])
    cloud = np.concatenate([sheet(z=0.3), far, unobserved])
    score = score_surface(cloud, sheet(), EVERYWHERE, ABOVE_ALL)
    assert score.accuracy == pytest.approx(0.3)
    assert score.num_points == len(sheet()) + 2
    # Below the table, y >= 5, the surface may be missing.
    upper = sheet()[sheet()[:, 1] < 5]
    below = score_surface(upper, sheet(), EVERYWHERE, (0, -1, 0, 5 - 0.25))
    assert below.completeness == 0
    assert clipped_mean([1.0, 3, 20, math.inf], 20) == 2
    assert clipped_mean([20.0], 20) == math.inf


def test_cells_are_met_at_their_centres():
    mask = np.zeros((3, 3, 3), dtype=bool)
    mask[1, 1, 1] = True
    volume = ObservedVolume(mask, np.array([100.0, 0, 0]), 10.0)
    points = np.array([[114.9, 10, 10], [115.1, 10, 10], [105.1, 5.1, 14.9], [-1e6, 0, 0]])
    assert volume.contains(points).tolist() == [True, False, True, False]


def test_thinning_keeps_the_spacing_and_covers():
    points = np.random.default_rng(0).uniform(0, 2, (3000, 3)) * [1, 1, 0]
    thinned = thin(points, 0.2)
    distances = np.linalg.norm(thinned[:, None] - thinned[None], axis=-1)
    assert distances[~np.eye(len(thinned), dtype=bool)].min() > 0.2
    nearest = np.linalg.norm(points[:, None] - thinned[None], axis=-1).min(axis=1)
    assert nearest.max() <= 0.2
    assert len(thin(points, 0)) == 3000
    np.testing.assert_array_equal(thin(points, 0.2), thinned)


def test_nothing_is_infinitely_far():
    score = score_surface(np.zeros((0, 3)), sheet(), EVERYWHERE, ABOVE_ALL, SurfaceOptions())
    assert (score.overall, score.precision, score.num_points) == (math.inf, (0, 0), 0)
    with pytest.raises(InputError, match="shape"):
        score_surface(np.zeros((3, 2)), sheet(), EVERYWHERE, ABOVE_ALL)
    with pytest.raises(InputError, match="4 numbers"):
        score_surface(sheet(), sheet(), EVERYWHERE, (0, 0, 1))


# The reader


def test_the_files_of_a_scan(scan):
    pytest.importorskip("trimesh")
    root, surface = scan
    np.testing.assert_allclose(
        read_points(root / "Points/stl/stl001_total.ply"), surface, rtol=1e-6, atol=1e-5
    )
    volume = read_observed_volume(root / "ObsMask/ObsMask1_10.mat")
    assert (volume.mask.shape, volume.cell, volume.origin.tolist()) == (
        (7, 7, 5),
        10,
        [-30, -30, 580],
    )
    assert read_plane(root / "ObsMask/Plane1.mat").tolist() == [0, -1, 0, 10]


def test_pairs_of_a_scan(scan):
    root, _ = scan
    dataset = dtu.read(root)
    assert (dataset.kind, dataset.problems) == ("multiview", ())
    assert len(dataset.samples) == 4 * 3
    assert {sample.unit for sample in dataset.samples} == {"scan1"}
    truth = dataset.samples[0].truth
    # The camera files are for 1600 x 1200, the photographs here a tenth of that.
    assert truth.k0[0, 0] == pytest.approx(289.2)
    assert truth.k0[:2, 2] == pytest.approx((79.5, 59.5))
    notes = " ".join(dataset.notes)
    assert "true cameras are given" in notes
    assert "Cameras/*_cam.txt" in notes
    assert "scan1: 4 of 49 views" in notes
    assert len(dtu.SCANS) == 22


def test_projection_matrices_say_the_same(scan, tmp_path):
    write_dtu(tmp_path, calibration=True)
    ours, theirs = (dtu.read(root).samples for root in (scan[0], tmp_path))
    for sample, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(sample.truth.k1, other.truth.k1, atol=1e-5)
        np.testing.assert_allclose(
            sample.truth.cam1_from_world, other.truth.cam1_from_world, atol=1e-5
        )


def test_listed_neighbours(tmp_path):
    write_dtu(tmp_path)
    (tmp_path / "Cameras" / "pair.txt").write_text("2\n0\n2 1 9.5 30 1.0\n2\n1 3 7.0\n")
    dataset = dtu.read(tmp_path)
    assert [sample.name for sample in dataset.samples] == ["scan1/001--002", "scan1/003--004"]
    assert "neighbours: Cameras/pair.txt" in dataset.notes
    (tmp_path / "Cameras" / "pair.txt").write_text("2\n0\n2 1 9.5\n")
    with pytest.raises(DatasetError, match="broken neighbours of view 0"):
        dtu.read(tmp_path)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(DatasetError, match="DTU: not found at"):
        dtu.read(tmp_path)
    write_dtu(tmp_path)
    (tmp_path / "Rectified" / "scan4").mkdir()
    (dataset_problem,) = dtu.read(tmp_path).problems
    assert dataset_problem[0] == "scan4"
    assert "stl004_total.ply" in dataset_problem[1]
    (tmp_path / "Cameras" / "00000001_cam.txt").write_text("extrinsic\n1 0 0 0\n")
    with pytest.raises(DatasetError, match="00000001_cam.txt: expected 4 \\+ 3 lines"):
        dtu.read(tmp_path)


def test_unreadable_ground_truth(tmp_path, monkeypatch):
    pytest.importorskip("trimesh")
    for name in ("cloud.ply", "mask.mat"):
        (tmp_path / name).write_bytes(b"ply\nnothing")
    for read in (read_points, read_observed_volume, read_plane):
        path = tmp_path / ("cloud.ply" if read is read_points else "mask.mat")
        with pytest.raises(DatasetError, match=path.name):
            read(path)
        with pytest.raises(DatasetError, match="at .*gone"):
            read(tmp_path / "gone")
    monkeypatch.setitem(sys.modules, "trimesh", None)
    with pytest.raises(MissingDependencyError, match="widebase\\[train\\]"):
        read_points(tmp_path / "cloud.ply")


# The task


def test_true_matches_give_the_surface(scan):
    pytest.importorskip("trimesh")
    samples = dtu.read(scan[0]).samples
    answers = answer(samples, OracleOptions(count=2000))
    score = TASK.score(answers, PROTOCOL)
    assert score.failure == ""
    # Left of all pixels of one cell is their mean: depths of one pixel (2 mm) are averaged.
    assert score.values["accuracy_mm"] < 0.15
    # The measured points lie 0.5 mm apart, the pixels 2 mm.
    assert score.values["completeness_mm"] < 0.6
    assert score.error == pytest.approx(
        (score.values["accuracy_mm"] + score.values["completeness_mm"]) / 2
    )
    assert score.values["precision_1mm"] == 1
    # Points at x >= 15 are not judged.
    clouds = fuse_reference(answers[:3], PROTOCOL.estimator)
    assert clouds[:, 0].max() > 15
    assert np.abs(clouds[:, 2] - DTU_DEPTH_MM).max() < 6


def test_noise_costs_and_shuffling_leaves_nothing(scan):
    pytest.importorskip("trimesh")
    samples = dtu.read(scan[0]).samples
    exact, noisy = (
        TASK.score(answer(samples, OracleOptions(count=500, noise_px=noise)), PROTOCOL)
        for noise in (0.0, 0.3)
    )
    assert exact.error < noisy.error < 10
    # A view 6 degrees aside gives depths to 0.3 px * sqrt(2) / 289 / sin(6 deg) * 600 mm.
    assert 1 < noisy.values["accuracy_mm"] < 8
    shuffled = TASK.score(answer(samples, OracleOptions(count=60, shuffled=True)), PROTOCOL)
    summary = TASK.summarise([exact, shuffled], PROTOCOL)
    precision = {metric.name: metric.value for metric in summary.metrics}
    assert shuffled.values["num_points"] <= exact.values["num_points"] / 10
    assert precision["precision@1mm"] >= 0.5
    assert TASK.write_submission(dtu.read(scan[0]), [], PROTOCOL, scan[0] / "x") is None


def test_moved_cameras_move_the_surface(scan):
    """All cameras 3 mm higher: the cloud is 3 mm above the true one."""
    pytest.importorskip("trimesh")
    samples = dtu.read(scan[0]).samples
    raised = np.eye(4)
    raised[2, 3] = 3.0
    answers = []
    for answered in answer(samples, OracleOptions(count=1000)):
        truth = dataclasses.replace(
            answered.sample.truth,
            cam0_from_world=answered.sample.truth.cam0_from_world @ raised,
            cam1_from_world=answered.sample.truth.cam1_from_world @ raised,
        )
        sample = dataclasses.replace(answered.sample, truth=truth)
        answers.append(dataclasses.replace(answered, sample=sample))
    score = TASK.score(answers, PROTOCOL)
    assert score.values["accuracy_mm"] == pytest.approx(3, abs=0.2)
    assert score.values["precision_1mm"] == 0
    assert score.values["precision_5mm"] == 1


def test_a_point_needs_two_neighbours(scan):
    pytest.importorskip("trimesh")
    answers = answer(dtu.read(scan[0]).samples[:1], OracleOptions(count=300))
    assert len(fuse_reference(answers, FusionOptions(thresholds=(2.0,)))) == 0
    alone = FusionOptions(thresholds=(2.0,), min_neighbours=1)
    assert len(fuse_reference(answers, alone)) > 100
    narrow = dataclasses.replace(alone, min_angle_deg=10.0)
    assert len(fuse_reference(answers, narrow)) == 0
    score = TASK.score(answers, PROTOCOL)
    assert (score.error, score.failure) == (math.inf, "no point that two neighbours agree on")
    summary = TASK.summarise([score], PROTOCOL)
    assert (summary.num_failures, summary.metrics[0].value) == (1, math.inf)


def test_options():
    assert FusionOptions.of(EstimatorOptions(thresholds=(3.0,))).thresholds == (3.0,)
    with pytest.raises(InputError, match="one threshold"):
        FusionOptions(thresholds=(1.0, 2.0))
    assert Protocol("x", estimator=FusionOptions()).to_dict()["estimator"]["min_neighbours"] == 2
