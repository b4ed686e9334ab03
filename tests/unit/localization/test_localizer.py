"""Queries against maps of an exact relief: right poses, and reasons where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from matcher import Camera, ImageSize, InputError, MatchingOptions, PairOptions
from matcher.geometry.pose import rotation_error_deg, translation_error_deg
from matcher.localization import LocalizationOptions, ReferenceMap
from tests.localization_scene import relief_view, scene_matcher
from tests.relief import second_pose


def errors(answer, truth):
    """(metres, degrees) of an answer."""
    metres = np.linalg.norm(answer.center - truth.inverse.translation)
    return metres, rotation_error_deg(answer.cam_from_world.rotation, truth.rotation)


def test_an_rgbd_map_gives_the_pose(rgbd_map, matcher, scene):
    answer = rgbd_map.localize(matcher, scene.query_path, scene.camera)
    metres, degrees = errors(answer, scene.query.cam_from_world)
    assert metres < 0.01
    assert degrees < 0.1
    assert answer.method == "pnp"
    assert answer.is_metric
    assert answer.reason is None
    assert answer.num_inliers == answer.inlier_mask.sum() > 1000
    assert {used.name for used in answer.references} == {path.name for path in scene.images}
    counts = [used.num_inliers for used in answer.references]
    assert counts == sorted(counts, reverse=True)
    assert sum(counts) == answer.num_inliers
    # What is said to be seen is seen there.
    rows = answer.inlier_mask
    camera_points = answer.cam_from_world.transform(answer.correspondences.points[rows])
    pixels = camera_points @ scene.camera.matrix.T
    offsets = pixels[:, :2] / pixels[:, 2:] - answer.correspondences.keypoints[rows]
    assert np.median(np.linalg.norm(offsets, axis=1)) < 1
    deviations = np.sqrt(np.diag(answer.covariance))
    assert np.all(deviations[:3] < np.radians(0.1))
    assert np.all(deviations[3:] < 0.01)
    assert np.all(np.linalg.eigvalsh(answer.center_covariance) > 0)


def test_the_focal_is_found_without_a_camera(rgbd_map, matcher, scene):
    answer = rgbd_map.localize(matcher, scene.query_path)
    metres, degrees = errors(answer, scene.query.cam_from_world)
    assert answer.method == "pnp_focal"
    assert answer.camera.focals[0] == pytest.approx(scene.camera.focals[0], rel=0.03)
    assert metres < 0.15
    assert degrees < 0.3


def test_each_reference_is_encoded_once(rgbd_map, matcher, scene):
    with rgbd_map.localizer(matcher) as localizer:
        first = localizer.localize(scene.query_path, scene.camera)
        encoded = matcher.network.num_encoded
        second = localizer.localize(scene.query_path, scene.camera)
    assert localizer.num_encoded == encoded - 1 == len(scene.views)
    assert matcher.network.num_encoded == encoded + 1  # the query, which may be another
    np.testing.assert_array_equal(first.cam_from_world.matrix, second.cam_from_world.matrix)


def test_a_map_remembers_between_queries(rgbd_map, matcher, scene):
    rgbd_map.localize(matcher, scene.query_path, scene.camera)
    before = matcher.network.num_encoded
    rgbd_map.localize(matcher, scene.query_path, scene.camera)
    assert matcher.network.num_encoded == before + 1
    rgbd_map.localize(matcher, scene.query_path, scene.camera, options=LocalizationOptions(seed=1))
    assert matcher.network.num_encoded == before + 2 + len(scene.views)


def test_retrieval_chooses_the_references_around(rgbd_map, matcher, scene):
    options = LocalizationOptions(num_references=2)
    with_index = rgbd_map.with_retrieval(matcher)
    answer = with_index.localize(matcher, scene.query_path, scene.camera, options=options)
    assert {used.name for used in answer.references} == {"2.png", "3.png"}
    assert errors(answer, scene.query.cam_from_world)[0] < 0.01
    unindexed = rgbd_map.localize(matcher, scene.query_path, scene.camera, options=options)
    assert {used.name for used in unindexed.references} == {"2.png", "3.png"}


def test_an_index_of_another_model_is_refused(rgbd_map, matcher, scene):
    with_index = rgbd_map.with_retrieval(matcher)
    other = scene_matcher(scene, sha256="2" * 64, name="other")
    with pytest.raises(InputError, match="which made the retrieval index, got other"):
        with_index.localize(other, scene.query_path, scene.camera)


@pytest.mark.parametrize("is_metric", [True, False])
def test_a_single_photograph_is_a_map(scene, is_metric):
    """The world is the photograph's frame; only metric weights know how far the query was."""
    # The relief's network knows two frames: that of the world, and the query's.
    view = relief_view(second_pose(0), 64)
    matcher = scene_matcher(scene, is_metric=is_metric)
    scene_map = ReferenceMap.from_image(scene.images[2], view.camera)
    answer = scene_map.localize(matcher, scene.query_path, scene.camera)
    truth = scene.query.cam_from_world @ view.cam_from_world.inverse
    assert answer.method == "relative"
    assert answer.is_metric is is_metric
    assert rotation_error_deg(answer.cam_from_world.rotation, truth.rotation) < 0.3
    found = answer.cam_from_world.translation
    assert translation_error_deg(found, truth.translation) < 2
    length = np.linalg.norm(truth.translation) if is_metric else 1
    assert np.linalg.norm(found) == pytest.approx(length, rel=0.05)
    assert [used.name for used in answer.references] == ["2.png"]
    assert answer.num_inliers > 500
    assert answer.covariance is None


