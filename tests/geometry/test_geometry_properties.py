"""What holds for every size, camera and pose."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from matcher.geometry.camera import (
    distort_keypoints,
    parse_camera,
    project,
    resize_camera,
    undistort_keypoints,
)
from matcher.geometry.pixels import resize_transform, to_original, transform_keypoints
from matcher.geometry.pose import (
    axis_angle_to_rotation,
    quaternion_to_rotation,
    rotation_error_deg,
    rotation_to_quaternion,
)
from matcher.structures import Camera, ImageSize

SIZES = st.builds(ImageSize, height=st.integers(1, 5000), width=st.integers(1, 5000))
FRACTIONS = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=10).map(
    np.array
)
ANGLES = st.tuples(*[st.floats(-3, 3)] * 3).map(np.array)


def pixels_at(fractions: np.ndarray, size: ImageSize) -> np.ndarray:
    """Fractions of the covered area, [-0.5, side - 0.5], as pixels."""
    return fractions * [size.width, size.height] - 0.5


@given(SIZES, SIZES, FRACTIONS)
def test_resizing_keeps_the_place_in_the_image(from_size, to_size, fractions):
    mapped = transform_keypoints(
        resize_transform(from_size, to_size), pixels_at(fractions, from_size)
    )
    np.testing.assert_allclose(mapped, pixels_at(fractions, to_size), atol=1e-8)


@given(SIZES, SIZES, FRACTIONS)
def test_back_to_the_original_without_bias(original, network, fractions):
    points = pixels_at(fractions, original)
    seen = transform_keypoints(resize_transform(original, network), points)
    back = to_original(seen, resize_transform(network, original))
    np.testing.assert_allclose(back, points, atol=1e-7)


@given(SIZES, SIZES, SIZES)
def test_resizing_twice_is_resizing_once(first, second, third):
    twice = resize_transform(second, third) @ resize_transform(first, second)
    np.testing.assert_allclose(twice, resize_transform(first, third), rtol=1e-9, atol=1e-9)


@given(
    st.floats(0.5, 2.0),
    st.tuples(st.floats(-0.25, 0.25), st.floats(-0.05, 0.05)),
    st.tuples(st.floats(-0.002, 0.002), st.floats(-0.002, 0.002)),
    FRACTIONS,
)
def test_lens_round_trip(focal_ratio, radial, tangential, fractions):
    size = ImageSize(480, 640)
    focal = focal_ratio * 640
    camera = Camera("OPENCV", (focal, focal, 319.5, 239.5, *radial, *tangential), size)
    # The inner part of the image, where every such lens can be inverted.
    pixels = pixels_at(0.25 + 0.5 * fractions, size)
    bent = distort_keypoints(pixels, camera)
    assert np.abs(undistort_keypoints(bent, camera) - pixels).max() < 1e-6


@given(SIZES, SIZES, FRACTIONS)
def test_resized_camera_projects_to_resized_pixels(from_size, to_size, fractions):
    camera = Camera("SIMPLE_RADIAL", (700.0, 300.0, 200.0, 0.05), from_size)
    points = np.concatenate([2 * fractions - 1, np.full((len(fractions), 1), 3.0)], axis=1)
    expected = transform_keypoints(resize_transform(from_size, to_size), project(points, camera))
    actual = project(points, resize_camera(camera, to_size))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-8)


@given(ANGLES)
def test_quaternions_keep_rotations(axis_angle):
    rotation = axis_angle_to_rotation(axis_angle)
    back = quaternion_to_rotation(rotation_to_quaternion(rotation))
    assert rotation_error_deg(back, rotation) < 1e-5


@given(st.tuples(*[st.floats(1e-3, 1e5)] * 4))
def test_cameras_survive_their_text(params):
    text = ",".join(repr(value) for value in params)
    assert parse_camera(text) == Camera.pinhole(*params)
