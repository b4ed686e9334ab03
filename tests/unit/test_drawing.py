from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from matcher.drawing import check_picture_path, draw_matches, write_picture
from matcher.errors import InputError

BACKGROUND = (24, 25, 28)
NONE = np.zeros((0, 2))


def flat(height: int, width: int, value: int = 128) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def random_matches(count: int, width: int, height: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(seed)
    limit = np.array([width - 1, height - 1])
    return (
        generator.uniform(0, 1, (count, 2)) * limit,
        generator.uniform(0, 1, (count, 2)) * limit,
        generator.uniform(0.1, 1, count),
    )


def test_side_by_side_at_a_common_height() -> None:
    picture = draw_matches(flat(400, 300), flat(200, 300, 60), NONE, NONE, np.zeros(0))
    # Margins of 28, a gap of 16, 60 for the caption; the second is twice as large.
    assert picture.shape == (28 + 400 + 60, 28 + 300 + 16 + 600 + 28, 3)
    assert picture.dtype == np.uint8
    middle = picture[28 + 200]
    np.testing.assert_array_equal(middle[[28, 327, 344, 943]], [[128] * 3] * 2 + [[60] * 3] * 2)
    np.testing.assert_array_equal(middle[[27, 328, 343, 944]], [BACKGROUND] * 4)


def test_panoramas_lie_above_each_other() -> None:
    picture = draw_matches(flat(200, 800), flat(100, 800, 60), NONE, NONE, np.zeros(0))
    assert picture.shape == (28 + 200 + 16 + 100 + 60, 800 + 2 * 28, 3)
    np.testing.assert_array_equal(picture[[100, 235, 280], 400], [[128] * 3, BACKGROUND, [60] * 3])


def test_no_matches_still_has_a_caption() -> None:
    picture = draw_matches(flat(400, 300), flat(400, 300), NONE, NONE, np.zeros(0))
    caption = picture[-60:].astype(int)
    assert caption.max() > 200
    assert (np.abs(picture[60:400, 60:300].astype(int) - 128) == 0).all()


def test_dots_lie_on_the_keypoints() -> None:
    keypoints0, keypoints1 = np.array([[100.0, 150.0]]), np.array([[200.0, 250.0]])
    image = flat(400, 300)
    picture = draw_matches(image, image, keypoints0, keypoints1, np.ones(1)).astype(int)
    start, end = picture[28 + 150, 28 + 100], picture[28 + 250, 28 + 300 + 16 + 200]
    np.testing.assert_array_equal(start, end)
    assert start.max() - start.min() > 80  # a colour
    # The rims around both are dark and centred.
    for row, column in ((178, 128), (278, 544)):
        window = picture[row - 6 : row + 7, column - 6 : column + 7].sum(axis=-1)
        rows, columns = np.nonzero(window < 200)
        assert len(rows) > 8
        assert abs(rows.mean() - 6) < 0.6
        assert abs(columns.mean() - 6) < 0.6
    assert image.max() == image.min() == 128  # the photographs stay as they were


def test_dots_scale_with_the_photograph() -> None:
    # The centre of a photograph is the centre of its drawing, at any scale.
    height, width = 2400, 1800
    center = np.array([[(width - 1) / 2, (height - 1) / 2]])
    picture = draw_matches(
        flat(height, width), flat(height, width), center, center, np.ones(1)
    ).astype(int)
    assert picture.shape == (28 + 960 + 60, 28 + 720 + 16 + 720 + 28, 3)
    colourful = np.ptp(picture[:1000], axis=-1) > 60
    left = np.argwhere(colourful[:, : 28 + 340 + 24])
    assert abs(left[:, 0].mean() - (28 + 479.5)) < 0.5


def test_colours_follow_the_position() -> None:
    keypoints = np.array([[20.0, 20.0], [21.0, 20.0], [280.0, 20.0], [20.0, 380.0]])
    picture = draw_matches(flat(400, 300), flat(400, 300), keypoints, keypoints, np.ones(4))
    colours = picture.astype(int)[
        28 + keypoints[:, 1].astype(int), 28 + keypoints[:, 0].astype(int)
    ]
    near = np.abs(colours[0] - colours[1]).max()
    across, down = (np.abs(colours[0] - colours[row]).max() for row in (2, 3))
    assert near <= 12
    assert across > 100
    assert down > 40


def test_outliers_are_faint_red_beneath_the_inliers() -> None:
    keypoints = np.array([[50.0, 100.0], [50.0, 300.0]])
    picture = draw_matches(
        flat(400, 300, 0),
        flat(400, 300, 0),
        keypoints,
        keypoints,
        np.ones(2),
        inlier_mask=np.array([True, False]),
    ).astype(int)
    inlier, outlier = picture[128, 78 + 100], picture[328, 78 + 100]  # on the lines
    assert outlier[0] > 1.5 * max(outlier[1:])
    assert 0 < outlier.max() < 90 < inlier.max()


def test_max_matches_limits_and_keeps_the_proportion() -> None:
    keypoints0, keypoints1, confidence = random_matches(300, 300, 400)
    images = (flat(400, 300, 0), flat(400, 300, 0))

    def drawn(max_matches: int) -> int:
        picture = draw_matches(*images, keypoints0, keypoints1, confidence, max_matches=max_matches)
        return int((picture[28:428].max(axis=-1) > 60).sum())

    assert drawn(0) == 0
    assert 0 < drawn(5) < drawn(50) < drawn(300)


def test_matches_outside_are_not_drawn() -> None:
    keypoints = np.array([[1e12, 5.0], [-40.0, 5.0]])
    images = (flat(400, 300), flat(400, 300))
    inside = np.full((2, 2), 9.0)
    shown = draw_matches(*images, keypoints, inside, np.ones(2))
    nothing = draw_matches(*images, inside, inside, np.ones(2), max_matches=0)
    np.testing.assert_array_equal(shown, nothing)


@pytest.mark.parametrize(
    ("size0", "size1"),
    [((1, 1), (1, 1)), ((1, 3000), (3000, 1)), ((1, 5000), (2, 5000)), ((2160, 3840), (30, 20))],
)
def test_any_size_fits(size0: tuple[int, int], size1: tuple[int, int]) -> None:
    origin = np.zeros((1, 2))
    picture = draw_matches(flat(*size0), flat(*size1), origin, origin, np.ones(1))
    assert 420 <= picture.shape[1] <= 2000
    assert 60 < picture.shape[0] <= 28 + 960 + 60


def test_long_titles_are_cut() -> None:
    images = (flat(10, 10), flat(10, 10))
    picture = draw_matches(*images, NONE, NONE, np.zeros(0), title="wide " * 200)
    assert (picture[:, -28:] == BACKGROUND).all()
    assert (picture[-60:, 400:640] > 200).any()


@pytest.mark.parametrize(
    ("changes", "argument"),
    [
        ({"image0": np.zeros((4, 4), np.uint8)}, "image0"),
        ({"image1": np.zeros((4, 4, 3))}, "image1"),
        ({"keypoints0": np.zeros(3)}, "keypoints0"),
        ({"keypoints1": np.zeros((2, 2))}, "keypoints1"),
        ({"confidence": np.ones(2)}, "confidence"),
        ({"confidence": np.array([np.nan])}, "confidence"),
        ({"inlier_mask": np.ones(1)}, "inlier_mask"),
        ({"max_matches": -1}, "max_matches"),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, object], argument: str) -> None:
    arguments: dict[str, object] = {
        "image0": flat(4, 4),
        "image1": flat(4, 4),
        "keypoints0": np.zeros((1, 2)),
        "keypoints1": np.zeros((1, 2)),
        "confidence": np.ones(1),
    }
    with pytest.raises(InputError) as caught:
        draw_matches(**{**arguments, **changes})  # type: ignore[arg-type]
    assert caught.value.argument == argument


@pytest.mark.parametrize("suffix", [".png", ".JPG", ".webp", ".bmp", ".tiff"])
def test_written_pictures_read_back(tmp_path: Path, suffix: str) -> None:
    picture = np.repeat(np.arange(0, 240, 5, dtype=np.uint8)[:, None, None], 40, axis=1)
    picture = np.repeat(picture, 3, axis=2)
    path = tmp_path / f"picture{suffix}"
    write_picture(path, flat(4, 4))
    write_picture(path, picture)  # replaces
    with Image.open(path) as opened:
        read = np.asarray(opened.convert("RGB")).astype(int)
    assert np.abs(read - picture).max() <= 4
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["picture", "picture.xyz", "nowhere/picture.png"])
def test_a_path_that_cannot_be_written(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="path: expected") as caught:
        write_picture(tmp_path / name, flat(4, 4))
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="path: expected a file, got the folder"):
        check_picture_path(tmp_path / "folder.png")


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match="No space left on device"):
        write_picture(path, flat(4, 4))
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["picture.png"]
