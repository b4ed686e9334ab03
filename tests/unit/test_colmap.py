"""The adapter to pycolmap: cameras and poses to and from its types."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcher.colmap import (
    camera_from_pycolmap,
    camera_to_pycolmap,
    import_pycolmap,
    open_model,
    pose_of,
    pose_to_pycolmap,
    quiet,
    reason_of,
)
from matcher.errors import DatasetError, MissingDependencyError
from matcher.geometry.camera import project
from matcher.structures import Camera, ImageSize, Pose

pycolmap = pytest.importorskip("pycolmap")

SIZE = ImageSize(480, 640)
CAMERAS = [
    Camera("PINHOLE", (500.0, 510.0, 320.25, 239.0), SIZE),
    Camera("SIMPLE_RADIAL", (500.0, 320.25, 239.0, 0.1), SIZE),
    Camera("OPENCV", (500.0, 510.0, 320.25, 239.0, 0.1, -0.05, 0.002, -0.001), SIZE),
]


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.model)
def test_a_camera_comes_back_and_colmap_holds_it_half_a_pixel_further(camera: Camera) -> None:
    made = camera_to_pycolmap(camera, SIZE, identifier=7)
    assert camera_from_pycolmap(made, "a.jpg") == camera
    assert (made.principal_point_x, made.principal_point_y) == (320.75, 239.5)
    assert (made.camera_id, made.width, made.height) == (7, 640, 480)
    assert made.has_prior_focal_length


@pytest.mark.parametrize("camera", CAMERAS, ids=lambda camera: camera.model)
def test_colmap_projects_where_we_do(camera: Camera) -> None:
    made = camera_to_pycolmap(camera, SIZE, identifier=1)
    points = np.array([[0.1, -0.2, 1.0], [0.4, 0.3, 1.0]])
    np.testing.assert_allclose(made.img_from_cam(points) - 0.5, project(points, camera), atol=1e-9)


def test_a_guessed_focal_is_marked_as_such() -> None:
    made = camera_to_pycolmap(CAMERAS[0], SIZE, identifier=1, is_known=False)
    assert not made.has_prior_focal_length


@pytest.mark.parametrize(
    ("model", "params", "expected"),
    [
        ("SIMPLE_PINHOLE", (500, 320, 240), Camera.pinhole(500, 500, 319.5, 239.5, SIZE)),
        (
            "RADIAL",
            (500, 320, 240, 0.1, 0.2),
            Camera("OPENCV", (500, 500, 319.5, 239.5, 0.1, 0.2, 0, 0), SIZE),
        ),
        (
            "FULL_OPENCV",
            (500, 510, 320, 240, 0.1, 0.2, 0.3, 0.4, 0, 0, 0, 0),
            Camera("OPENCV", (500, 510, 319.5, 239.5, 0.1, 0.2, 0.3, 0.4), SIZE),
        ),
    ],
)
def test_other_models_are_converted(
    model: str, params: tuple[float, ...], expected: Camera
) -> None:
    made = pycolmap.Camera(model=model, width=640, height=480, params=params)
    assert camera_from_pycolmap(made, "a.jpg") == expected
    points = np.array([[0.1, -0.2, 1.0], [0.4, 0.3, 1.0]])
    np.testing.assert_allclose(
        made.img_from_cam(points) - 0.5, project(points, expected), atol=1e-9
    )


@pytest.mark.parametrize(
    ("model", "params"),
    [
        ("OPENCV_FISHEYE", (500, 510, 320, 240, 0, 0, 0, 0)),
        ("FULL_OPENCV", (500, 510, 320, 240, 0.1, 0.2, 0, 0, 0.3, 0, 0, 0)),
        ("PINHOLE", (-500, 510, 320, 240)),
    ],
)
def test_a_camera_that_is_none_of_ours_names_the_image(
    model: str, params: tuple[float, ...]
) -> None:
    made = pycolmap.Camera(model=model, width=640, height=480, params=params)
    with pytest.raises(DatasetError, match=r"camera of yard/a\.jpg: camera"):
        camera_from_pycolmap(made, "yard/a.jpg")


def test_a_pose_comes_back() -> None:
    turn = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    pose = Pose(turn, np.array([1.0, 2.0, 3.0]))
    made = pose_to_pycolmap(pose)
    np.testing.assert_allclose(made * np.array([1.0, 0.0, 0.0]), pose.transform([1.0, 0, 0]))

    class Old:  # what an image of pycolmap 3.10 looks like
        cam_from_world = made

    found = pose_of(Old())
    assert found is not None
    np.testing.assert_allclose(found.matrix, pose.matrix, atol=1e-15)


def test_the_log_level_is_put_back() -> None:
    level = pycolmap.logging.minloglevel
    with quiet(pycolmap):
        assert pycolmap.logging.minloglevel == pycolmap.logging.Level.FATAL.value
    assert pycolmap.logging.minloglevel == level


@pytest.mark.parametrize(
    ("message", "expected"),
    [("[a.cc:12] Check\n failed", "Check failed"), ("plain text", "plain text"), ("[1]", "[1]")],
)
def test_reasons_are_one_line_without_the_source(message: str, expected: str) -> None:
    assert reason_of(RuntimeError(message)) == expected


def test_a_model_without_its_files_says_which(tmp_path: Path) -> None:
    (tmp_path / "cameras.txt").write_text("")
    with pytest.raises(DatasetError, match=r"images\.txt, points3D\.txt missing"):
        open_model(tmp_path, "reading")
    with pytest.raises(DatasetError, match="no such folder"):
        open_model(tmp_path / "none", "reading")


def test_without_pycolmap_the_extra_is_named(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match=r"reading x needs.*'widebase\[colmap\]'"):
        import_pycolmap("reading x")
