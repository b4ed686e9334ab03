"""Importing COLMAP models: exact on a synthetic model, and close on rendered photographs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from matcher.errors import DatasetError, InputError, MissingDependencyError
from matcher.training.colmap_import import main
from matcher.training.colmap_pairs import pairs_from_reconstruction
from matcher.training.colmap_sfm import SfmOptions, reconstruct_folder
from matcher.training.guided_matches import GuidedOptions, symmetric_epipolar_distance
from matcher.training.manifest import (
    CorrespondencePair,
    read_correspondences,
    read_pairs,
    read_views,
)

HEIGHT, WIDTH, FOCAL = 240, 320, 300.0
# Turned about the vertical axis around a point 4 units away: degrees of the three photographs.
ANGLES = (0.0, 12.0, 25.0)


def epipolar_errors(pair: CorrespondencePair) -> npt.NDArray[np.float64]:
    assert pair.cam1_from_cam0 is not None
    x, y, z = pair.cam1_from_cam0.translation
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ pair.cam1_from_cam0.rotation
    fundamental = (
        np.linalg.inv(pair.camera1.matrix).T @ essential @ np.linalg.inv(pair.camera0.matrix)
    )
    pixels0, pixels1 = (
        keypoints.astype(np.float64) for keypoints in read_correspondences(pair.correspondences)
    )
    return symmetric_epipolar_distance(pixels0, pixels1, fundamental)


def rendered_poses() -> list[npt.NDArray[np.float64]]:
    """(4, 4) cam_from_world of the rendered photographs."""
    poses = []
    for degrees in ANGLES:
        rotation, _ = cv2.Rodrigues(np.array([0.0, np.radians(degrees), 0.0]))
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pivot = np.array([0.0, 0.0, 4.0])
        pose[:3, 3] = pivot - rotation @ pivot
        poses.append(pose)
    return poses


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photographs of a textured wall at depth 5 behind two textured boards."""
    folder = tmp_path_factory.mktemp("places") / "walls"
    folder.mkdir()
    generator = np.random.default_rng(0)
    k = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    # (x, y) of the centre, half size and depth of each board, far to near.
    boards = [(0.0, 0.0, 4.0, 5.0), (-1.1, 0.3, 0.8, 3.6), (0.9, -0.3, 0.7, 4.2)]
    textures = []
    for _ in boards:
        coarse = generator.uniform(0, 255, (110, 110)).astype(np.float32)
        textures.append(cv2.resize(coarse, (880, 880), interpolation=cv2.INTER_CUBIC).clip(0, 255))
    for index, pose in enumerate(rendered_poses()):
        image = np.zeros((HEIGHT, WIDTH), dtype=np.float32)
        for (x, y, half, depth), texture in zip(boards, textures, strict=True):
            step = 2 * half / 879
            world_from_texel = np.array([[step, 0, x - half], [0, step, y - half], [0, 0, depth]])
            world_from_texel = np.vstack([world_from_texel, [0, 0, 1]])
            homography = k @ pose[:3] @ world_from_texel
            warp = {"dsize": (WIDTH, HEIGHT), "flags": cv2.INTER_LINEAR}
            cover = cv2.warpPerspective(np.ones_like(texture), homography, **warp)
            image = np.where(cover > 0.5, cv2.warpPerspective(texture, homography, **warp), image)
        cv2.imwrite(str(folder / f"{index}.png"), image.astype(np.uint8))
    return folder


