"""Openings, holes, light and passers-by: what they change, and that geometry stays exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import (
    Cameras,
    MipAtlas,
    RenderOptions,
    Scene,
    SceneOptions,
    correspondences,
    relative_pose,
    render,
    sample_cameras,
    sample_scenes,
)
from matcher.synthetic.builder import SceneRandom, xyz
from matcher.synthetic.cameras import look_at
from matcher.synthetic.finish import fence_pattern, inset, leaf_pattern
from matcher.synthetic.places import PlaceBuilder
from matcher.synthetic.render import cast_pixels
from matcher.synthetic.scene import ShapeCounts
from matcher.synthetic.weather import Weather, WeatherOptions, sample_weather

SIZE = ImageSize(40, 48)
FOCAL = 40.0
# A panel that stands along x, its y upwards.
UPRIGHT = torch.tensor([[[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]], dtype=torch.float64)


def vector(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def build_place(
    atlas: MipAtlas, fill: Callable[[PlaceBuilder], None], floor_shine: float = 0.0
) -> Scene:
    """A room of 20 m, its floor at z = 0, with what ``fill`` puts into it."""
    build = PlaceBuilder(SceneRandom(torch.Generator().manual_seed(0), 1), atlas)
    build.enclose(vector(-10, -10, 0), vector(10, 10, 20), floor="wood", floor_shine=floor_shine)
    fill(build)
    return build.finish_place(
        [vector(0, 0, 1)],
        distance=(1.0, 5.0),
        elevation=(0.0, 1.0),
        anchor=vector(0, 0, 0),
        anchor_size=(1.0, 2.0),
    )


def cameras_at(*positions: tuple[float, float, float], target: tuple[float, ...]) -> Cameras:
    """Cameras of one scene that look at the same point."""
    k = torch.tensor([[FOCAL, 0, 23.5], [0, FOCAL, 19.5], [0, 0, 1]], dtype=torch.float64)
    place = torch.tensor(positions, dtype=torch.float64)
    goal = torch.tensor(target, dtype=torch.float64).expand_as(place)
    poses = look_at(place, goal, torch.zeros(len(place)))
    return Cameras(k.expand(1, len(place), 3, 3), poses[None])


def pixels_of(cameras: Cameras, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (1, 1, N, 2) and z-depths (N,) of world points (N, 3) in the first camera."""
    pose, k = cameras.cam_from_world[0, 0], cameras.k[0, 0]
    seen = points @ pose[:3, :3].T + pose[:3, 3]
    return (seen @ k.T)[:, :2][None, None] / seen[:, 2:][None, None], seen[:, 2]


def still_weather(scene: Scene, views: int = 1, seed: int = 0) -> Weather:
    options = WeatherOptions(night=0, changes=0, passes_by=0, haze=0)
    return sample_weather(torch.Generator().manual_seed(seed), scene, views, options)


def test_a_thin_pole_is_hit_where_it_stands(atlas: MipAtlas) -> None:
    def pole(build: PlaceBuilder) -> None:
        build.put("cylinder", vector(0.3, 0, 1.5), vector(0.004, 0.004, 1.5), role="skin")

    scene = build_place(atlas, pole)
    cameras = cameras_at((0.1, 6, 1.4), target=(0, 0, 1.5))
    height = torch.linspace(0.4, 2.4, 9, dtype=torch.float64)
    axis = torch.stack((torch.full_like(height, 0.3), torch.zeros_like(height), height), -1)
    pixels, depth = pixels_of(cameras, axis)
    found = cast_pixels(scene, cameras, pixels)[0, 0].double()
    assert float((found - depth).abs().max()) < 0.0045  # the surface is 4 mm before the axis
    beside = pixels + torch.tensor([0.2, 0.0], dtype=torch.float64)
    assert bool((cast_pixels(scene, cameras, beside)[0, 0] > depth + 1).all())


def test_bars_of_a_fence_are_solid_and_gaps_are_open(atlas: MipAtlas) -> None:
    one = torch.ones(1, dtype=torch.float64)
    pattern = fence_pattern(5.0, 0.2, 1.0, 0.0, like=one)

    def fence(build: PlaceBuilder) -> None:
        panel = vector(1.0, 0.5, 0.005)
        build.put("fence", vector(0, 0, 1), panel, UPRIGHT, role="wood", pattern=pattern)

    scene = build_place(atlas, fence)
    cameras = cameras_at((0.3, 4, 1.2), target=(0, 0, 1))
    x = -1 + 2 * (torch.arange(5, dtype=torch.float64) + 0.5) / 5

    def depth_at(across: Tensor, z: float) -> tuple[Tensor, Tensor]:
        points = torch.stack((across, torch.zeros_like(x), torch.full_like(x, z)), -1)
        pixels, depth = pixels_of(cameras, points)
        return cast_pixels(scene, cameras, pixels)[0, 0].double(), depth

    for z in (0.6, 1.0, 1.4):
        on_bar, expected = depth_at(x, z)
        assert torch.allclose(on_bar, expected, rtol=1e-5)
        # A bar is a fifth of its spacing of 0.4 m wide.
        for edge, solid in ((0.039, True), (0.041, False)):
            found, expected = depth_at(x + edge, z)
            assert bool((found < expected + 0.1).all()) is solid
    above, _ = depth_at(x, 1.6)
    assert float(above.min()) > 5


