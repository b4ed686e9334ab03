"""The ray-caster against closed forms written another way, and against itself."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import (
    Cameras,
    MipAtlas,
    RenderOptions,
    Scene,
    SceneOptions,
    build_atlas,
    cast_depth,
    correspondences,
    relative_pose,
    render,
    sample_cameras,
    sample_scenes,
)
from matcher.synthetic.cameras import look_at
from matcher.synthetic.render import cast_pixels
from matcher.synthetic.scene import ShapeCounts

SIZE = ImageSize(40, 56)


def rotation_about(axis: list[float], angle: float) -> np.ndarray:
    unit = np.array(axis) / np.linalg.norm(axis)
    cross = np.cross(np.eye(3), unit)
    return (
        np.eye(3) * math.cos(angle)
        - cross * math.sin(angle)
        + (1 - math.cos(angle)) * np.outer(unit, unit)
    )


def make_scene(
    atlas: MipAtlas,
    counts: ShapeCounts,
    rotation: np.ndarray,
    center: list[float],
    half: list[float],
) -> Scene:
    """One shape at the given place inside a room of 20 m."""
    shapes = counts.total
    return Scene(
        counts=counts,
        rotation=torch.from_numpy(np.stack([rotation, np.eye(3)]))[None],
        center=torch.tensor([[center, [0.0, 0.0, 0.0]]], dtype=torch.float64),
        half_size=torch.tensor([[half, [10.0, 10.0, 10.0]]], dtype=torch.float64),
        texture=torch.zeros(1, shapes, 6, dtype=torch.int32),
        uv_from_local=torch.eye(2, 3).expand(1, shapes, 6, 2, 3),
        tint=torch.ones(1, shapes, 6, 3),
        specular=torch.zeros(1, shapes, 6),
        is_backdrop=torch.zeros(1, shapes, 6, dtype=torch.bool),
        light_direction=torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64),
        ambient=torch.ones(1),
        attention=torch.zeros(1, 1, 3, dtype=torch.float64),
        view_distance=torch.ones(1, 2, dtype=torch.float64),
        elevation=torch.zeros(1, 2, dtype=torch.float64),
        azimuth=torch.zeros(1, 2, dtype=torch.float64),
        eye_height=torch.zeros(1, 2, dtype=torch.float64),
        anchor=torch.zeros(1, 3, dtype=torch.float64),
        anchor_size=torch.ones(1, dtype=torch.float64),
        atlas=atlas,
    )


def one_camera(position: list[float], target: list[float], focal: float = 45.0) -> Cameras:
    k = torch.tensor([[focal, 0, 27.0], [0, focal, 20.5], [0, 0, 1]], dtype=torch.float64)
    pose = look_at(
        torch.tensor(position, dtype=torch.float64),
        torch.tensor(target, dtype=torch.float64),
        torch.tensor(0.3, dtype=torch.float64),
    )
    return Cameras(k[None, None], pose[None, None])


def rays_of(cameras: Cameras, size: ImageSize) -> tuple[np.ndarray, np.ndarray]:
    """World origin (3,) and directions (H, W, 3) whose parameter is the z-depth."""
    world_from_cam = np.linalg.inv(cameras.cam_from_world[0, 0].numpy())
    y, x = np.mgrid[: size.height, : size.width].astype(np.float64)
    local = np.stack([x, y, np.ones_like(x)], -1) @ np.linalg.inv(cameras.k[0, 0].numpy()).T
    return world_from_cam[:3, 3], local @ world_from_cam[:3, :3].T


def hit_box(origin: np.ndarray, directions: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Nearest hit face by face; inf where none."""
    best = np.full(directions.shape[:-1], np.inf)
    for axis in range(3):
        others = [i for i in range(3) if i != axis]
        for side in (-1.0, 1.0):
            depth = (side * half[axis] - origin[axis]) / directions[..., axis]
            point = origin + depth[..., None] * directions
            inside = (np.abs(point[..., others]) <= half[others]).all(-1) & (depth > 0)
            best = np.where(inside & (depth < best), depth, best)
    return best


def hit_ellipsoid(origin: np.ndarray, directions: np.ndarray, half: np.ndarray) -> np.ndarray:
    """The smaller root of the quadratic; inf where none."""
    weights = 1 / half**2
    a = (weights * directions**2).sum(-1)
    b = 2 * (weights * origin * directions).sum(-1)
    c = (weights * origin**2).sum() - 1
    root = b * b - 4 * a * c
    depth = (-b - np.sqrt(np.maximum(root, 0))) / (2 * a)
    return np.where((root > 0) & (depth > 0), depth, np.inf)


