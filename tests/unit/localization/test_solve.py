"""One pose from many correspondences, or the reason why there is none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from matcher import Camera, ImageSize, InputError, Pose
from matcher.geometry.camera import project
from matcher.geometry.pose import axis_angle_to_rotation, rotation_error_deg
from matcher.localization import (
    AbsolutePose,
    Correspondences,
    LocalizationOptions,
    UsedReference,
    solve_pose,
)
from matcher.localization.solve import required_inliers

SIZE = ImageSize(480, 640)
CAMERA = Camera.pinhole(520, 520, 319.5, 239.5, SIZE)
POSE = Pose(axis_angle_to_rotation([0.3, -0.2, 0.5]), [1.0, 0.2, -0.4])
REFERENCES = (UsedReference("a", 300), UsedReference("b", 300), UsedReference("c", 0))
OPTIONS = LocalizationOptions()


def correspondences(count=300, wrong=0.0, noise_px=0.5, seed=0):
    random = np.random.default_rng(seed)
    keypoints = random.uniform([0, 0], [640, 480], (count, 2))
    depth = random.uniform(2, 8, count)
    rays = np.column_stack([(keypoints - [319.5, 239.5]) / 520, np.ones(count)])
    points = POSE.inverse.transform(rays * depth[:, None])
    keypoints = keypoints + random.normal(0, noise_px, keypoints.shape)
    bad = random.random(count) < wrong
    points[bad] = random.permutation(points[bad])
    reference = (np.arange(count) % 3 > 0).astype(np.int64)  # twice as many of "b"
    return Correspondences(keypoints, points, np.ones(count), reference, keypoints)


@pytest.mark.parametrize("camera", [CAMERA, None])
def test_a_pose_among_outliers(camera):
    found = correspondences(wrong=0.6)
    answer = solve_pose(found, REFERENCES, camera, SIZE, OPTIONS, is_metric=True)
    assert rotation_error_deg(answer.cam_from_world.rotation, POSE.rotation) < 0.2
    assert np.linalg.norm(answer.center - POSE.inverse.translation) < 0.03
    assert 100 < answer.num_inliers < 150
    assert answer.camera.focals[0] == pytest.approx(520, rel=0.01)
    assert [used.name for used in answer.references] == ["b", "a", "c"]
    assert sum(used.num_inliers for used in answer.references) == answer.num_inliers
    # The correspondences are renumbered with the references.
    assert np.count_nonzero(answer.correspondences.reference == 0) == 200
    values = answer.to_dict()
    np.testing.assert_allclose(values["cam_from_world"]["rotation"], answer.cam_from_world.rotation)
    assert values["references"][0] == {
        "name": "b",
        "matches": 300,
        "inliers": answer.references[0].num_inliers,
    }
    assert values["method"] == ("pnp" if camera else "pnp_focal")


def test_the_covariance_covers_the_error():
    """Errors in units of the stated deviations: about 1 over many draws."""
    scores = []
    for seed in range(30):
        answer = solve_pose(correspondences(seed=seed), REFERENCES, CAMERA, SIZE, OPTIONS)
        off = answer.center - POSE.inverse.translation
        scores.append(off @ np.linalg.solve(answer.center_covariance, off) / 3)
    assert 0.6 < np.mean(scores) < 1.6


@pytest.mark.parametrize("count", [50, 500, 3000])
def test_chance_gives_no_pose(count):
    found = correspondences(count, wrong=1.1)
    answer = solve_pose(found, REFERENCES, CAMERA, SIZE, OPTIONS)
    assert answer.cam_from_world is None
    assert answer.num_inliers == 0
    assert answer.center is answer.center_covariance is answer.covariance is None
    assert "no pose" in answer.reason or "wrong ones could do as well" in answer.reason
    assert len(answer.correspondences) == count


def test_one_spot_seen_from_many_references_is_no_pose():
    """Any camera that brings the points to the spot agrees with all forty."""
    found = correspondences(8, noise_px=0.0)
    random = np.random.default_rng(1)
    rows = np.repeat(np.arange(4), 10)
    spot = dataclasses.replace(
        found,
        keypoints=np.array([100.0, 80.0]) + random.uniform(0, 4, (40, 2)),
        points=found.points[rows] + random.normal(0, 1e-3, (40, 3)),
        confidence=np.ones(40),
        reference=np.tile(np.arange(10), 4) % 3,
        reference_keypoints=np.zeros((40, 2)),
    )
    answer = solve_pose(spot, REFERENCES, CAMERA, SIZE, OPTIONS)
    assert answer.cam_from_world is None
    assert "40 of 40 correspondences agree on a pose, at " in answer.reason


def test_too_little_to_go_on():
    none = solve_pose(correspondences(0), REFERENCES, CAMERA, SIZE, OPTIONS)
    assert none.reason == "no match with a reference shows a point that the map knows"
    few = solve_pose(correspondences(8), REFERENCES, CAMERA, SIZE, OPTIONS)
    assert few.reason == "8 places of the query show points of the map; 12 are needed"
    unknown = solve_pose(correspondences(3), REFERENCES, None, SIZE, OPTIONS)
    assert not unknown
    line = correspondences(40)
    on_line = np.linspace(0, 1, 40)[:, None] * np.array([[1.0, 2.0, 3.0]]) + [0, 0, 4]
    flat = dataclasses.replace(line, points=POSE.inverse.transform(on_line))
    pixels = project(on_line, CAMERA)
    answer = solve_pose(
        dataclasses.replace(flat, keypoints=pixels), REFERENCES, CAMERA, SIZE, OPTIONS
    )
    assert answer.reason.startswith("no pose agrees with the 40 places")


def test_what_is_asked_for_grows_with_chance():
    assert required_inliers(50, SIZE, 6.4, 12) == 12
    assert required_inliers(5000, SIZE, 6.4, 12) == 71
    assert required_inliers(2000, SIZE, 12.8, 12) == 109
    assert required_inliers(100, ImageSize(10, 10), 50.0, 12) == 3008


def test_the_same_seed_gives_the_same_answer():
    found = correspondences(wrong=0.5)
    first, second = (solve_pose(found, REFERENCES, CAMERA, SIZE, OPTIONS) for _ in range(2))
    np.testing.assert_array_equal(first.cam_from_world.matrix, second.cam_from_world.matrix)


def test_an_answer_is_a_pose_or_a_reason():
    found = correspondences(4)
    for pose, reason in ((POSE, "why"), (None, None)):
        with pytest.raises(InputError, match="either a pose or a reason"):
            AbsolutePose(pose, (), found, np.zeros(4, bool), reason=reason)
