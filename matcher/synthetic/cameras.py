"""Random cameras for a scene: from nearly the same place to the opposite side."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic.pairs import overlap_matrix
from matcher.synthetic.render import cast_depth
from matcher.synthetic.scene import Cameras, Scene

__all__ = ["CameraOptions", "clearance", "look_at", "sample_cameras"]

_PROBE_LONG_SIDE = 20
_PROBE_TOLERANCE = 0.08
_SCENES_AT_ONCE = 64
_WALL_DISTANCE = 0.25  # metres between an orbiting camera and the wall behind it


@dataclass(frozen=True, slots=True)
class CameraOptions:
    """How cameras are drawn.

    Attributes:
        field_of_view: smallest and largest angle of the long image side, degrees.
        min_clearance: least distance from every surface, metres.
        candidates: how many cameras a scene are tried; the views are chosen among them.
        big_roll: share of cameras rolled by up to 45 degrees instead of 12.
        overlap: range in which the overlaps of the views are spread.
        zoom: largest factor by which a third of the candidates have a longer lens than that.
    """

    field_of_view: tuple[float, float] = (40.0, 90.0)
    min_clearance: float = 0.2
    candidates: int = 32
    big_roll: float = 0.12
    overlap: tuple[float, float] = (0.05, 1.0)
    zoom: float = 1.0

    def __post_init__(self) -> None:
        low, high = self.field_of_view
        if not 1 <= low <= high <= 150:
            raise InputError("field_of_view", "1 <= low <= high <= 150 degrees", f"{low}, {high}")
        if self.zoom < 1:
            raise InputError("zoom", "at least 1", f"{self.zoom}")
        if self.candidates < 2:
            raise InputError("candidates", "at least 2", f"{self.candidates}")


def look_at(position: Tensor, target: Tensor, roll: Tensor) -> Tensor:
    """cam_from_world (..., 4, 4) of cameras at ``position`` facing ``target`` (..., 3).

    ``roll`` (...) radians about the viewing direction; at 0 the image's up is the world's z.
    """
    forward = torch.nn.functional.normalize(target - position, dim=-1)
    up = torch.zeros_like(forward)
    up[..., 2] = 1
    steep = forward[..., 2:].abs() > 0.999
    up = torch.where(steep, up.roll(1, -1), up)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    down = torch.linalg.cross(forward, right)
    cos, sin = roll.cos()[..., None], roll.sin()[..., None]
    rows = torch.stack((cos * right + sin * down, cos * down - sin * right, forward), -2)
    matrix = torch.zeros(*position.shape[:-1], 4, 4, dtype=position.dtype, device=position.device)
    matrix[..., :3, :3] = rows
    matrix[..., :3, 3] = -(rows @ position[..., None])[..., 0]
    matrix[..., 3, 3] = 1
    return matrix


def clearance(scene: Scene, points: Tensor) -> Tensor:
    """Distance (S, N), metres, of points (S, N, 3) from the nearest surface; negative inside.

    Exact for boxes and the enclosure, a lower bound for the round kinds; panels count as whole.
    """
    offset = points[:, :, None] - scene.center[:, None]
    local = (scene.rotation.mT[:, None] @ offset[..., None])[..., 0]
    half = scene.half_size[:, None]
    counts = scene.counts
    kinds = [counts.boxes, counts.ellipsoids, counts.cylinders, counts.panels, 1]
    boxes, balls, tubes, panels, room = torch.split(local, kinds, 2)
    box_half, ball_half, tube_half, panel_half, room_half = torch.split(half, kinds, 2)

    def outside(gap: Tensor) -> Tensor:
        apart: Tensor = torch.linalg.vector_norm(gap.clamp(min=0), dim=-1)
        return apart + gap.amax(-1).clamp(max=0)

    box = outside(boxes.abs() - box_half)
    ball = ((balls / ball_half).norm(dim=-1) - 1) * ball_half.amin(-1)
    side = ((tubes / tube_half)[..., :2].norm(dim=-1) - 1) * tube_half[..., :2].amin(-1)
    tube = outside(torch.stack((side, tubes[..., 2].abs() - tube_half[..., 2]), -1))
    panel = outside(panels.abs() - panel_half)
    enclosure = (room_half - room.abs()).amin(-1)
    return torch.cat((box, ball, tube, panel, enclosure), -1).amin(-1)


@dataclass(frozen=True, slots=True, eq=False)
class _Draw:
    """Uniform draws (S, C) for the candidates of S scenes, on the scene's device."""

    generator: torch.Generator
    shape: tuple[int, int]
    device: torch.device

    def uniform(self, low: float, high: float, *extra: int) -> Tensor:
        draw = torch.rand(*self.shape, *extra, generator=self.generator, dtype=torch.float64)
        return (low + (high - low) * draw).to(self.device)

    def normal(self, *extra: int) -> Tensor:
        draw = torch.randn(*self.shape, *extra, generator=self.generator, dtype=torch.float64)
        return draw.to(self.device)


