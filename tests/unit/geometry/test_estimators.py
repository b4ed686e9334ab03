"""Every robust estimator by itself: exact, with noise, with outliers, and without an answer."""

from __future__ import annotations

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.essential import (
    epipolar_errors_px,
    estimate_essential,
    estimate_shared_focal,
)
from matcher.geometry.homography import estimate_homography, transfer_errors_px
from matcher.geometry.pixels import transform_keypoints
from matcher.geometry.pnp import estimate_absolute_pose, reprojection_errors_px
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.geometry.procrustes import estimate_registration, fit_registration
from matcher.geometry.ransac import RansacOptions
from matcher.geometry.triangulation import triangulate, triangulation_angles_deg
from matcher.structures import Camera, ImageSize

ESTIMATORS = pytest.mark.parametrize("estimator", ["poselib", "magsac"])
RADIAL = Camera("SIMPLE_RADIAL", (480, 319.5, 239.5, -0.12), ImageSize(480, 640))
OPENCV = Camera("OPENCV", (500, 505, 515, 380, -0.2, 0.05, 0.001, -0.0007), ImageSize(768, 1024))
HOMOGRAPHY = np.array([[1.1, 0.05, -20.0], [-0.08, 0.95, 15.0], [1e-4, -2e-4, 1.0]])


def options(estimator: str, **changes) -> RansacOptions:
    return RansacOptions(estimator=estimator, **changes)


def errors_deg(pose, expected):
    return (
        rotation_error_deg(pose.rotation, expected.rotation),
        translation_error_deg(pose.translation, expected.translation),
    )


@ESTIMATORS
@pytest.mark.parametrize("outliers", [0.0, 0.5])
def test_essential_exact_matches(make_two_views, estimator, outliers):
    views = make_two_views(outliers=outliers)
    estimate = estimate_essential(
        views.keypoints0, views.keypoints1, views.camera0, views.camera1, options(estimator)
    )
    assert errors_deg(estimate.cam1_from_cam0, views.cam1_from_cam0) < (0.1, 0.5)
    assert np.linalg.norm(estimate.cam1_from_cam0.translation) == pytest.approx(1.0)
    assert estimate.inlier_mask[views.is_inlier].all()
    assert estimate.inlier_mask[~views.is_inlier].mean() < 0.05 if outliers else True


@ESTIMATORS
def test_essential_error_grows_gracefully(make_two_views, estimator):
    worst = []
    for noise in (0.1, 0.3, 1.0):
        errors = []
        for seed in range(3):
            views = make_two_views(seed=seed, noise_px=noise, outliers=0.3)
            estimate = estimate_essential(
                views.keypoints0, views.keypoints1, views.camera0, views.camera1, options(estimator)
            )
            errors.append(errors_deg(estimate.cam1_from_cam0, views.cam1_from_cam0)[0])
        worst.append(max(errors))
    assert worst[0] < 0.15
    assert worst[1] < 0.4
    assert worst[2] < 1.5


@ESTIMATORS
def test_essential_with_two_distorted_cameras_of_different_size(make_two_views, estimator):
    views = make_two_views(camera0=RADIAL, camera1=OPENCV, outliers=0.3)
    estimate = estimate_essential(
        views.keypoints0, views.keypoints1, RADIAL, OPENCV, options(estimator)
    )
    assert errors_deg(estimate.cam1_from_cam0, views.cam1_from_cam0) < (0.1, 0.5)
    errors = epipolar_errors_px(
        views.keypoints0, views.keypoints1, RADIAL, OPENCV, views.cam1_from_cam0
    )
    assert errors[views.is_inlier].max() < 1e-5
    assert np.median(errors[~views.is_inlier]) > 10


@pytest.mark.parametrize("long_side", [640, 1280])
def test_shared_focal(make_two_views, long_side):
    scale = long_side / 640
    size1 = ImageSize(long_side, int(480 * scale))  # portrait, by the same lens
    camera1 = Camera.pinhole(
        500 * scale, 500 * scale, (size1.width - 1) / 2, (size1.height - 1) / 2, size1
    )
    views = make_two_views(camera1=camera1, outliers=0.2)
    estimate = estimate_shared_focal(
        views.keypoints0, views.keypoints1, views.size0, views.size1, RansacOptions()
    )
    assert errors_deg(estimate.cam1_from_cam0, views.cam1_from_cam0) < (0.1, 0.5)
    assert estimate.camera0.focals[0] == pytest.approx(500, rel=0.005)
    assert estimate.camera1.focals[0] == pytest.approx(500 * scale, rel=0.005)
    assert estimate.inlier_mask[views.is_inlier].all()


