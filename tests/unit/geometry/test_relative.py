from __future__ import annotations

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.geometry.relative import RelativePoseOptions, estimate_relative_pose
from matcher.geometry.support import required_inliers
from matcher.structures import Camera, ImageSize

SIZE = ImageSize(480, 640)
RADIAL = Camera("SIMPLE_RADIAL", (480, 319.5, 239.5, -0.12), SIZE)
LARGE = Camera(
    "OPENCV", (2000, 2010, 2011, 1520, -0.2, 0.05, 0.001, -0.0007), ImageSize(3024, 4032)
)
ESTIMATORS = pytest.mark.parametrize("estimator", ["poselib", "magsac"])


def solve(views, known=True, **changes):
    names = {"estimator", "method", "seed", "min_inliers", "max_iterations"}
    options = {name: changes.pop(name) for name in names & set(changes)}
    arguments = {
        "camera0": views.camera0 if known else None,
        "camera1": views.camera1 if known else None,
        "size0": views.size0,
        "size1": views.size1,
        "options": RelativePoseOptions(**options),
    } | changes
    return estimate_relative_pose(views.keypoints0, views.keypoints1, **arguments)


def check(result, views, rotation_deg=0.1, translation_deg=0.5):
    assert result.reason is None
    pose, expected = result.cam1_from_cam0, views.cam1_from_cam0
    assert rotation_error_deg(pose.rotation, expected.rotation) < rotation_deg
    assert translation_error_deg(pose.translation, expected.translation) < translation_deg


def check_no_answer(result, num_matches, words):
    assert result.cam1_from_cam0 is None
    assert words in result.reason
    assert result.inlier_mask.shape == (num_matches,)
    assert result.num_inliers == 0


@ESTIMATORS
@pytest.mark.parametrize("outliers", [0.0, 0.5])
def test_both_cameras_known(make_two_views, estimator, outliers):
    views = make_two_views(outliers=outliers)
    result = solve(views, estimator=estimator)
    check(result, views)
    assert result.method == "essential"
    assert not result.is_metric
    assert np.linalg.norm(result.cam1_from_cam0.translation) == pytest.approx(1.0)
    assert result.inlier_mask[views.is_inlier].all()


@ESTIMATORS
def test_distortion_and_different_pixel_sizes(make_two_views, estimator):
    views = make_two_views(camera0=RADIAL, camera1=LARGE, outliers=0.3)
    result = solve(views, estimator=estimator)
    check(result, views)
    assert result.camera0 == RADIAL
    assert result.camera1 == LARGE


@ESTIMATORS
def test_nothing_known(make_two_views, estimator):
    views = make_two_views(outliers=0.2)
    result = solve(views, known=False, estimator=estimator)
    check(result, views)
    assert result.method == "shared_focal"
    assert result.camera0.focals[0] == pytest.approx(500, rel=0.005)


def test_good_guess_is_used_and_wrong_guess_is_replaced(make_two_views):
    views = make_two_views(noise_px=0.3)
    good = solve(views, known=False, focal0_guess=501.0, focal1_guess=499.0)
    assert good.method == "essential"
    assert good.camera0.focals == (501.0, 501.0)
    assert good.camera1.focals == (499.0, 499.0)
    check(good, views, 0.3, 2.0)
    wrong = solve(views, known=False, focal0_guess=1500.0, focal1_guess=1500.0)
    assert wrong.method == "shared_focal"
    check(wrong, views, 0.5, 3.0)


def test_one_camera_known(make_two_views):
    views = make_two_views()
    for given in ({"camera0": views.camera0}, {"camera1": views.camera1}):
        result = solve(views, known=False, **given)
        check(result, views)
        assert result.camera0.focals == result.camera1.focals == (500.0, 500.0)
    result = solve(views, known=False, camera0=views.camera0, focal1_guess=505.0)
    assert result.camera1.focals == (505.0, 505.0)
    check(result, views, 1.0, 5.0)


def test_metric_pointmaps_give_metres(make_two_views):
    views = make_two_views(outliers=0.3)
    result = solve(views, points0=views.points0, is_metric=True)
    check(result, views)
    assert result.is_metric
    length = np.linalg.norm(result.cam1_from_cam0.translation)
    assert length == pytest.approx(np.linalg.norm(views.cam1_from_cam0.translation), rel=0.01)
    unknown_unit = solve(views, points0=views.points0, is_metric=False)
    assert not unknown_unit.is_metric
    assert np.linalg.norm(unknown_unit.cam1_from_cam0.translation) == pytest.approx(1.0)
    assert not solve(views, is_metric=True).is_metric