def hit_cylinder(origin: np.ndarray, directions: np.ndarray, half: np.ndarray) -> np.ndarray:
    """Side and the two caps, each on its own; inf where none."""
    best = np.full(directions.shape[:-1], np.inf)
    a = (directions[..., :2] ** 2).sum(-1)
    b = 2 * (origin[:2] * directions[..., :2]).sum(-1)
    root = b * b - 4 * a * ((origin[:2] ** 2).sum() - half[0] ** 2)
    depth = (-b - np.sqrt(np.maximum(root, 0))) / (2 * a)
    height = origin[2] + depth * directions[..., 2]
    best = np.where((root > 0) & (np.abs(height) <= half[2]) & (depth > 0), depth, best)
    for side in (-1.0, 1.0):
        depth = (side * half[2] - origin[2]) / directions[..., 2]
        point = origin + depth[..., None] * directions
        inside = (point[..., :2] ** 2).sum(-1) <= half[0] ** 2
        best = np.where(inside & (depth > 0) & (depth < best), depth, best)
    return best


@pytest.mark.parametrize(
    ("counts", "half", "closed_form"),
    [
        (ShapeCounts(1, 0, 0), [0.5, 1.0, 0.7], hit_box),
        (ShapeCounts(0, 1, 0), [0.5, 1.0, 0.7], hit_ellipsoid),
        (ShapeCounts(0, 0, 1), [0.6, 0.6, 0.9], hit_cylinder),
    ],
    ids=["box", "ellipsoid", "cylinder"],
)
def test_depth_matches_closed_form(
    atlas: MipAtlas, counts: ShapeCounts, half: list[float], closed_form: object
) -> None:
    rotation, center = rotation_about([1.0, 2.0, 0.5], 0.8), [1.0, -0.5, 0.3]
    scene = make_scene(atlas, counts, rotation, center, half)
    for position in ([4.0, 2.0, 1.5], [-2.0, 3.0, -1.0]):
        cameras = one_camera(position, [1.1, -0.4, 0.2])
        origin, directions = rays_of(cameras, SIZE)
        local_origin = (origin - np.array(center)) @ rotation
        shape = closed_form(local_origin, directions @ rotation, np.array(half))  # type: ignore[operator]
        room = hit_box(origin, directions, np.full(3, 10.0))
        expected = np.minimum(shape, room)
        actual = render(scene, cameras, SIZE).depth[0, 0].numpy()
        on_shape = shape < np.inf
        assert 0.05 < on_shape.mean() < 0.9
        relative = np.abs(actual / expected - 1)
        # A ray that grazes an outline may fall on either side of it.
        assert (relative < 1e-5).mean() > 0.998
        assert np.median(relative) < 2e-7


def test_first_pixel_is_centred_at_zero(atlas: MipAtlas) -> None:
    scene = make_scene(atlas, ShapeCounts(1, 0, 0), np.eye(3), [0.0, 0.0, -50.0], [1.0, 1.0, 1.0])
    k = torch.tensor([[30.0, 0, 4.0], [0, 30.0, 3.0], [0, 0, 1]], dtype=torch.float64)
    pose = look_at(
        torch.tensor([0.0, 0.0, 0.0]).double(),
        torch.tensor([1.0, 0.0, 0.0]).double(),
        torch.zeros(()),
    )
    cameras = Cameras(k[None, None], pose[None, None])
    depth = cast_depth(scene, cameras, ImageSize(7, 9))
    assert torch.allclose(depth, torch.full_like(depth, 10.0), rtol=1e-6)


def test_seed_reproduces_every_bit(atlas: MipAtlas) -> None:
    def once() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(3)
        scene = sample_scenes(generator, 4, atlas)
        cameras = sample_cameras(generator, scene, 3, SIZE)
        views = render(scene, cameras, SIZE)
        return views.image, views.depth, cameras.cam_from_world

    for first, second in zip(once(), once(), strict=True):
        assert torch.equal(first, second)


