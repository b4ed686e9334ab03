"""Textured triangle meshes: reading them, and standing one in each scene.

``read_mesh`` is the only place that knows the optional package trimesh.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.errors import DatasetError, InputError, MissingDependencyError
from matcher.synthetic.scene import Scene, SceneMesh

__all__ = ["MeshModel", "add_meshes", "find_meshes", "join_textures", "read_mesh"]

_MESH_SUFFIXES = (".obj", ".dae", ".glb", ".ply")
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
# Words in the names of images that are not the colour of a surface.
_NOT_COLOUR = ("spec", "normal", "bump", "rough", "metal")


@dataclass(frozen=True, slots=True, eq=False)
class MeshModel:
    """A mesh of unit size that stands on z = 0.

    Attributes:
        triangles: (F, 3, 3) float64; the longest side of the bounding box is 1.
        uv: (F, 3, 2) float32 texture coordinates, v downwards.
        texture: (F,) int64, row of ``textures``.
        textures: (K, 3, size, size) uint8.
        name: where it came from.
    """

    triangles: Tensor
    uv: Tensor
    texture: Tensor
    textures: Tensor
    name: str = "mesh"


def find_meshes(folders: Sequence[str | Path]) -> list[Path]:
    """All mesh files under the folders, sorted."""
    found: list[Path] = []
    for folder in folders:
        if not Path(folder).exists():
            raise DatasetError(f"mesh folder not found: {folder}")
        files = sorted(Path(folder).rglob("*"))
        found += [file for file in files if file.suffix.lower() in _MESH_SUFFIXES]
    return found


def _colour_images(mesh_file: Path) -> list[Path]:
    """Images beside a mesh, the largest first: exporters often lose the path in the file."""
    root = mesh_file.parent.parent if mesh_file.parent.name == "meshes" else mesh_file.parent
    images = [
        file
        for file in root.rglob("*")
        if file.suffix.lower() in _IMAGE_SUFFIXES
        and not any(word in file.name.lower() for word in _NOT_COLOUR)
    ]
    return sorted(images, key=lambda file: -file.stat().st_size)


def _square(image: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    shrinks = max(image.shape[:2]) > size
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size, size), interpolation=method), dtype=np.uint8)


def _own_image(part: Any) -> npt.NDArray[np.uint8] | None:
    material = getattr(part.visual, "material", None)
    for name in ("image", "baseColorTexture"):
        image = getattr(material, name, None)
        if image is not None:
            return np.asarray(image.convert("RGB"), dtype=np.uint8)
    return None


def _file_image(files: list[Path], is_main: bool) -> npt.NDArray[np.uint8] | None:
    """The body shows the largest image beside the mesh, other parts the next one."""
    if not files:
        return None
    image = cv2.imread(str(files[0 if is_main else min(1, len(files) - 1)]), cv2.IMREAD_COLOR)
    return None if image is None else np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)


def read_mesh(path: str | Path, texture_size: int = 512, max_faces: int = 4000) -> MeshModel | None:
    """Read a mesh file; None where it has no texture coordinates, no image or too many faces.

    Args:
        path: OBJ, Collada or GLB file, z up.
        texture_size: side of its textures, a power of two.
        max_faces: largest number of triangles.

    Raises:
        MissingDependencyError: trimesh is not installed.
        DatasetError: the file cannot be read.
    """
    try:
        import trimesh
    except ImportError:
        raise MissingDependencyError("trimesh", "train", "reading meshes") from None
    file = Path(path)
    try:
        loaded: Any = trimesh.load(file, process=False, force="scene")
        parts: list[Any] = list(loaded.dump())
    except Exception as error:  # every format has its own parser with its own errors
        raise DatasetError(f"cannot read mesh {file}: {error}") from error
    parts = [part for part in parts if getattr(part.visual, "uv", None) is not None]
    images = _colour_images(file)
    triangles, uv, texture, textures = [], [], [], []
    sizes = [float(part.area) for part in parts]
    for row, part in enumerate(parts):
        image = _own_image(part)
        if image is None:
            image = _file_image(images, sizes[row] == max(sizes))
        if image is None:
            return None
        corners = np.asarray(part.visual.uv, dtype=np.float32)[part.faces]
        triangles.append(np.asarray(part.triangles, dtype=np.float64))
        uv.append(np.stack((corners[..., 0], 1 - corners[..., 1]), -1))
        texture.append(np.full(len(part.faces), row))
        textures.append(_square(image, texture_size).transpose(2, 0, 1))
    if not triangles or sum(len(part) for part in triangles) > max_faces:
        return None
    points = np.concatenate(triangles)
    low, high = points.min((0, 1)), points.max((0, 1))
    foot = np.array([(low[0] + high[0]) / 2, (low[1] + high[1]) / 2, low[2]])
    return MeshModel(
        torch.from_numpy((points - foot) / (high - low).max()),
        torch.from_numpy(np.concatenate(uv)),
        torch.from_numpy(np.concatenate(texture)),
        torch.from_numpy(np.stack(textures)),
        file.stem,
    )


def join_textures(textures: Tensor, models: Sequence[MeshModel]) -> tuple[Tensor, list[int]]:
    """All textures of one atlas, (T, 3, size, size), and the first row of each model's own."""
    starts, total = [], len(textures)
    for model in models:
        if model.textures.shape[1:] != textures.shape[1:]:
            raise InputError(
                "mesh textures",
                f"{tuple(textures.shape[1:])}",
                f"{tuple(model.textures.shape[1:])}",
            )
        starts.append(total)
        total += len(model.textures)
    return torch.cat([textures, *(model.textures for model in models)]), starts


