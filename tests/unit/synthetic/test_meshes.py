"""Triangle meshes: exact hits, both ways of finding them, reading and placing."""

from __future__ import annotations

import builtins
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from matcher.errors import DatasetError, InputError, MissingDependencyError
from matcher.structures import ImageSize
from matcher.synthetic import (
    MipAtlas,
    RenderOptions,
    Scene,
    SceneOptions,
    cast_depth,
    correspondences,
    relative_pose,
    render,
    sample_cameras,
    sample_scenes,
)
from matcher.synthetic.meshes import (
    MeshModel,
    add_meshes,
    find_meshes,
    join_textures,
    read_mesh,
)
from matcher.synthetic.render import cast_pixels

SIZE = ImageSize(48, 40)


def cube_model(half: torch.Tensor) -> MeshModel:
    """A box around the origin as 12 triangles."""
    triangles = []
    for axis in range(3):
        for side in (-1.0, 1.0):
            corners = []
            for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
                point = [0.0, 0.0, 0.0]
                point[axis], point[(axis + 1) % 3], point[(axis + 2) % 3] = side, a, b
                corners.append(torch.tensor(point, dtype=torch.float64) * half)
            triangles += [torch.stack(corners[:3]), torch.stack([corners[0], *corners[2:]])]
    return MeshModel(
        torch.stack(triangles),
        torch.rand(12, 3, 2, generator=torch.Generator().manual_seed(0)),
        torch.zeros(12, dtype=torch.int64),
        torch.full((1, 3, 64, 64), 128, dtype=torch.uint8),
    )


@pytest.fixture(scope="module")
def places(atlas: MipAtlas) -> Scene:
    generator = torch.Generator().manual_seed(8)
    scene = sample_scenes(generator, 4, atlas, SceneOptions(1, 0, 1, 1))
    half = torch.tensor([0.5, 0.3, 0.4], dtype=torch.float64)
    return add_meshes(generator, scene, [cube_model(half)], [0])


def test_mesh_of_a_box_is_the_box(places: Scene) -> None:
    """The same box as triangles and as a primitive gives the same depth."""
    assert places.mesh is not None
    cameras = sample_cameras(torch.Generator().manual_seed(1), places, 3, SIZE)
    as_mesh = cast_depth(places, cameras, SIZE)
    corners = places.mesh.triangles.flatten(1, 2)
    center = (corners.amin(1) + corners.amax(1)) / 2
    first = places.mesh.triangles[:, 0]  # the lower face across x: its edges run along y and z
    along_y, along_z = first[:, 1] - first[:, 0], first[:, 2] - first[:, 1]
    y = torch.nn.functional.normalize(along_y, dim=-1)
    z = torch.nn.functional.normalize(along_z, dim=-1)
    rotation = torch.stack((torch.linalg.cross(y, z), y, z), -1)
    length_y = torch.linalg.vector_norm(along_y, dim=-1)
    half = torch.stack((length_y * 5 / 6, length_y / 2, length_y * 2 / 3), -1)
    without = cast_depth(replace(places, mesh=None), cameras, SIZE)
    boxed = replace(
        places,
        mesh=None,
        center=torch.cat((center[:, None], places.center[:, 1:]), 1),
        rotation=torch.cat((rotation[:, None], places.rotation[:, 1:]), 1),
        half_size=torch.cat((half[:, None], places.half_size[:, 1:]), 1),
    )
    expected = cast_depth(boxed, cameras, SIZE)
    on_mesh = as_mesh < without - 1e-4
    assert float(on_mesh.double().mean()) > 0.03
    relative = (as_mesh / expected - 1).abs()[on_mesh]
    assert float((relative < 1e-5).double().mean()) > 0.995
    assert float(relative.median()) < 1e-6


def test_tiles_change_nothing(places: Scene) -> None:
    cameras = sample_cameras(torch.Generator().manual_seed(2), places, 2, SIZE)
    tiles = render(places, cameras, SIZE, RenderOptions(cull=True))
    plain = render(places, cameras, SIZE, RenderOptions(cull=False, views_at_once=8))
    assert float(((tiles.depth / plain.depth - 1).abs() > 1e-5).double().mean()) < 1e-3
    assert float(((tiles.image - plain.image).abs() > 1e-3).double().mean()) < 2e-3


