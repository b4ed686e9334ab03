"""The truth of every source of pairs agrees with the pictures it hands out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from matcher.errors import DatasetError
from matcher.structures import ImageSize
from matcher.synthetic.fixtures import make_test_pair
from matcher.training import homographies, matched_photos, posed_views
from matcher.training.manifest import write_correspondences
from matcher.training.motion import Motion
from matcher.training.posed_depth import overlap_table
from matcher.training.posed_views import CameraView, crop_view, turn_view
from matcher.training.samples import TrainingSample
from matcher.training.sources import (
    DepthGroup,
    MatchedPhotos,
    PosedDepth,
    ScenePool,
    SinglePhotos,
    find_photos,
    homography_pair,
    posed_groups,
    read_photo,
)

ByteImage = npt.NDArray[np.uint8]
Array = npt.NDArray[np.float64]
SHAPE = (96, 128)


@pytest.fixture
def plain_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures as they are, so that the tests can measure in them."""
    for module in (homographies, matched_photos, posed_views):
        monkeypatch.setattr(module, "photometric", lambda random, image: image)


# --- Homographies of one photograph ---


def dots(seed: int) -> ByteImage:
    """White dots on black, far apart on an irregular grid."""
    random = np.random.default_rng(seed)
    image = np.zeros((192, 256), dtype=np.float32)
    y, x = np.mgrid[:192, :256]
    for row in range(20, 180, 30):
        for column in range(20, 240, 30):
            centre = np.array([column, row]) + random.uniform(-4, 4, 2)
            image += np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 2.2**2))
    return np.repeat((np.clip(image, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=2)


def dot_centres(image: ByteImage) -> Array:
    """(N, 2) weighted centroids of the dots of an image."""
    grey = image[..., 0].astype(np.float64)
    count, labels = cv2.connectedComponents((grey > 12).astype(np.uint8))
    centres = []
    for label in range(1, count):
        rows, columns = np.nonzero(labels == label)
        weights = grey[rows, columns]
        if weights.max() > 100:
            centres.append(
                [np.average(columns, weights=weights), np.average(rows, weights=weights)]
            )
    return np.array(centres)


@pytest.mark.usefixtures("plain_colours")
def test_a_homography_pair_connects_the_same_dots() -> None:
    errors = []
    for seed in range(8):
        sample = homography_pair(np.random.default_rng(seed), dots(seed), SHAPE, 256)
        if sample is None:
            continue
        ends0 = sample.matches.pixels0[sample.matches.valid].astype(np.float64)
        ends1 = sample.matches.pixels1[sample.matches.valid].astype(np.float64)
        # Rounding moves the ends by a quarter of a pixel; the fit over all of them averages it out.
        homography, _ = cv2.findHomography(ends0, ends1, 0)
        fitted = cv2.perspectiveTransform(ends0[None], homography)[0]
        assert np.abs(fitted - ends1).max() < 0.5
        hull = cv2.convexHull(ends0.astype(np.float32))
        centres1 = dot_centres(sample.image1)
        for centre in dot_centres(sample.image0):
            if cv2.pointPolygonTest(hull, centre.astype(np.float32).tolist(), True) < 7:
                continue
            there = cv2.perspectiveTransform(centre[None, None], homography)[0, 0]
            if ((there < 7) | (there > [128 - 8, 96 - 8])).any():
                continue
            errors.append(np.linalg.norm(centres1 - there, axis=1).min())
    assert len(errors) > 60
    assert max(errors) < 0.5
    assert np.mean(errors) < 0.15


def test_homography_pairs_follow_from_the_generator(photo: ByteImage) -> None:
    one, same = (homography_pair(np.random.default_rng(2), photo, SHAPE, 64) for _ in range(2))
    assert one is not None
    assert same is not None
    assert np.array_equal(one.image0, same.image0)
    assert np.array_equal(one.matches.pixels1, same.matches.pixels1)
    assert one.image0.shape == one.image1.shape == (*SHAPE, 3)
    assert one.points0 is None


def test_single_photos_are_drawn_from_a_folder(photos: Path) -> None:
    found = find_photos([str(photos)])
    assert [path.name for path in found] == ["a.png", "b.png"]
    sample = SinglePhotos(found).draw(np.random.default_rng(0), SHAPE, 64)
    assert sample.source == "photos"
    assert sample.matches.valid.sum() >= 16


def test_folders_and_files_without_photographs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="expected photographs below"):
        find_photos([str(tmp_path)])
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(DatasetError, match="cannot read"):
        SinglePhotos(find_photos([str(tmp_path)])).draw(np.random.default_rng(0), SHAPE, 64)


# --- Posed views ---


class Fixed:
    """A generator that always draws the same."""

    def __init__(self, uniform: float, integer: int) -> None:
        self._uniform, self._integer = uniform, integer

    def uniform(self, low: float, high: float) -> float:
        assert low <= self._uniform <= high
        return self._uniform

    def integers(self, low: int, high: int) -> int:
        assert low <= self._integer < high
        return self._integer


def posed_view() -> tuple[CameraView, Array, Array]:
    """A view whose red and green are column and row, points in the world, and their pixels."""
    rows, columns = np.mgrid[:90, :120]
    image = np.stack([columns, rows, np.zeros_like(rows)], axis=2).astype(np.uint8)
    depth = (1 + columns + 200 * rows).astype(np.float32)
    k = np.array([[100.0, 0, 57.3], [0, 110.0, 46.1], [0, 0, 1]])
    angle = 0.4
    pose = np.eye(4)
    pose[:3, :3] = cv2.Rodrigues(np.array([0.3, -0.7, 0.2]) * angle)[0]
    pose[:3, 3] = [0.2, -0.4, 1.0]
    pixels = np.random.default_rng(0).uniform([30, 30], [80, 60], (50, 2))
    rays = (np.concatenate([pixels, np.ones((50, 1))], axis=1)) @ np.linalg.inv(k).T
    in_camera = rays * np.random.default_rng(1).uniform(2, 9, (50, 1))
    world = (in_camera - pose[:3, 3]) @ pose[:3, :3]
    view = CameraView(image, depth, k, pose)
    assert np.abs(project(view, world) - pixels).max() < 1e-9
    return view, world, pixels


def project(view: CameraView, world: Array) -> Array:
    in_camera = world @ view.cam_from_world[:3, :3].T + view.cam_from_world[:3, 3]
    homogeneous = in_camera @ view.k.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


@pytest.mark.parametrize("turns", range(5))
def test_a_turned_view_sees_the_same_points(turns: int) -> None:
    view, world, pixels = posed_view()
    turned = turn_view(view, turns)
    expected, width = pixels, 120
    for turn in range(turns):
        width = 120 if turn % 2 == 0 else 90
        expected = np.stack([expected[:, 1], width - 1 - expected[:, 0]], axis=1)
    assert np.abs(project(turned, world) - expected).max() < 1e-6
    rotation = turned.cam_from_world[:3, :3]
    assert np.abs(rotation @ rotation.T - np.eye(3)).max() < 1e-12
    assert np.linalg.det(rotation) == pytest.approx(1)
    # The picture turned with the camera: whole pixels keep their colour and depth.
    at = np.rint(pixels).astype(int)
    there = at
    for turn in range(turns):
        width = 120 if turn % 2 == 0 else 90
        there = np.stack([there[:, 1], width - 1 - there[:, 0]], axis=1)
    assert np.array_equal(turned.image[there[:, 1], there[:, 0]], view.image[at[:, 1], at[:, 0]])
    assert np.array_equal(turned.depth[there[:, 1], there[:, 0]], view.depth[at[:, 1], at[:, 0]])


@pytest.mark.parametrize(
    ("shape", "scale", "window"),
    [((82, 108), 1.0, (82, 108)), ((48, 64), 0.8, (72, 96)), ((96, 128), 0.9, (81, 108))],
)
def test_a_cropped_view_sees_the_same_points(
    shape: tuple[int, int], scale: float, window: tuple[int, int]
) -> None:
    view, world, pixels = posed_view()
    cropped = crop_view(Fixed(scale, 7), view, shape, smallest=0.7)  # type: ignore[arg-type]
    assert cropped.image.shape == (*shape, 3)
    assert cropped.depth.shape == shape
    ratio = np.array([shape[1] / window[1], shape[0] / window[0]])
    expected = (pixels - 7 + 0.5) * ratio - 0.5
    assert np.abs(project(cropped, world) - expected).max() < 1e-6
    assert np.array_equal(cropped.cam_from_world, view.cam_from_world)
    # The colours say where in the original each new pixel is.
    rows, columns = np.mgrid[2 : shape[0] - 2, 2 : shape[1] - 2]
    original_column = (columns + 0.5) / ratio[0] - 0.5 + 7
    original_row = (rows + 0.5) / ratio[1] - 0.5 + 7
    inner = cropped.image[2:-2, 2:-2].astype(float)
    assert np.abs(inner[..., 0] - original_column).max() <= 0.76
    assert np.abs(inner[..., 1] - original_row).max() <= 0.76
    stored = cropped.depth[2:-2, 2:-2].astype(int) - 1
    assert np.abs(stored % 200 - original_column).max() <= 0.76
    assert np.abs(stored // 200 - original_row).max() <= 0.76


@pytest.mark.parametrize("principal", [(59.5, 44.5), (57.3, 46.1), (30.0, 80.0)])
@pytest.mark.parametrize("scale", [0.85, 0.9])
def test_a_centred_window_keeps_the_principal_point_in_the_middle(
    principal: tuple[float, float], scale: float
) -> None:
    view, world, _ = posed_view()
    k = view.k.copy()
    k[:2, 2] = principal
    view = replace(view, k=k)
    random = Fixed(scale, 0)
    cropped = crop_view(random, view, (48, 64), smallest=0.7, centred=True)  # type: ignore[arg-type]
    corner = crop_view(random, view, (48, 64), smallest=0.7)  # type: ignore[arg-type]
    middle = np.array([31.5, 23.5])
    away = np.abs(cropped.k[:2, 2] - middle)
    # Half an original pixel from rounding, or as near to the middle as the photograph reaches.
    spare = 0.5 * (1 - scale) * np.array([120, 90])
    past = np.maximum(0, np.abs(np.array(principal) - [59.5, 44.5]) - spare)
    ratio = cropped.k[0, 0] / view.k[0, 0]
    assert (away <= (past + 0.75) * ratio + 1e-9).all()
    # The same points, and the same focal, as of the window in the corner.
    assert np.allclose(np.diag(cropped.k), np.diag(corner.k))
    shift = project(cropped, world) - project(corner, world)
    assert np.allclose(shift, cropped.k[:2, 2] - corner.k[:2, 2])


def rendered_group() -> DepthGroup:
    pair = make_test_pair(seed=3, size=ImageSize(112, 144), viewpoint_deg=25)
    poses = np.stack([np.eye(4), pair.cam1_from_cam0])
    k = np.stack([pair.k, pair.k])
    depths = [pair.depth0, pair.depth1]
    return DepthGroup(
        [pair.image0, pair.image1], depths, k, poses, overlap_table(depths, k, poses), True
    )


def check_truth(sample: TrainingSample, limit: float) -> None:
    """Both ends of a correspondence are one point of the scene, in camera 0's frame."""
    matches = sample.matches
    assert sample.points0 is not None
    assert sample.points1 is not None
    assert sample.valid0 is not None
    assert sample.valid1 is not None
    ends0, ends1 = matches.pixels0[matches.valid], matches.pixels1[matches.valid]
    assert sample.valid0[ends0[:, 1], ends0[:, 0]].all()
    point0 = sample.points0[ends0[:, 1], ends0[:, 0]]
    point1 = sample.points1[ends1[:, 1], ends1[:, 0]]
    away = np.linalg.norm(point0 - point1, axis=1) / np.linalg.norm(point0, axis=1)
    assert np.median(away) < limit
    assert np.mean(away < 5 * limit) > 0.9


def test_posed_views_share_one_scene() -> None:
    group = rendered_group()
    assert np.diag(group.overlaps).min() > 0.99
    assert 0.2 < group.overlaps[0, 1] < 1
    source = PosedDepth([group])
    for seed in range(8):
        sample = source.draw(np.random.default_rng(seed), (64, 80), 128)
        assert sample.image0.shape == sample.image1.shape == (64, 80, 3)
        assert sample.is_metric
        assert sample.source == "views"
        assert sample.matches.valid.sum() >= 16
        check_truth(sample, 0.01)


def test_views_of_two_sizes_have_an_overlap() -> None:
    group = rendered_group()
    smaller = [group.depths[0], group.depths[1][:80]]
    overlaps = overlap_table(smaller, group.intrinsics, group.cam_from_world)
    assert 0.3 * group.overlaps[0, 1] < overlaps[0, 1] <= group.overlaps[0, 1]


def test_views_without_a_common_part_are_no_endless_search() -> None:
    group = rendered_group()
    apart = replace(group, overlaps=np.eye(2, dtype=np.float32))
    with pytest.raises(DatasetError, match="views: no two views with a common part"):
        PosedDepth([apart]).draw(np.random.default_rng(0), (64, 80), 128)


def test_a_pool_of_scenes_is_read(pool: Path) -> None:
    source = ScenePool([str(pool)])
    for seed in range(6):
        sample = source.draw(np.random.default_rng(seed), (48, 48), 64)
        assert sample.source == "scenes"
        assert sample.is_metric
        check_truth(sample, 0.025)


def test_a_pool_may_grow(pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = sorted(pool.iterdir())
    (tmp_path / first.name).write_bytes(first.read_bytes())
    source = ScenePool([str(tmp_path)])
    assert len(source._files) == 1
    (tmp_path / second.name).write_bytes(second.read_bytes())
    source._draws = 499
    source.draw_group(np.random.default_rng(0))
    assert len(source._files) == 2


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "other arrays", "bits"])
def test_a_broken_scene_is_named_in_one_line(pool: Path, tmp_path: Path, kind: str) -> None:
    whole = min(pool.iterdir()).read_bytes()
    broken = tmp_path / "scene_000000.npz"
    if kind == "other arrays":
        np.savez(broken, colour=np.zeros(3))
    elif kind == "bits":
        middle = len(whole) // 2
        broken.write_bytes(whole[:middle] + bytes(256) + whole[middle + 256 :])
    else:
        broken.write_bytes({"truncated": whole[:2000], "text": b"hello\n", "empty": b""}[kind])
    with pytest.raises(DatasetError, match="scene pool: cannot read .*scene_000000") as caught:
        ScenePool([str(tmp_path)]).draw(np.random.default_rng(0), (48, 48), 64)
    assert len(str(caught.value).splitlines()) == 1


def test_an_empty_pool_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="scene_pools: expected scene_"):
        ScenePool([str(tmp_path)])


