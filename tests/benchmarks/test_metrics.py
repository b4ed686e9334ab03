from __future__ import annotations

import math
import time

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.metrics.auc import (
    error_auc,
    mean_average_accuracy,
    precision_recall_auc,
    precision_recall_curve,
    recall_at,
)
from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.metrics.errors import (
    fundamental_from_pose,
    matching_precision,
    pose_errors_deg,
    symmetric_epipolar_errors_px,
)
from benchmarks.metrics.homography import mean_corner_error_px, mean_visible_error_px, visible
from matcher.errors import InputError
from matcher.structures import ImageSize, Pose

INF = math.inf


@pytest.mark.parametrize(
    ("errors", "threshold", "expected"),
    [
        ([0, 0, 0], 10, 1.0),
        ([INF, INF], 20, 0.0),
        # Recall rises from 0 to 1/2 on [0, 5] and stays: (5 * 1/4 + 5 * 1/2) / 10.
        ([5, INF], 10, 0.375),
        # 0 -> 1/4 at 2 -> 2/4 at 4, then flat up to 10: (0.25 + 0.75 + 3) / 10.
        ([4, 2, 40, INF], 10, 0.4),
        ([12], 10, 0.0),
    ],
)
def test_auc_by_hand(errors, threshold, expected):
    assert error_auc(errors, threshold) == pytest.approx(expected)


def test_the_two_areas_differ_on_the_same_errors():
    errors = [4, 2, 40, INF]
    # Bins of one unit; recall 1/4 from bin [2, 3) on and 2/4 from [4, 5): (2 / 4 + 6 * 2 / 4) / 10.
    assert mean_average_accuracy(errors, 10, num_bins=10) == pytest.approx(0.35)
    assert error_auc(errors, 10) == pytest.approx(0.4)
    # With errors inside the bins the staircase, which counts a bin whole, lies above.
    assert mean_average_accuracy([0.5], 1) == 1.0
    assert error_auc([0.5], 1) == pytest.approx(0.75)


def test_a_failure_counts_the_same_at_any_size():
    for metric in (error_auc, mean_average_accuracy):
        assert metric([1.0, INF], 20) == metric([1.0, 180.0], 20)


@pytest.mark.parametrize("metric", [error_auc, mean_average_accuracy, recall_at])
def test_without_errors_nothing_is_known_and_nan_is_refused(metric):
    assert math.isnan(metric([], 5))
    with pytest.raises(InputError, match="errors"):
        metric([1.0, math.nan], 5)


def test_recall_counts_the_threshold_itself():
    assert recall_at([1, 2, 3, INF], 2) == 0.5


def test_precision_recall_by_hand():
    correct, confidence = [True, False, True, True], [0.9, 0.8, 0.8, 0.1]
    recall, precision = precision_recall_curve(correct, confidence, num_failures=1)
    # The two of equal confidence enter together; the failure keeps recall at 4 / 5.
    assert recall.tolist() == pytest.approx([0.2, 0.6, 0.8])
    assert precision.tolist() == pytest.approx([1.0, 2 / 3, 3 / 4])
    area = precision_recall_auc(correct, confidence, num_failures=1)
    assert area == pytest.approx(0.2 * 1 + 0.4 * 2 / 3 + 0.2 * 3 / 4)


def test_precision_recall_rewards_a_confidence_that_knows():
    correct = [True, True, False, False]
    knows = precision_recall_auc(correct, [4, 3, 2, 1])
    errs = precision_recall_auc(correct, [1, 2, 3, 4])
    assert knows == pytest.approx((1 + 1 + 2 / 3 + 1 / 2) / 4)
    assert errs == pytest.approx((0 + 0 + 1 / 3 + 1 / 2) / 4)
    assert math.isnan(precision_recall_auc([], []))
    assert precision_recall_auc([], [], num_failures=3) == 0.0
    with pytest.raises(InputError, match="confidence"):
        precision_recall_auc([True], [math.nan])


def test_pose_errors_know_no_sign_of_the_translation():
    truth = np.eye(4)
    truth[:3, 3] = 0, 0, 2
    turned = Rotation.from_euler("y", 3, degrees=True).as_matrix()
    assert pose_errors_deg(Pose(turned, np.array([0, 0, 5.0])), truth) == pytest.approx((3, 0))
    assert pose_errors_deg(Pose(np.eye(3), np.array([0, 0, -1.0])), truth) == pytest.approx((0, 0))
    assert pose_errors_deg(Pose(np.eye(3), np.array([1.0, 0, 0])), truth) == pytest.approx((0, 90))
    assert pose_errors_deg(Pose.identity(), truth) == (0, INF)
    assert pose_errors_deg(None, truth) == (INF, INF)
    # Nobody can miss a direction that is not there.
    assert pose_errors_deg(Pose(turned, np.array([1.0, 0, 0])), np.eye(4)) == pytest.approx((3, 0))