def test_mesh_views_agree_with_each_other(places: Scene) -> None:
    cameras = sample_cameras(torch.Generator().manual_seed(3), places, 2, SIZE)
    depth = render(places, cameras, SIZE).depth
    k, pose = cameras.k, cameras.cam_from_world
    relative = relative_pose(pose[:, 0], pose[:, 1])
    found = correspondences(depth[:, 0], k[:, 0], depth[:, 1], k[:, 1], relative)
    other = cameras.select(torch.ones(len(places), 1, dtype=torch.long))
    target = torch.where(found.valid[..., None], found.target, 0.0)
    seen = cast_pixels(places, other, target.flatten(1, 2)[:, None])[:, 0].view_as(found.valid)
    y, x = torch.meshgrid(torch.arange(SIZE.height), torch.arange(SIZE.width), indexing="ij")
    pixel = torch.stack((x, y, torch.ones_like(x)), -1).double()
    local = (pixel @ torch.linalg.inv(k[:, 0])[:, None].mT) * depth[:, 0, ..., None]
    moved = local @ relative[:, None, :3, :3].mT + relative[:, None, None, :3, 3]
    error = (seen / moved[..., 2] - 1).abs()[found.valid]
    assert float((error < 1e-4).double().mean()) > 0.95


def write_quad(folder: Path, with_uv: bool = True) -> Path:
    """An OBJ file of one square of 2 m, 3 m above the ground, and its picture."""
    rng = np.random.default_rng(0)
    cv2.imwrite(str(folder / "skin.png"), rng.integers(0, 255, (20, 30, 3), dtype=np.uint8))
    corners = "v -1 0 3\nv 1 0 3\nv 1 0 5\nv -1 0 5\n"
    if with_uv:
        face = "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\nf 1/1 2/2 3/3\nf 1/1 3/3 4/4\n"
    else:
        face = "f 1 2 3\nf 1 3 4\n"
    path = folder / "quad.obj"
    path.write_text(corners + face)
    return path


def test_reading_puts_a_mesh_on_the_ground(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    write_quad(tmp_path)
    (path,) = find_meshes([tmp_path])
    model = read_mesh(path, 16)
    assert model is not None
    assert model.triangles.shape == (2, 3, 3)
    assert float(model.triangles[..., 2].min()) == 0.0
    assert float(model.triangles[..., 2].max()) == pytest.approx(1.0)
    assert float(model.triangles[..., 0].abs().max()) == pytest.approx(0.5)
    bottom = model.triangles[..., 2] == 0
    assert torch.equal(model.uv[..., 1][bottom], torch.ones(int(bottom.sum())))
    assert model.textures.shape == (1, 3, 16, 16)
    joined, starts = join_textures(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), [model, model])
    assert starts == [5, 6]
    assert joined.shape[0] == 7


def test_meshes_without_texture_or_too_fine_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    assert read_mesh(write_quad(tmp_path, with_uv=False), 16) is None
    assert read_mesh(write_quad(tmp_path), 16, max_faces=1) is None


def test_broken_mesh_is_named(tmp_path: Path) -> None:
    pytest.importorskip("trimesh")
    broken = tmp_path / "broken.glb"
    broken.write_bytes(b"nothing of the kind")
    with pytest.raises(DatasetError, match=r"broken\.glb"):
        read_mesh(broken)
    with pytest.raises(DatasetError, match="nowhere"):
        find_meshes([tmp_path / "nowhere"])


def test_missing_trimesh_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "trimesh":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=r"pip install 'widebase\[train\]'"):
        read_mesh(write_quad(tmp_path))


def test_no_models_are_refused(places: Scene) -> None:
    with pytest.raises(InputError, match="models"):
        add_meshes(torch.Generator(), places, [], [])


def test_textures_of_another_size_are_refused() -> None:
    model = cube_model(torch.ones(3, dtype=torch.float64))
    with pytest.raises(InputError, match="mesh textures"):
        join_textures(torch.zeros(5, 3, 16, 16, dtype=torch.uint8), [model])