@ESTIMATORS
@pytest.mark.parametrize("is_metric", [True, False])
def test_pnp_on_request(make_two_views, estimator, is_metric):
    views = make_two_views(outliers=0.5)
    result = solve(
        views, method="pnp", points0=views.points0, is_metric=is_metric, estimator=estimator
    )
    check(result, views)
    assert (result.method, result.is_metric) == ("pnp", is_metric)
    expected = np.linalg.norm(views.cam1_from_cam0.translation) if is_metric else 1.0
    assert np.linalg.norm(result.cam1_from_cam0.translation) == pytest.approx(expected, rel=0.01)
    own = solve(views, method="pnp", points1=views.points0, is_metric=is_metric)
    check(own, views)


def test_procrustes_on_request(make_two_views):
    views = make_two_views(outliers=0.3)
    points1 = 0.5 * views.cam1_from_cam0.transform(views.points0)
    points1[~views.is_inlier] = np.random.default_rng(0).uniform(1, 5, (90, 3))
    result = solve(views, method="procrustes", points0=views.points0, points1_in_camera1=points1)
    check(result, views)
    assert result.method == "procrustes"
    assert np.linalg.norm(result.cam1_from_cam0.translation) == pytest.approx(1.0)


def test_metric_points_say_that_nothing_moved(make_two_views):
    views = make_two_views(translation=(0.0, 0.0, 0.0))
    result = solve(views, method="pnp", points0=views.points0, is_metric=True)
    assert np.linalg.norm(result.cam1_from_cam0.translation) < 1e-6
    without = solve(views, method="pnp", points0=views.points0)
    check_no_answer(without, 300, "rotation alone")


@ESTIMATORS
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("rotation", [(0.0, 0.0, 0.0), (0.02, 0.2, 0.03)])
@pytest.mark.parametrize(("noise_px", "outliers"), [(0.0, 0.0), (0.5, 0.3), (1.5, 0.0)])
def test_no_baseline(make_two_views, estimator, known, rotation, noise_px, outliers):
    views = make_two_views(
        rotation=rotation, translation=(0.0, 0.0, 0.0), noise_px=noise_px, outliers=outliers
    )
    result = solve(views, known=known, estimator=estimator, max_iterations=2000)
    assert result.cam1_from_cam0 is None
    # Unknown focals may also leave the shared-focal solver without a plausible one.
    assert "rotation alone" in result.reason or not known


@pytest.mark.parametrize("noise_px", [0.0, 0.3])
def test_small_baseline_is_still_an_answer(make_two_views, noise_px):
    # 5 cm at 3 to 8 m: at most 5 px of parallax.
    views = make_two_views(translation=(0.05, 0.0, 0.0), noise_px=noise_px, matches=500)
    check(solve(views), views, 0.2, 5.0)


def test_distant_background_does_not_hide_the_baseline(make_two_views):
    near = make_two_views(matches=300)
    far = make_two_views(matches=300, translation=(1e-4, 2e-5, 4e-5), seed=1)
    keypoints = [
        np.concatenate([getattr(views, name) for views in (near, far)])
        for name in ("keypoints0", "keypoints1")
    ]
    result = estimate_relative_pose(
        *keypoints, camera0=near.camera0, camera1=near.camera1, size0=SIZE, size1=SIZE
    )
    check(result, near)


@ESTIMATORS
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_matches(make_two_views, estimator, known, count):
    views = make_two_views(matches=max(count, 1))
    result = estimate_relative_pose(
        views.keypoints0[:count],
        views.keypoints1[:count],
        camera0=views.camera0 if known else None,
        camera1=views.camera1 if known else None,
        size0=SIZE,
        size1=SIZE,
        options=RelativePoseOptions(estimator=estimator),
    )
    check_no_answer(result, count, f"{count} usable matches")


@ESTIMATORS
@pytest.mark.parametrize("known", [True, False])
def test_degenerate_matches(make_two_views, estimator, known):
    views = make_two_views()
    cameras = {
        "camera0": views.camera0 if known else None,
        "camera1": views.camera1 if known else None,
        "size0": SIZE,
        "size1": SIZE,
        "options": RelativePoseOptions(estimator=estimator),
    }
    line = np.linspace(10, 400, 100)[:, None] * np.array([1.0, 0.7])
    for degenerate in (line, np.full((100, 2), 33.0)):
        result = estimate_relative_pose(degenerate, degenerate + 5, **cameras)
        check_no_answer(result, 100, "one line or in one point")
    result = estimate_relative_pose(np.full((50, 2), np.nan), np.ones((50, 2)), **cameras)
    check_no_answer(result, 50, "0 usable matches")


