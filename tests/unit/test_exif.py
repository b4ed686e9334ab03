from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from matcher import Camera, Matcher, PairOptions
from matcher.images import exif_focal
from tests.relief import relief_matcher, relief_pair

DIAGONAL_35MM = math.hypot(36, 24)
FOCAL_MM, FOCAL_35MM, WIDTH, HEIGHT = 0x920A, 0xA405, 0xA002, 0xA003
RESOLUTION, UNIT, ORIENTATION, MAKE = 0xA20E, 0xA210, 0x0112, 0x010F


def write(path, tags, picture=(400, 300), orientation=None):
    exif = Image.Exif()
    exif[MAKE] = "Widebase"
    exif.get_ifd(0x8769).update(tags)
    if orientation is not None:
        exif[ORIENTATION] = orientation
    if isinstance(picture, tuple):
        picture = Image.new("RGB", picture, (90, 120, 60))
    picture.save(path, exif=exif, **({"quality": 98} if path.suffix == ".jpg" else {}))
    return path


def test_the_35_mm_equivalent_refers_to_the_diagonal(tmp_path):
    path = write(tmp_path / "a.jpg", {FOCAL_35MM: 26})
    assert exif_focal(path) == pytest.approx(26 / DIAGONAL_35MM * 500)
    assert exif_focal(str(path)) == exif_focal(path)
    with Image.open(path) as picture:
        assert exif_focal(picture) == exif_focal(path)


def test_a_smaller_copy_has_a_shorter_focal(tmp_path):
    tags = {FOCAL_35MM: 26, WIDTH: 4000, HEIGHT: 3000}
    small = write(tmp_path / "small.jpg", tags, (400, 300))
    large = write(tmp_path / "large.jpg", tags, (800, 600))
    assert exif_focal(large) == pytest.approx(2 * exif_focal(small))


@pytest.mark.parametrize("size", [(300, 400), (400, 300)])
def test_turned_pictures_keep_their_focal(tmp_path, size):
    tags = {FOCAL_35MM: 26, WIDTH: 4000, HEIGHT: 3000}
    path = write(tmp_path / "a.jpg", tags, size, orientation=6)
    assert exif_focal(path) == pytest.approx(26 / DIAGONAL_35MM * 500)


@pytest.mark.parametrize(("unit", "resolution"), [(2, 2540), (3, 1000), (4, 100)])
def test_sensor_resolution_where_there_is_no_equivalent(tmp_path, unit, resolution):
    tags = {FOCAL_MM: 50.0, RESOLUTION: float(resolution), UNIT: unit}
    assert exif_focal(write(tmp_path / "a.jpg", tags, (6000, 4000))) == pytest.approx(5000)
    shrunk = {**tags, WIDTH: 6000, HEIGHT: 4000}
    assert exif_focal(write(tmp_path / "b.jpg", shrunk, (600, 400))) == pytest.approx(500)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {FOCAL_MM: 4.2},
        {FOCAL_35MM: 0},
        {FOCAL_35MM: 2},
        {FOCAL_35MM: 26, WIDTH: 4000, HEIGHT: 2000},
        {FOCAL_MM: 50.0, RESOLUTION: 1000.0, UNIT: 1},
    ],
    ids=["none", "millimetres alone", "zero", "no lens", "cropped since", "no unit"],
)
def test_tags_that_do_not_tell(tmp_path, tags):
    assert exif_focal(write(tmp_path / "a.jpg", tags)) is None


def test_what_has_no_tags(tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"no photograph")
    assert exif_focal(tmp_path / "a.png") is None
    assert exif_focal(tmp_path / "b.jpg") is None
    assert exif_focal(tmp_path / "none.jpg") is None
    assert exif_focal(np.zeros((30, 40, 3), dtype=np.uint8)) is None


def test_broken_tags_tell_nothing(tmp_path):
    path = write(tmp_path / "a.jpg", {FOCAL_35MM: 26})
    data = path.read_bytes()
    start = data.index(b"Exif") + 6
    path.write_bytes(data[:start] + b"\xff" * 12 + data[start + 12 :])
    assert exif_focal(path) is None


@pytest.fixture(scope="module")
def pair():
    return relief_pair()


@pytest.mark.parametrize("many", [False, True])
def test_a_pose_without_cameras_takes_the_focals_of_the_files(tmp_path, pair, many):
    focal = 1.03 * pair.camera0.focals[0]  # not what the pointmaps say
    tags = {FOCAL_MM: 50.0, RESOLUTION: focal / 50, UNIT: 4}
    paths = [
        write(tmp_path / f"{name}.png", tags, Image.fromarray(image))
        for name, image in (("a", pair.image0), ("b", pair.image1))
    ]
    matcher: Matcher = relief_matcher(pair, PairOptions(max_size=320, crops="never"))
    found = next(matcher.match_pairs([paths])) if many else matcher.match(*paths)
    assert found.exif_focals == pytest.approx((focal, focal), rel=1e-3)
    pose = found.relative_pose()
    assert pose.method == "essential"
    assert pose.camera0.focals == pytest.approx((focal, focal), rel=1e-3)
    given = Camera.pinhole(1.1 * focal, 1.1 * focal, 160, 120)
    assert found.relative_pose(given, given).camera0.focals == given.focals
