"""Layouts under the sky: facades as tourists see them, streets of houses, gardens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.synthetic.builder import SceneRandom, xyz, yaw_matrix
from matcher.synthetic.finish import fence_pattern, inset
from matcher.synthetic.furniture import car, lamp_post, person, railing, table, tree
from matcher.synthetic.places import Frame, PlaceBuilder
from matcher.synthetic.scene import Scene
from matcher.synthetic.textures import MipAtlas

__all__ = ["avenue", "facade", "garden"]


def _windows(
    random: SceneRandom, wide: Tensor, tall: Tensor, size: tuple[float, float] = (2.2, 4.2)
) -> Tensor:
    """(n, 9) rows of windows for a wall of half sizes ``wide`` and ``tall``."""
    return inset(
        (2 * wide / random.uniform(*size)).round().clamp(min=1),
        (2 * tall / random.uniform(2.6, 3.8)).round().clamp(min=1),
        random.uniform(0.3, 0.6),
        random.uniform(0.45, 0.7),
        random.uniform(0.1, 0.35),
        glass=random.uniform(0.08, 0.35),
        lit=random.uniform(0.1, 0.7),
        frame=torch.where(random.chance(0.6), random.uniform(1.1, 1.6), random.uniform(0.6, 1.0)),
    )


def _ground(build: PlaceBuilder, far: Tensor) -> None:
    random, zero = build.random, torch.zeros_like(far)
    wet = random.chance(0.25).float() * random.uniform(0.04, 0.22).float()
    build.enclose(
        xyz(-far, -far, zero),
        xyz(far, far, 0.9 * far),
        floor="ground",
        floor_shine=wet,
        open_air=True,
    )


def _gable(build: PlaceBuilder, frame: Frame, z: Tensor, wide: Tensor, deep: Tensor) -> None:
    """A roof: a box turned on its edge, its lower half inside the walls: 1 box."""
    half = 0.99 * wide / math.sqrt(2.0)
    cos = torch.full_like(wide, math.sqrt(0.5))
    zero, one = torch.zeros_like(wide), torch.ones_like(wide)
    rows = ((cos, zero, cos), (zero, one, zero), (-cos, zero, cos))
    edge = torch.stack([torch.stack(row, -1) for row in rows], -2)
    size = xyz(half, 0.99 * deep, half)
    build.put("box", frame.point(0, 0, z), size, frame.yaw @ edge, role="roof")


def _people_and_cars(build: PlaceBuilder, middle: Frame, reach_x: Tensor, reach_y: Tensor) -> None:
    """Passers-by 1 to 3: 4 ellipsoids, 2 cylinders, 2 boxes."""
    random = build.random
    for group in (1, 2):
        spot = middle.moved(random.uniform(-1, 1) * reach_x, random.uniform(-1, 1) * reach_y)
        person(build, Frame(spot.origin, random.yaw()), group)
    spot = middle.moved(random.uniform(-1, 1) * reach_x, random.uniform(-1, 1) * reach_y)
    car(build, Frame(spot.origin, middle.yaw @ random.yaw(0.2)), 3)


def facade(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A landmark on a square, photographed by visitors: from close by to far off, day and night."""
    build = PlaceBuilder(random, atlas)
    zero = torch.zeros(random.num, dtype=torch.float64)
    _ground(build, random.uniform(70, 110))
    front = Frame(xyz(zero, zero, zero), random.yaw(0))
    wide, tall, deep = random.uniform(5, 13), random.uniform(4, 9), random.uniform(4, 9)
    stone = build.textures_for("wall")
    body = xyz(wide, deep, tall)
    build.put(
        "box",
        front.point(0, -deep, tall),
        body,
        role="wall",
        texture=stone,
        openings=_windows(random, wide, tall),
    )
    attention = [
        front.point(random.uniform(-0.8, 0.8) * wide, 0, f * tall) for f in (0.4, 0.8, 1.3)
    ]

    tower_wide, tower_tall = random.uniform(1.2, 3.0), tall * random.uniform(1.15, 2.0)
    two = torch.where(random.chance(0.5), 1.0, 0.0)
    panes = _windows(random, tower_wide, tower_tall, (1.6, 3.0))
    for side in (-1.0, 1.0):
        x = torch.where(two > 0, side * (wide - 0.5 * tower_wide), side * 0.15 * tower_wide)
        out = random.uniform(0.0, 0.8)
        center = front.point(x, out - tower_wide, tower_tall)
        half = xyz(tower_wide, tower_wide, tower_tall)
        build.put("box", center, half, role="wall", texture=stone, openings=panes)
        top = front.point(x, out - tower_wide, 2 * tower_tall)
        spire = random.uniform(0.6, 1.6) * tower_wide
        domed = random.chance(0.5)
        dome = torch.where(domed, spire, 0.3 * spire)
        build.put("ellipsoid", top, xyz(0.95 * tower_wide, 0.95 * tower_wide, dome), role="roof")
        tip = random.uniform(0.5, 1.5)
        needle = xyz(0.08 + zero, 0.08 + zero, tip)
        build.put("cylinder", top + xyz(zero, zero, dome + tip), needle, role="skin")
        attention.append(front.point(x, out, 1.4 * tower_tall))
    _gable(build, front.moved(0, -2.0), 2 * tall, 0.55 * wide, 1.98 + zero)

    porch, gap = random.uniform(0.8, 2.2), random.uniform(1.1, 2.2)
    column_tall, shaft = tall * random.uniform(0.45, 0.8), random.uniform(0.12, 0.35)
    for number in range(6):
        x = (number - 2.5) * gap
        half = xyz(shaft, shaft, 0.5 * column_tall)
        build.put(
            "cylinder",
            front.point(x, porch, 0.5 * column_tall + 0.4),
            half,
            role="wall",
            texture=stone,
        )
    beam = xyz(3.0 * gap, 0.6 * porch + shaft, random.uniform(0.2, 0.5))
    build.put("box", front.point(0, 0.6 * porch, column_tall + 0.4 + beam[:, 2]), beam, role="wall")
    attention.append(front.point(0, porch, 0.7 * column_tall))
    for number in range(3):
        step = xyz(3.2 * gap + 0.4 * (2 - number), porch + 0.4 * (3 - number), 0.067 + zero)
        build.put(
            "box", front.point(0, 0, 0.067 + 0.134 * number), step, role="wall", texture=stone
        )
    door = xyz(random.uniform(0.7, 1.4), 0.06 + zero, random.uniform(1.3, 2.2))
    build.put("box", front.point(0, 0, door[:, 2] + 0.4), door, role="door")
    for number in range(2):
        ledge = xyz(wide + 0.2, 0.25 + zero, random.uniform(0.06, 0.18))
        build.put(
            "box", front.point(0, 0, tall * (0.9 + number)), ledge, role="wall", texture=stone
        )
    balcony = xyz(random.uniform(1, 3), random.uniform(0.4, 0.8), 0.08 + zero)
    x, z = random.uniform(-0.7, 0.7) * wide, tall * random.uniform(0.9, 1.4)
    build.put("box", front.point(x, balcony[:, 1], z), balcony, role="wall", texture=stone)
    railing(build, front.moved(x, 2 * balcony[:, 1], z + 0.08), balcony[:, 0], 1.0)
    sign = xyz(random.uniform(0.3, 1.4), 0.03 + zero, random.uniform(0.6, 2.2))
    build.put("box", front.point(-x, 0.03, tall), sign, role="picture")

    for side in (-1.0, 1.0):  # neighbours
        near = xyz(random.uniform(4, 8), random.uniform(4, 7), random.uniform(3, 6))
        x = side * (wide + near[:, 0] + random.uniform(0.0, 5.0))
        y = -near[:, 1] + random.uniform(-3, 3)
        panes = _windows(random, near[:, 0], near[:, 2])
        build.put("box", front.point(x, y, near[:, 2]), near, role="wall", openings=panes)
        _gable(build, front.moved(x, y), 2 * near[:, 2], near[:, 0], near[:, 1])
        trunk = front.moved(side * random.uniform(0.6, 1.3) * wide, random.uniform(3, 11))
        attention.append(tree(build, trunk, random.uniform(3.5, 9)))
        lamp_post(build, front.moved(side * random.uniform(3, 9), random.uniform(4, 12)))
    square = front.moved(random.uniform(-6, 6), random.uniform(6, 14))
    block = xyz(random.uniform(0.5, 1.0), random.uniform(0.5, 1.0), random.uniform(0.6, 1.4))
    build.put("box", square.point(0, 0, block[:, 2]), block, role="wall")
    statue = xyz(random.uniform(0.25, 0.5), random.uniform(0.25, 0.4), random.uniform(0.7, 1.4))
    build.put("ellipsoid", square.point(0, 0, 2 * block[:, 2] + statue[:, 2]), statue, role="skin")
    attention.append(square.point(0, 0, 2 * block[:, 2]))
    railing(
        build, front.moved(random.uniform(-5, 5), random.uniform(3, 8)), random.uniform(2, 6), 1.1
    )
    _cables(build, front.moved(0, random.uniform(6, 12)), 30 + zero, random.uniform(4, 8))
    _people_and_cars(build, front.moved(0, 9.0 + zero), 8 + zero, 5 + zero)
    return build.finish_place(
        attention,
        distance=(4.0, 42.0),
        elevation=(-0.5, 0.25),
        azimuth=(math.radians(15), math.radians(165)),
        eye_height=(1.3, 14.0),
        anchor=square.point(2, 1, 0),
        anchor_size=(1.5, 4.0),
    )


