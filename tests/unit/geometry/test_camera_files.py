from __future__ import annotations

import pytest

from matcher.errors import InputError
from matcher.geometry.camera_files import read_cameras
from matcher.structures import Camera, ImageSize


def test_both_forms(tmp_path):
    (tmp_path / "list.txt").write_text(
        "# cameras\n\n"
        "a/1.jpg 500,501,320,240\n"
        "2.jpg OPENCV 640 480 500 501 320.5 240.5 0.1 0.2 0.3 0.4\n"
        "3.jpg SIMPLE_RADIAL 640 480 500 320 240 -0.1\n"
        "4.jpg SIMPLE_PINHOLE 640 480 500 320 240\n"
    )
    size = ImageSize(480, 640)
    assert read_cameras(tmp_path / "list.txt") == {
        "a/1.jpg": Camera.pinhole(500, 501, 320, 240),
        "2.jpg": Camera("OPENCV", (500, 501, 320, 240, 0.1, 0.2, 0.3, 0.4), size),
        "3.jpg": Camera("SIMPLE_RADIAL", (500, 319.5, 239.5, -0.1), size),
        "4.jpg": Camera.pinhole(500, 500, 319.5, 239.5, size),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("a.jpg", "line 1.*fx,fy,cx,cy"),
        ("a.jpg 1,2,3", "line 1.*3 numbers"),
        ("a.jpg 1,1,0,0\na.jpg 1,1,0,0", "a.jpg twice"),
        ("\na.jpg PINHOLE 640 480 500", "line 2.*4 numbers"),
        ("a.jpg FISHEYE 640 480 500 1 1 1", "line 1.*camera model.*'FISHEYE'"),
        ("a.jpg PINHOLE wide 480 500 1 1 1", "line 1.*'PINHOLE wide"),
        ("a.jpg PINHOLE 0 480 500 500 1 1", "line 1.*height and width"),
    ],
)
def test_broken_lists(tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        read_cameras(tmp_path / "list.txt", "--cameras")
    assert str(caught.value).startswith("--cameras")
    assert "\n" not in str(caught.value)


def test_no_list(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_cameras(tmp_path / "list.txt")
    (tmp_path / "list.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="no text"):
        read_cameras(tmp_path / "list.txt")
