"""Layouts with walls: furnished rooms, and long halls with few textures and much gloss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.synthetic.builder import SceneRandom, xyz, yaw_matrix
from matcher.synthetic.finish import fence_pattern, inset
from matcher.synthetic.furniture import (
    bed_or_sofa,
    chair,
    clutter,
    on_wall,
    person,
    shelf,
    standing_lamp,
    table,
    tree,
)
from matcher.synthetic.places import Frame, PlaceBuilder
from matcher.synthetic.scene import Scene
from matcher.synthetic.textures import MipAtlas

__all__ = ["gallery", "interior"]


def _wall_frame(half_x: Tensor, half_y: Tensor, side: Tensor, along: Tensor) -> Frame:
    """A frame on the floor at wall ``side`` (n,) 0..3, ``along`` in -1..1 of it, facing inwards."""
    angle = side * (math.pi / 2)
    odd = side % 2 == 1
    out, across = torch.where(odd, half_x, half_y), torch.where(odd, half_y, half_x)
    yaw = yaw_matrix(angle)
    local = xyz(along * across, -out, torch.zeros_like(out))
    return Frame((yaw @ local[..., None])[..., 0], yaw)


def interior(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A bedroom, living room or study: each wall has its furniture."""
    build = PlaceBuilder(random, atlas)
    zero = torch.zeros(random.num, dtype=torch.float64)
    half_x, half_y = random.uniform(1.7, 3.2), random.uniform(1.7, 3.2)
    height = random.uniform(2.3, 3.0)
    build.enclose(
        xyz(-half_x, -half_y, zero),
        xyz(half_x, half_y, height),
        floor="wood|fabric",
        walls="plain|wall",
        floor_shine=random.chance(0.35).float() * random.uniform(0.03, 0.15).float(),
    )
    first = random.integers(4).double()
    order = torch.where(random.chance(0.5), 1.0, -1.0)

    def wall(number: int, along: Tensor) -> Frame:
        return _wall_frame(half_x, half_y, (first + order * number) % 4, along)

    rest = wall(0, random.uniform(-0.3, 0.3))
    soft = bed_or_sofa(build, rest)
    attention = [soft, xyz(zero, zero, 0.8 + zero)]
    for spot in (-0.55, 0.35):
        frame = wall(0, spot + random.uniform(-0.15, 0.15))
        size = random.uniform(0.18, 0.45)
        z = random.uniform(1.45, 1.8)
        attention.append(on_wall(build, frame, size * random.uniform(0.7, 1.4), size, z, "picture"))

    books = wall(1, random.uniform(-0.45, -0.25))
    attention.append(shelf(build, books, random.uniform(0.4, 0.7), random.uniform(1.5, 2.2)))
    drawers = wall(1, random.uniform(0.35, 0.6))
    wide, tall = random.uniform(0.3, 0.55), random.uniform(0.6, 1.0)
    attention.append(shelf(build, drawers, wide, tall))
    screen = drawers.moved(0, 0.15)
    on_wall(build, screen, 0.45 + 0 * wide, 0.27 + 0 * wide, tall + 0.3, "plain", shine=0.25)

    frame = wall(2, random.uniform(-0.2, 0.2))
    tall = random.uniform(0.5, 0.75)
    pane = random.uniform(0.5, 0.9)
    attention.append(on_wall(build, frame, pane, tall, 1.55, "window", shine=0.1, glow=0.7))
    desk_half, desk_high = random.uniform(0.5, 0.8), random.uniform(0.68, 0.78)
    desk = frame.moved(random.uniform(-0.3, 0.3), random.uniform(0.4, 0.9))
    table(build, desk, desk_half, random.uniform(0.28, 0.4), desk_high)
    clutter(build, desk, desk_half, 0.28 + zero, desk_high, "bcbebc")
    attention.append(desk.point(0, 0, desk_high + 0.1))
    chair(build, desk.moved(random.uniform(-0.2, 0.2), 0.6).turned(random.uniform(2.6, 3.6)))
    chair(build, desk.moved(random.uniform(0.6, 1.0), 0.5).turned(random.uniform(0, 6)))
    heater = frame.moved(0, 0.06)
    pattern = fence_pattern(12.0, 0.8, 1.0, 0.1, like=pane, at_ends=(False, True))
    upright = heater.yaw @ torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]).double()
    flat = xyz(0.5 + zero, 0.3 + zero, 0.005 + zero)
    build.put("fence", heater.point(0, 0, 0.4), flat, upright, role="plain", pattern=pattern)

    frame = wall(3, random.uniform(-0.6, -0.3))
    attention.append(on_wall(build, frame, 0.43 + zero, 1.02 + zero, 1.02, "door"))
    frame = wall(3, random.uniform(0.15, 0.35))
    glass = torch.where(random.chance(0.6), 0.85, 0.0).float()
    size = random.uniform(0.25, 0.5)
    attention.append(on_wall(build, frame, size, 0.6 + zero, 1.4, "picture", shine=glass))
    attention.append(shelf(build, wall(3, random.uniform(0.72, 0.8)), 0.35 + zero, 1.2 + zero))

    standing_lamp(build, wall(0, random.uniform(0.75, 0.85)).moved(0, 0.35))
    lamp = xyz(random.uniform(-0.4, 0.4), random.uniform(-0.4, 0.4), height - 0.5)
    globe = random.uniform(0.1, 0.22)
    build.put("ellipsoid", lamp, xyz(globe, globe, globe), role="plain", glow=1.5)
    cord = lamp + xyz(zero, zero, 0.25 + zero)
    build.put("cylinder", cord, xyz(0.008 + zero, 0.008 + zero, 0.25 + zero), role="skin")
    build.lamps.append(lamp - xyz(zero, zero, globe))
    rug = xyz(random.uniform(0.5, 1.1), random.uniform(0.4, 0.8), 0.006 + zero)
    build.put("box", xyz(zero, zero, 0.006 + zero), rug, random.yaw(0.4), role="picture")
    tree(build, wall(2, random.uniform(0.75, 0.85)).moved(0, 0.4), random.uniform(0.9, 1.6))
    stroller = Frame(xyz(random.uniform(-1, 1), random.uniform(-1, 1), zero), random.yaw())
    person(build, stroller, 1)
    return build.finish_place(
        attention,
        distance=(1.0, 4.5),
        elevation=(-0.25, 0.7),
        anchor=xyz(random.uniform(-0.5, 0.5), random.uniform(-0.5, 0.5), zero),
        anchor_size=(0.3, 0.9),
    )