def test_culling_changes_nothing(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(11)
    scene = sample_scenes(generator, 5, atlas)
    cameras = sample_cameras(generator, scene, 2, SIZE)
    culled = render(scene, cameras, SIZE, RenderOptions(cull=True, views_at_once=3))
    plain = render(scene, cameras, SIZE, RenderOptions(cull=False))
    assert torch.allclose(culled.depth, plain.depth, rtol=1e-5)
    # Between pixel centres a shape that owns no centre is left out of the outlines' colour.
    difference = (culled.image - plain.image).abs().amax(2)
    assert float((difference > 1e-4).double().mean()) < 1e-3


def test_reprojected_points_agree_with_the_other_view(atlas: MipAtlas) -> None:
    """Covisible points land where view 1, asked at that very subpixel, sees the same depth."""
    generator = torch.Generator().manual_seed(5)
    scene = sample_scenes(generator, 6, atlas)
    cameras = sample_cameras(generator, scene, 2, SIZE)
    depth = render(scene, cameras, SIZE).depth
    k, pose = cameras.k, cameras.cam_from_world
    found = correspondences(
        depth[:, 0], k[:, 0], depth[:, 1], k[:, 1], relative_pose(pose[:, 0], pose[:, 1])
    )
    assert found.valid.float().mean() > 0.1
    other = cameras.select(torch.ones(len(scene), 1, dtype=torch.long))
    target = torch.where(found.valid[..., None], found.target, 0.0)
    seen = cast_pixels(scene, other, target.flatten(1, 2)[:, None])[:, 0].view_as(found.valid)
    y, x = torch.meshgrid(torch.arange(SIZE.height), torch.arange(SIZE.width), indexing="ij")
    pixel = torch.stack((x, y, torch.ones_like(x)), -1).double()
    local = (pixel @ torch.linalg.inv(k[:, 0])[:, None].mT) * depth[:, 0, ..., None]
    relative = relative_pose(pose[:, 0], pose[:, 1])
    moved = local @ relative[:, None, :3, :3].mT + relative[:, None, None, :3, 3]
    error = (seen / moved[..., 2] - 1).abs()[found.valid]
    # What is left over are pixels beside an outline, where the 1 % tolerance lets a neighbour in.
    assert float((error < 1e-4).double().mean()) > 0.97
    assert float(error.median()) < 2e-6


def test_backdrop_has_colour_and_no_depth(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(2)
    scene = sample_scenes(generator, 3, atlas, SceneOptions(0, 0, 1, 0))
    position = torch.tensor([0.0, 0.0, 6.0], dtype=torch.float64).expand(3, 1, 3)
    up = position + torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64)
    k = torch.tensor([[60.0, 0, 20], [0, 60.0, 20], [0, 0, 1]], dtype=torch.float64)
    cameras = Cameras(k.expand(3, 1, 3, 3), look_at(position, up, torch.zeros(3, 1)))
    views = render(scene, cameras, ImageSize(41, 41))
    assert float(views.depth.max()) == 0.0
    assert float(views.image.mean()) > 0.05


def floor_view(atlas: MipAtlas, tile: float, anisotropy: float) -> torch.Tensor:
    """A camera that looks down at the floor of a room; colours (3, H, W)."""
    scene = make_scene(atlas, ShapeCounts(1, 0, 0), np.eye(3), [0.0, 0.0, -50.0], [1.0, 1.0, 1.0])
    affine = torch.zeros(1, 2, 6, 2, 3)
    affine[..., 0, 0] = affine[..., 1, 1] = 1 / tile
    scene = replace(scene, uv_from_local=affine)
    cameras = one_camera([0.0, 0.0, 5.0], [1.0, 0.0, -10.0])
    return render(scene, cameras, SIZE, RenderOptions(anisotropy=anisotropy)).image[0, 0]


def test_minified_checkerboard_does_not_alias() -> None:
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    board = (((x // 4 + y // 4) % 2) * 255).to(torch.uint8)
    atlas = build_atlas(board.expand(1, 3, 64, 64).contiguous())
    near = floor_view(atlas, tile=8.0, anisotropy=1.0)
    far = floor_view(atlas, tile=0.5, anisotropy=1.0)
    assert float(near.std()) > 0.2
    assert float(far.std()) < 0.02
    assert float(far.mean()) == pytest.approx(0.5, abs=0.02)


def test_wrong_number_of_scenes_is_named(atlas: MipAtlas) -> None:
    scene = sample_scenes(torch.Generator().manual_seed(0), 2, atlas)
    with pytest.raises(InputError, match="cameras: expected 2 scenes, got 1"):
        render(scene, one_camera([0, 0, 1], [1, 0, 1]), SIZE)


def test_render_options_are_checked() -> None:
    with pytest.raises(InputError, match="render options"):
        RenderOptions(edge_share=1.5)