def add_meshes(
    generator: torch.Generator,
    scene: Scene,
    models: Sequence[MeshModel],
    texture_starts: Sequence[int],
    photo_share: float = 0.3,
    share: float = 1.0,
) -> Scene:
    """Stand one random mesh in each scene, turned about the vertical, where views will look.

    Args:
        generator: source of all randomness, on the CPU.
        scene: S scenes.
        models: meshes to choose from.
        texture_starts: first row of each model's textures in the atlas of the scenes.
        photo_share: how often a mesh wears a random texture of the atlas instead of its own.
        share: how many of the scenes get one.
    """
    if not models or len(models) != len(texture_starts):
        raise InputError(
            "models", f"at least one, and {len(texture_starts)} starts", f"{len(models)}"
        )
    num, device = len(scene), scene.center.device
    faces = max(len(model.triangles) for model in models)
    triangles = torch.zeros(num, faces, 3, 3, dtype=torch.float64)
    uv = torch.zeros(num, faces, 3, 2)
    texture = torch.zeros(num, faces, dtype=torch.int32)
    anchor, size = scene.anchor.cpu(), scene.anchor_size.cpu()
    attention = scene.attention.cpu().clone()
    for row in range(num):
        if share < 1 and float(torch.rand((), generator=generator)) >= share:
            continue
        choice = int(torch.randint(len(models), (1,), generator=generator))
        model, used = models[choice], len(models[choice].triangles)
        angle, photo, stretch = torch.rand(3, generator=generator).tolist()
        cos, sin = math.cos(2 * math.pi * angle), math.sin(2 * math.pi * angle)
        turn = torch.tensor([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]], dtype=torch.float64)
        placed = size[row] * (0.7 + 0.6 * stretch) * model.triangles @ turn.T + anchor[row]
        triangles[row, :used] = placed
        uv[row, :used] = model.uv.float()
        own = texture_starts[choice] + model.texture
        other = torch.randint(scene.atlas.count, (1,), generator=generator)
        texture[row, :used] = (other.expand(used) if photo < photo_share else own).to(torch.int32)
        low, high = placed.amin((0, 1)), placed.amax((0, 1))
        attention[row, ::2] = (low + high) / 2
    mesh = SceneMesh(triangles.to(device), uv.to(device), texture.to(device))
    return replace(scene, mesh=mesh, attention=attention.to(device))