def _cables(build: PlaceBuilder, frame: Frame, half_x: Tensor, z: Tensor) -> None:
    """A few wires that hang across: 1 fence."""
    random = build.random
    number = random.integers(3).double() + 1
    thin = random.uniform(0.01, 0.025)  # metres
    drop = 0.8 + 0 * z
    pattern = fence_pattern(
        1.0, 0.0, number, number * thin / (2 * drop), like=z, sag=random.uniform(0.1, 0.5)
    )
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]], dtype=torch.float64)
    flat = xyz(half_x, drop, 0.005 + 0 * z)
    build.put("fence", frame.point(0, 0, z), flat, frame.yaw @ turn, role="skin", pattern=pattern)


def avenue(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A street of houses with windows, balconies, lamps, trees and parked cars."""
    build = PlaceBuilder(random, atlas)
    zero = torch.zeros(random.num, dtype=torch.float64)
    _ground(build, random.uniform(50, 80))
    width = random.uniform(3.5, 8)
    attention: list[Tensor] = []
    for side in (-1.0, 1.0):
        # Frames whose x runs along the street and whose y points at it.
        yaw = yaw_matrix(zero + side * math.pi / 2)
        start = random.uniform(-24, -17)
        for number in range(4):
            half, deep = random.uniform(3, 6), random.uniform(3, 5)
            tall, back = random.uniform(2.8, 8), random.uniform(0, 1.0)
            middle = start + half
            house = Frame(xyz(side * (width + back), middle, zero), yaw)
            build.put(
                "box",
                house.point(0, -deep, tall),
                xyz(half, deep, tall),
                yaw,
                role="wall",
                openings=_windows(random, half, tall),
            )
            attention.append(house.point(0, 0, tall.clamp(max=3) * random.uniform(0.4, 1.2)))
            if number in (1, 2):
                slab = xyz(random.uniform(0.8, 2.2), random.uniform(0.35, 0.6), 0.07 + zero)
                z = random.uniform(2.6, 3.4)
                build.put("box", house.point(0, slab[:, 1], z), slab, yaw, role="plain")
                railing(build, house.moved(0, 2 * slab[:, 1], z), slab[:, 0], 1.0)
            if number == 1:
                _gable(build, house.moved(0, -deep), 2 * tall, half, deep)
            start = start + 2 * half + random.chance(0.25) * random.uniform(0.5, 4)
        walk = xyz(1.4 + zero, 35 + zero, 0.07 + zero)
        build.put("box", xyz(side * (width - 1.2), zero, 0.05 + zero), walk, role="ground")
        lane = side * (width - random.uniform(2.8, 3.2))
        for _ in range(2):
            spot = Frame(xyz(lane, random.uniform(-12, 12), zero), yaw)
            attention.append(car(build, spot))
        kerb = side * (width - 1.6)
        for _ in range(2):
            trunk = Frame(xyz(kerb, random.uniform(-14, 14), zero), yaw)
            tree(build, trunk, random.uniform(3, 7), crowns=2)
        lamp_post(build, Frame(xyz(kerb, random.uniform(-10, 10), zero), yaw))
        sign = xyz(random.uniform(0.3, 0.6), 0.02 + zero, random.uniform(0.25, 0.9))
        spot = Frame(xyz(side * (width - 0.7), random.uniform(-12, 12), zero), yaw)
        build.put("box", spot.point(0, 0, 2.4), sign, yaw @ random.yaw(0.3), role="picture")
        fence = Frame(xyz(kerb, random.uniform(-10, 10), zero), yaw)
        railing(build, fence, random.uniform(1.5, 4), 1.0)
    for _ in range(3):
        bollard = xyz(0.07 + zero, 0.07 + zero, 0.45 + zero)
        place = xyz(random.sign() * (width - 2.6), random.uniform(-6, 6), 0.45 + zero)
        build.put("cylinder", place, bollard, role="skin")
    _cables(
        build, Frame(xyz(zero, random.uniform(-8, 8), zero), random.yaw(0.2)), width, 5.5 + zero
    )
    along = Frame(xyz(zero, zero, zero), yaw_matrix(zero + math.pi / 2))
    _people_and_cars(build, along, 10 + zero, 0.5 * width)
    return build.finish_place(
        attention,
        distance=(4.0, 24.0),
        elevation=(-0.25, 0.3),
        eye_height=(1.2, 7.0),
        anchor=xyz(random.uniform(-1, 1), random.uniform(-4, 4), zero),
        anchor_size=(1.5, 4.5),
    )


def garden(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A house in a garden, seen from all sides: fences, trees, hedges, a pond, garden furniture."""
    build = PlaceBuilder(random, atlas)
    zero = torch.zeros(random.num, dtype=torch.float64)
    _ground(build, random.uniform(30, 60))
    house = Frame(xyz(random.uniform(-1, 1), random.uniform(-1, 1), zero), random.yaw())
    wide, deep, tall = random.uniform(2.5, 4.5), random.uniform(2, 3.5), random.uniform(1.4, 2.8)
    build.put(
        "box",
        house.point(0, 0, tall),
        xyz(wide, deep, tall),
        house.yaw,
        role="wall",
        openings=_windows(random, wide, tall, (1.8, 3.2)),
    )
    _gable(build, house, 2 * tall, wide, deep)
    door = xyz(0.5 + zero, 0.04 + zero, 1.05 + zero)
    build.put("box", house.point(0.3, deep, 1.05), door, house.yaw, role="door")
    chimney = xyz(0.3 + zero, 0.3 + zero, random.uniform(0.8, 1.6))
    build.put("box", house.point(0.4 * wide, 0, 2 * tall + 0.9), chimney, house.yaw, role="wall")
    attention = [house.point(0, 0, tall), house.point(0, deep, tall), house.point(0, -deep, tall)]
    shed = house.moved(wide + random.uniform(1.5, 3), random.uniform(-2, 2))
    size = xyz(random.uniform(0.8, 1.4), random.uniform(0.8, 1.2), random.uniform(0.9, 1.2))
    build.put("box", shed.point(0, 0, size[:, 2]), size, house.yaw, role="wood")
    _gable(build, shed, 2 * size[:, 2], size[:, 0], size[:, 1])
    attention.append(shed.point(0, 0, size[:, 2]))
    far = random.uniform(7, 11)
    for number in range(4):
        side = house.turned(zero + number * math.pi / 2)
        railing(build, side.moved(0, far), far, random.uniform(0.8, 1.4), role="wood")
        hedge = xyz(random.uniform(1, 3), random.uniform(0.25, 0.5), random.uniform(0.4, 0.9))
        place = side.point(random.uniform(-4, 4), far - 1.2, hedge[:, 2])
        build.put("box", place, hedge, side.yaw, role="leaf")
        if number < 3:
            trunk = side.moved(random.uniform(-5, 5), random.uniform(4.5, 8))
            crowns = 3 if number < 2 else 2
            attention.append(tree(build, trunk, random.uniform(2.5, 6), crowns))
    path = xyz(0.6 + zero, 0.5 * far + zero, 0.02 + zero)
    build.put("box", house.point(0.3, deep + 0.5 * far, 0.02), path, house.yaw, role="ground")
    pond = house.moved(random.uniform(-4, -2), deep + random.uniform(2, 3))
    water = xyz(random.uniform(0.8, 1.8), random.uniform(0.8, 1.5), 0.03 + zero)
    build.put("box", pond.point(0, 0, 0.02), water, house.yaw, role="plain", shine=0.5)
    for number in range(5):
        angle = 1.26 * number + random.uniform(-0.3, 0.3)
        stone = random.uniform(0.15, 0.6)[:, None] * random.uniform(0.6, 1.1, 3)
        out = 1.2 + random.uniform(0.9, 1.6)
        place = pond.point(out * angle.cos(), out * angle.sin(), 0.4 * stone[:, 2])
        build.put("ellipsoid", place, stone, random.yaw(), role="wall")
    attention.append(pond.point(0, 0, 0.4))
    seat = house.moved(random.uniform(2, 3.5), deep + random.uniform(1.8, 3))
    table(
        build, seat, random.uniform(0.5, 0.9), random.uniform(0.4, 0.6), random.uniform(0.6, 0.75)
    )
    attention.append(seat.point(0, 0, 0.6))
    for _ in range(4):
        crate = random.uniform(0.12, 0.4, 3)
        spot = house.moved(random.uniform(-5, 5), deep + random.uniform(0.6, 4.5))
        build.put("box", spot.point(0, 0, crate[:, 2]), crate, random.yaw(), role="any")
    lamp_post(build, house.moved(random.uniform(-2, 0), deep + random.uniform(3, 4.5)))
    _cables(build, house.moved(0, -deep - 2), 20 + zero, random.uniform(4, 6))
    _people_and_cars(build, house.moved(0, deep + 3.5), 3 + zero, 1 + zero)
    return build.finish_place(
        attention,
        distance=(2.0, 15.0),
        elevation=(-0.05, 0.8),
        eye_height=(0.9, 9.0),
        anchor=seat.point(-2, 1.5, 0),
        anchor_size=(1.0, 3.0),
    )