def test_cables_hang_down_in_the_middle(atlas: MipAtlas) -> None:
    one = torch.ones(1, dtype=torch.float64)
    pattern = fence_pattern(1.0, 0.0, 1.0, 0.02, like=one, sag=0.4)

    def cable(build: PlaceBuilder) -> None:
        panel = vector(2.0, 0.5, 0.005)
        build.put("fence", vector(0, 0, 2), panel, UPRIGHT, role="skin", pattern=pattern)

    scene = build_place(atlas, cable)
    cameras = cameras_at((0, 5, 2), target=(0, 0, 2))
    x = torch.tensor([-1.5, -0.8, 0.0, 0.8, 1.5], dtype=torch.float64)
    height = 2 - 0.5 * 0.4 * (1 - (x / 2) ** 2)
    points = torch.stack((x, torch.zeros_like(x), height), -1)
    pixels, depth = pixels_of(cameras, points)
    assert torch.allclose(cast_pixels(scene, cameras, pixels)[0, 0].double(), depth, rtol=1e-5)


def test_leaves_leave_gaps_and_end_at_their_rim(atlas: MipAtlas) -> None:
    pattern = leaf_pattern(torch.tensor([12.0]), 0.2, torch.arange(5.0)[None])

    def leaves(build: PlaceBuilder) -> None:
        panel = vector(1.0, 1.0, 0.005)
        build.put("leaves", vector(0, 0, 2), panel, UPRIGHT, role="leaf", pattern=pattern)

    scene = build_place(atlas, leaves)
    y, x = torch.meshgrid(torch.linspace(-1, 1, 81), torch.linspace(-1, 1, 81), indexing="ij")
    points = torch.stack((x.flatten(), torch.zeros(81 * 81), y.flatten() + 2), -1).double()
    cameras = cameras_at((0, 4, 2), target=(0, 0, 2))
    pixels, depth = pixels_of(cameras, points)
    hit = (cast_pixels(scene, cameras, pixels)[0, 0] < depth + 0.5).view(81, 81)
    inside = x**2 + y**2 < 1
    assert 0.3 < float(hit[inside].double().mean()) < 0.95
    assert not bool(hit[~inside].any())


def test_windows_are_sunk_exactly(atlas: MipAtlas) -> None:
    """Against the far end of the cuboid that an opening is, found face by face."""
    cells = inset(torch.tensor([3.0]), torch.tensor([2.0]), 0.5, 0.6, 0.4, glass=0.0, frame=1.0)

    def wall(build: PlaceBuilder) -> None:
        half = vector(3.0, 1.0, 2.0)
        build.put("box", vector(0, -1, 2), half, role="wall", openings=cells)

    scene = build_place(atlas, wall)
    cameras = cameras_at((1.3, 3.0, 2.6), target=(0, 0, 2))
    depth = render(scene, cameras, SIZE).depth[0, 0].double()
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(48.0), indexing="ij")
    local = (
        torch.stack((x, y, torch.ones_like(x)), -1).double() @ torch.linalg.inv(cameras.k[0, 0]).T
    )
    pose = torch.linalg.inv(cameras.cam_from_world[0, 0])
    ray, eye = local @ pose[:3, :3].T, pose[:3, 3]
    at_wall = -eye[1] / ray[..., 1]
    point = eye + at_wall[..., None] * ray
    expected, sunk = at_wall.clone(), torch.zeros_like(at_wall, dtype=torch.bool)
    for column in (-2.0, 0.0, 2.0):
        for row in (1.0, 3.0):
            low = torch.tensor([column - 0.5, -0.4, row - 0.6], dtype=torch.float64)
            high = torch.tensor([column + 0.5, 0.0, row + 0.6], dtype=torch.float64)
            through = (point[..., [0, 2]] > low[[0, 2]]).all(-1)
            through &= (point[..., [0, 2]] < high[[0, 2]]).all(-1)
            ends = torch.where(ray > 0, (high - eye) / ray, (low - eye) / ray).amin(-1)
            expected = torch.where(through, ends, expected)
            sunk |= through
    on_wall = (point[..., 0].abs() < 2.99) & (point[..., 2] > 0.01) & (point[..., 2] < 3.99)
    assert 0.1 < float(sunk[on_wall].double().mean()) < 0.6
    relative = (depth / expected - 1).abs()[on_wall]
    assert float((relative < 1e-5).double().mean()) > 0.995
    assert float((expected - at_wall)[sunk].max()) > 0.4


