"""Height fields: a continuous surface that rays meet exactly."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import MipAtlas, SceneOptions, cast_depth, sample_cameras, sample_scenes
from matcher.synthetic.meshes import add_meshes
from matcher.synthetic.relief import height_field

GREY = torch.full((3, 64, 64), 128, dtype=torch.uint8)
SIZE = ImageSize(40, 48)


def field(seed: int = 0, **options):
    return height_field(torch.Generator().manual_seed(seed), GREY, **options)


def test_it_covers_the_square_once_and_keeps_its_height() -> None:
    model = field(cells=10, relief=0.3)
    corners = model.triangles
    assert corners.shape == (200, 3, 3)
    one, two = (corners[:, i] - corners[:, 0] for i in (1, 2))
    areas = (one[:, 0] * two[:, 1] - one[:, 1] * two[:, 0]) / 2
    assert torch.allclose(areas, torch.full_like(areas, 0.005), atol=1e-12)
    heights = corners[..., 2]
    assert (float(heights.min()), float(heights.max())) == pytest.approx((0.0, 0.3))
    assert (float(corners[..., 0].min()), float(corners[..., 1].max())) == (-0.5, 0.5)


def test_neighbours_share_their_edges() -> None:
    corners = field(cells=6).triangles.reshape(-1, 3)
    known: dict[tuple[float, float], float] = {}
    for x, y, z in corners.tolist():
        assert known.setdefault((round(x, 9), round(y, 9)), z) == z
    assert len(known) == 49


def test_the_seed_decides() -> None:
    assert torch.equal(field(3).triangles, field(3).triangles)
    assert not torch.equal(field(3).triangles, field(4).triangles)


def test_rays_end_on_the_surface(atlas: MipAtlas) -> None:
    generator = torch.Generator().manual_seed(5)
    scene = sample_scenes(generator, 2, atlas, SceneOptions(0, 0, 1, 0))
    without = scene
    scene = add_meshes(generator, scene, [field(cells=8)], [0], photo_share=0.0)
    assert scene.mesh is not None
    cameras = sample_cameras(generator, scene, 3, SIZE)
    depth, behind = cast_depth(scene, cameras, SIZE), cast_depth(without, cameras, SIZE)
    y, x = torch.meshgrid(torch.arange(SIZE.height), torch.arange(SIZE.width), indexing="ij")
    pixel = torch.stack((x, y, torch.ones_like(x)), -1).double()
    checked = 0
    for row in range(2):
        triangles = scene.mesh.triangles[row]
        for view in range(3):
            on_field = (depth[row, view] > 0) & (
                (behind[row, view] == 0) | (depth[row, view] < behind[row, view] - 1e-3)
            )
            rays = pixel[on_field] @ torch.linalg.inv(cameras.k[row, view]).T
            local = rays * depth[row, view][on_field][:, None]
            pose = torch.linalg.inv(cameras.cam_from_world[row, view])
            points = (local @ pose[:3, :3].T + pose[:3, 3])[::7]
            if not len(points):
                continue
            base, one, two = (triangles[:, i].double() for i in range(3))
            edges = torch.stack([one - base, two - base], dim=-1)[:, :2]
            weights = torch.linalg.solve(
                edges[None], (points[:, None, :2] - base[None, :, :2])[..., None]
            )[..., 0]
            inside = (weights >= -1e-6).all(-1) & (weights.sum(-1) <= 1 + 1e-6)
            rise = torch.stack([one - base, two - base], dim=-1)[:, 2]
            height = base[None, :, 2] + (weights * rise[None]).sum(-1)
            miss = torch.where(inside, (height - points[:, None, 2]).abs(), torch.inf)
            nearest = miss.min(dim=1).values
            assert float((nearest < 1e-4).double().mean()) > 0.98
            checked += len(points)
    assert checked > 30


def test_bad_arguments_are_named() -> None:
    with pytest.raises(InputError, match="cells"):
        field(cells=1)
    with pytest.raises(InputError, match="relief"):
        field(relief=0.0)
    with pytest.raises(InputError, match="texture"):
        height_field(torch.Generator(), GREY[:2])
