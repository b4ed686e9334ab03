from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from matcher import InputError, PairOptions, RelativePoseOptions
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.synthetic import make_test_pair
from tests.relief import relief_matcher, relief_pair

ONE_WAY = PairOptions(max_size=320, crops="never")
BOTH_WAYS = PairOptions.from_dict(
    {"max_size": 320, "crops": "never", "matching": {"symmetric": True}}
)


@pytest.fixture(scope="module")
def pair():
    return relief_pair()


@pytest.fixture(scope="module")
def result(pair):
    return relief_matcher(pair, ONE_WAY).match(pair.image0, pair.image1)


@pytest.fixture(scope="module")
def symmetric_result(pair):
    return relief_matcher(pair, BOTH_WAYS, is_metric=True).match(pair.image0, pair.image1)


@pytest.fixture(scope="module")
def empty_result(pair):
    blank = np.zeros((40, 50, 3), dtype=np.uint8)
    return relief_matcher(pair, ONE_WAY).match(pair.image0, blank)


def errors_deg(pose, pair):
    found, true = pose.cam1_from_cam0, pair.cam1_from_cam0
    return (
        rotation_error_deg(found.rotation, true.rotation),
        translation_error_deg(found.translation, true.translation),
    )


def test_pose_with_known_cameras(result, pair):
    pose = result.relative_pose(pair.camera0, pair.camera1)
    rotation, translation = errors_deg(pose, pair)
    assert rotation < 0.15
    assert translation < 0.5
    assert pose.method == "essential"
    assert not pose.is_metric
    assert np.linalg.norm(pose.cam1_from_cam0.translation) == pytest.approx(1)
    assert pose.inlier_mask.shape == (len(result),)


def test_pose_without_cameras_takes_focals_from_the_pointmaps(result, symmetric_result, pair):
    true_focal = pair.camera0.focals[0]
    assert result.pointmaps.focal0() == pytest.approx(true_focal, rel=0.01)
    assert result.pointmaps.focal1() is None
    assert symmetric_result.pointmaps.focal1() == pytest.approx(true_focal, rel=0.01)
    for found in (result, symmetric_result):
        pose = found.relative_pose()
        rotation, translation = errors_deg(pose, pair)
        assert rotation < 0.5
        assert translation < 2.0
        assert pose.camera0.focals[0] == pytest.approx(true_focal, rel=0.02)
        assert pose.camera1.focals[0] == pytest.approx(true_focal, rel=0.02)


def test_pose_with_one_camera(result, pair):
    for cameras in ((pair.camera0, None), (None, pair.camera1)):
        rotation, translation = errors_deg(result.relative_pose(*cameras), pair)
        assert rotation < 0.5
        assert translation < 2.0


@pytest.mark.parametrize("method", ["auto", "pnp", "procrustes"])
def test_metric_translation(symmetric_result, pair, method):
    options = RelativePoseOptions(method=method)
    pose = symmetric_result.relative_pose(pair.camera0, pair.camera1, options=options)
    rotation, translation = errors_deg(pose, pair)
    assert rotation < 0.3
    assert translation < 1.0
    assert pose.is_metric
    expected = np.linalg.norm(pair.cam1_from_cam0.translation)
    assert np.linalg.norm(pose.cam1_from_cam0.translation) == pytest.approx(expected, rel=0.02)


def test_procrustes_needs_symmetric_matching(result, pair):
    options = RelativePoseOptions(method="procrustes")
    with pytest.raises(InputError, match="points1_in_camera1"):
        result.relative_pose(pair.camera0, pair.camera1, options=options)


def test_pointmaps_are_without_padding(pair):
    odd = relief_pair((151, 203), (203, 151))
    maps = relief_matcher(odd, BOTH_WAYS).match(odd.image0, odd.image1).pointmaps
    assert maps.points0.shape == (151, 203, 3)
    assert maps.points1.shape == (203, 151, 3)
    assert maps.points1_in_camera1.shape == (203, 151, 3)
    assert maps.confidence0.shape == (151, 203)
    # Both pointmaps are in camera 0's frame, the third in camera 1's.
    moved = odd.cam1_from_cam0.transform(maps.points1)
    np.testing.assert_allclose(moved, maps.points1_in_camera1, atol=1e-5)


def test_saved_file_holds_all_of_it(result, tmp_path):
    path = tmp_path / "pair.npz"
    result.save(path)
    with np.load(path) as saved:
        assert set(saved) == {
            "keypoints0",
            "keypoints1",
            "confidence",
            "size0",
            "size1",
            "model",
            "licence",
            "sha256",
        }
        np.testing.assert_array_equal(saved["keypoints0"], result.keypoints0.numpy())
        np.testing.assert_array_equal(saved["keypoints1"], result.keypoints1.numpy())
        np.testing.assert_array_equal(saved["confidence"], result.confidence.numpy())
        assert saved["size0"].tolist() == [240, 320]
        assert saved["size1"].tolist() == [240, 320]
        assert str(saved["model"]) == "relief"
        assert str(saved["licence"]) == "CC0-1.0"
        assert str(saved["sha256"]) == "0" * 64
    assert os.listdir(tmp_path) == ["pair.npz"]