@ESTIMATORS
@pytest.mark.parametrize("camera", [RADIAL, OPENCV], ids=lambda c: c.model)
def test_pnp(make_two_views, estimator, camera):
    views = make_two_views(camera1=camera, outliers=0.5)
    estimate = estimate_absolute_pose(
        views.keypoints1, views.points0, camera, options(estimator, max_error_px=5.0)
    )
    rotation_error, translation_error = errors_deg(estimate.cam_from_world, views.cam1_from_cam0)
    assert rotation_error < 0.1
    assert translation_error < 0.5
    np.testing.assert_allclose(
        estimate.cam_from_world.translation, views.cam1_from_cam0.translation, atol=0.01
    )
    assert estimate.inlier_mask[views.is_inlier].all()


@ESTIMATORS
def test_pnp_without_outliers_is_exact(make_two_views, estimator):
    views = make_two_views(matches=50)
    pose = estimate_absolute_pose(
        views.keypoints1, views.points0, views.camera1, options(estimator)
    ).cam_from_world
    np.testing.assert_allclose(pose.matrix, views.cam1_from_cam0.matrix, atol=1e-6)
    errors = reprojection_errors_px(views.keypoints1, views.points0, views.camera1, pose)
    assert errors.max() < 1e-4


def test_pnp_without_an_answer():
    line = np.linspace(1, 2, 30)[:, None] * np.array([0.1, 0.2, 1.0]) + np.array([1.0, 0, 0])
    camera = Camera.pinhole(500, 500, 320, 240)
    pixels = np.random.default_rng(0).uniform(0, 400, (30, 2))
    assert estimate_absolute_pose(pixels, line, camera) is None
    assert estimate_absolute_pose(pixels[:3], line[:3], camera) is None
    assert estimate_absolute_pose(pixels, np.full((30, 3), np.nan), camera) is None


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_registration_closed_form(make_two_views, kind):
    pose = make_two_views().cam1_from_cam0
    scale = 1.0 if kind == "rigid" else 2.5
    source = np.random.default_rng(0).normal(size=(20, 3))
    target = pose.transform(scale * source)
    target[15:] += 3.0  # silenced by their weights
    weights = np.r_[np.linspace(0.1, 2, 15), np.zeros(5)]
    found = fit_registration(source, target, kind=kind, weights=weights)
    assert found.scale == pytest.approx(scale, rel=1e-12)
    np.testing.assert_allclose(found.target_from_source.matrix, pose.matrix, atol=1e-12)
    np.testing.assert_allclose(found.transform(source[:15]), target[:15], atol=1e-12)


def test_rigid_registration_ignores_scale():
    source = np.random.default_rng(0).normal(size=(20, 3))
    assert fit_registration(source, 2 * source, kind="rigid").scale == 1.0


def test_registration_never_mirrors():
    source = np.random.default_rng(0).normal(size=(20, 3))
    found = fit_registration(source, source * [1, 1, -1])
    assert found is None or np.linalg.det(found.target_from_source.rotation) > 0.999


@pytest.mark.parametrize("kind", ["rigid", "similarity"])
def test_registration_among_outliers(make_two_views, kind):
    views = make_two_views(matches=200)
    rng = np.random.default_rng(1)
    scale = 1.0 if kind == "rigid" else 0.7
    target = views.cam1_from_cam0.transform(scale * views.points0)
    target[:100] += rng.normal(size=(100, 3))
    target[3] = np.nan
    found = estimate_registration(views.points0, target, kind=kind, max_relative_error=0.01)
    pose = found.registration.target_from_source
    assert rotation_error_deg(pose.rotation, views.cam1_from_cam0.rotation) < 0.1
    assert found.registration.scale == pytest.approx(scale, rel=1e-3)
    assert found.inlier_mask[100:].all()
    assert found.inlier_mask[:100].sum() <= 2