def gallery(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A long hall: plain walls, a glossy floor, the same doors and columns again and again."""
    build = PlaceBuilder(random, atlas)
    zero = torch.zeros(random.num, dtype=torch.float64)
    half_x, half_y = random.uniform(6, 11), random.uniform(1.6, 4.0)
    height = random.uniform(2.6, 4.5)
    build.enclose(
        xyz(-half_x, -half_y, zero),
        xyz(half_x, half_y, height),
        floor="plain|ground",
        walls="plain",
        floor_shine=random.uniform(0.05, 0.3).float(),
    )
    attention: list[Tensor] = []
    sides = [_wall_frame(half_x, half_y, zero + side, zero) for side in (0.0, 2.0)]
    doors = random.integers(5).double() + 3
    sunk = inset(
        doors,
        1 + zero,
        random.uniform(0.25, 0.5),
        random.uniform(0.7, 0.9),
        random.uniform(0.05, 0.12),
        frame=random.uniform(0.7, 1.2),
        glass=random.chance(0.3).float() * 0.2,
    )
    wall_half = xyz(half_x, 0.15 + zero, 1.25 + zero)
    build.put(
        "box", sides[0].point(0, 0.1, 1.25), wall_half, role="plain", openings=sunk, behind="door"
    )
    for number in range(7):
        along = (-0.85 + 0.28 * number + random.uniform(-0.06, 0.06)) * half_x
        size = random.uniform(0.3, 0.8)
        frame = sides[1].moved(along, 0)
        shine = torch.where(random.chance(0.25), 0.5, 0.08).float()
        z = random.uniform(1.4, 1.7)
        center = on_wall(
            build, frame, size * random.uniform(0.7, 1.5), size, z, "picture", shine=shine
        )
        attention.append(center)
    shaft = random.uniform(0.09, 0.28)
    stone = build.textures_for("wall")
    row = random.uniform(-0.5, 0.5) * half_y
    for number in range(6):
        x = (-0.8 + 0.32 * number) * half_x
        post = xyz(shaft, shaft, 0.5 * height)
        build.put("cylinder", xyz(x, row, 0.5 * height), post, role="wall", texture=stone)
    for number in range(4):
        spot = xyz((-0.6 + 0.4 * number) * half_x, random.uniform(-0.6, 0.6) * half_y, zero)
        block = xyz(random.uniform(0.2, 0.4), random.uniform(0.2, 0.4), random.uniform(0.3, 0.55))
        build.put("box", spot + xyz(zero, zero, block[:, 2]), block, random.yaw(), role="plain")
        top = spot + xyz(zero, zero, 2 * block[:, 2])
        shape = random.uniform(0.12, 0.35, 3)
        center = top + xyz(zero, zero, shape[:, 2])
        statue = "ellipsoid" if number < 3 else "box"
        build.put(statue, center, shape, random.yaw(), role="any")
        attention += [center, center]
    for number in range(3):
        x = (-0.6 + 0.6 * number) * half_x
        globe = random.uniform(0.1, 0.2)
        spot = xyz(x, zero, height - 0.35)
        build.put("ellipsoid", spot, xyz(globe, globe, globe), role="plain", glow=1.6)
        build.lamps.append(spot)
    bench = Frame(xyz(random.uniform(-3, 3), -row, zero), random.yaw(0.1))
    table(build, bench, 0.9 + zero, 0.22 + zero, 0.45 + zero)
    end = _wall_frame(half_x, half_y, zero + 1, zero)
    on_wall(build, end, 0.7 * half_y, 0.8 + zero, 1.5, "window", glow=0.8, shine=0.1)
    spot = xyz(random.uniform(-4, 4), random.uniform(-0.6, 0.6) * half_y, zero)
    person(build, Frame(spot, random.yaw()), 1)
    return build.finish_place(
        attention,
        distance=(1.3, 11.0),
        elevation=(-0.2, 0.6),
        anchor=xyz(random.uniform(-2, 2), -row, zero),
        anchor_size=(0.6, 1.5),
    )