def test_a_query_of_another_place_gets_a_reason(scene, matcher, rgbd_map):
    random = np.random.default_rng(0)
    # Saturated squares: what the code of the relief does not know, but for a few edges.
    elsewhere = np.where(random.random((192, 256, 1)) < 0.5, 0, 255).astype(np.uint8)
    elsewhere = np.repeat(np.repeat(elsewhere[::16, ::16], 16, 0), 16, 1).repeat(3, 2)
    answer = rgbd_map.localize(matcher, elsewhere, scene.camera)
    assert len(answer.correspondences) > 12
    assert not answer
    assert answer.cam_from_world is None
    assert answer.num_inliers == 0
    assert "the query" in answer.reason or "correspondences" in answer.reason
    assert answer.to_dict()["cam_from_world"] is None
    assert answer.to_dict()["reason"] == answer.reason


def test_a_blank_query_gets_its_reason(scene, matcher, rgbd_map):
    blank = np.full((192, 256, 3), 128, np.uint8)
    for scene_map in (rgbd_map, ReferenceMap.from_image(scene.images[0], scene.camera)):
        answer = scene_map.localize(matcher, blank, scene.camera)
        assert answer.reason == "the query is blank: all its values lie between 128 and 128"


def test_a_camera_for_another_size_is_refused(scene, matcher, rgbd_map):
    wrong = Camera.pinhole(500, 500, 320, 240, ImageSize(480, 640))
    with pytest.raises(InputError, match="camera: expected one for the 256 x 192 pixels"):
        rgbd_map.localize(matcher, scene.query_path, wrong)


def test_an_unreadable_query_is_refused(tmp_path, matcher, rgbd_map):
    with pytest.raises(InputError, match="query: expected an image file, got no file at"):
        rgbd_map.localize(matcher, tmp_path / "absent.png")


def test_the_picture_shows_the_best_references(tmp_path, scene, matcher, rgbd_map):
    answer = rgbd_map.localize(matcher, scene.query_path, scene.camera)
    path = tmp_path / "query.png"
    picture = rgbd_map.draw(answer, scene.query_path, path, max_references=2)
    assert path.is_file()
    one = rgbd_map.draw(answer, scene.query_path, max_references=1)
    assert picture.shape[0] == 2 * one.shape[0]
    assert picture.shape[1:] == one.shape[1:]
    blank = rgbd_map.localize(matcher, np.full((192, 256, 3), 9, np.uint8))
    assert rgbd_map.draw(blank, scene.query_path).dtype == np.uint8
    with pytest.raises(InputError, match=r"a name that ends in .*got 'query\.gif'"):
        rgbd_map.draw(answer, scene.query_path, tmp_path / "query.gif")


def test_options_are_checked():
    for values in ({"num_references": 0}, {"max_error": 0.0}, {"min_inliers": 3}):
        with pytest.raises(InputError):
            LocalizationOptions(**values)
    ransac = LocalizationOptions(max_error=0.01).ransac(ImageSize(480, 640))
    assert ransac.max_error_px == pytest.approx(8)


def test_pair_options_are_the_matchers_own_unless_given(scene, rgbd_map):
    matcher = scene_matcher(scene)
    sparse = PairOptions(max_size=256, matching=MatchingOptions(subsample=24))
    answer = rgbd_map.localize(
        matcher, scene.query_path, scene.camera, options=LocalizationOptions(pair=sparse)
    )
    usual = rgbd_map.localize(matcher, scene.query_path, scene.camera)
    assert len(answer.correspondences) < len(usual.correspondences) / 4
    assert errors(answer, scene.query.cam_from_world)[0] < 0.02
