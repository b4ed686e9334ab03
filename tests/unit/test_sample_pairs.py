from __future__ import annotations

import builtins
from typing import Any

import cv2
import numpy as np
import pytest

from matcher.errors import InputError, MissingDependencyError
from matcher.sample_pairs import SamplePair, disparity_errors_px, motorcycle_pair, share_within


@pytest.fixture(scope="module")
def pair() -> SamplePair:
    pytest.importorskip("skimage")
    return motorcycle_pair()


def test_the_pair_is_what_it_says(pair: SamplePair) -> None:
    assert pair.image0.shape == pair.image1.shape == (500, 741, 3)
    assert pair.image0.dtype == pair.image1.dtype == np.uint8
    assert pair.disparity.shape == (500, 741)
    assert pair.disparity.dtype == np.float32
    assert not np.isinf(pair.disparity).any()
    assert np.isnan(pair.disparity).mean() == pytest.approx(0.0735, abs=1e-3)
    assert np.nanmin(pair.disparity) == pytest.approx(7.191, abs=1e-3)
    assert np.nanmax(pair.disparity) == pytest.approx(59.909, abs=1e-3)


def test_cameras_and_pose_reproduce_the_disparity(pair: SamplePair) -> None:
    y, x = np.nonzero(np.isfinite(pair.disparity))
    d = pair.disparity[y, x].astype(np.float64)
    doffs = pair.camera1.principal_point[0] - pair.camera0.principal_point[0]
    baseline = -pair.cam1_from_cam0.translation[0]
    depth = pair.camera0.focals[0] * baseline / (d + doffs)
    assert (depth.min(), depth.max()) == pytest.approx((2.110, 5.017), abs=1e-3)
    rays = np.stack([x, y, np.ones_like(x)]) * depth
    points = np.linalg.inv(pair.camera0.matrix) @ rays
    projected = pair.camera1.matrix @ pair.cam1_from_cam0.transform(points.T).T
    np.testing.assert_allclose(projected[0] / projected[2], x - d, atol=1e-9)
    np.testing.assert_allclose(projected[1] / projected[2], y, atol=1e-9)


def test_the_photographs_agree_with_the_disparity(pair: SamplePair) -> None:
    """Warped by the disparity, image 1 fits image 0 best without a shift, and with this sign."""
    grey0, grey1 = (
        cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
        for image in (pair.image0, pair.image1)
    )
    y, x = np.mgrid[:500, :741].astype(np.float32)
    d = np.nan_to_num(pair.disparity)
    seen = np.isfinite(pair.disparity) & (x - d > 1)

    def residual(sign: float, dx: float = 0, dy: float = 0) -> float:
        map_x = (x - sign * d + dx).astype(np.float32)
        map_y = (y + dy).astype(np.float32)
        warped = cv2.remap(grey1, map_x, map_y, cv2.INTER_LINEAR)
        return float(np.abs(warped - grey0)[seen].mean())

    best = residual(1)
    assert best < 8
    assert all(
        residual(1, dx, dy) > best + 1 for dx, dy in ((0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5))
    )
    assert residual(-1) > 4 * best


def test_perfect_matches_have_no_error(pair: SamplePair) -> None:
    y, x = np.nonzero(np.isfinite(pair.disparity))
    rows = np.random.default_rng(0).choice(len(x), 500, replace=False)
    keypoints0 = np.stack([x[rows], y[rows]], axis=-1).astype(np.float64)
    keypoints1 = keypoints0 - np.stack([pair.disparity[y[rows], x[rows]], np.zeros(500)], axis=-1)
    errors = disparity_errors_px(keypoints0, keypoints1, pair.disparity)
    assert errors.shape == (500,)
    assert errors.max() < 1e-4
    errors = disparity_errors_px(keypoints0, keypoints1 + np.array([3, 4]), pair.disparity)
    np.testing.assert_allclose(errors, 5, atol=1e-4)


MAP = np.array([[10.0, 10.5, 20.0], [10.2, 10.7, np.nan], [10.0, 10.0, np.inf]])


@pytest.mark.parametrize(
    ("keypoint", "expected"),
    [
        ((0.5, 0.0), 10.25),  # between two
        ((0.5, 0.5), 10.35),  # the mean of four
        ((0.25, 1.0), 10.325),
        ((1.0, 2.0), 10.0),  # on a pixel beside a hole
        ((1.6, 0.0), 20.0),  # across an edge: the nearest
        ((1.4, 0.2), 10.5),
        ((-0.4, 2.4), 10.0),  # the outer half of a border pixel
    ],
)
def test_disparity_between_pixels(keypoint: tuple[float, float], expected: float) -> None:
    errors = disparity_errors_px([keypoint], [(keypoint[0] - expected, keypoint[1])], MAP)
    np.testing.assert_allclose(errors, [0], atol=1e-12)


def test_unknown_disparities_are_left_out() -> None:
    keypoints0 = np.array([[2, 1], [2, 2], [-0.6, 0], [0, 2.6], [1e9, 0], [0, 0]], np.float64)
    keypoints1 = np.zeros((6, 2))
    np.testing.assert_allclose(disparity_errors_px(keypoints0, keypoints1, MAP), [10])
    assert disparity_errors_px(np.zeros((0, 2)), np.zeros((0, 2)), MAP).shape == (0,)


def test_share_within() -> None:
    assert share_within([0.5, 1.0, 2.0, 9.0], 1.0) == 0.5
    assert share_within([np.nan, 1.0], 3.0) == 0.5
    assert share_within([], 3.0) == 0.0


@pytest.mark.parametrize(
    ("call", "argument"),
    [
        (lambda: disparity_errors_px([[0, 0]], [[0, 0], [1, 1]], MAP), "keypoints1"),
        (lambda: disparity_errors_px([[0, 0, 0]], [[0, 0]], MAP), "keypoints0"),
        (lambda: disparity_errors_px([[0, 0]], [[0, 0]], MAP[0]), "disparity"),
        (lambda: share_within([[1.0]], 1.0), "errors"),
        (lambda: share_within([1.0], -1.0), "px"),
        (lambda: share_within([1.0], float("nan")), "px"),
    ],
)
def test_bad_arguments_are_named(call: Any, argument: str) -> None:
    with pytest.raises(InputError) as caught:
        call()
    assert caught.value.argument == argument


def test_without_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    import_as_always = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("skimage"):
            raise ImportError(name)
        return import_as_always(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"pip install 'widebase\[demo\]'"):
        motorcycle_pair()
