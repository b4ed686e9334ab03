"""Pointmaps brought to where the rays of exact matches meet, on a relief whose points are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from matcher import InputError, PairOptions
from matcher.geometry.camera import normalize
from matcher.pointmaps import Pointmaps, refine_pointmaps
from matcher.structures import Pose, RelativePose
from tests.relief import relief_matcher, relief_pair

OPTIONS = PairOptions(max_size=320, crops="never")


@pytest.fixture(scope="module")
def pair():
    return relief_pair(degrees=20.0)


@pytest.fixture(scope="module")
def result(pair):
    return relief_matcher(pair, OPTIONS).match(pair.image0, pair.image1)


@pytest.fixture(scope="module")
def pose(pair, result):
    return result.relative_pose(pair.camera0, pair.camera1)


def wrong(maps: Pointmaps, bend: float = 0.25) -> Pointmaps:
    """Every distance from the camera wrong by a smooth factor, another in either photograph."""
    y, x = np.mgrid[: maps.points0.shape[0], : maps.points0.shape[1]]
    factor0 = 3 * np.exp(bend * np.sin(x / 60)[..., None])
    factor1 = 3 * np.exp(bend * np.cos(y / 50)[..., None])
    middle = np.array([0.0, 0.0, 4.0])
    return replace(
        maps,
        points0=(maps.points0 * factor0).astype(np.float32),
        points1=(3 * middle + (maps.points1 - middle) * factor1).astype(np.float32),
        points1_in_camera1=None,
    )


def errors(found: Pointmaps, true: Pointmaps, length: float) -> tuple[float, float]:
    """Median distances, relative to the points' distance; ``length`` of the true baseline."""
    return tuple(
        float(
            np.median(
                np.linalg.norm(length * getattr(found, name) - getattr(true, name), axis=2)
                / np.linalg.norm(getattr(true, name), axis=2)
            )
        )
        for name in ("points0", "points1")
    )


def test_smooth_errors_go(pair, result, pose):
    length = float(np.linalg.norm(pair.cam1_from_cam0.translation))
    before = wrong(result.pointmaps)
    assert min(errors(before, result.pointmaps, 1 / 3)) > 0.03
    refined = refine_pointmaps(before, result.keypoints0.numpy(), result.keypoints1.numpy(), pose)
    assert refined.reason is None
    assert refined.num_points > 100
    maps = refined.pointmaps
    assert max(errors(maps, result.pointmaps, length)) < 0.02
    own1 = pose.cam1_from_cam0.transform(maps.points1.astype(np.float64))
    np.testing.assert_allclose(maps.points1_in_camera1, own1, atol=1e-4)
    np.testing.assert_array_equal(maps.confidence1, before.confidence1)


def test_points_lie_on_the_rays_of_their_pixels(pair, result, pose):
    maps = result.refined_pointmaps(pose).pointmaps
    pixels = np.array([[10, 20], [300, 200], [150.0, 90.0]])
    network = (pixels - maps.original0_from_network[:2, 2]) / np.diag(maps.original0_from_network)[
        :2
    ]
    x, y = network.round().astype(int).T
    points = maps.points0[y, x].astype(np.float64)
    at_pixel = np.column_stack([x, y, np.ones(3)]) @ maps.original0_from_network.T
    np.testing.assert_allclose(
        points[:, :2] / points[:, 2:], normalize(at_pixel[:, :2], pair.camera0), atol=1e-6
    )


def test_a_pointmap_of_its_own_frame_is_used_where_there_is_one(pair, result, pose):
    true1 = pair.cam1_from_cam0.transform(result.pointmaps.points1.astype(np.float64))
    nonsense = np.random.default_rng(0).normal(size=result.pointmaps.points1.shape)
    maps = replace(
        result.pointmaps,
        points1=nonsense.astype(np.float32),
        points1_in_camera1=(5 * true1).astype(np.float32),
    )
    refined = refine_pointmaps(maps, result.keypoints0.numpy(), result.keypoints1.numpy(), pose)
    length = float(np.linalg.norm(pair.cam1_from_cam0.translation))
    assert max(errors(refined.pointmaps, result.pointmaps, length)) < 0.02


def test_true_pointmaps_stay(pair, result, pose):
    length = float(np.linalg.norm(pair.cam1_from_cam0.translation))
    assert max(errors(result.refined_pointmaps(pose).pointmaps, result.pointmaps, length)) < 0.01


def test_no_baseline_no_depth(result, pose):
    """The rays of a camera that only turned meet nowhere."""
    turned = replace(pose, cam1_from_cam0=Pose(pose.cam1_from_cam0.rotation, np.zeros(3)))
    refined = result.refined_pointmaps(turned)
    assert refined.pointmaps is None
    assert "30 are needed" in refined.reason


def test_few_matches_no_depth(result, pose):
    few = np.zeros_like(pose.inlier_mask)
    few[np.flatnonzero(pose.inlier_mask)[:29]] = True
    refined = result.refined_pointmaps(replace(pose, inlier_mask=few))
    assert refined.pointmaps is None
    assert refined.num_points <= 29
    assert f"only {refined.num_points} of 29" in refined.reason


def test_no_pose_no_depth_and_its_reason(result):
    refined = result.refined_pointmaps(RelativePose.none(len(result), "for a test"))
    assert (refined.pointmaps, refined.num_points, refined.reason) == (None, 0, "for a test")


def test_no_match_no_depth_and_its_reason(pair, result, pose):
    blank = np.zeros((40, 50, 3), dtype=np.uint8)
    empty = relief_matcher(pair, OPTIONS).match(pair.image0, blank)
    assert empty.refined_pointmaps(pose).reason == empty.reason


@pytest.mark.parametrize("number", [0, 1])
def test_a_pointmap_without_depth_where_the_matches_are_and_its_reason(result, pose, number):
    """Not an error: a network may say nothing."""
    true1 = pose.cam1_from_cam0.transform(result.pointmaps.points1.astype(np.float64))
    maps = replace(result.pointmaps, points1_in_camera1=true1.astype(np.float32))
    name = ("points0", "points1_in_camera1")[number]
    maps = replace(maps, **{name: np.full_like(maps.points0, np.nan)})
    refined = refine_pointmaps(maps, result.keypoints0.numpy(), result.keypoints1.numpy(), pose)
    assert refined.pointmaps is None
    assert f"photograph {number} has no depth" in refined.reason


def test_points_of_photograph_1_that_are_all_unknown_and_the_reason(result, pose):
    maps = replace(result.pointmaps, points1=np.full_like(result.pointmaps.points1, np.nan))
    refined = refine_pointmaps(maps, result.keypoints0.numpy(), result.keypoints1.numpy(), pose)
    assert refined.pointmaps is None
    assert "photograph 1" in refined.reason


def test_bad_input(pair, result, pose):
    with pytest.raises(InputError, match="one of 3 matches"):
        result.refined_pointmaps(RelativePose.none(3, "for a test"))
    lean = relief_matcher(pair, OPTIONS).match(pair.image0, pair.image1, keep_pointmaps=False)
    with pytest.raises(InputError, match="kept its pointmaps"):
        lean.refined_pointmaps(pose)
