from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image

from matcher.errors import InputError
from matcher.photographs import Photographs
from matcher.reconstruction import Reconstruction, SparsePoints
from matcher.reconstruction.coloring import colored
from tests.unit.reconstruction.rendered import plane_cameras, plane_reconstruction


@pytest.fixture
def pictures(tmp_path):
    """Red tells the row, blue the column, green the photograph."""
    made = []
    for index in range(3):
        rows, columns = np.mgrid[:120, :160]
        picture = np.stack([rows * 2, np.full_like(rows, 40 * index), columns], -1)
        made.append(picture.astype(np.uint8))
        Image.fromarray(made[-1]).save(tmp_path / f"{index}.png")
    return Photographs.from_folder(tmp_path), made


def test_pointmaps_take_the_mean_of_what_they_cover(pictures):
    photographs, made = pictures
    scene = colored(plane_reconstruction(3), photographs)
    for image, picture in zip(scene.images, made, strict=True):
        # A pixel of the pointmap covers two by two of the photograph.
        expected = picture.reshape(60, 2, 80, 2, 3).mean(axis=(1, 3))
        assert np.abs(image.dense.colors - expected).max() <= 1


def test_triangulated_points_take_the_mean_of_their_observations(pictures):
    photographs, made = pictures
    sparse = SparsePoints(
        np.zeros((3, 3)),
        np.full((3, 3), 9, np.uint8),
        np.zeros(3),
        np.array([0, 0, 1]),
        np.array([0, 2, 1]),
        np.array([[10.2, 20], [30, 40.4], [-0.5, 119.5]]),
    )
    scene = colored(Reconstruction(plane_cameras(3), sparse), photographs)
    expected = (made[0][20, 10].astype(float) + made[2][40, 30]) / 2
    np.testing.assert_allclose(scene.points.colors[0], expected, atol=0.5)
    np.testing.assert_array_equal(scene.points.colors[1], made[1][119, 0])
    np.testing.assert_array_equal(scene.points.colors[2], 9)


def test_a_photograph_of_another_size_or_none(pictures):
    photographs, _ = pictures
    scene = plane_reconstruction(3)
    Image.new("RGB", (80, 60)).save(photographs.root / "1.png")
    with pytest.raises(InputError, match=r"1\.png: expected 160 x 120.*80 x 60"):
        colored(scene, photographs)
    few = dataclasses.replace(photographs, names=("0.png",))
    with pytest.raises(InputError, match=r"1\.png"):
        colored(scene, few)
    # Photographs that colour nothing need not be there.
    bare = Reconstruction(plane_cameras(3))
    assert colored(bare, few).names == bare.names