def test_passers_by_have_no_depth_and_no_correspondence(atlas: MipAtlas) -> None:
    def somebody(build: PlaceBuilder) -> None:
        build.put("box", vector(0, 0, 0.8), vector(0.4, 0.4, 0.8), role="any", group=2)

    scene = build_place(atlas, somebody)
    cameras = cameras_at((0, 4, 1.5), (0.8, 4, 1.6), target=(0, 0, 0.8))
    weather = still_weather(scene, 2)
    shown = weather.shown.clone()
    shown[0, 0, 2] = True
    views = render(scene, cameras, SIZE, weather=replace(weather, shown=shown))
    empty = render(scene, cameras, SIZE, weather=weather)
    there = views.passing[0, 0]
    assert 0.05 < float(there.double().mean()) < 0.5
    assert not bool(views.passing[0, 1].any())
    assert not bool(empty.passing.any())
    assert float(views.depth[0, 0][there].abs().max()) == 0.0
    assert torch.equal(views.depth[0, 0][~there], empty.depth[0, 0][~there])
    assert torch.equal(views.depth[0, 1], empty.depth[0, 1])
    difference = (views.image[0, 0] - empty.image[0, 0]).abs().amax(0)
    assert float(difference[there].mean()) > 0.02

    pose = relative_pose(cameras.cam_from_world[0, 0], cameras.cam_from_world[0, 1])
    k = cameras.k[0, 0]
    forward = correspondences(views.depth[0, 0], k, views.depth[0, 1], k, pose)
    assert not bool(forward.valid[there].any())
    back = correspondences(views.depth[0, 1], k, views.depth[0, 0], k, torch.linalg.inv(pose))
    target = back.target[back.valid].round().long()
    assert len(target) > 100
    assert float(there[target[:, 1], target[:, 0]].double().mean()) < 0.01