# --- Manifests ---


@pytest.fixture
def matched(tmp_path: Path, photo: ByteImage) -> Path:
    """A manifest of two windows of one photograph, 20 and 10 pixels apart."""
    assert cv2.imwrite(str(tmp_path / "a.png"), photo[:150, :200])
    assert cv2.imwrite(str(tmp_path / "b.png"), photo[10:160, 20:220])
    random = np.random.default_rng(0)
    keypoints0 = random.uniform([25, 15], [195, 145], (1500, 2))
    write_correspondences(tmp_path / "ab.npz", keypoints0, keypoints0 - [20, 10])
    k = [[200, 0, 100], [0, 200, 75], [0, 0, 1]]
    record = {"image0": "a.png", "image1": "b.png", "K0": k, "K1": k, "correspondences": "ab.npz"}
    manifest = tmp_path / "pairs.jsonl"
    manifest.write_text(json.dumps(record) + "\n")
    return manifest


def colours_at_ends(sample: TrainingSample) -> Iterator[Array]:
    matches = sample.matches
    for image, pixels in ((sample.image0, matches.pixels0), (sample.image1, matches.pixels1)):
        ends = pixels[matches.valid]
        yield image[ends[:, 1], ends[:, 0]].astype(np.float64)


@pytest.mark.usefixtures("plain_colours")
def test_matched_photos_show_the_same_at_both_ends(matched: Path) -> None:
    source = MatchedPhotos([str(matched)])
    errors, chances = [], []
    for seed in range(8):
        sample = source.draw(np.random.default_rng(seed), (64, 80), 128)
        assert sample.source == "pairs"
        assert sample.matches.valid.sum() >= 32
        colour0, colour1 = colours_at_ends(sample)
        errors.append(np.abs(colour0 - colour1).mean())
        chances.append(np.abs(colour0 - np.roll(colour1, 7, axis=0)).mean())
    assert np.mean(errors) < 10
    assert np.mean(chances) > 40


