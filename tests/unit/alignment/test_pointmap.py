"""Global alignment of pointmaps on rendered views, whose truth is exact."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from matcher.alignment.options import PointmapOptions
from matcher.alignment.pointmap import align_pointmaps
from matcher.errors import InputError
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.pair_records import PairRecord
from matcher.pointmaps import Pointmaps
from matcher.reconstruction import Reconstruction
from matcher.structures import Camera, ImageSize, Matches, Pose
from tests.benchmarks.miniature import MiniView
from tests.unit.alignment.exact_pairs import (
    MAP_SIZE,
    camera_of,
    exact_records,
    own_points,
    pose_of,
    views,
)

ANGLES = (0.0, 12.0, 25.0, 40.0)
FAST = PointmapOptions(iterations=60, max_points=400)


def errors(found: Reconstruction, scene: Sequence[MiniView]) -> tuple[float, float, float]:
    """Largest rotation and direction error of a pair (degrees), and relative focal error."""
    rotations, directions = [], []
    for i, j in itertools.combinations(range(len(scene)), 2):
        pose = found.cam1_from_cam0(f"{i}.jpg", f"{j}.jpg")
        truth = pose_of(scene[j]) @ pose_of(scene[i]).inverse
        rotations.append(rotation_error_deg(pose.rotation, truth.rotation))
        directions.append(translation_error_deg(pose.translation, truth.translation))
    focal = camera_of(scene[0]).focals[0]
    focals = [abs(image.camera.focals[0] / focal - 1) for image in found.images]
    return max(rotations), max(directions), max(focals)


def known(scene: Sequence[MiniView], *rows: int) -> tuple[dict[str, Camera], dict[str, Pose]]:
    return (
        {f"{row}.jpg": camera_of(scene[row]) for row in rows},
        {f"{row}.jpg": pose_of(scene[row]) for row in rows},
    )


@pytest.mark.parametrize("symmetric", [True, False])
def test_exact_pointmaps_give_exact_cameras(symmetric: bool) -> None:
    scene = views(ANGLES)
    found = align_pointmaps(exact_records(scene, symmetric=symmetric), options=FAST)
    rotation, direction, focal = errors(found, scene)
    assert rotation < 0.1
    assert direction < 0.3
    assert focal < 0.01
    assert found.names == ("0.jpg", "1.jpg", "2.jpg", "3.jpg")
    assert found.unregistered == {}
    np.testing.assert_allclose(found.images[0].cam_from_world.matrix, np.eye(4), atol=1e-6)


def test_errors_grow_gracefully_with_noise() -> None:
    scene = views(ANGLES)
    worst = {}
    for noise in (0.01, 0.03, 0.1):
        found = align_pointmaps(exact_records(scene, noise=noise), options=FAST)
        worst[noise] = errors(found, scene)
    assert worst[0.01][0] < 0.1
    assert worst[0.03][0] < 0.3
    assert worst[0.1][0] < 1.5
    assert worst[0.1][1] < 5
    assert all(focal < 0.01 for _, _, focal in worst.values())


def test_the_descent_improves_on_its_start() -> None:
    scene = views(ANGLES)
    records = exact_records(scene, noise=0.05)
    start = errors(align_pointmaps(records, options=replace(FAST, iterations=0)), scene)
    end = errors(align_pointmaps(records, options=FAST), scene)
    assert end[0] < 0.8 * start[0]


def test_given_cameras_and_poses_keep_every_digit() -> None:
    scene = views(ANGLES)
    cameras, poses = known(scene, 0, 1, 2, 3)
    found = align_pointmaps(
        exact_records(scene, noise=0.02), cameras=cameras, poses=poses, options=FAST
    )
    for view, image in zip(scene, found.images, strict=True):
        assert image.camera is cameras[image.name]
        assert image.cam_from_world is poses[image.name]
        dense = image.dense
        assert dense is not None
        truth = image.cam_from_world.inverse.transform(own_points(view))
        solid = view.depth > 0
        misses = np.linalg.norm(dense.points - truth, axis=2)[solid] / view.depth[solid]
        assert np.median(misses) < 0.015  # 0.02 a view, over several of them


def test_some_given_poses_fix_frame_and_scale_for_all() -> None:
    scene = views(ANGLES)
    cameras, _ = known(scene, 1)
    _, poses = known(scene, 1, 3)
    found = align_pointmaps(
        exact_records(scene, noise=0.02), cameras=cameras, poses=poses, options=FAST
    )
    assert found.image("1.jpg").camera is cameras["1.jpg"]
    assert found.image("3.jpg").cam_from_world is poses["3.jpg"]
    for view, image in zip(scene, found.images, strict=True):
        true = pose_of(view)
        assert rotation_error_deg(image.cam_from_world.rotation, true.rotation) < 0.2
        # 3 m between the given cameras say how long a metre is.
        assert np.linalg.norm(image.center - true.inverse.translation) < 0.1


def test_one_given_pose_fixes_the_frame() -> None:
    scene = views(ANGLES)
    _, poses = known(scene, 2)
    found = align_pointmaps(exact_records(scene), poses=poses, options=FAST)
    assert found.image("2.jpg").cam_from_world is poses["2.jpg"]
    assert errors(found, scene)[0] < 0.1


def test_the_unit_is_that_of_the_pointmaps() -> None:
    scene = views(ANGLES[:2])
    records = exact_records(scene, symmetric=False)
    maps = records[0].pointmaps
    assert maps is not None
    dense = align_pointmaps(records, options=FAST).images[0].dense
    assert dense is not None
    solid = scene[0].depth > 0
    np.testing.assert_allclose(dense.points[solid], maps.points0[solid], rtol=0.02, atol=0.02)
    assert dense.points.shape == (MAP_SIZE.height, MAP_SIZE.width, 3)
    assert dense.confidence[solid].min() >= 3
    assert dense.confidence[~solid].max(initial=0) == 0


def test_principal_points_on_request() -> None:
    scene = views(ANGLES)
    found = align_pointmaps(
        exact_records(scene), options=replace(FAST, optimize_principal_points=True)
    )
    centers = np.array([image.camera.principal_point for image in found.images])
    assert np.abs(centers - camera_of(scene[0]).principal_point).max() < 1.0
    assert np.abs(centers - camera_of(scene[0]).principal_point).max() > 0


def test_the_same_records_give_the_same_result() -> None:
    records = exact_records(views(ANGLES[:3]), noise=0.03)
    first, second = (align_pointmaps(records, options=FAST) for _ in range(2))
    for one, other in zip(first.images, second.images, strict=True):
        assert one.camera.params == other.camera.params
        assert (one.cam_from_world.matrix == other.cam_from_world.matrix).all()


def test_two_places_give_the_larger_and_list_the_rest() -> None:
    scene = views(ANGLES)
    records = exact_records(scene, pairs=[(0, 1), (1, 2), (0, 2)])
    records += exact_records(scene, names=["0.jpg", "x", "y", "z"], pairs=[(1, 2)])
    records.append(
        replace(records[0], name1="x", matches=Matches.empty(), reason="no match survived")
    )
    found = align_pointmaps(records, options=FAST)
    assert found.names == ("0.jpg", "1.jpg", "2.jpg")
    assert list(found.unregistered) == ["x", "y"]
    assert "another group of 2" in found.unregistered["x"]


def test_nothing_to_align() -> None:
    assert align_pointmaps([]).images == ()


def test_pairs_without_matches_register_nothing_and_say_why() -> None:
    record = exact_records(views(ANGLES[:2]))[0]
    blank = replace(record, matches=Matches.empty(), reason="photograph 1 is blank")
    found = align_pointmaps([blank])
    assert found.images == ()
    assert set(found.unregistered) == {"0.jpg", "1.jpg"}
    assert all("photograph 1 is blank" in reason for reason in found.unregistered.values())


def test_pointmaps_that_contradict_the_matches_are_not_believed() -> None:
    scene = views(ANGLES)
    records = exact_records(scene)
    # Every pair of photograph 3 comes with the pointmaps of another pair.
    records = [
        replace(record, pointmaps=turned(record)) if "3.jpg" in record.names else record
        for record in records
    ]
    found = align_pointmaps(records, options=FAST)
    assert found.names == ("0.jpg", "1.jpg", "2.jpg")
    assert "contradict" in found.unregistered["3.jpg"]


def turned(record: PairRecord) -> Pointmaps:
    maps = record.pointmaps
    assert maps is not None
    return replace(maps, points1=maps.points1[:, ::-1].copy())


def test_pairs_need_pointmaps() -> None:
    record = replace(exact_records(views(ANGLES[:2]))[0], pointmaps=None)
    with pytest.raises(InputError, match="pairs with pointmaps"):
        align_pointmaps([record])


def test_a_photograph_has_one_pixel_grid() -> None:
    first, second, _ = exact_records(views(ANGLES[:3]))
    maps = second.pointmaps
    assert maps is not None
    other = replace(second, pointmaps=replace(maps, original0_from_network=np.eye(3)))
    with pytest.raises(InputError, match="one pixel grid"):
        align_pointmaps([first, other], options=replace(FAST, min_agreement=0.0))


def test_a_camera_of_another_size() -> None:
    records = exact_records(views(ANGLES[:2]))
    camera = Camera.pinhole(100, 100, 50, 50, ImageSize(100, 100))
    with pytest.raises(InputError, match="160 x 120"):
        align_pointmaps(records, cameras={"1.jpg": camera})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iterations", -1),
        ("learning_rate", 0.0),
        ("final_learning_rate", float("nan")),
        ("max_points", 3),
        ("min_matches", -1),
        ("min_overlap", 1.5),
        ("min_agreement", -0.1),
    ],
)
def test_options_are_checked(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        PointmapOptions(**{name: value})  # type: ignore[arg-type]
