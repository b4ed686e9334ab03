"""COLMAP model files: written, read back, and read by pycolmap itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matcher.errors import DatasetError, InputError
from matcher.geometry.camera import project
from matcher.reconstruction import Reconstruction, RegisteredImage, SparsePoints
from matcher.reconstruction.colmap_model import read_model, write_model
from matcher.structures import Camera, ImageSize, Pose

pycolmap = pytest.importorskip("pycolmap")

SIZE = ImageSize(48, 64)


def turned(angle: float, translation: tuple[float, float, float]) -> Pose:
    c, s = np.cos(angle), np.sin(angle)
    return Pose(np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]), np.array(translation))


def scene() -> Reconstruction:
    """Three photographs, two cameras, 40 points; the third photograph sees only ten of them."""
    rng = np.random.default_rng(3)
    shared = Camera.pinhole(60.0, 61.0, 31.25, 23.5, SIZE)
    own = Camera("OPENCV", (58.0, 59.0, 30.0, 24.0, 0.01, 0.0, 0.001, 0.0), SIZE)
    images = (
        RegisteredImage("left.jpg", shared, turned(0.0, (0, 0, 0)), SIZE),
        RegisteredImage("sub/right.jpg", shared, turned(-0.1, (-1, 0, 0)), SIZE),
        RegisteredImage("far.jpg", own, turned(0.1, (1, 0, 0.5)), SIZE),
    )
    positions = rng.uniform((-1, -1, 4), (1, 1, 6), (40, 3))
    point = np.concatenate([np.arange(40), np.arange(40), np.arange(10)])
    image = np.repeat([0, 1, 2], [40, 40, 10])
    seen = [
        project(images[i].cam_from_world.transform(positions[p][None]), images[i].camera)[0]
        for p, i in zip(point, image, strict=True)
    ]
    order = rng.permutation(len(point))
    points = SparsePoints(
        positions,
        rng.integers(0, 256, (40, 3)).astype(np.uint8),
        rng.uniform(0.1, 1, 40),
        point[order].astype(np.int64),
        image[order].astype(np.int64),
        np.array(seen)[order],
    )
    return Reconstruction(images, points, {"lost.jpg": "nothing in common with the others"})


def observations(points: SparsePoints) -> list[tuple[float, ...]]:
    columns = (points.observation_image, points.observation_point, *points.observation_keypoint.T)
    return sorted(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_written_is_read_back(tmp_path: Path, binary: bool) -> None:
    made = scene()
    write_model(made, tmp_path / "a" / "sparse", binary=binary)
    read = read_model(tmp_path / "a" / "sparse")
    assert read.names == made.names
    for ours, theirs in zip(made.images, read.images, strict=True):
        assert theirs.camera == ours.camera
        assert theirs.size == ours.size
        np.testing.assert_allclose(
            theirs.cam_from_world.matrix, ours.cam_from_world.matrix, atol=1e-12
        )
    np.testing.assert_array_equal(read.points.positions, made.points.positions)
    np.testing.assert_array_equal(read.points.colors, made.points.colors)
    np.testing.assert_array_equal(read.points.errors_px, made.points.errors_px)
    np.testing.assert_allclose(observations(read.points), observations(made.points), atol=1e-12)


@pytest.mark.parametrize("binary", [True, False])
def test_pycolmap_finds_pixels_half_a_pixel_further(tmp_path: Path, binary: bool) -> None:
    made = scene()
    write_model(made, tmp_path, binary=binary)
    raw = pycolmap.Reconstruction(str(tmp_path))
    assert (raw.num_cameras(), raw.num_reg_images(), raw.num_points3D()) == (2, 3, 40)
    assert raw.cameras[1].params.tolist() == [60.0, 61.0, 31.75, 24.0]
    image = raw.find_image_with_name("sub/right.jpg")
    seen = {point.point3D_id - 1: point.xy for point in image.points2D}
    points = made.points
    rows = np.flatnonzero(points.observation_image == 1)
    assert len(seen) == len(rows) == 40
    for row in rows:
        np.testing.assert_array_equal(
            seen[int(points.observation_point[row])], points.observation_keypoint[row] + 0.5
        )
    # The keypoints are exact projections, so COLMAP's own reprojection error has to vanish.
    raw.update_point_3d_errors()
    assert raw.compute_mean_reprojection_error() < 1e-9
    assert raw.compute_mean_track_length() == pytest.approx(90 / 40)


def test_the_other_format_is_replaced_and_strange_files_stay(tmp_path: Path) -> None:
    write_model(scene(), tmp_path)
    (tmp_path / "notes.md").write_text("mine")
    smaller = Reconstruction(scene().images[:2])
    write_model(smaller, tmp_path, binary=False)
    assert not list(tmp_path.glob("*.bin"))
    assert (tmp_path / "notes.md").read_text() == "mine"
    assert read_model(tmp_path).names == smaller.names
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_failed_write_leaves_the_old_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(scene(), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    real = pycolmap.Reconstruction.write_binary

    def write_on_a_full_disk(self: Any, folder: str) -> None:
        real(self, folder)
        points = Path(folder) / "points3D.bin"
        points.write_bytes(points.read_bytes()[:100])  # COLMAP's streams do not complain

    monkeypatch.setattr(pycolmap.Reconstruction, "write_binary", write_on_a_full_disk)
    with pytest.raises(DatasetError, match=r"cannot write the COLMAP model .*not whole"):
        write_model(Reconstruction(scene().images[:2], scene_of_two()), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def scene_of_two() -> SparsePoints:
    """The points of the scene as its first two photographs see them."""
    points = scene().points
    keep = points.observation_image < 2
    return SparsePoints(
        points.positions,
        points.colors,
        points.errors_px,
        points.observation_point[keep],
        points.observation_image[keep],
        points.observation_keypoint[keep],
    )


def test_a_folder_that_cannot_be_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DatasetError, match="cannot write the COLMAP model"):
        write_model(scene(), tmp_path / "file")


def test_a_name_with_a_blank_needs_a_binary_model(tmp_path: Path) -> None:
    image = scene().images[0]
    odd = RegisteredImage("my photo.jpg", image.camera, image.cam_from_world, image.size)
    with pytest.raises(InputError, match="write it binary"):
        write_model(Reconstruction((odd,)), tmp_path, binary=False)
    assert not list(tmp_path.iterdir())
    write_model(Reconstruction((odd,)), tmp_path)
    assert read_model(tmp_path).names == ("my photo.jpg",)


def test_nothing_registered_is_an_empty_model(tmp_path: Path) -> None:
    write_model(Reconstruction(()), tmp_path)
    read = read_model(tmp_path)
    assert (len(read.images), len(read.points)) == (0, 0)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_model_of_before_the_rigs_is_read(tmp_path: Path) -> None:
    write_model(scene(), tmp_path, binary=False)
    (tmp_path / "rigs.txt").unlink()
    (tmp_path / "frames.txt").unlink()
    read = read_model(tmp_path)
    assert read.names == scene().names
    np.testing.assert_allclose(
        read.images[1].cam_from_world.matrix, scene().images[1].cam_from_world.matrix, atol=1e-12
    )


def test_a_model_whose_points_were_taken_out_has_none(tmp_path: Path) -> None:
    write_model(scene(), tmp_path, binary=False)
    (tmp_path / "points3D.txt").write_text("")
    read = read_model(tmp_path)
    assert read.names == scene().names
    assert (len(read.points), len(read.points.observation_image)) == (0, 0)


def test_points_of_a_missing_image_are_an_error(tmp_path: Path) -> None:
    write_model(scene(), tmp_path, binary=False)
    lines = lines_of(tmp_path / "images.txt")
    (tmp_path / "images.txt").write_text("\n".join(lines[:4] + lines[6:]) + "\n")
    with pytest.raises(DatasetError, match="cannot read the COLMAP model.*1"):
        read_model(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("stem", ["cameras", "frames", "images", "points3D", "rigs"])
def test_a_model_cut_short_is_an_error(tmp_path: Path, stem: str, part: float) -> None:
    write_model(scene(), tmp_path)
    path = tmp_path / f"{stem}.bin"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(DatasetError, match=rf"{stem}\.bin: .*is not whole"):
        read_model(tmp_path)


def test_a_rig_of_several_cameras_counts_as_whole(tmp_path: Path) -> None:
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 3, 2
    options.num_points3D = 20
    pycolmap.synthesize_dataset(options).write_binary(str(tmp_path))
    assert len(read_model(tmp_path).images) == 12


def test_a_lens_that_is_none_of_ours_names_the_image(tmp_path: Path) -> None:
    write_model(scene(), tmp_path, binary=False)
    lines = lines_of(tmp_path / "cameras.txt")
    lines = [line.replace("OPENCV", "OPENCV_FISHEYE") for line in lines]
    (tmp_path / "cameras.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match=r"camera of far\.jpg.*OPENCV_FISHEYE"):
        read_model(tmp_path)


def test_an_image_without_a_pose_is_unregistered(tmp_path: Path) -> None:
    write_model(scene(), tmp_path)
    raw = pycolmap.Reconstruction(str(tmp_path))
    raw.deregister_frame(raw.images[2].frame_id)
    raw.write_binary(str(tmp_path))
    read = read_model(tmp_path)
    # COLMAP may leave unregistered images out of its files; either way it has no place.
    assert read.names == ("left.jpg", "far.jpg")
    assert set(read.unregistered) <= {"sub/right.jpg"}
    assert read.points.observation_image.max() == 1