def test_light_changes_colours_but_not_geometry(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(3)
    scene = sample_scenes(generator, 2, atlas, SceneOptions(0, 0, 0, 0, facades=1))
    one = sample_cameras(generator, scene, 1, SIZE)
    cameras = one.select(torch.zeros(2, 2, dtype=torch.long))
    options = WeatherOptions(night=0.5, changes=1, passes_by=0)
    views = render(scene, cameras, SIZE, weather=sample_weather(generator, scene, 2, options))
    assert torch.equal(views.depth[:, 0], views.depth[:, 1])
    assert float((views.image[:, 0] - views.image[:, 1]).abs().mean()) > 0.03
    plain = render(scene, cameras, SIZE)
    assert torch.equal(plain.depth, views.depth)


def test_night_is_darker_than_day(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(3)
    scene = sample_scenes(generator, 2, atlas, SceneOptions(0, 0, 0, 0, avenues=1))
    cameras = sample_cameras(generator, scene, 1, SIZE)
    brightness = []
    for night in (0.0, 1.0):
        options = WeatherOptions(night=night, changes=0, passes_by=0)
        weather = sample_weather(torch.Generator().manual_seed(1), scene, 1, options)
        brightness.append(render(scene, cameras, SIZE, weather=weather).image.mean((1, 2, 3, 4)))
    assert float(brightness[1].mean()) < float(brightness[0].mean()) - 0.05


def test_reflections_and_highlights_move_and_depth_does_not(atlas: MipAtlas) -> None:
    def wall(build: PlaceBuilder) -> None:
        build.put("box", vector(0, -3, 1), vector(3, 0.1, 1), role="picture", glow=1.0)

    dull, glossy = (build_place(atlas, wall, shine) for shine in (0.0, 0.6))
    cameras = cameras_at((0, 3, 1.2), (1.5, 3, 1.6), target=(0, -1, 0))
    weather = still_weather(dull, 2)
    options = RenderOptions(mirror_share=1.0, edge_share=0.0)
    views = [render(scene, cameras, SIZE, options, weather) for scene in (dull, glossy)]
    assert torch.equal(views[0].depth, views[1].depth)
    floor = (views[0].depth[0, 0] > 0) & (torch.arange(40)[:, None] > 24)
    change = (views[1].image - views[0].image)[0, 0].abs().amax(0)
    assert float(change[floor].mean()) > 0.02

    # A floor point that both views see: the mirrored wall is elsewhere on it in each.
    pose = relative_pose(cameras.cam_from_world[0, 0], cameras.cam_from_world[0, 1])
    k, depth = cameras.k[0, 0], views[0].depth[0]
    found = correspondences(depth[0], k, depth[1], k, pose)
    keep = found.valid & floor
    x, y = found.target[keep].round().long().unbind(-1)
    assert len(x) > 50
    spread = []
    for scene_views in views:
        image = scene_views.image[0]
        spread.append(float((image[0][:, keep] - image[1][:, y, x]).abs().mean()))
    assert spread[1] > 1.3 * spread[0]


def test_a_block_shadows_the_floor_behind_it(atlas: MipAtlas) -> None:
    def block(build: PlaceBuilder) -> None:
        build.put("box", vector(0, 0, 1), vector(0.6, 0.6, 0.2), role="wall")

    scene = build_place(atlas, block)
    weather = still_weather(scene)
    above = replace(
        weather,
        key_position=torch.tensor([[[6.0, 0.0, 8.0]]], dtype=torch.float64),
        key_colour=torch.full((1, 1, 3), 5.0),
        key_reach=torch.full((1, 1), 10.0),
        ambient=torch.full((1, 1, 3), 0.1),
        lamps=torch.zeros(1, 1, 3),
    )
    cameras = cameras_at((0, 4, 4), target=(0, 0, 0))
    lit, dark = (
        render(scene, cameras, SIZE, RenderOptions(shadows=shadows), above).image[0, 0]
        for shadows in (False, True)
    )
    below = torch.tensor([[-0.86, 0.0, 0.0]], dtype=torch.float64)
    (x, y) = pixels_of(cameras, below)[0][0, 0, 0].round().long().tolist()
    beside = torch.tensor([[1.6, 0.0, 0.0]], dtype=torch.float64)
    (x1, y1) = pixels_of(cameras, beside)[0][0, 0, 0].round().long().tolist()
    # Exposure is chosen for the whole picture, so ratios count.
    assert float(dark[:, y, x].mean() / dark[:, y1, x1].mean()) < 0.6 * float(
        lit[:, y, x].mean() / lit[:, y1, x1].mean()
    )


@pytest.mark.parametrize("together", [False, True])
def test_every_way_of_tracing_gives_one_picture(atlas: MipAtlas, together: bool) -> None:
    generator = torch.Generator().manual_seed(21)
    shares = SceneOptions(0, 0, 0, 1, interiors=1, facades=1)
    scene = sample_scenes(generator, 2, atlas, shares)
    cameras = sample_cameras(generator, scene, 2, SIZE)
    weather = sample_weather(generator, scene, 2)
    one = render(scene, cameras, SIZE, RenderOptions(views_at_once=1), weather)
    many = RenderOptions(cull=not together, views_at_once=4)
    other = render(scene, cameras, SIZE, many, weather)
    off = (one.depth / other.depth.clamp(min=1e-6) - 1).abs()[one.depth > 0] > 1e-4
    assert float(off.double().mean()) < 1e-3
    assert float(((one.image - other.image).abs().amax(2) > 0.02).double().mean()) < 0.02


def test_scenes_with_panels_need_their_holes(atlas: MipAtlas) -> None:
    scene = sample_scenes(torch.Generator().manual_seed(0), 1, atlas, SceneOptions())
    with pytest.raises(InputError, match="scene finish"):
        replace(scene, counts=ShapeCounts(20, 5, 2, 1, 0))


def test_weather_must_fit_the_views(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(0)
    scene = sample_scenes(generator, 1, atlas)
    cameras = sample_cameras(generator, scene, 2, SIZE)
    with pytest.raises(InputError, match="weather: expected 1 scenes x 2 views"):
        render(scene, cameras, SIZE, weather=still_weather(scene, 1))
    with pytest.raises(InputError, match="weather options"):
        WeatherOptions(night=2.0)


def test_eye_heights_and_sides_are_kept(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(4)
    scene = sample_scenes(generator, 4, atlas, SceneOptions(0, 0, 0, 0, facades=1))
    cameras = sample_cameras(generator, scene, 4, SIZE)
    position = torch.linalg.inv(cameras.cam_from_world)[..., :3, 3]
    assert float(position[..., 2].min()) > 0.2
    assert float(position[..., 1].min()) > -2  # the landmark's front is its y side
    assert xyz(*position[0].unbind(-1)).shape == (4, 3)
