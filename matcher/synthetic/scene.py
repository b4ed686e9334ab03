"""What a synthetic scene is: a fixed number of textured primitives, batched over scenes.

World frame: right-handed, z up, metres. Every primitive is a unit shape (cube, ball, cylinder along
z, square with holes) that is scaled by ``half_size``, rotated and moved; that single form makes
one ray transform serve all kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.finish import Finish
from matcher.synthetic.textures import MipAtlas

__all__ = ["FACES", "Cameras", "Scene", "SceneMesh", "ShapeCounts", "ShapeKind"]

FACES = 6
ShapeKind = Literal["box", "ellipsoid", "cylinder", "fence", "leaves", "enclosure"]


@dataclass(frozen=True, slots=True)
class ShapeCounts:
    """How many primitives of each kind a scene has; the enclosure comes after them.

    Primitives are stored in this order: boxes, ellipsoids, cylinders, fences, leaves, then one
    enclosure (a box seen from inside: a room, or ground and backdrop). Fences and leaves are flat
    squares with holes, of bars or in the shape of foliage.
    """

    boxes: int = 20
    ellipsoids: int = 5
    cylinders: int = 3
    fences: int = 0
    leaves: int = 0

    def __post_init__(self) -> None:
        if min(self.of_each) < 0:
            raise InputError("shape counts", "no negative number", f"{self}")

    @property
    def of_each(self) -> tuple[int, int, int, int, int]:
        """Numbers in storage order, without the enclosure."""
        return self.boxes, self.ellipsoids, self.cylinders, self.fences, self.leaves

    @property
    def panels(self) -> int:
        """Number of flat primitives with holes."""
        return self.fences + self.leaves

    @property
    def total(self) -> int:
        """Number of primitives with the enclosure."""
        return sum(self.of_each) + 1

    @property
    def kinds(self) -> tuple[ShapeKind, ...]:
        """Kind of each primitive, in storage order."""
        kinds: list[ShapeKind] = ["box"] * self.boxes
        kinds += ["ellipsoid"] * self.ellipsoids
        kinds += ["cylinder"] * self.cylinders
        kinds += ["fence"] * self.fences
        kinds += ["leaves"] * self.leaves
        return (*kinds, "enclosure")


@dataclass(frozen=True, slots=True, eq=False)
class SceneMesh:
    """One textured triangle mesh in each of S scenes, padded to F triangles with empty ones.

    Attributes:
        triangles: (S, F, 3, 3) float64 corners, world frame, metres.
        uv: (S, F, 3, 2) float32 texture coordinates.
        texture: (S, F) int32, index into the atlas.
    """

    triangles: Tensor
    uv: Tensor
    texture: Tensor

    def to(self, device: torch.device | str) -> SceneMesh:
        """The same meshes on another device."""
        return SceneMesh(self.triangles.to(device), self.uv.to(device), self.texture.to(device))

    def select(self, rows: Tensor) -> SceneMesh:
        """The meshes of some of the scenes."""
        return SceneMesh(self.triangles[rows], self.uv[rows], self.texture[rows])


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """S scenes of P primitives with 6 faces each (ellipsoids: cube-map; cylinders: -, side, caps).

    Attributes:
        counts: how many primitives of each kind; P is ``counts.total``.
        rotation: (S, P, 3, 3) float64, world_from_local.
        center: (S, P, 3) float64, metres.
        half_size: (S, P, 3) float64, metres.
        texture: (S, P, 6) int32, index into the atlas; face ``2 * axis + (positive side)``.
        uv_from_local: (S, P, 6, 2, 3) float32, texture coordinates from face metres (a, b, 1).
        tint: (S, P, 6, 3) float32 factors of the texture's colour.
        specular: (S, P, 6) float32, strength of the highlight.
        is_backdrop: (S, P, 6) bool, drawn but infinitely far as far as depth is concerned.
        light_direction: (S, 3) float64, unit, towards the light.
        ambient: (S,) float32, share of the light that comes from everywhere.
        attention: (S, A, 3) float64, points worth looking at.
        view_distance: (S, 2) float64, nearest and farthest camera from an attention point, metres.
        elevation: (S, 2) float64, lowest and highest camera elevation seen from there, radians.
        azimuth: (S, 2) float64, the same about the vertical, from x to y, radians.
        eye_height: (S, 2) float64, lowest and highest camera, metres of the world's z.
        anchor: (S, 3) float64, where a further object can stand.
        anchor_size: (S,) float64, about how large it may be, metres.
        atlas: the textures.
        mesh: a triangle mesh in each scene, or None.
        finish: openings, holes, gloss, lamps and what passes by; None: nothing of it. A scene
            with panels needs one.
    """

    counts: ShapeCounts
    rotation: Tensor
    center: Tensor
    half_size: Tensor
    texture: Tensor
    uv_from_local: Tensor
    tint: Tensor
    specular: Tensor
    is_backdrop: Tensor
    light_direction: Tensor
    ambient: Tensor
    attention: Tensor
    view_distance: Tensor
    elevation: Tensor
    azimuth: Tensor
    eye_height: Tensor
    anchor: Tensor
    anchor_size: Tensor
    atlas: MipAtlas
    mesh: SceneMesh | None = None
    finish: Finish | None = None

    def __post_init__(self) -> None:
        num, shapes = self.center.shape[0], self.counts.total
        expected = (num, shapes, 3)
        for name in ("center", "half_size"):
            if tuple(getattr(self, name).shape) != expected:
                raise InputError(
                    f"scene {name}", f"shape {expected}", f"{tuple(getattr(self, name).shape)}"
                )
        if self.counts.panels and self.finish is None:
            raise InputError("scene finish", "one, for its panels' holes", "None")

    def __len__(self) -> int:
        return int(self.center.shape[0])

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}

    def to(self, device: torch.device | str) -> Scene:
        """The same scenes on another device."""
        moved = {name: value.to(device) for name, value in self._tensors().items()}
        return Scene(
            counts=self.counts,
            atlas=self.atlas.to(device),
            mesh=None if self.mesh is None else self.mesh.to(device),
            finish=None if self.finish is None else self.finish.to(device),
            **moved,
        )

    def select(self, rows: Tensor) -> Scene:
        """Some of the scenes, by index."""
        chosen = {name: value[rows] for name, value in self._tensors().items()}
        return Scene(
            counts=self.counts,
            atlas=self.atlas,
            mesh=None if self.mesh is None else self.mesh.select(rows),
            finish=None if self.finish is None else self.finish.select(rows),
            **chosen,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Cameras:
    """V pinhole cameras for each of S scenes.

    Attributes:
        k: (S, V, 3, 3) float64 intrinsics, pixels; integer coordinates are pixel centres.
        cam_from_world: (S, V, 4, 4) float64, OpenCV camera axes.
    """

    k: Tensor
    cam_from_world: Tensor

    def __post_init__(self) -> None:
        if self.k.ndim != 4 or self.cam_from_world.shape != (*self.k.shape[:2], 4, 4):
            raise InputError(
                "cameras",
                "k (S, V, 3, 3) and cam_from_world (S, V, 4, 4)",
                f"{tuple(self.k.shape)} and {tuple(self.cam_from_world.shape)}",
            )

    def select(self, views: Tensor) -> Cameras:
        """Views (S, N) int64 of each scene."""
        rows = torch.arange(self.k.shape[0], device=views.device)[:, None]
        return Cameras(self.k[rows, views], self.cam_from_world[rows, views])

    def resized(self, scale_x: float, scale_y: float) -> Cameras:
        """The same cameras for an image scaled by these factors."""
        change = torch.tensor(
            [
                [scale_x, 0.0, 0.5 * scale_x - 0.5],
                [0.0, scale_y, 0.5 * scale_y - 0.5],
                [0.0, 0.0, 1.0],
            ],
            dtype=self.k.dtype,
            device=self.k.device,
        )
        return Cameras(change @ self.k, self.cam_from_world)