def test_symmetric_epipolar_error_of_a_sideways_step_by_hand():
    k = np.array([[100.0, 0, 50], [0, 100, 40], [0, 0, 1]])
    sideways = np.eye(4)
    sideways[0, 3] = -0.3
    fundamental = fundamental_from_pose(k, k, sideways)
    # Epipolar lines are the rows: three pixels apart in both images.
    points0, points1 = np.array([[10.0, 20], [60, 30]]), np.array([[3.0, 20], [20, 33]])
    errors = symmetric_epipolar_errors_px(points0, points1, fundamental)
    assert errors == pytest.approx([0, 3 * math.sqrt(2)], abs=1e-9)
    rescaled = symmetric_epipolar_errors_px(points0, points1, 1e-12 * fundamental)
    assert rescaled == pytest.approx(errors, abs=1e-9)
    assert matching_precision(errors, 1.0) == 0.5
    assert math.isnan(matching_precision([], 1.0))
    assert np.isinf(symmetric_epipolar_errors_px(points0, points1, np.zeros((3, 3)))).all()
    assert len(symmetric_epipolar_errors_px(np.zeros((0, 2)), np.zeros((0, 2)), fundamental)) == 0


def test_corner_error_by_hand():
    shift = np.array([[1.0, 0, 3], [0, 1, 4], [0, 0, 1]])
    size = ImageSize(48, 64)
    assert mean_corner_error_px(2 * shift, np.eye(3), size) == pytest.approx(5)
    assert mean_corner_error_px(None, np.eye(3), size) == INF
    to_infinity = np.array([[1.0, 0, 0], [0, 1, 0], [1, 0, 0]])
    assert mean_corner_error_px(to_infinity, np.eye(3), size) == INF
    # A stretch about the origin by 1 %: corners move by 1 % of their distance from it.
    stretched = np.diag([1.01, 1.01, 1.0])
    corners = (0 + 63 + 47 + math.hypot(63, 47)) / 4
    assert mean_corner_error_px(stretched, np.eye(3), size) == pytest.approx(0.01 * corners)


def test_visible_error_counts_only_what_both_images_show():
    size = ImageSize(40, 60)
    half_out = np.array([[1.0, 0, 30], [0, 1, 0], [0, 0, 1]])
    pixels = np.array([[0.0, 0], [29, 39], [30, 0], [59, 39]])
    assert visible(pixels, half_out, size).tolist() == [True, True, False, False]
    # The estimate is wrong by x / 10: on the visible half, x in [0, 29], by 1.45 in the mean.
    estimated = half_out + np.array([[0.1, 0, 0], [0, 0, 0], [0, 0, 0]])
    assert mean_visible_error_px(estimated, half_out, size, size) == pytest.approx(1.45)
    away = np.array([[1.0, 0, 300], [0, 1, 0], [0, 0, 1]])
    assert mean_visible_error_px(away, away, size, size) == INF
    # What lies beyond the vanishing line is not seen, although its numbers land in the image.
    folded = np.array([[1.0, 0, 0], [0, 1, 0], [-0.05, 0, 1]])
    assert visible(np.array([[10.0, 5], [60, 5]]), folded, size).tolist() == [True, False]
    assert visible(np.array([[10.0, 5], [60, 5]]), -folded, size).tolist() == [True, False]


def test_bootstrap_interval_holds_the_mean_and_narrows():
    random = np.random.default_rng(1)
    few, many = random.normal(5, 1, 50), random.normal(5, 1, 5000)
    low, high = bootstrap_interval(few, lambda rows: float(rows.mean()))
    # Two standard errors on each side: 4 / sqrt(50) = 0.57 wide.
    assert 0.4 < high - low < 0.75
    assert low < few.mean() < high
    narrow = bootstrap_interval(many, lambda rows: float(rows.mean()))
    assert 0.04 < narrow[1] - narrow[0] < 0.075
    assert (low, high) == bootstrap_interval(few, lambda rows: float(rows.mean()))


def test_bootstrap_over_groups_is_wider_where_groups_agree():
    values = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0], 40)
    groups = [f"scene{index // 40}" for index in range(200)]
    units = bootstrap_interval(values, lambda rows: float(rows.mean()))
    scenes = bootstrap_interval(values, lambda rows: float(rows.mean()), groups)
    assert units[1] - units[0] < 0.15
    assert scenes[1] - scenes[0] > 0.5


def test_bootstrap_without_choice_has_no_interval():
    for values, groups in (([1.0], None), ([], None), ([1.0, 2.0], ["a", "a"])):
        interval = bootstrap_interval(values, lambda rows: float(rows.mean()), groups)
        assert all(math.isnan(end) for end in interval)
    with pytest.raises(InputError, match="groups"):
        bootstrap_interval([1.0, 2.0], lambda rows: float(rows.mean()), ["a"])


def test_bootstrap_passes_infinities_on():
    values = [1.0, INF, INF, INF]
    assert bootstrap_interval(values, lambda rows: float(np.median(rows)))[1] == INF


def test_bootstrap_of_an_auc_is_fast():
    errors = np.random.default_rng(0).exponential(10, 1500)
    started = time.process_time()
    low, high = bootstrap_interval(errors, lambda rows: error_auc(rows, 20), draws=500)
    assert time.process_time() - started < 0.5
    assert low < error_auc(errors, 20) < high