def test_some_matched_photos_are_close_ups(matched: Path) -> None:
    source = MatchedPhotos([str(matched)])
    ratios = []
    for seed in range(40):
        matches = source.draw(np.random.default_rng(seed), (64, 80), 128).matches
        ends = [
            pixels[matches.valid].astype(np.float64)
            for pixels in (matches.pixels0, matches.pixels1)
        ]
        spreads = [np.linalg.norm(end - end.mean(axis=0), axis=1).mean() for end in ends]
        ratios.append(abs(np.log2(spreads[0] / spreads[1])))
    assert np.mean(np.array(ratios) > 0.8) > 0.08  # uniform windows alone reach 0.86 at most
    assert np.mean(np.array(ratios) < 0.5) > 0.4


@pytest.fixture
def posed(tmp_path: Path, photo: ByteImage) -> Path:
    """A manifest of a pair with cameras and pose; one match in five is of a point far away."""
    random = np.random.default_rng(1)
    turn = np.radians(6.0)
    rotation = np.array(
        [[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]]
    )
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, [-0.6, 0.1, 0.05]
    cameras = [np.array([[f, 0, 99.5], [0, f, 74.5], [0, 0, 1]]) for f in (180.0, 220.0)]
    depth = random.uniform(2, 6, 2500)
    depth[::5] = 1000.0
    rays = np.concatenate([random.uniform(-0.5, 0.5, (2500, 2)) * [1, 0.75], np.ones((2500, 1))], 1)
    points = rays * depth[:, None]
    ends = []
    for k, matrix in zip(cameras, (np.eye(4), pose), strict=True):
        seen = (points @ matrix[:3, :3].T + matrix[:3, 3]) @ k.T
        ends.append(seen[:, :2] / seen[:, 2:])
    inside = np.all([(end >= 0) & (end <= [199, 149]) for end in ends], axis=(0, 2))
    write_correspondences(tmp_path / "cd.npz", ends[0][inside], ends[1][inside])
    for name in ("c.png", "d.png"):
        assert cv2.imwrite(str(tmp_path / name), photo[:150, :200])
    record = {
        "image0": "c.png",
        "image1": "d.png",
        "K0": cameras[0].tolist(),
        "K1": cameras[1].tolist(),
        "cam1_from_cam0": pose.tolist(),
        "correspondences": "cd.npz",
    }
    manifest = tmp_path / "posed.jsonl"
    manifest.write_text(json.dumps(record) + "\n")
    return manifest