def test_an_empty_result_is_saved_too(empty_result, tmp_path):
    empty_result.save(str(tmp_path / "none.npz"))
    with np.load(tmp_path / "none.npz") as saved:
        assert saved["keypoints0"].shape == (0, 2)
        assert saved["size1"].tolist() == [40, 50]


@pytest.mark.parametrize("name", ["pair.npy", "pair", "pair.npz.txt", "nowhere/pair.npz"])
def test_a_path_that_cannot_be_is_refused(result, tmp_path, name):
    with pytest.raises(InputError, match="path: expected"):
        result.save(tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_nothing_half_written(result, tmp_path, monkeypatch):
    """The old file survives a full disk, and no other file is left."""
    path = tmp_path / "pair.npz"
    path.write_bytes(b"old")

    def full_disk(stream, **arrays):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matcher.results.np.savez_compressed", full_disk)
    with pytest.raises(InputError, match="path: .* No space left on device$"):
        result.save(path)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["pair.npz"]


def test_a_folder_in_the_way(result, tmp_path):
    (tmp_path / "pair.npz").mkdir()
    with pytest.raises(InputError, match="path: expected a file that can be written"):
        result.save(tmp_path / "pair.npz")
    assert os.listdir(tmp_path) == ["pair.npz"]


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere"
)
def test_a_read_only_folder(result, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="path: expected a file that can be written"):
        result.save(tmp_path / "pair.npz")
    tmp_path.chmod(0o700)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_draw_writes_a_picture(result, pair, tmp_path, suffix):
    path = tmp_path / f"matches.{suffix}"
    pose = result.relative_pose(pair.camera0, pair.camera1)
    picture = result.draw(path, pose=pose, max_matches=50)
    assert picture.dtype == np.uint8
    height, width, channels = picture.shape
    assert channels == 3
    assert height >= 240
    assert width >= 640
    with Image.open(path) as written:
        assert written.size == (width, height)
        if suffix == "png":
            np.testing.assert_array_equal(np.asarray(written), picture)


def test_draw_without_matches_or_pose(empty_result, tmp_path):
    pose = empty_result.relative_pose()
    assert not pose
    empty_result.draw(tmp_path / "none.png", pose=pose)
    assert os.listdir(tmp_path) == ["none.png"]


def test_draw_refuses_a_suffix_it_does_not_know(result, tmp_path):
    with pytest.raises(InputError, match="path: expected"):
        result.draw(tmp_path / "matches.docx")
    assert os.listdir(tmp_path) == []


def test_json_holds_all_matches(result, empty_result):
    values = json.loads(result.to_json())
    assert values["num_matches"] == len(result) == len(values["confidence"])
    np.testing.assert_allclose(values["keypoints0"], result.keypoints0.numpy())
    np.testing.assert_allclose(values["confidence"], result.confidence.numpy(), atol=1e-6)
    assert min(values["confidence"]) > 0
    assert values["size0"] == [240, 320]
    assert values["reason"] is None
    assert (values["model"], values["licence"]) == ("relief", "CC0-1.0")
    assert values["seconds"] > 0
    nothing = json.loads(empty_result.to_json())
    assert nothing["keypoints1"] == []
    assert nothing["reason"] == empty_result.reason


def test_pose_of_a_rendered_scene_from_exact_matches(result):
    """The result's geometry on another scene: true matches of the synthetic ray-caster."""
    import dataclasses

    import torch

    from matcher import Camera, Matches
    from matcher.synthetic import correspondences

    scene = make_test_pair(seed=3)
    k = torch.from_numpy(scene.k)
    found = correspondences(
        torch.from_numpy(scene.depth0),
        k,
        torch.from_numpy(scene.depth1),
        k,
        torch.from_numpy(scene.cam1_from_cam0),
    )
    lines, columns = torch.nonzero(found.valid, as_tuple=True)
    chosen = torch.arange(0, len(lines), 97)
    keypoints0 = torch.stack([columns, lines], dim=1)[chosen].float()
    keypoints1 = found.target[lines, columns][chosen].float()
    rendered = dataclasses.replace(
        result,
        matches=Matches(keypoints0, keypoints1, torch.ones(len(chosen))),
        image0=scene.image0,
        image1=scene.image1,
        pointmaps=None,
    )
    camera = Camera.from_matrix(scene.k)
    pose = rendered.relative_pose(camera, camera)
    assert rotation_error_deg(pose.cam1_from_cam0.rotation, scene.cam1_from_cam0[:3, :3]) < 0.05
    true_translation = scene.cam1_from_cam0[:3, 3]
    assert translation_error_deg(pose.cam1_from_cam0.translation, true_translation) < 0.1