def _orbit_positions(scene: Scene, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Candidate positions and targets (S, C, 3): on shells around few attention points."""
    # Two attention points a scene: views of one scene should mostly see the same things.
    which = (draw.uniform(0, 1) < 0.25).long()
    target = scene.attention.gather(1, which[..., None].expand(-1, -1, 3))
    low, high = scene.view_distance[:, :1].log(), scene.view_distance[:, 1:].log()
    middle = low + (high - low) * (0.15 + 0.7 * draw.uniform(0, 1)[:, :1])
    radius = (middle + draw.uniform(-0.6, 0.6)).clamp(low, high).exp()
    first, last = scene.azimuth[:, :1], scene.azimuth[:, 1:]
    azimuth = first + (last - first) * draw.uniform(0, 1)
    low_angle, high_angle = scene.elevation[:, :1], scene.elevation[:, 1:]
    elevation = low_angle + (high_angle - low_angle) * draw.uniform(0, 1) ** 1.5
    flat = radius * elevation.cos()
    step = torch.stack((flat * azimuth.cos(), flat * azimuth.sin(), radius * elevation.sin()), -1)
    step = _inside_room(scene, target, step, draw)
    jitter = 0.12 * radius[..., None] * draw.normal(3)
    position = target + step
    eye = scene.eye_height[:, None]
    position[..., 2] = torch.maximum(torch.minimum(position[..., 2], eye[..., 1]), eye[..., 0])
    return position, target + jitter


def _inside_room(scene: Scene, target: Tensor, step: Tensor, draw: _Draw) -> Tensor:
    """Turn and shorten steps (S, C, 3) from targets so that they end inside the enclosure."""
    offset = target - scene.center[:, -1:]
    wall = scene.half_size[:, -1:] - _WALL_DISTANCE
    room = torch.where(step > 0, wall - offset, wall + offset)
    blocked = room < 0.4 * step.abs()
    step = torch.where(blocked, -step, step)
    room = torch.where(step > 0, wall - offset, wall + offset).clamp(min=0)
    share = (room / step.abs().clamp(min=1e-6)).amin(-1, keepdim=True)
    shorter = share * draw.uniform(0.6, 1.0, 1)
    return step * torch.where(share < 1, shorter, 1.0)


def _nudge(position: Tensor, target: Tensor, draw: _Draw) -> tuple[Tensor, Tensor]:
    """Turn a third of the candidates into close neighbours of others (small motion)."""
    shifted_position, shifted_target = position.roll(1, 1), target.roll(1, 1)
    reach = (shifted_target - shifted_position).norm(dim=-1, keepdim=True)
    amount = draw.uniform(math.log(0.006), math.log(0.25), 1).exp() * reach
    near_position = shifted_position + amount * draw.normal(3)
    near_target = shifted_target + amount * draw.normal(3)
    chosen = torch.zeros(draw.shape, dtype=torch.bool, device=draw.device)
    chosen[:, 2::3] = True
    return (
        torch.where(chosen[..., None], near_position, position),
        torch.where(chosen[..., None], near_target, target),
    )


def _intrinsics(draw: _Draw, size: ImageSize, options: CameraOptions) -> Tensor:
    """(S, C, 3, 3); half the scenes use one focal for all views."""
    low, high = (math.radians(angle) for angle in options.field_of_view)
    angle = draw.uniform(low, high)
    shared = draw.uniform(0, 1)[:, :1] < 0.5
    angle = torch.where(shared, angle[:, :1], angle)
    focal = 0.5 * max(size.height, size.width) / torch.tan(angle / 2)
    if options.zoom > 1:
        longer = (draw.uniform(0, 1) ** 0.7 * math.log(options.zoom)).exp()
        focal = focal * torch.where(draw.uniform(0, 1) < 1 / 3, longer, 1.0)
    k = torch.zeros(*draw.shape, 3, 3, dtype=torch.float64, device=draw.device)
    k[..., 0, 0] = focal
    k[..., 1, 1] = focal
    k[..., 0, 2] = (size.width - 1) / 2
    k[..., 1, 2] = (size.height - 1) / 2
    k[..., 2, 2] = 1
    return k


def _probe_size(size: ImageSize) -> ImageSize:
    scale = _PROBE_LONG_SIDE / max(size.height, size.width)
    return ImageSize(max(4, round(size.height * scale)), max(4, round(size.width * scale)))


def _quality(depth: Tensor, free: Tensor, options: CameraOptions) -> Tensor:
    """(S, C) penalty: 0 for a good view, more for one too close to things or into the sky."""
    known = depth > 0
    seen = known.double().mean((-2, -1))
    far = torch.where(known, depth, 1e6).flatten(-2)
    close = far.kthvalue(max(1, far.shape[-1] // 10), -1).values
    median = far.median(-1).values
    return (
        10.0 * (free < options.min_clearance)
        + 3.0 * (close < 1.25 * options.min_clearance)
        + 2.0 * (seen < 0.45)
        + 1.0 * (median < 2.5 * options.min_clearance)
    )


def _probe(scene: Scene, cameras: Cameras, size: ImageSize) -> tuple[Tensor, Tensor]:
    """Small depth maps (S, C, h, w) and overlaps (S, C, C) of all candidates."""
    # All pairs of candidates of many scenes do not fit a CPU's caches.
    step = 1 if cameras.k.device.type == "cpu" else _SCENES_AT_ONCE
    depths: list[Tensor] = []
    overlaps: list[Tensor] = []
    for start in range(0, len(scene), step):
        rows = torch.arange(start, min(start + step, len(scene)), device=cameras.k.device)
        k, poses = cameras.k[rows], cameras.cam_from_world[rows]
        depths.append(cast_depth(scene.select(rows), Cameras(k, poses), size))
        overlaps.append(overlap_matrix(depths[-1], k, poses, _PROBE_TOLERANCE))
    return torch.cat(depths), torch.cat(overlaps)


def _choose(
    generator: torch.Generator,
    overlaps: Tensor,
    penalty: Tensor,
    views: int,
    options: CameraOptions,
) -> Tensor:
    """(S, views) candidates: each new one has an aimed-at overlap with an earlier one."""
    num_scenes, device = penalty.shape[0], penalty.device
    rows = torch.arange(num_scenes, device=device)
    smaller = torch.minimum(overlaps, overlaps.mT).double()
    cost = penalty.clone()
    # A first view that others overlap with, or the rest would have nothing to aim at.
    partners = ((smaller > 0.3) & (penalty < 0.5)[:, None]).sum(-1)
    chosen = [(cost - 0.02 * partners.clamp(max=12)).argmin(-1)]
    cost[rows, chosen[0]] = 1e3
    low, high = options.overlap
    for step in range(1, views):
        draws = torch.rand(2, num_scenes, generator=generator, dtype=torch.float64).to(device)
        # Pairs nobody aimed at mostly overlap little, so the aim leans to the other side.
        aim = low + (high - low) * draws[0].sqrt()
        reference = torch.stack(chosen, -1)[rows, (draws[1] * step).long()]
        value = smaller[rows, reference]
        miss = (value - aim[:, None]).abs() + 0.5 * (value < low)
        pick = (cost + miss).argmin(-1)
        cost[rows, pick] = 1e3
        chosen.append(pick)
    return torch.stack(chosen, -1)


def sample_cameras(
    generator: torch.Generator,
    scene: Scene,
    views_per_scene: int,
    size: ImageSize,
    options: CameraOptions | None = None,
) -> Cameras:
    """Random valid cameras whose mutual overlaps are spread over the wanted range.

    Args:
        generator: source of all randomness, on the CPU.
        scene: S scenes.
        views_per_scene: V.
        size: size of the images to come.
        options: angles, clearance, overlaps.

    Returns:
        (S, V) cameras on the scene's device, never inside an object as long as one candidate is
        outside.

    Raises:
        InputError: more views than candidates.
    """
    options = options or CameraOptions()
    if not 1 <= views_per_scene <= options.candidates:
        raise InputError("views_per_scene", f"1 to {options.candidates}", f"{views_per_scene}")
    shape = (len(scene), options.candidates)
    draw = _Draw(generator, shape, scene.center.device)
    position, target = _nudge(*_orbit_positions(scene, draw), draw)
    steep = draw.uniform(0, 1) < options.big_roll
    roll = torch.where(steep, draw.uniform(-0.785, 0.785), draw.uniform(-0.2, 0.2))
    cameras = Cameras(_intrinsics(draw, size, options), look_at(position, target, roll))
    probe = _probe_size(size)
    small = cameras.resized(probe.width / size.width, probe.height / size.height)
    depth, overlaps = _probe(scene, small, probe)
    penalty = _quality(depth, clearance(scene, position), options)
    return cameras.select(_choose(generator, overlaps, penalty, views_per_scene, options))