def fitted_camera(points: Array, pixels: Array) -> tuple[Array, float]:
    """Focal length and principal point that map points to pixels, and the median residual."""
    rays = points[:, :2] / points[:, 2:]
    fits = [np.polyfit(rays[:, axis], pixels[:, axis], 1) for axis in (0, 1)]
    found = np.stack([np.polyval(fit, rays[:, axis]) for axis, fit in enumerate(fits)], axis=1)
    return np.array(fits), float(np.median(np.abs(found - pixels)))


def test_matches_with_a_pose_teach_points_and_lenses(posed: Path) -> None:
    source = MatchedPhotos([str(posed)])
    shape, about_axis = (72, 96), 0
    for seed in range(12):
        sample = source.draw(np.random.default_rng(seed), shape, 128)
        points0, valid0, points1, valid1 = (
            sample.points0,
            sample.valid0,
            sample.points1,
            sample.valid1,
        )
        assert points0 is not None
        assert valid0 is not None
        assert points1 is not None
        assert valid1 is not None
        assert not sample.is_metric
        assert points0[valid0][:, 2].max() < 10  # what hardly moves between the views is left out
        rows, columns = np.nonzero(valid0)
        camera, residual = fitted_camera(
            points0[valid0].astype(np.float64), np.stack([columns, rows], axis=1).astype(np.float64)
        )
        assert residual < 1.5  # a match stands for the pixels within 2 px
        assert camera[0, 0] == pytest.approx(camera[1, 0], rel=0.05)
        # Windows are at least a quarter of the photograph.
        assert 0.85 < camera[0, 0] / 96 < 220 / 50
        about_axis += abs(camera[0, 1] - 47.5) < 2
        ends = sample.matches
        pixels0, pixels1 = ends.pixels0[ends.valid], ends.pixels1[ends.valid]
        both = valid0[pixels0[:, 1], pixels0[:, 0]] & valid1[pixels1[:, 1], pixels1[:, 0]]
        one = points0[pixels0[both, 1], pixels0[both, 0]]
        other = points1[pixels1[both, 1], pixels1[both, 0]]
        assert len(one) > 16
        assert np.median(np.linalg.norm(one - other, axis=1)) < 1e-5  # one point, one frame
    assert about_axis >= 5


