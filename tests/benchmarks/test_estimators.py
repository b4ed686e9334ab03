from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from benchmarks.core.protocols import EstimatorOptions
from benchmarks.estimators import (
    estimate_fundamental,
    estimate_homography,
    estimate_relative_poses,
)
from benchmarks.metrics.errors import (
    fundamental_from_pose,
    pose_errors_deg,
    symmetric_epipolar_errors_px,
)
from matcher.errors import InputError
from matcher.geometry.pose import rotation_error_deg

K0 = np.array([[600.0, 0, 319.5], [0, 610, 239.5], [0, 0, 1]])
K1 = np.array([[500.0, 0, 300.0], [0, 505, 250.0], [0, 0, 1]])
POSE = np.eye(4)
POSE[:3, :3] = Rotation.from_euler("y", 25, degrees=True).as_matrix()
POSE[:3, 3] = -1, 0.1, 0.4
ESTIMATORS = ("poselib", "opencv-ransac", "opencv-magsac")
HOMOGRAPHY = np.array([[0.9, 0.1, 20], [-0.2, 1.1, 5], [3e-4, 1e-4, 1]])


def matches(count=200, noise=0.0, wrong=0.0, seed=0):
    random = np.random.default_rng(seed)
    points = np.column_stack([random.uniform(-2, 2, (count, 2)), random.uniform(4, 8, count)])
    moved = points @ POSE[:3, :3].T + POSE[:3, 3]
    ends = []
    for k, seen in ((K0, points), (K1, moved)):
        pixels = seen @ k.T
        ends.append(pixels[:, :2] / pixels[:, 2:] + noise * random.standard_normal((count, 2)))
    bad = random.random(count) < wrong
    ends[1][bad] = random.uniform(0, 480, (bad.sum(), 2))
    return ends[0], ends[1]


def plane_matches(count=100, noise=0.0):
    random = np.random.default_rng(3)
    pixels = random.uniform(0, 480, (count, 2))
    mapped = np.column_stack([pixels, np.ones(count)]) @ HOMOGRAPHY.T
    return pixels, mapped[:, :2] / mapped[:, 2:] + noise * random.standard_normal((count, 2))


def error(estimate):
    return max(pose_errors_deg(estimate.pose, POSE))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pose_from_exact_matches(estimator):
    options = EstimatorOptions(estimator)
    [[found]] = estimate_relative_poses(*matches(), K0, K1, options)
    assert error(found) < 1e-3
    assert found.num_inliers >= 195
    assert np.linalg.norm(found.pose.translation) == pytest.approx(1)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_pose_with_noise_and_wrong_matches(estimator):
    options = EstimatorOptions(estimator, max_iterations=2000)
    [[found]] = estimate_relative_poses(*matches(300, 0.3, 0.4), K0, K1, options)
    assert error(found) < 2.0
    assert 120 <= found.num_inliers <= 200


def test_a_progressive_search_starts_with_the_confident_matches():
    ends = matches(600, 0.2, 0.9, seed=5)
    bad = np.linalg.norm(ends[1] - matches(600, 0.2, 0.0, seed=5)[1], axis=1) > 1e-9
    confidence = np.random.default_rng(1).uniform(size=600) + 0.6 * ~bad
    options = EstimatorOptions(max_iterations=300)
    [[blind]] = estimate_relative_poses(*ends, K0, K1, options, confidence)
    progressive = replace(options, progressive=True)
    [[led]] = estimate_relative_poses(*ends, K0, K1, progressive, confidence)
    assert blind.pose is None or error(blind) > 5
    assert error(led) < 1
    # Equal confidences say nothing about the order: the search is the ordinary one.
    [[same]] = estimate_relative_poses(*ends, K0, K1, progressive, np.ones(600))
    [[plain]] = estimate_relative_poses(*ends, K0, K1, options)
    assert same.num_inliers == plain.num_inliers
    with pytest.raises(InputError, match="progressive"):
        EstimatorOptions("opencv-ransac", progressive=True)


