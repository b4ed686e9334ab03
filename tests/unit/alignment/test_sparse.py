"""The sparse alignment on an exact scene."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from matcher.alignment.sparse import align_sparse
from matcher.alignment.sparse_options import SparseOptions
from matcher.errors import InputError
from matcher.geometry.camera import project
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.reconstruction import Reconstruction
from matcher.structures import Camera, Matches, Pose
from tests.unit.alignment.hilly_scene import CAMERA, SIZE, Hills

ARC = Hills.on_arc((0.0, 9.0, 20.0, 28.0))


def errors(found: Reconstruction, scene: Hills, prefix: str = "") -> tuple[float, float]:
    """Largest rotation and direction errors of a pair, degrees."""
    rotations, directions = [], []
    for i, j in itertools.combinations(range(len(scene.poses)), 2):
        pose = found.cam1_from_cam0(f"{prefix}{i}.jpg", f"{prefix}{j}.jpg")
        truth = scene.poses[j] @ scene.poses[i].inverse
        rotations.append(rotation_error_deg(pose.rotation, truth.rotation))
        directions.append(translation_error_deg(pose.translation, truth.translation))
    return max(rotations), max(directions)


def relative_lengths(found: Reconstruction, scene: Hills) -> float:
    """Largest relative error of the distances between cameras, up to one scale."""
    ends = list(itertools.combinations(range(len(scene.poses)), 2))
    centers = [found.image(f"{i}.jpg").center for i in range(len(scene.poses))]
    truth = [pose.inverse.translation for pose in scene.poses]
    ratio = [
        np.linalg.norm(centers[i] - centers[j]) / np.linalg.norm(truth[i] - truth[j])
        for i, j in ends
    ]
    return float(max(ratio) / min(ratio) - 1)


@pytest.mark.parametrize("with_pointmaps", [False, True])
def test_exact_matches_give_exact_poses(with_pointmaps: bool) -> None:
    records = ARC.records(with_pointmaps=with_pointmaps)
    found = align_sparse(records, cameras=ARC.cameras())
    rotation, direction = errors(found, ARC)
    assert rotation < 0.1
    assert direction < 0.3
    assert relative_lengths(found, ARC) < 0.02
    assert not found.unregistered
    assert all((image.dense is not None) == with_pointmaps for image in found.images)


def test_exact_pointmaps_give_points_where_they_are() -> None:
    found = align_sparse(ARC.records(with_pointmaps=True), cameras=ARC.cameras())
    first = found.image("0.jpg")
    np.testing.assert_allclose(first.cam_from_world.matrix, np.eye(4), atol=1e-9)
    truth = ARC.pointmap(0, 0)
    assert first.dense is not None
    scale = np.median(truth[..., 2] / first.dense.points[..., 2])
    difference = np.linalg.norm(scale * first.dense.points - truth, axis=-1) / truth[..., 2]
    assert np.median(difference) < 0.005
    assert np.quantile(difference, 0.95) < 0.02
    assert (first.dense.confidence > 1).all()
    # The same place, seen in another photograph, is the same point.
    second = found.image("1.jpg")
    assert second.dense is not None
    truth1 = ARC.poses[0].transform(ARC.poses[1].inverse.transform(ARC.pointmap(1, 1)))
    difference = np.linalg.norm(scale * second.dense.points - truth1, axis=-1) / truth1[..., 2]
    assert np.median(difference) < 0.01


def test_points_are_observed_where_they_are() -> None:
    found = align_sparse(ARC.records(), cameras=ARC.cameras())
    points = found.points
    assert len(points) > 300
    assert (points.track_lengths >= 2).all()
    assert np.mean(points.track_lengths >= 3) > 0.3
    assert np.median(points.errors_px) < 0.5
    for index, image in enumerate(found.images):
        mine = points.observation_image == index
        positions = points.positions[points.observation_point[mine]]
        seen = project(image.cam_from_world.transform(positions), image.camera)
        missed = np.linalg.norm(seen - points.observation_keypoint[mine], axis=1)
        assert np.median(missed) < 0.5


def test_focals_are_found_from_matches_alone() -> None:
    scene = Hills.on_arc((0.0, 15.0, 30.0, 45.0))
    found = align_sparse(scene.records(noise_px=0.2))
    rotation, direction = errors(found, scene)
    assert rotation < 0.5
    assert direction < 1.0
    for image in found.images:
        assert image.camera.focals[0] == pytest.approx(520, rel=0.03)
        assert image.camera.principal_point == CAMERA.principal_point


def test_a_focal_that_the_file_tells_helps_where_matches_say_little() -> None:
    scene = Hills.on_arc((0.0, 6.0))
    told = dict.fromkeys(("0.jpg", "1.jpg"), 520.0)
    with_told = align_sparse(scene.records(noise_px=0.5), focals=told)
    without = align_sparse(scene.records(noise_px=0.5))
    for image in with_told.images:
        assert image.camera.focals[0] == pytest.approx(520, rel=0.02)
    assert without.images[0].camera.focals[0] > 1.15 * 520


def test_a_wrong_focal_in_a_file_is_overruled_by_matches() -> None:
    scene = Hills.on_arc((0.0, 9.0, 18.0))
    told = {f"{image}.jpg": 1040.0 for image in range(3)}
    found = align_sparse(scene.records(noise_px=0.5), focals=told)
    for image in found.images:
        assert image.camera.focals[0] == pytest.approx(520, rel=0.03)


def test_wrong_matches_do_no_harm() -> None:
    found = align_sparse(ARC.records(wrong=0.3, seed=3), cameras=ARC.cameras())
    rotation, direction = errors(found, ARC)
    assert rotation < 0.1
    assert direction < 0.3


def test_noise_grows_gracefully() -> None:
    worst = []
    for noise in (0.25, 1.0):
        found = align_sparse(ARC.records(noise_px=noise, seed=1), cameras=ARC.cameras())
        worst.append(errors(found, ARC))
    assert worst[0][0] < 0.15
    assert worst[0][1] < 0.5
    assert worst[1][0] < 0.6
    assert worst[1][1] < 2.0


def test_the_same_records_give_the_same_result() -> None:
    scene = Hills.on_arc((0.0, 10.0, 22.0))
    one, two = (align_sparse(scene.records(noise_px=0.5)) for _ in range(2))
    for name in one.names:
        np.testing.assert_array_equal(
            one.image(name).cam_from_world.matrix, two.image(name).cam_from_world.matrix
        )
        assert one.image(name).camera == two.image(name).camera


def test_of_two_places_the_larger_is_reconstructed() -> None:
    other = Hills.on_arc((0.0, 10.0), phase=2.0)
    records = [*other.records(prefix="b/"), *ARC.records(prefix="a/")]
    found = align_sparse(records, cameras={**ARC.cameras("a/"), **other.cameras("b/")})
    assert set(found.names) == {f"a/{index}.jpg" for index in range(4)}
    assert set(found.unregistered) == {"b/0.jpg", "b/1.jpg"}
    assert "another group of 2" in found.unregistered["b/0.jpg"]
    assert errors(found, ARC, "a/")[0] < 0.1


def test_an_image_that_shares_nothing_is_left_out() -> None:
    records = ARC.records()
    generator = np.random.default_rng(0)
    stray = ARC.record(0, 1, generator, wrong=1.0)
    found = align_sparse(
        [*records, replace(stray, name1="stray.jpg")],
        cameras={**ARC.cameras(), "stray.jpg": CAMERA},
    )
    assert found.unregistered == {"stray.jpg": "no pair with another photograph could be verified"}
    assert len(found.images) == 4


def test_nothing_to_reconstruct_is_said_for_every_photograph() -> None:
    empty = replace(ARC.records()[0], matches=Matches.empty(), reason="no overlap")
    found = align_sparse([empty])
    assert found.images == ()
    assert set(found.unregistered) == {"0.jpg", "1.jpg"}


def test_no_record_is_a_mistake() -> None:
    with pytest.raises(InputError, match="at least one pair"):
        align_sparse([])


def test_known_cameras_are_kept_to_the_digit() -> None:
    lens = Camera("OPENCV", (520.0, 523.0, 250.0, 195.0, -0.08, 0.02, 0.001, -0.0005), SIZE)
    scene = replace(ARC, camera=lens)
    cameras = {"0.jpg": lens, "2.jpg": lens, "3.jpg": lens, "1.jpg": lens}
    found = align_sparse(scene.records(), cameras=cameras)
    assert all(image.camera is lens for image in found.images)
    assert errors(found, scene)[0] < 0.1
    assert np.median(found.points.errors_px) < 0.5


def test_known_poses_are_kept_to_the_digit_and_give_the_scale() -> None:
    poses = {"0.jpg": ARC.poses[0], "2.jpg": ARC.poses[2]}
    found = align_sparse(ARC.records(), cameras=ARC.cameras(), poses=poses)
    for name, pose in poses.items():
        assert found.image(name).cam_from_world is pose
    assert errors(found, ARC)[0] < 0.1
    center = ARC.poses[3].inverse.translation
    assert np.linalg.norm(found.image("3.jpg").center - center) < 0.05


def test_one_known_pose_places_the_world() -> None:
    found = align_sparse(ARC.records(), cameras=ARC.cameras(), poses={"1.jpg": ARC.poses[1]})
    assert found.image("1.jpg").cam_from_world is ARC.poses[1]
    assert errors(found, ARC)[0] < 0.1


def test_a_camera_of_another_size_is_refused() -> None:
    other = Camera.pinhole(520, 520, 100, 100, replace(SIZE, width=200))
    with pytest.raises(InputError, match=r"camera of 0\.jpg"):
        align_sparse(ARC.records(), cameras={"0.jpg": other})


@pytest.mark.parametrize("with_pointmaps", [False, True])
def test_a_turn_on_the_spot_is_a_rotation(with_pointmaps: bool) -> None:
    base = Hills.on_arc((0.0,)).poses[0]
    angle = np.radians(8.0)
    turn = np.array(
        [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    )
    scene = Hills((base, Pose(turn @ base.rotation, turn @ base.translation)))
    records = scene.records(noise_px=0.2, with_pointmaps=with_pointmaps)
    found = align_sparse(records, cameras=scene.cameras())
    assert len(found.images) == 2
    pose = found.cam1_from_cam0("0.jpg", "1.jpg")
    assert rotation_error_deg(pose.rotation, turn) < 0.1
    assert np.linalg.norm(pose.translation) < 0.1


def test_photographs_of_two_sizes_are_a_mistake() -> None:
    records = ARC.records()
    with pytest.raises(InputError, match="one size a photograph"):
        align_sparse([records[0], replace(records[1], size0=replace(SIZE, height=300))])


@pytest.mark.parametrize(
    ("name", "value"),
    [("block_px", 0), ("min_inliers", 3), ("max_error_px", 0.0), ("min_inlier_share", 1.0)],
)
def test_options_are_checked(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        SparseOptions(**{name: value})  # type: ignore[arg-type]
