"""Scenes have the right shape; cameras stand in free space and see each other's places."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import (
    CameraOptions,
    MipAtlas,
    SceneOptions,
    cast_depth,
    make_test_pair,
    overlap_matrix,
    sample_cameras,
    sample_scenes,
)
from matcher.synthetic.cameras import clearance, look_at
from matcher.synthetic.places import PLACE_COUNTS

SIZE = ImageSize(32, 32)


@pytest.fixture(scope="module")
def many(atlas: MipAtlas) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    scene = sample_scenes(generator, 40, atlas)
    cameras = sample_cameras(generator, scene, 5, SIZE, CameraOptions(zoom=3.0))
    depth = cast_depth(scene, cameras, SIZE)
    position = torch.linalg.inv(cameras.cam_from_world)[..., :3, 3]
    both = overlap_matrix(depth, cameras.k, cameras.cam_from_world, 0.03)
    return depth, cameras.k, cameras.cam_from_world, clearance(scene, position), both


@pytest.mark.parametrize("layout", range(9))
def test_every_layout_gives_finite_primitives(atlas: MipAtlas, layout: int) -> None:
    shares = [0.0] * 9
    shares[layout] = 1.0
    scene = sample_scenes(torch.Generator().manual_seed(layout), 8, atlas, SceneOptions(*shares))
    assert len(scene) == 8
    assert scene.center.shape == (8, 29 if layout < 4 else PLACE_COUNTS.total, 3)
    assert (scene.finish is None) == (layout < 4)
    assert float(scene.half_size.min()) > 0
    identity = scene.rotation @ scene.rotation.mT
    assert torch.allclose(identity, torch.eye(3, dtype=torch.float64).expand_as(identity))
    assert 0 <= int(scene.texture.min()) <= int(scene.texture.max()) < atlas.count


def test_cameras_stand_in_free_space(many: tuple[torch.Tensor, ...]) -> None:
    assert float((many[3] >= 0.2).double().mean()) > 0.99
    assert float(many[3].min()) > 0


def test_views_see_something(many: tuple[torch.Tensor, ...]) -> None:
    seen = (many[0] > 0).double().mean((-2, -1))
    assert float(seen.median()) > 0.9
    assert float((seen > 0.3).double().mean()) > 0.97


def test_overlaps_and_rotations_are_spread(many: tuple[torch.Tensor, ...]) -> None:
    first, second = torch.triu_indices(5, 5, 1)
    smaller = torch.minimum(many[4], many[4].mT)[:, first, second].flatten()
    counts = torch.histc(smaller, 4, 0.0, 0.8) / len(smaller)
    assert float(counts.min()) > 0.08
    rotation = many[2][..., :3, :3]
    cosine = (torch.einsum("svij,swij->svw", rotation, rotation) - 1) / 2
    angle = cosine.clamp(-1, 1).acos().rad2deg()[:, first, second].flatten()
    for low, high in ((0, 30), (30, 60), (60, 90), (90, 181)):
        assert float(((angle >= low) & (angle < high)).double().mean()) > 0.08


def test_look_at_points_the_axis_and_keeps_up_up() -> None:
    position = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    target = torch.tensor([4.0, -2.0, 3.0], dtype=torch.float64)
    pose = look_at(position, target, torch.zeros((), dtype=torch.float64))
    ahead = pose[:3, :3] @ target + pose[:3, 3]
    assert torch.allclose(ahead, torch.tensor([0.0, 0.0, 5.0], dtype=torch.float64))
    above = pose[:3, :3] @ (target + torch.tensor([0, 0, 1.0]).double()) + pose[:3, 3]
    assert float(above[1]) == pytest.approx(-1.0)
    assert float(torch.linalg.det(pose[:3, :3])) == pytest.approx(1.0)


def test_too_many_views_are_refused(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = sample_scenes(generator, 1, atlas)
    with pytest.raises(InputError, match="views_per_scene: expected 1 to 4, got 5"):
        sample_cameras(generator, scene, 5, SIZE, CameraOptions(candidates=4))


@pytest.mark.parametrize(
    "make",
    [
        lambda atlas: sample_scenes(torch.Generator(), 0, atlas),
        lambda atlas: SceneOptions(0, 0, 0, 0),
        lambda atlas: CameraOptions(field_of_view=(90.0, 40.0)),
        lambda atlas: CameraOptions(candidates=1),
        lambda atlas: CameraOptions(zoom=0.5),
    ],
)
def test_bad_options_are_refused(atlas: MipAtlas, make: object) -> None:
    with pytest.raises(InputError):
        make(atlas)  # type: ignore[operator]


def test_test_pair_is_what_it_says() -> None:
    pair = make_test_pair(4, ImageSize(48, 64), viewpoint_deg=35.0)
    assert pair.image0.shape == (48, 64, 3)
    assert pair.image0.std() > 15
    rotation = pair.cam1_from_cam0[:3, :3]
    optical_axes = float(rotation[2, 2])
    assert optical_axes > 0.8  # 35 degrees around the vertical, seen from 30 degrees above
    baseline = float(((pair.cam1_from_cam0[:3, 3]) ** 2).sum() ** 0.5)
    assert baseline == pytest.approx(2 * 6 * 3**0.5 / 2 * 0.30070579950427, rel=1e-6)
    again = make_test_pair(4, ImageSize(48, 64), viewpoint_deg=35.0)
    assert (again.image1 == pair.image1).all()