def test_registration_without_an_answer():
    line = np.linspace(0, 1, 30)[:, None] * np.array([1.0, 2.0, 3.0])
    assert fit_registration(line, line) is None
    assert fit_registration(np.eye(3)[:2], np.eye(3)[:2]) is None
    assert fit_registration(np.ones((5, 3)), np.ones((5, 3))) is None
    assert estimate_registration(line, line) is None
    assert estimate_registration(np.full((9, 3), np.nan), np.ones((9, 3))) is None
    with pytest.raises(InputError, match="target"):
        fit_registration(np.ones((5, 3)), np.ones((4, 3)))
    with pytest.raises(InputError, match="weights"):
        fit_registration(np.eye(3), np.eye(3), weights=[1, -1, 1])


@ESTIMATORS
@pytest.mark.parametrize("outliers", [0, 100])
def test_homography(estimator, outliers):
    rng = np.random.default_rng(0)
    keypoints0 = rng.uniform(0, [640, 480], (200, 2))
    keypoints1 = transform_keypoints(HOMOGRAPHY, keypoints0)
    keypoints1[:outliers] = rng.uniform(0, [640, 480], (outliers, 2))
    found = estimate_homography(keypoints0, keypoints1, options(estimator))
    true = transform_keypoints(HOMOGRAPHY, keypoints0)
    assert transfer_errors_px(keypoints0, true, found.image1_from_image0).max() < 0.05
    assert found.inlier_mask[outliers:].all()
    assert found.num_inliers <= 200 - outliers + 3
    assert np.linalg.norm(found.image1_from_image0) == pytest.approx(1.0)


@ESTIMATORS
def test_homography_without_an_answer(estimator):
    line = np.linspace(0, 300, 40)[:, None] * np.array([1.0, 0.5])
    for keypoints in (line, np.full((40, 2), 7.0), line[:3], np.full((40, 2), np.nan)):
        assert estimate_homography(keypoints, keypoints, options(estimator)) is None


def test_triangulation(make_two_views):
    views = make_two_views(camera0=RADIAL, camera1=OPENCV, matches=60)
    arguments = (views.keypoints0, views.keypoints1, RADIAL, OPENCV, views.cam1_from_cam0)
    np.testing.assert_allclose(triangulate(*arguments), views.points0, rtol=1e-5, atol=1e-6)
    centre1 = views.cam1_from_cam0.inverse.translation
    a, b = views.points0, views.points0 - centre1
    cosine = np.sum(a * b, axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    angles = triangulation_angles_deg(*arguments)
    np.testing.assert_allclose(angles, np.degrees(np.arccos(cosine)), atol=1e-5)


def test_points_behind_are_not_triangulated(make_two_views):
    views = make_two_views(matches=10)
    backwards = type(views.cam1_from_cam0)(
        views.cam1_from_cam0.rotation, -views.cam1_from_cam0.translation
    )
    points = triangulate(
        views.keypoints0, views.keypoints1, views.camera0, views.camera1, backwards
    )
    assert np.isnan(points).all()
    nothing = np.zeros((0, 2))
    assert triangulate(nothing, nothing, views.camera0, views.camera1, backwards).shape == (0, 3)


@ESTIMATORS
def test_same_seed_same_answer(make_two_views, estimator):
    views = make_two_views(noise_px=0.5, outliers=0.5)
    rays = (views.keypoints0, views.keypoints1)

    def poses(seed):
        chosen = options(estimator, seed=seed)
        essential = estimate_essential(*rays, views.camera0, views.camera1, chosen)
        pnp = estimate_absolute_pose(views.keypoints1, views.points0, views.camera1, chosen)
        plane = estimate_homography(*rays, chosen)
        return [essential.cam1_from_cam0.matrix, pnp.cam_from_world.matrix] + (
            [plane.image1_from_image0] if plane else []
        )

    for first, second in zip(poses(3), poses(3), strict=True):
        np.testing.assert_array_equal(first, second)


@ESTIMATORS
def test_too_few_matches(make_two_views, estimator):
    views = make_two_views(matches=4)
    chosen = options(estimator)
    few = (views.keypoints0, views.keypoints1)
    assert estimate_essential(*few, views.camera0, views.camera1, chosen) is None
    assert estimate_shared_focal(*few, views.size0, views.size1, chosen) is None
    assert estimate_homography(few[0][:3], few[1][:3], chosen) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_error_px", 0.0),
        ("max_error_px", float("nan")),
        ("max_iterations", 0),
        ("confidence", 1.0),
        ("seed", -1),
        ("seed", 2**31),
        ("estimator", "ransac"),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(InputError, match=name):
        RansacOptions(**{name: value})
