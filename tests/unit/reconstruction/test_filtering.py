from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.reconstruction import Reconstruction, SparsePoints
from matcher.reconstruction.filtering import CloudOptions, filtered_cloud, pointmaps_hold
from matcher.reconstruction.point_cloud import PointCloud
from tests.unit.reconstruction.rendered import (
    plane_cameras,
    plane_points,
    plane_reconstruction,
    rendered,
)

ALL = CloudOptions(
    least_confident_share=0.0, free_space_margin=None, max_depth_jump=None, outlier_factor=None
)


def with_dense(reconstruction, index, **changes):
    images = list(reconstruction.images)
    dense = dataclasses.replace(images[index].dense, **changes)
    images[index] = dataclasses.replace(images[index], dense=dense)
    return dataclasses.replace(reconstruction, images=tuple(images))


def test_all_known_points_in_order():
    scene = rendered()
    cloud = filtered_cloud(scene, ALL)
    known = [image.dense.confidence > 0 for image in scene.images]
    assert len(cloud) == sum(mask.sum() for mask in known)
    np.testing.assert_array_equal(
        cloud.positions,
        np.concatenate([i.dense.points[m] for i, m in zip(scene.images, known, strict=True)]),
    )
    np.testing.assert_array_equal(cloud.colors[:50], scene.images[0].dense.colors[known[0]][:50])


def test_exact_surfaces_lose_only_edges():
    """Of exact pointmaps nothing is in free space; equal confidences rank nothing last."""
    scene = rendered()
    cloud = filtered_cloud(scene, dataclasses.replace(CloudOptions(), max_depth_jump=None))
    assert len(cloud) > 0.99 * len(filtered_cloud(scene, ALL))


def test_points_in_the_air_go():
    """Half of one photograph's points, 30 % nearer than they are, in front of what others see."""
    scene = plane_reconstruction()
    image = scene.images[0]
    points = image.dense.points.copy()
    confidence = image.dense.confidence.copy()
    points[:30] = image.center + 0.7 * (points[:30] - image.center)
    confidence[:30] = 1.5
    scene = with_dense(scene, 0, points=points, confidence=confidence)
    options = dataclasses.replace(ALL, free_space_margin=0.03)
    cloud = filtered_cloud(scene, options)
    heights = -cloud.positions[:, 2]
    assert (heights > 100).sum() < 0.2 * 30 * 80  # a strip at the border, seen by no other
    assert (np.abs(heights) < 1).sum() == 4 * 60 * 80 - 30 * 80
    # A point in the air that is surer than the surface behind it stays, as does one behind.
    surer = with_dense(scene, 0, confidence=np.full_like(confidence, 3.0))
    assert len(filtered_cloud(surer, options)) == 4 * 60 * 80
    behind = image.center + 1.3 * (image.dense.points - image.center)
    behind = with_dense(scene, 0, points=behind.astype(np.float32))
    assert len(filtered_cloud(behind, options)) == 4 * 60 * 80


def test_least_confident_go():
    scene = plane_reconstruction(1)
    ranks = np.linspace(1.0, 5.0, 60 * 80, dtype=np.float32).reshape(60, 80)
    scene = with_dense(scene, 0, confidence=ranks)
    share = dataclasses.replace(ALL, least_confident_share=0.25)
    assert len(filtered_cloud(scene, share)) == pytest.approx(0.75 * 4800, rel=0.02)
    floor = filtered_cloud(scene, dataclasses.replace(ALL, min_confidence=4.0))
    assert floor.confidence.min() >= 4
    assert len(floor) == pytest.approx(0.25 * 4800, rel=0.02)
    # Differences in the last digits of a confidence say nothing.
    flat = with_dense(scene, 0, confidence=(1 + 1e-6 * ranks).astype(np.float32))
    assert len(filtered_cloud(flat, share)) == 4800


def test_steps_of_depth_go():
    scene = plane_reconstruction(1)
    image = scene.images[0]
    points = image.dense.points.copy()
    points[:, 40:] = image.center + 1.5 * (points[:, 40:] - image.center)
    scene = with_dense(scene, 0, points=points)
    cloud = filtered_cloud(scene, dataclasses.replace(ALL, max_depth_jump=0.1))
    assert len(cloud) == 60 * 80 - 2 * 60


def test_far_points_go():
    scene = plane_reconstruction(1)
    points = scene.images[0].dense.points.copy()
    points[0, :5] *= 100
    scene = with_dense(scene, 0, points=points)
    assert len(filtered_cloud(scene, dataclasses.replace(ALL, outlier_factor=3.0))) == 60 * 80 - 5