def test_cameras_of_matched_photos_obey_the_motion(posed: Path) -> None:
    source = MatchedPhotos([str(posed)])
    random = np.random.default_rng(0)
    source.draw(random, (72, 96), 128, Motion(focal=(0.5, 5.0)))
    with pytest.raises(DatasetError, match="no crop with enough matches"):
        source.draw(random, (72, 96), 128, Motion(focal=(0.1, 0.5)))


def test_matches_without_a_pose_teach_no_points(matched: Path) -> None:
    sample = MatchedPhotos([str(matched)]).draw(np.random.default_rng(0), (64, 80), 128)
    assert sample.points0 is None
    assert sample.valid1 is None


def test_pairs_with_too_few_matches_are_no_endless_search(matched: Path) -> None:
    write_correspondences(matched.parent / "ab.npz", np.zeros((0, 2)), np.zeros((0, 2)))
    with pytest.raises(DatasetError, match="no crop with enough matches"):
        MatchedPhotos([str(matched)]).draw(np.random.default_rng(0), (64, 80), 128)


def test_a_manifest_without_pairs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text("")
    with pytest.raises(DatasetError, match="pair_manifests: expected pairs"):
        MatchedPhotos([str(tmp_path / "pairs.jsonl")])


def write_views(folder: Path, group: DepthGroup, count: int = 2) -> Path:
    lines = []
    for index in range(count):
        assert cv2.imwrite(str(folder / f"{index}.png"), group.images[index][..., ::-1])
        stored = np.rint(group.depths[index] * 1000).astype(np.uint16)
        assert cv2.imwrite(str(folder / f"{index}_depth.png"), stored)
        record: dict[str, Any] = {
            "image": f"{index}.png",
            "K": group.intrinsics[index].tolist(),
            "cam_from_world": group.cam_from_world[index].tolist(),
            "depth": f"{index}_depth.png",
            "depth_scale": 1000.0,
        }
        lines.append(json.dumps(record) + "\n")
    manifest = folder / "images.jsonl"
    manifest.write_text("".join(lines))
    return manifest