def synthetic_model(pycolmap: Any, image_dir: Path) -> Any:
    """A model of four distorted cameras, with blank photographs to undistort."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs = 1
    options.num_frames_per_rig = 4
    options.num_points3D = 120
    options.camera_width, options.camera_height = WIDTH, HEIGHT
    options.camera_params = [400.0, WIDTH / 2, HEIGHT / 2, 0.05]
    model = pycolmap.synthesize_dataset(options)
    for image in model.images.values():
        path = image_dir / image.name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8))
    return model


def test_a_synthetic_model_gives_exact_undistorted_correspondences(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    model = synthetic_model(pycolmap, tmp_path / "photos")
    out = tmp_path / "out"
    pairs = pairs_from_reconstruction(model, tmp_path / "photos", out, group="ball")
    assert len(pairs) == 6
    poses = {image.name: image.cam_from_world().matrix() for image in model.images.values()}
    points = np.array([point.xyz for point in model.points3D.values()])
    for pair, again in zip(pairs, read_pairs(out / "pairs.jsonl"), strict=True):
        assert again.group == "ball"
        assert again.image0.is_file()
        assert epipolar_errors(again).max() < 1e-3
        # Every keypoint is the projection of some point: the half pixel shift is right as well.
        keypoints0, keypoints1 = read_correspondences(again.correspondences)
        assert len(keypoints0) >= 40
        sides = [(pair.image0, pair.camera0, keypoints0), (pair.image1, pair.camera1, keypoints1)]
        for image, camera, keypoints in sides:
            pose = poses[image.relative_to(out / "images").as_posix()]
            in_camera = points @ pose[:, :3].T + pose[:, 3]
            projected = (in_camera / in_camera[:, 2:]) @ camera.matrix.T
            gaps = np.linalg.norm(keypoints[:, None] - projected[None, :, :2], axis=2)
            assert gaps.min(axis=1).max() < 1e-2
            written = cv2.imread(str(image)).shape
            assert camera.principal_point == pytest.approx(
                (written[1] / 2 - 0.5, written[0] / 2 - 0.5), abs=1.0
            )
    assert len(read_views(out / "views.jsonl")) == 4


def test_pairs_need_enough_shared_points_and_small_errors(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    photos = tmp_path / "photos"
    model = synthetic_model(pycolmap, photos)
    assert pairs_from_reconstruction(model, photos, tmp_path / "a", min_shared_points=121) == []
    noise = pycolmap.SyntheticNoiseOptions()
    noise.point2D_stddev = 1.5
    pycolmap.synthesize_noise(noise, model)
    noisy = pairs_from_reconstruction(model, photos, tmp_path / "b", max_epipolar_error=1.0)
    assert max(epipolar_errors(pair).max() for pair in noisy) < 1.0 + 1e-3


def test_photographs_become_pairs_with_the_poses_they_were_rendered_with(
    photographs: Path, tmp_path: Path
) -> None:
    pytest.importorskip("pycolmap")
    models = reconstruct_folder(photographs, tmp_path, options=SfmOptions(max_features=800))
    assert len(models) == 1
    tracked = pairs_from_reconstruction(models[0], photographs, tmp_path / "tracked")
    counts = [len(read_correspondences(pair.correspondences)[0]) for pair in tracked]
    assert len(tracked) == 3
    expected = (12.0, 25.0, 13.0)
    for pair, degrees in zip(tracked, expected, strict=True):
        assert pair.group == "walls"
        assert pair.rotation_degrees == pytest.approx(degrees, abs=1.5)
        assert np.median(epipolar_errors(pair)) < 0.5
    guided = pairs_from_reconstruction(
        models[0], photographs, tmp_path / "guided", guided=GuidedOptions(max_features=1000)
    )
    for pair, count in zip(guided, counts, strict=True):
        assert len(read_correspondences(pair.correspondences)[0]) > count
        assert epipolar_errors(pair).max() < 2.0 + 1e-3


def test_the_program_prints_one_line_a_place(
    photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycolmap")
    places = tmp_path / "places"
    (places / "one").mkdir(parents=True)
    (places / "one" / "0.png").write_bytes((photographs / "0.png").read_bytes())
    (places / "none").mkdir()
    assert main([str(places), str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "none: 0 models, 0 images in 0 pairs",
        "one: 0 models, 0 images in 0 pairs",
    ]
    assert read_pairs(tmp_path / "out" / "pairs.jsonl") == []


def test_broken_input_is_named(tmp_path: Path) -> None:
    pytest.importorskip("pycolmap")
    with pytest.raises(DatasetError, match=r"gone: no such folder of images"):
        reconstruct_folder(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(DatasetError, match=r"gone: no such folder of images"):
        main([str(tmp_path / "gone"), str(tmp_path / "out")])
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"no image")
    with pytest.raises(DatasetError, match=r"a\.jpg: cannot read this image"):
        reconstruct_folder(photos, tmp_path / "out")
    with pytest.raises(DatasetError, match=r"nowhere: cannot read this COLMAP model"):
        pairs_from_reconstruction(tmp_path / "nowhere", photos, tmp_path / "out")
    with pytest.raises(InputError, match="min_shared_points: expected at least 1, got 0"):
        pairs_from_reconstruction(tmp_path, photos, tmp_path / "out", min_shared_points=0)
    with pytest.raises(InputError, match="max_epipolar_error: expected a positive number"):
        pairs_from_reconstruction(tmp_path, photos, tmp_path / "out", max_epipolar_error=0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"ratio": 0.0},
        {"max_features": 0},
        {"threads": 0},
    ],
)
def test_senseless_sfm_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        SfmOptions(**options)


@pytest.mark.parametrize(
    "options",
    [{"ratio": 1.1}, {"max_distance": 0.0}, {"max_depth_ratio": 1.0}, {"neighbours": 0}],
)
def test_senseless_guided_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        GuidedOptions(**options)


def test_without_pycolmap_the_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'widebase\[colmap\]'"):
        reconstruct_folder(tmp_path, tmp_path / "out")
    with pytest.raises(MissingDependencyError, match="pycolmap"):
        pairs_from_reconstruction(tmp_path, tmp_path, tmp_path / "out")


def test_the_epipolar_distance_is_the_larger_of_both_sides() -> None:
    # Sideways motion with focals 1 and 2: the lines are rows, v0 = v1 / 2.
    fundamental = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, -0.5], [0.0, 1.0, 0.0]])
    distance = symmetric_epipolar_distance(
        np.array([[3.0, 5.0], [0.0, 1.0]]), np.array([[7.0, 12.0], [4.0, 2.0]]), fundamental
    )
    # Row 0: image 1 expects v = 10 (2 away), image 0 expects v = 6 (1 away).
    np.testing.assert_allclose(distance, [2.0, 0.0], atol=1e-12)
