from __future__ import annotations

import numpy as np
import pytest

from matcher.errors import InputError
from matcher.geometry.camera import (
    bearing_vectors,
    camera_from_focal,
    distort_keypoints,
    normalize,
    parse_camera,
    project,
    resize_camera,
    undistort_keypoints,
    unproject,
)
from matcher.geometry.pixels import (
    camera_from_colmap,
    camera_to_colmap,
    image_center,
    keypoints_from_colmap,
    keypoints_to_colmap,
    resize_transform,
    to_original,
    transform_keypoints,
)
from matcher.structures import Camera, ImageSize

SIZE = ImageSize(480, 640)
PINHOLE = Camera.pinhole(500, 510, 320.3, 238.1, SIZE)
RADIAL = Camera("SIMPLE_RADIAL", (500, 320, 240, -0.12), SIZE)
OPENCV = Camera("OPENCV", (500, 505, 322, 239, -0.28, 0.09, 0.001, -0.0007), SIZE)
CAMERAS = pytest.mark.parametrize("camera", [PINHOLE, RADIAL, OPENCV], ids=lambda c: c.model)


def grid(size: ImageSize) -> np.ndarray:
    x, y = np.meshgrid(np.linspace(0, size.width - 1, 25), np.linspace(0, size.height - 1, 19))
    return np.stack([x.ravel(), y.ravel()], axis=1)


def test_resizing_maps_centres_and_corners():
    half = resize_transform(SIZE, ImageSize(240, 320))
    corners = np.array([[-0.5, -0.5], [639.5, 479.5], [0.5, 0.5], [2.5, 4.5]])
    expected = np.array([[-0.5, -0.5], [319.5, 239.5], [0.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(transform_keypoints(half, corners), expected, atol=1e-12)


def test_to_original_undoes_the_network_resize():
    original = ImageSize(1063, 1600)
    network = resize_transform(original, SIZE)
    points = grid(original)
    seen = transform_keypoints(network, points)
    np.testing.assert_allclose(to_original(seen, np.linalg.inv(network)), points, atol=1e-9)


def test_colmap_convention_is_half_a_pixel_away():
    np.testing.assert_array_equal(keypoints_to_colmap([[0.0, 0.0]]), [[0.5, 0.5]])
    np.testing.assert_array_equal(keypoints_from_colmap([[0.5, 1.5]]), [[0.0, 1.0]])
    assert camera_to_colmap(RADIAL).params == (500, 320.5, 240.5, -0.12)
    assert camera_to_colmap(PINHOLE).principal_point == (320.8, 238.6)
    assert camera_from_colmap(camera_to_colmap(OPENCV)).params == pytest.approx(OPENCV.params)


def test_image_center():
    assert image_center(SIZE) == (319.5, 239.5)


@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3)])
def test_transform_of_wrong_shape(shape):
    with pytest.raises(InputError, match="transform: expected"):
        transform_keypoints(np.ones(shape), np.zeros((2, 2)))


@CAMERAS
def test_distortion_round_trip(camera):
    photographed = grid(SIZE)
    undistorted = undistort_keypoints(photographed, camera)
    assert np.abs(distort_keypoints(undistorted, camera) - photographed).max() < 1e-6
    ideal = undistort_keypoints(photographed[::7], camera)
    again = undistort_keypoints(distort_keypoints(ideal, camera), camera)
    assert np.abs(again - ideal).max() < 1e-6


@CAMERAS
def test_projection_agrees_with_opencv(camera):
    import cv2

    points = np.random.default_rng(0).uniform([-1, -1, 3], [1, 1, 6], (50, 3))
    expected, _ = cv2.projectPoints(
        points, np.zeros(3), np.zeros(3), camera.matrix, np.array(camera.distortion)
    )
    np.testing.assert_allclose(project(points, camera), expected[:, 0], atol=1e-9)


@CAMERAS
def test_unprojection_undoes_projection(camera):
    points = np.random.default_rng(1).uniform([-1, -1, 3], [1, 1, 6], (50, 3))
    back = unproject(project(points, camera), points[:, 2], camera)
    np.testing.assert_allclose(back, points, atol=1e-8)
    bearings = bearing_vectors(project(points, camera), camera)
    expected = points / np.linalg.norm(points, axis=1, keepdims=True)
    np.testing.assert_allclose(bearings, expected, atol=1e-9)


def test_points_behind_the_camera_have_no_pixel():
    pixels = project([[0, 0, 2], [0, 0, -2], [0, 0, 0], [np.nan, 0, 1]], PINHOLE)
    np.testing.assert_array_equal(np.isnan(pixels).all(axis=1), [False, True, True, True])
    np.testing.assert_allclose(pixels[0], PINHOLE.principal_point)


def test_pixels_without_inverse_are_nan():
    # r * (1 - r^2) is largest, 0.385, at r = 0.577: a pixel at 0.5 comes from nowhere.
    folded = Camera("SIMPLE_RADIAL", (500, 320, 240, -1.0), SIZE)
    rays = normalize([[320.0 + 0.5 * 500, 240.0], [320.0 + 0.2 * 500, 240.0]], folded)
    assert np.isnan(rays[0]).all()
    x = rays[1, 0]
    assert x * (1 - x * x) == pytest.approx(0.2, abs=1e-9)


@CAMERAS
def test_resized_camera_sees_the_resized_pixels(camera):
    to_size = ImageSize(333, 512)
    points = np.random.default_rng(2).uniform([-1, -1, 3], [1, 1, 6], (20, 3))
    expected = transform_keypoints(resize_transform(SIZE, to_size), project(points, camera))
    resized = resize_camera(camera, to_size)
    assert resized.size == to_size
    np.testing.assert_allclose(project(points, resized), expected, atol=1e-9)


def test_even_scale_keeps_the_radial_model():
    resized = resize_camera(RADIAL, ImageSize(240, 320))
    assert resized.model == "SIMPLE_RADIAL"
    assert resized.params == (250, 159.75, 119.75, -0.12)
    with pytest.raises(InputError, match="from_size"):
        resize_camera(Camera.pinhole(1, 1, 0, 0), SIZE)


def test_parse_camera():
    assert parse_camera("500, 510,320.3,238.1", size=SIZE) == PINHOLE
    assert parse_camera("500,505,322,239,-.28,.09,.001,-.0007").model == "OPENCV"


@pytest.mark.parametrize("text", ["", "500", "a,b,c,d", "1,2,3", "-500,500,1,1", "nan,1,1,1"])
def test_parse_camera_names_the_argument(text):
    with pytest.raises(InputError, match=r"^--camera1: expected fx,fy,cx,cy") as caught:
        parse_camera(text, "--camera1")
    assert "\n" not in str(caught.value)


def test_camera_from_focal():
    assert camera_from_focal(450.0, SIZE).params == (450, 450, 319.5, 239.5)
