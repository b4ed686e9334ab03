"""What rays need to know of scenes, view by view, ready to be gathered."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.scene import Cameras, Scene, ShapeCounts
from matcher.synthetic.triangles import MeshTables, build_mesh_tables
from matcher.synthetic.weather import Weather

__all__ = ["NEAREST", "LightTables", "RayTables", "build_tables"]

NEAREST = 1e-3  # metres; closer surfaces are behind the glass of the lens
_AWAY = 4.0  # unit-frame place of a shape that is not there
_HARDLY = 1e-9  # what its rays are scaled by: it is met beyond everything


@dataclass(frozen=True, slots=True, eq=False)
class LightTables:
    """The light of B views in the camera's frame.

    Attributes:
        weather: colours and strengths, (B, ...).
        key: (B, 3) position of the main light; up: (B, 3) the world's z; lamps: (B, L, 3).
        world_from_cam: (B, 3, 3) rotation.
    """

    weather: Weather
    key: Tensor
    up: Tensor
    lamps: Tensor | None
    world_from_cam: Tensor

    def rows(self, start: int, stop: int) -> LightTables:
        """Some of the views."""
        part = slice(start, stop)
        return LightTables(
            self.weather.rows(start, stop),
            self.key[part],
            self.up[part],
            None if self.lamps is None else self.lamps[part],
            self.world_from_cam[part],
        )


@dataclass(frozen=True, slots=True, eq=False)
class RayTables:
    """Per view (B) what a ray needs to know of each primitive (P) and face.

    local_from_pixel (B, P, 3, 3): unit-frame direction of the ray of a homogeneous pixel.
    origin (B, P, 3): camera centre in the unit frame. half_size (B, P, 3), metres.
    cam_from_metric (B, P, 3, 3): rotation of the primitive's frame into the camera's.
    faces (B, P * 6, 11 or 22): uv 6, tint 3, specular, backdrop; with a finish emission, mirror and
    inset 9 too; texture (B, P * 6, 1 or 2): the face's and that in its openings. pattern (B, Q, 8)
    of the panels. passing (B, P) bool.
    k, inverse_k (B, 3, 3); camera_light (B, 3): the scene's own light, in the camera's frame.
    """

    counts: ShapeCounts
    local_from_pixel: Tensor
    origin: Tensor
    half_size: Tensor
    cam_from_metric: Tensor
    faces: Tensor
    texture: Tensor
    ambient: Tensor
    focal: Tensor
    k: Tensor
    inverse_k: Tensor
    camera_light: Tensor
    pattern: Tensor | None
    passing: Tensor | None
    has_sky: bool
    has_insets: bool
    mesh: MeshTables | None
    light: LightTables | None

    def rows(self, start: int, stop: int) -> RayTables:
        """Some of the views."""
        parts: dict[str, object] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                value = value[start:stop]
            elif isinstance(value, MeshTables | LightTables):
                value = value.rows(start, stop)
            parts[field.name] = value
        return RayTables(**parts)  # type: ignore[arg-type]


def _face_columns(scene: Scene) -> tuple[Tensor, Tensor]:
    """(S, P * 6, C) float32 and (S, P * 6, T) int32."""
    columns = [
        scene.uv_from_local.flatten(-2),
        scene.tint,
        scene.specular[..., None],
        scene.is_backdrop[..., None].to(scene.tint.dtype),
    ]
    textures = [scene.texture]
    if scene.finish is not None:
        columns += [scene.finish.emission[..., None], scene.finish.mirror[..., None]]
        columns.append(scene.finish.inset)
        textures.append(scene.finish.inset_texture)
    return torch.cat(columns, -1).flatten(1, 2).float(), torch.stack(textures, -1).flatten(1, 2)


def _light_tables(
    scene: Scene, cameras: Cameras, position: Tensor, weather: Weather
) -> LightTables:
    rotation = cameras.cam_from_world[..., :3, :3]

    def seen(point: Tensor) -> Tensor:
        """(S, V, 3) world to (B, 3) camera."""
        return (rotation @ (point - position)[..., None])[..., 0].flatten(0, 1).float()

    lamps = None
    if scene.finish is not None:
        number = scene.finish.lamps.shape[1]
        lamps = torch.stack(
            [seen(scene.finish.lamps[:, None, lamp].expand_as(position)) for lamp in range(number)],
            1,
        )
    return LightTables(
        weather.flattened(),
        seen(weather.key_position.to(position)),
        rotation[..., 2].flatten(0, 1).float(),
        lamps,
        rotation.mT.flatten(0, 1).float(),
    )


def _who_is_there(scene: Scene, views: int, weather: Weather | None) -> Tensor | None:
    """(B, P) bool; None: everything. Without weather nobody passes by."""
    if scene.finish is None:
        return None
    group = scene.finish.group[:, None].expand(-1, views, -1)
    if weather is None:
        return (group == 0).flatten(0, 1)
    return weather.shown.gather(-1, group).flatten(0, 1)


def build_tables(scene: Scene, cameras: Cameras, weather: Weather | None = None) -> RayTables:
    """Tables for the rays of cameras (S, V) into S scenes; the views of a scene in a row.

    Raises:
        InputError: as many cameras and skies as scenes and views are needed.
    """
    num_scenes, num_views = cameras.k.shape[:2]
    if num_scenes != len(scene):
        raise InputError("cameras", f"{len(scene)} scenes", f"{num_scenes}")
    if weather is not None and weather.shown.shape[:2] != (num_scenes, num_views):
        raise InputError(
            "weather", f"{num_scenes} scenes x {num_views} views", f"{tuple(weather.shown.shape)}"
        )
    world_from_cam = torch.linalg.inv(cameras.cam_from_world)
    inverse_k = torch.linalg.inv(cameras.k)
    world_from_pixel = world_from_cam[..., :3, :3] @ inverse_k
    position = world_from_cam[..., :3, 3]
    unit_from_world = scene.rotation.transpose(-1, -2) / scene.half_size[..., None]
    local_from_pixel = (unit_from_world[:, None] @ world_from_pixel[:, :, None]).flatten(0, 1)
    offset = position[:, :, None] - scene.center[:, None]
    origin = (unit_from_world[:, None] @ offset[..., None])[..., 0].flatten(0, 1)
    there = _who_is_there(scene, num_views, weather)
    if there is not None:
        nowhere = _HARDLY * torch.eye(3, dtype=origin.dtype, device=origin.device)
        local_from_pixel = torch.where(there[..., None, None], local_from_pixel, nowhere)
        origin = torch.where(there[..., None], origin, _AWAY)
    rotation = cameras.cam_from_world[..., :3, :3]
    cam_from_metric = (rotation[:, :, None] @ scene.rotation[:, None]).flatten(0, 1)
    faces, texture = _face_columns(scene)

    def per_view(value: Tensor) -> Tensor:
        return value.repeat_interleave(num_views, 0)

    camera_light = (rotation @ scene.light_direction[:, None, :, None])[..., 0]
    finish = scene.finish
    return RayTables(
        counts=scene.counts,
        local_from_pixel=local_from_pixel.float(),
        origin=origin.float(),
        half_size=per_view(scene.half_size.float()),
        cam_from_metric=cam_from_metric.float(),
        faces=per_view(faces),
        texture=per_view(texture),
        ambient=per_view(scene.ambient.float()),
        focal=torch.sqrt(cameras.k[..., 0, 0] * cameras.k[..., 1, 1]).flatten().float(),
        k=cameras.k.flatten(0, 1).float(),
        inverse_k=inverse_k.flatten(0, 1).float(),
        camera_light=camera_light.flatten(0, 1).float(),
        pattern=None if finish is None else per_view(finish.pattern),
        passing=None if finish is None else per_view(finish.group > 0),
        has_sky=bool(scene.is_backdrop.any()),
        has_insets=finish is not None and scene.counts.boxes > 0,
        mesh=None
        if scene.mesh is None
        else build_mesh_tables(scene.mesh, cameras.k, cameras.cam_from_world),
        light=None if weather is None else _light_tables(scene, cameras, position, weather),
    )
