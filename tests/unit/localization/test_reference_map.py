"""What maps are made of, what is left out with which reason, and maps on disk."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from matcher import Camera, DatasetError, ImageSize, InputError, MatchingOptions, PairOptions
from matcher.localization import LocalizationOptions, ReferenceMap
from matcher.localization.map_files import MAP_NAME
from matcher.reconstruction.model import (
    DensePoints,
    Reconstruction,
    RegisteredImage,
    SparsePoints,
)
from tests.localization_scene import SIZE, sparse_reconstruction, surface_points

DENSE = LocalizationOptions(pair=PairOptions(max_size=256, matching=MatchingOptions(subsample=4)))


def metres_off(answer, scene):
    assert answer.reason is None
    return np.linalg.norm(answer.center - scene.query.cam_from_world.inverse.translation)


def test_triangulated_points_give_the_pose(scene, matcher):
    """Matches miss the keypoints by pixels; carrying these over brings it below a centimetre."""
    scene_map = ReferenceMap.from_reconstruction(
        sparse_reconstruction(scene), images=scene.folder / "images"
    )
    answer = scene_map.localize(matcher, scene.query_path, scene.camera, options=DENSE)
    assert not answer.is_metric
    assert answer.num_inliers > 300
    assert metres_off(answer, scene) < 0.01


def test_pointmaps_give_the_pose(scene, matcher):
    images = []
    for view, path in zip(scene.views, scene.images, strict=True):
        y, x = np.mgrid[: SIZE[0], : SIZE[1]]
        pixels = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
        points = surface_points(view, pixels).reshape(*SIZE, 3).astype(np.float32)
        confidence = np.full(SIZE, 3, np.float32)
        confidence[:, :60] = 1.2  # unsure, and wrong
        points[:, :60] += 1
        dense = DensePoints(points, confidence, view.image, np.eye(3))
        images.append(
            RegisteredImage(path.name, view.camera, view.cam_from_world, ImageSize(*SIZE), dense)
        )
    reconstruction = Reconstruction(tuple(images), is_metric=True)
    scene_map = ReferenceMap.from_reconstruction(reconstruction, images=scene.folder / "images")
    answer = scene_map.localize(matcher, scene.query_path, scene.camera)
    assert answer.is_metric
    assert metres_off(answer, scene) < 0.01
    assert np.all(answer.correspondences.reference_keypoints[:, 0] > 58)


def test_a_colmap_model_with_missing_photographs_is_a_partial_map(scene, matcher, tmp_path):
    pytest.importorskip("pycolmap")
    from matcher.reconstruction.colmap_model import write_model

    reconstruction = sparse_reconstruction(scene)
    write_model(reconstruction, tmp_path / "model")
    images = tmp_path / "images"
    images.mkdir()
    for path in scene.images[:4]:
        shutil.copy(path, images)
    # One is stored at twice the size, one with another shape, one is no photograph.
    Image.open(scene.images[1]).resize((512, 384)).save(images / "1.png")
    Image.open(scene.images[0]).resize((256, 256)).save(images / "0.png")
    (images / "3.png").write_bytes(b"no photograph")
    scene_map = ReferenceMap.from_colmap(tmp_path / "model", images=images)
    assert scene_map.names == ("1.png", "2.png")
    assert set(scene_map.missing) == {"0.png", "3.png", "4.png"}
    assert "nothing at" in scene_map.missing["4.png"]
    assert "the aspect of its photograph (256 x 256)" in scene_map.missing["0.png"]
    assert "image file" in scene_map.missing["3.png"]
    answer = scene_map.localize(matcher, scene.query_path, scene.camera, options=DENSE)
    assert metres_off(answer, scene) < 0.02
    with pytest.raises(InputError, match=r"at least one photograph with 3-D points, got none \(0"):
        ReferenceMap.from_colmap(tmp_path / "model", images=tmp_path)


def test_a_model_without_points_is_refused(scene):
    reconstruction = dataclasses.replace(sparse_reconstruction(scene), points=SparsePoints.empty())
    with pytest.raises(InputError, match="3-D points that the photograph observes, got none"):
        ReferenceMap.from_reconstruction(reconstruction, images=scene.folder / "images")


def test_an_unregistered_photograph_stays_named(scene):
    reconstruction = dataclasses.replace(
        sparse_reconstruction(scene), unregistered={"x.png": "another place"}
    )
    scene_map = ReferenceMap.from_reconstruction(reconstruction, images=scene.folder / "images")
    assert scene_map.missing == {"x.png": "another place"}


@pytest.mark.parametrize("size", [(96, 128), (384, 512), (48, 64)])
def test_depth_of_another_size_is_scaled(scene, matcher, size):
    depths = [
        cv2.resize(view.depth, size[::-1], interpolation=cv2.INTER_AREA) for view in scene.views
    ]
    scene_map = ReferenceMap.from_rgbd(
        scene.images, depths, scene.poses, scene.camera, depth_scale=1.0
    )
    answer = scene_map.localize(matcher, scene.query_path, scene.camera)
    assert metres_off(answer, scene) < 0.01


def test_depth_that_cannot_be_used_is_left_out_by_name(scene, tmp_path):
    depths = [tmp_path / f"{name}.png" for name in ("aspect", "gone", "empty", "colour")]
    cv2.imwrite(str(depths[0]), np.full((192, 200), 4000, np.uint16))
    cv2.imwrite(str(depths[2]), np.zeros(SIZE, np.uint16))
    cv2.imwrite(str(depths[3]), np.zeros((*SIZE, 3), np.uint8))
    depths.append(scene.depths[4])
    scene_map = ReferenceMap.from_rgbd(scene.images, depths, scene.poses, scene.camera)
    assert scene_map.names == ("4.png",)
    expected = {
        "0.png": "expected the aspect of its photograph (256 x 192), got 200 x 192",
        "1.png": "expected a file, got nothing at",
        "2.png": "expected a depth somewhere, got none at all",
        "3.png": "expected one number a pixel, got uint8 of shape (192, 256, 3)",
    }
    assert scene_map.missing.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in scene_map.missing[name]
    with pytest.raises(InputError, match="at least one photograph with 3-D points"):
        ReferenceMap.from_rgbd(scene.images[:1], depths[:1], scene.poses[:1], scene.camera)
    with pytest.raises(InputError, match="depths: expected 5, one a photograph, got 1"):
        ReferenceMap.from_rgbd(scene.images, depths[:1], scene.poses, scene.camera)
    with pytest.raises(InputError, match="names that appear once"):
        ReferenceMap.from_rgbd(
            scene.images[:1] * 2, scene.depths[:1] * 2, scene.poses[:1] * 2, scene.camera
        )


def test_a_list_of_rgbd_images_names_its_broken_lines(scene, tmp_path):
    lines = (scene.folder / "map.jsonl").read_text().splitlines()
    entries = [json.loads(line) for line in lines]
    for entry in entries:
        entry["image"] = str(scene.folder / entry["image"])
        entry["depth"] = str(scene.folder / entry["depth"])
    del entries[0]["cam_from_world"]
    entries[1]["cam_from_world"] = np.ones((4, 4)).tolist()
    entries[2]["camera"] = {"model": "PINHOLE", "params": scene.camera.params}
    path = tmp_path / "map.jsonl"
    path.write_text("\n".join([*map(json.dumps, entries), "", "{broken"]))
    scene_map = ReferenceMap.from_rgbd_list(path)
    assert len(scene_map) == 3
    assert scene_map.missing.keys() == {"map.jsonl:1", "map.jsonl:2", "map.jsonl:7"}
    assert scene_map.missing["map.jsonl:1"] == "no 'cam_from_world'"
    assert scene_map.references[0].camera.params == scene.camera.params
    with pytest.raises(DatasetError, match="No such file"):
        ReferenceMap.from_rgbd_list(tmp_path / "absent.jsonl")


def test_a_saved_map_gives_the_same_answer(scene, matcher, rgbd_map, tmp_path):
    indexed = rgbd_map.with_retrieval(matcher)
    options = LocalizationOptions(num_references=2)
    indexed.save(tmp_path / "map")
    loaded = ReferenceMap.load(tmp_path / "map")
    first = indexed.localize(matcher, scene.query_path, scene.camera, options=options)
    second = loaded.localize(matcher, scene.query_path, scene.camera, options=options)
    np.testing.assert_array_equal(first.cam_from_world.matrix, second.cam_from_world.matrix)
    assert second.is_metric
    loaded.save(tmp_path / "map")  # over itself
    assert ReferenceMap.load(tmp_path / "map").names == rgbd_map.names
    assert os.listdir(tmp_path) == ["map"]


def test_sparse_points_survive_the_disk(scene, matcher, tmp_path):
    scene_map = ReferenceMap.from_reconstruction(
        sparse_reconstruction(scene), images=scene.folder / "images"
    )
    scene_map.save(tmp_path / "map")
    loaded = ReferenceMap.load(tmp_path / "map")
    answers = [
        one.localize(matcher, scene.query_path, scene.camera, options=DENSE).cam_from_world.matrix
        for one in (scene_map, loaded)
    ]
    np.testing.assert_array_equal(*answers)


def test_photographs_may_move(scene, rgbd_map, tmp_path, matcher):
    shutil.copytree(scene.folder / "images", tmp_path / "old" / "images")
    moved = ReferenceMap.from_rgbd(
        [tmp_path / "old" / "images" / path.name for path in scene.images],
        scene.depths,
        scene.poses,
        scene.camera,
    ).with_retrieval(matcher)
    moved.save(tmp_path / "old" / "map")
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(ReferenceMap.load(tmp_path / "new" / "map")) == 5
    (tmp_path / "new" / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="at least one photograph"):
        ReferenceMap.load(tmp_path / "new" / "map")
    (tmp_path / "elsewhere" / "3.png").unlink()
    Image.open(scene.images[0]).resize((128, 96)).save(tmp_path / "elsewhere" / "0.png")
    loaded = ReferenceMap.load(tmp_path / "new" / "map", images=tmp_path / "elsewhere")
    assert loaded.names == loaded.retrieval.names == ("1.png", "2.png", "4.png")
    assert "256 x 192 pixels, as when the map was built" in loaded.missing["0.png"]
    assert "nothing at" in loaded.missing["3.png"]


@pytest.mark.parametrize("part", [MAP_NAME, "retrieval.npz", "points/000002.npz"])
@pytest.mark.parametrize("damage", ["cut", "flip", "remove"])
def test_a_damaged_map_is_refused(scene, rgbd_map, matcher, tmp_path, part, damage):
    rgbd_map.with_retrieval(matcher).save(tmp_path / "map")
    path = tmp_path / "map" / part
    content = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "remove":
        path.unlink()
    else:
        place = content.find(b"256") if part == MAP_NAME else len(content) // 2
        content[place] ^= 1
        path.write_bytes(content)
    with pytest.raises(DatasetError, match="broken|no map"):
        ReferenceMap.load(tmp_path / "map").localize(matcher, scene.query_path, scene.camera)


def test_a_map_is_written_whole_or_not_at_all(rgbd_map, matcher, tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("mine")
    with pytest.raises(InputError, match="a new folder, or one that holds a map"):
        rgbd_map.save(tmp_path / "taken")
    rgbd_map.save(tmp_path / "map")
    before = (tmp_path / "map" / MAP_NAME).read_bytes()

    def full_disk(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full_disk)
    for target in ("map", "other"):
        with pytest.raises(InputError, match="No space left on device"):
            rgbd_map.with_retrieval(matcher).save(tmp_path / target)
    assert (tmp_path / "map" / MAP_NAME).read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["map", "taken"]
    assert (tmp_path / "taken" / "file").read_text() == "mine"


def test_a_single_photograph_is_not_saved(scene, tmp_path):
    with pytest.raises(InputError, match="a single photograph without"):
        ReferenceMap.from_image(scene.images[0]).save(tmp_path / "map")
    with pytest.raises(DatasetError, match="no map at"):
        ReferenceMap.load(tmp_path)


def test_a_camera_with_a_lens_unprojects_through_it(scene, matcher):
    """The true depth through a wrong lens bends the map: the camera is used whole."""
    focal, _, cx, cy = scene.camera.params
    bent = Camera("OPENCV", (focal, focal, cx, cy, -0.1, 0.02, 0, 0))
    scene_map = ReferenceMap.from_rgbd(scene.images, scene.depths, scene.poses, bent)
    assert scene_map.references[0].camera.distortion[0] == -0.1
    straight = scene_map.localize(matcher, scene.query_path, scene.camera)
    assert metres_off(straight, scene) > 0.01


def test_a_map_needs_a_reference():
    with pytest.raises(InputError, match="at least one photograph with 3-D points, got none"):
        ReferenceMap(())
    with pytest.raises(InputError, match="at least one photograph"):
        ReferenceMap.from_rgbd([], [], [], [])
    with pytest.raises(InputError, match="a positive number"):
        ReferenceMap.from_rgbd([], [], [], [], depth_scale=0)