def test_unknown_points_never_come():
    scene = plane_reconstruction(1)
    points = scene.images[0].dense.points.copy()
    points[0, 0], points[1, 1] = np.nan, np.inf
    points[2, 2] = 2 * scene.images[0].center  # behind the camera
    assert len(filtered_cloud(with_dense(scene, 0, points=points), ALL)) == 60 * 80 - 3


def test_triangulated_points_where_there_is_no_pointmap():
    cameras = plane_cameras(3)
    # Point 0 is seen three times, 1 twice, 2 once, 3 twice with a large error.
    point = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    image = np.array([0, 1, 2, 0, 1, 0, 0, 1])
    sparse = SparsePoints(
        np.arange(12.0).reshape(4, 3),
        np.arange(12, dtype=np.uint8).reshape(4, 3),
        np.array([0.5, np.nan, 0.1, 9.0]),
        point,
        image,
        np.zeros((8, 2)),
    )
    cloud = filtered_cloud(Reconstruction(cameras, sparse))
    np.testing.assert_array_equal(cloud.positions, sparse.positions[:2])
    np.testing.assert_array_equal(cloud.confidence, [3, 2])
    np.testing.assert_array_equal(cloud.colors, sparse.colors[:2])


def test_rough_pointmaps_give_way_to_triangulated_points():
    """Pointmaps 5 % away from what matches say are not shown, unless one insists."""
    scene = plane_reconstruction(3)
    pixels = np.array([[40.0, 30], [80, 60], [120, 90]])
    positions = plane_points(scene.images[0], pixels)
    sparse = SparsePoints(
        np.tile(positions, (2, 1)),
        np.full((6, 3), 77, np.uint8),
        np.zeros(6),
        np.repeat(np.arange(6), 2),
        np.tile([0, 1], 6),
        np.zeros((12, 2)),
    )
    right = dataclasses.replace(scene, points=sparse)
    assert pointmaps_hold(right)
    assert len(filtered_cloud(right, ALL)) == 3 * 60 * 80
    rough = []
    for image in scene.images:
        points = image.center + 1.05 * (image.dense.points - image.center)
        dense = dataclasses.replace(image.dense, points=points.astype(np.float32))
        rough.append(dataclasses.replace(image, dense=dense))
    rough = dataclasses.replace(right, images=tuple(rough))
    assert not pointmaps_hold(rough)
    assert (filtered_cloud(rough, ALL).colors == 77).all()
    assert len(filtered_cloud(rough, ALL)) == 6
    for limit in (0.06, None):
        options = dataclasses.replace(ALL, max_disagreement=limit)
        assert len(filtered_cloud(rough, options)) == 3 * 60 * 80
    assert pointmaps_hold(dataclasses.replace(rough, points=SparsePoints.empty()))


def test_nothing_gives_nothing():
    assert len(filtered_cloud(Reconstruction(()))) == 0
    assert len(filtered_cloud(Reconstruction(plane_cameras()))) == 0
    nothing = with_dense(rendered((0.0,)), 0, confidence=np.zeros((60, 80), np.float32))
    assert len(filtered_cloud(nothing)) == 0


@pytest.mark.parametrize(
    "values",
    [
        {"min_confidence": -1},
        {"least_confident_share": 1.0},
        {"outlier_factor": 0.5},
        {"max_error_px": float("nan")},
    ],
)
def test_options_out_of_range(values):
    with pytest.raises(InputError, match=next(iter(values))):
        CloudOptions(**values)


def test_clouds_are_checked_and_thinned():
    cloud = PointCloud(np.zeros((9, 3)), np.zeros((9, 3), np.uint8), np.arange(9, dtype=np.float32))
    assert len(cloud.thinned(9)) == 9
    few = cloud.thinned(4, seed=1)
    assert len(few) == 4
    assert (np.diff(few.confidence) > 0).all()
    np.testing.assert_array_equal(few.confidence, cloud.thinned(4, seed=1).confidence)
    assert len(PointCloud.joined([cloud, few])) == 13
    with pytest.raises(InputError, match="at least 1"):
        cloud.thinned(0)
    with pytest.raises(InputError, match="cloud colors"):
        PointCloud(cloud.positions, cloud.colors[:3], cloud.confidence)
    with pytest.raises(InputError, match="finite"):
        PointCloud(cloud.positions * np.nan, cloud.colors, cloud.confidence)