def test_one_answer_for_each_threshold_and_repeat():
    options = EstimatorOptions(
        thresholds=(0.5, 1.0, 3.0), max_iterations=2000, repeats=2, max_matches=50
    )
    rows = estimate_relative_poses(*matches(120, 0.5), K0, K1, options)
    assert [len(row) for row in rows] == [2, 2, 2]
    inliers = [[estimate.num_inliers for estimate in row] for row in rows]
    assert max(map(max, inliers)) <= 50
    assert inliers[0][0] < inliers[2][0]


def test_repeats_see_other_matches_and_a_second_run_the_same():
    options = EstimatorOptions(
        "opencv-ransac", (0.5,), max_iterations=300, repeats=3, max_matches=40
    )
    first, second = (
        [error(one) for one in estimate_relative_poses(*matches(100, 0.5), K0, K1, options)[0]]
        for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_what_ran_before_changes_nothing(estimator):
    options = EstimatorOptions(estimator, max_iterations=300)
    data = matches(100, 1.0, 0.5)
    [[before]] = estimate_relative_poses(*data, K0, K1, options)
    cv2.setRNGSeed(77)
    cv2.randu(np.zeros((3, 3)), 0, 1)
    [[after]] = estimate_relative_poses(*data, K0, K1, options)
    assert error(before) == error(after)


def test_the_threshold_of_opencv_is_in_pixels_of_the_mean_focal():
    # Straight ahead by a sideways step, image rows are epipolar lines: a vertical error of e pixels
    # is a Sampson error of e / sqrt(2).
    random = np.random.default_rng(0)
    pixels0 = random.uniform(0, 480, (200, 2))
    pixels1 = pixels0 - np.column_stack([random.uniform(5, 60, 200), np.zeros(200)])
    pixels1[:60, 1] += np.where(random.random(60) < 0.5, -1.0, 1.0)
    k = np.diag([500.0, 500.0, 1.0])
    k[:2, 2] = 240
    for threshold, expected in ((0.5, 140), (0.9, 200)):
        options = EstimatorOptions("opencv-ransac", (threshold,), confidence=0.99999)
        [[found]] = estimate_relative_poses(pixels0, pixels1, k, k, options)
        assert found.num_inliers == pytest.approx(expected, abs=12)


def test_the_mean_focal_of_loftr_takes_other_focals():
    # fx0 = fy1 = 1000 and fy0 = fx1 = 10: "pair" divides by 505, "loftr" by 1000.
    k0, k1 = np.diag([1000.0, 10.0, 1.0]), np.diag([10.0, 1000.0, 1.0])
    random = np.random.default_rng(0)
    points = np.column_stack([random.uniform(-2, 2, (100, 2)), random.uniform(4, 8, 100)])
    moved = points @ POSE[:3, :3].T + POSE[:3, 3]
    rays0, rays1 = points[:, :2] / points[:, 2:], moved[:, :2] / moved[:, 2:]
    rays1 = rays1 + 0.6e-3 * random.standard_normal(rays1.shape)
    count = {}
    for mean_focal in ("pair", "loftr"):
        options = EstimatorOptions("opencv-ransac", (0.5,), mean_focal=mean_focal)
        pixels = rays0 * [1000, 10], rays1 * [10, 1000]
        [[found]] = estimate_relative_poses(*pixels, k0, k1, options)
        count[mean_focal] = found.num_inliers
    assert count["loftr"] < count["pair"]


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_matches_have_no_model(estimator, count):
    options = EstimatorOptions(estimator, repeats=2)
    few = [end[:count] for end in matches()]
    [poses] = estimate_relative_poses(*few, K0, K1, options)
    assert [(one.pose, one.num_inliers) for one in poses] == [(None, 0)] * 2
    [models] = estimate_fundamental(*few, options)
    assert [one.matrix for one in models] == [None] * 2
    if count < 4:
        [models] = estimate_homography(*few, options)
        assert [one.matrix for one in models] == [None] * 2


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_degenerate_matches_never_raise(estimator):
    options = EstimatorOptions(estimator, max_iterations=200)
    line = np.column_stack([np.linspace(0, 400, 30), np.full(30, 100.0)])
    same = np.full((30, 2), 100.0)
    for ends in ((line, line), (same, same), (line, same)):
        estimate_relative_poses(*ends, K0, K1, options)
        estimate_homography(*ends, options)
        estimate_fundamental(*ends, options)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_exactly_five_matches_choose_among_several_matrices(estimator):
    options = EstimatorOptions(estimator)
    ends = [end[:5] for end in matches(seed=2)]
    [[found]] = estimate_relative_poses(*ends, K0, K1, options)
    # PoseLib and MAGSAC may refuse so few.
    assert found.pose is not None or estimator != "opencv-ransac"
    if found.pose is not None:
        fundamental = fundamental_from_pose(K0, K1, found.pose.matrix)
        assert symmetric_epipolar_errors_px(*ends, fundamental).max() < 0.5


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_homography(estimator):
    options = EstimatorOptions(estimator, (2.0,))
    [[found]] = estimate_homography(*plane_matches(noise=0.2), options)
    scaled = found.matrix / found.matrix[2, 2]
    assert scaled == pytest.approx(HOMOGRAPHY, abs=0.5)
    assert found.num_inliers >= 98


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_fundamental_explains_other_matches(estimator):
    options = EstimatorOptions(estimator, (0.25,), confidence=0.999, max_iterations=5000)
    [[found]] = estimate_fundamental(*matches(200, 0.05, 0.3), options)
    others = matches(50, seed=9)
    assert np.median(symmetric_epipolar_errors_px(*others, found.matrix)) < 0.5


def test_magsac_is_the_one_that_opencv_names():
    ends = matches(200, 0.2)
    named, _ = cv2.findFundamentalMat(*ends, cv2.USAC_MAGSAC, 0.25, 0.999, 10_000)
    options = EstimatorOptions("opencv-magsac", (0.25,), 0.999, 10_000)
    [[found]] = estimate_fundamental(*ends, options)
    assert found.matrix == pytest.approx(named)
    [[other]] = estimate_fundamental(*ends, replace(options, seed=5))
    assert other.matrix is not None


def test_unequal_lengths_are_the_callers_mistake():
    ends = matches(20)
    with pytest.raises(InputError, match="keypoints1"):
        estimate_relative_poses(ends[0], ends[1][:-1], K0, K1, EstimatorOptions())


def test_planes_are_settled_only_where_the_protocol_says_so():
    # A floor, half of it seen, from two ends: two poses explain it.
    random = np.random.default_rng(4)
    rays = np.column_stack([random.uniform(-0.6, 0.6, (300, 2)), np.ones(300)])
    points = rays / (rays @ [0.0, 0.2, 0.1])[:, None]
    points = points[(points[:, 2] > 0) & (points[:, 2] < 12)]
    rotation = Rotation.from_rotvec([0.05, -0.5, 0.1]).as_matrix()
    ends = [
        (seen / seen[:, 2:] @ k.T)[:, :2]
        for k, seen in ((K0, points), (K1, points @ rotation.T + [0.5, -1.0, 2.0]))
    ]
    ends[1][:3] = np.nan  # rows that no search sees: depth must not slip by them
    depths = 3 * points[:, 2]

    def errors(options):
        noisy = [[end + random.normal(0, 0.4, end.shape) for end in ends] for _ in range(10)]
        found = [
            estimate_relative_poses(
                *pair, K0, K1, options, random.uniform(size=len(points)), depths
            )
            for pair in noisy
        ]
        return [rotation_error_deg(one.pose.rotation, rotation) for [[one]] in found]

    options = EstimatorOptions(max_iterations=1000)
    assert max(errors(options)) > 15
    assert max(errors(replace(options, settles_planes=True))) < 5
    for changes in ({"estimator": "opencv-ransac"}, {"repeats": 2}, {"max_matches": 100}):
        with pytest.raises(InputError, match="settles_planes"):
            EstimatorOptions(settles_planes=True, **changes)