def test_views_with_depth_are_read_in_metres(tmp_path: Path) -> None:
    group = rendered_group()
    (read,) = posed_groups([str(write_views(tmp_path, group))])
    for index in range(2):
        assert np.array_equal(read.images[index], group.images[index])
        known = group.depths[index] < 65
        assert np.abs(read.depths[index] - group.depths[index])[known].max() <= 0.00051
    assert np.allclose(read.cam_from_world, group.cam_from_world)
    assert np.allclose(read.intrinsics, group.intrinsics)
    assert read.is_metric
    check_truth(PosedDepth([read]).draw(np.random.default_rng(1), (64, 80), 128), 0.01)


def test_depth_of_another_size_and_lone_views_are_refused(tmp_path: Path) -> None:
    group = rendered_group()
    with pytest.raises(DatasetError, match="two views with depth"):
        posed_groups([str(write_views(tmp_path, group, count=1))])
    manifest = write_views(tmp_path, group)
    assert cv2.imwrite(str(tmp_path / "1_depth.png"), np.ones((50, 60), dtype=np.uint16))
    with pytest.raises(DatasetError, match=r"expected the size of its picture \(112, 144\)"):
        posed_groups([str(manifest)])
    assert cv2.imwrite(str(tmp_path / "1_depth.png"), np.ones((112, 144, 3), dtype=np.uint8))
    with pytest.raises(DatasetError, match="as a one-channel picture"):
        posed_groups([str(manifest)])


def test_photographs_are_read_as_rgb(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), dtype=np.uint8)
    image[..., 0] = 200
    assert cv2.imwrite(str(tmp_path / "red.png"), image[..., ::-1])
    assert read_photo(tmp_path / "red.png")[0, 0].tolist() == [200, 0, 0]