def test_nan_rows_are_outliers(make_two_views):
    views = make_two_views()
    views.keypoints0[::10] = np.nan
    views.keypoints1[5] = np.inf
    result = solve(views, points0=views.points0, is_metric=True)
    check(result, views)
    assert result.num_inliers == 269
    assert not result.inlier_mask[::10].any()
    assert not result.inlier_mask[5]


@ESTIMATORS
@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("count", [20, 100, 400, 2000])
def test_random_matches_give_no_answer(estimator, known, count):
    camera = Camera.pinhole(500, 500, 319.5, 239.5, SIZE) if known else None
    for seed in range(2):
        keypoints = np.random.default_rng(seed).uniform(0, [640, 480], (2, count, 2))
        result = estimate_relative_pose(
            *keypoints,
            camera0=camera,
            camera1=camera,
            size0=SIZE,
            size1=SIZE,
            options=RelativePoseOptions(estimator=estimator, max_iterations=1000, seed=seed),
        )
        assert result.cam1_from_cam0 is None
        assert result.num_inliers == 0


def test_required_inliers_grow_with_matches_threshold_and_shrink_with_pixels():
    def needed(matches, size=SIZE, threshold=1.0):
        return required_inliers(matches, size, size, threshold, 15)

    assert [needed(n) for n in (20, 100, 500, 1000, 3000)] == [15, 16, 24, 33, 70]
    assert needed(3000, LARGE.size) == 23
    assert needed(1000, threshold=3.0) == 70


@ESTIMATORS
@pytest.mark.parametrize("known", [True, False])
def test_same_seed_same_answer(make_two_views, estimator, known):
    views = make_two_views(noise_px=0.7, outliers=0.5)
    first, second = (solve(views, known=known, estimator=estimator, seed=7) for _ in range(2))
    np.testing.assert_array_equal(first.cam1_from_cam0.matrix, second.cam1_from_cam0.matrix)
    np.testing.assert_array_equal(first.inlier_mask, second.inlier_mask)


def test_arguments_are_not_changed(make_two_views):
    views = make_two_views(outliers=0.3)
    copies = views.keypoints0.copy(), views.keypoints1.copy(), views.points0.copy()
    solve(views, points0=views.points0, is_metric=True)
    for before, after in zip(
        copies, (views.keypoints0, views.keypoints1, views.points0), strict=True
    ):
        np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"method": "essential", "known": False}, "camera0"),
        ({"method": "pnp"}, "points0"),
        ({"method": "procrustes"}, "points1_in_camera1"),
        ({"points0": np.zeros((3, 3))}, "points0"),
        ({"known": False, "focal0_guess": -3.0}, "focal0_guess"),
        ({"method": "magic"}, "method"),
        ({"min_inliers": 0}, "min_inliers"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments(make_two_views, changes, argument):
    with pytest.raises(InputError, match=f"^{argument}: expected"):
        solve(make_two_views(), **changes)


def test_keypoints_of_wrong_shape():
    with pytest.raises(InputError, match=r"keypoints1: expected shape \(5, 2\), got \(4, 2\)"):
        estimate_relative_pose(
            np.zeros((5, 2)),
            np.zeros((4, 2)),
            camera0=None,
            camera1=None,
            size0=SIZE,
            size1=SIZE,
        )


def test_likely_matches_are_tried_first(make_two_views):
    views = make_two_views(matches=1000, outliers=0.93)
    # A confidence that is often mistaken: right matches are only likelier to be high.
    confidence = np.random.default_rng(3).uniform(size=1000) + 0.5 * views.is_inlier
    blind = solve(views, max_iterations=1000)
    led = solve(views, max_iterations=1000, confidence=confidence)
    assert blind.cam1_from_cam0 is None
    check(led, views)
    assert led.inlier_mask[views.is_inlier].all()
    assert led.inlier_mask[~views.is_inlier].mean() < 0.05


@ESTIMATORS
def test_inliers_stay_with_their_rows_whatever_the_confidence(make_two_views, estimator):
    views = make_two_views(outliers=0.4)
    views.keypoints0[5] = np.nan
    confidence = np.random.default_rng(4).uniform(size=len(views.keypoints0))
    result = solve(views, estimator=estimator, confidence=confidence)
    check(result, views)
    expected = views.is_inlier.copy()
    expected[5] = False
    assert result.inlier_mask[expected].all()
    assert not result.inlier_mask[5]
    assert result.inlier_mask[~expected].mean() < 0.05


def test_confidence_of_another_length(make_two_views):
    views = make_two_views()
    with pytest.raises(InputError, match=r"confidence: expected shape \(\d+,\), got \(3,\)"):
        solve(views, confidence=np.ones(3))
