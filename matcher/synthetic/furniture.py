"""Things that stand in places, each of a few primitives in a frame of its own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from matcher.synthetic.builder import xyz
from matcher.synthetic.finish import fence_pattern, inset, leaf_pattern
from matcher.synthetic.places import Frame, PlaceBuilder

__all__ = [
    "bed_or_sofa",
    "car",
    "chair",
    "clutter",
    "lamp_post",
    "on_wall",
    "person",
    "railing",
    "shelf",
    "standing_lamp",
    "table",
    "tree",
]


def _upright(frame: Frame) -> Tensor:
    """(n, 3, 3) of a panel that stands along the frame's x, its y upwards."""
    turn = torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]], dtype=torch.float64)
    return frame.yaw @ turn


def _panel_half(wide: Tensor, tall: Tensor) -> Tensor:
    return xyz(wide, tall, torch.full_like(wide, 0.005))


def table(
    build: PlaceBuilder, frame: Frame, half_x: Tensor, half_y: Tensor, height: Tensor
) -> None:
    """A top on four legs: 1 box, 4 cylinders."""
    random = build.random
    thick = random.uniform(0.015, 0.04)
    wood = build.put(
        "box",
        frame.point(0, 0, height - thick),
        xyz(half_x, half_y, thick),
        frame.yaw,
        role="wood",
        shine=random.chance(0.3).float() * 0.12,
    )
    leg = random.uniform(0.015, 0.045)
    for sign_x in (-1.0, 1.0):
        for sign_y in (-1.0, 1.0):
            spot = frame.point(
                sign_x * (half_x - 1.5 * leg), sign_y * (half_y - 1.5 * leg), 0.5 * height - thick
            )
            tall = 0.5 * height - thick
            build.put("cylinder", spot, xyz(leg, leg, tall), frame.yaw, role="wood", texture=wood)


def chair(build: PlaceBuilder, frame: Frame) -> None:
    """A seat on thin legs with a back of bars: 1 box, 3 fences."""
    random = build.random
    half, seat = random.uniform(0.19, 0.25), random.uniform(0.4, 0.48)
    role = "wood"
    wood = build.put(
        "box", frame.point(0, 0, seat), xyz(half, half, 0.02 + 0 * half), frame.yaw, role=role
    )
    legs = fence_pattern(1.0, 0.14, 1.0, 0.0, like=half, at_ends=(True, False))
    for side in (-1.0, 1.0):
        spot = frame.point(0, side * (half - 0.01), 0.5 * seat)
        build.put(
            "fence",
            spot,
            _panel_half(half, 0.5 * seat),
            _upright(frame),
            role=role,
            texture=wood,
            pattern=legs,
        )
    bars = fence_pattern(
        random.integers(6).float() + 2,
        random.uniform(0.2, 0.6),
        1.0,
        0.2,
        like=half,
        at_ends=(True, True),
    )
    tall = random.uniform(0.2, 0.3)
    build.put(
        "fence",
        frame.point(0, -half, seat + tall),
        _panel_half(half, tall),
        _upright(frame),
        role=role,
        texture=wood,
        pattern=bars,
    )


def bed_or_sofa(build: PlaceBuilder, frame: Frame) -> Tensor:
    """Back to the wall behind the frame: 4 boxes, 2 ellipsoids; returns a point on it (n, 3)."""
    random = build.random
    is_bed = random.chance(0.5)

    def either(bed: Tensor | float, sofa: Tensor | float) -> Tensor:
        one = torch.ones(random.num, dtype=torch.float64)
        return torch.where(is_bed, one * bed, one * sofa)

    half_x = either(random.uniform(0.45, 0.9), random.uniform(0.7, 1.1))
    half_y, low = either(1.0, 0.42), random.uniform(0.12, 0.2)
    base = xyz(half_x, half_y, low)
    wood = build.put("box", frame.point(0, half_y, low), base, frame.yaw, role="wood")
    soft = random.uniform(0.06, 0.13)
    cover = build.put(
        "box",
        frame.point(0, half_y + 0.03, 2 * low + soft),
        xyz(0.97 * half_x, 0.97 * half_y, soft),
        frame.yaw,
        role="fabric",
    )
    back = either(random.uniform(0.3, 0.6), random.uniform(0.35, 0.5))
    build.put(
        "box",
        frame.point(0, 0.08, back),
        xyz(half_x, either(0.04, 0.12), back),
        frame.yaw,
        role="fabric",
        texture=torch.where(is_bed, wood, cover),
    )
    # A folded blanket, or the arm of a sofa.
    build.put(
        "box",
        frame.point(either(0, half_x + 0.08), half_y, either(2 * low + 2 * soft + 0.02, 0.3)),
        xyz(either(0.9 * half_x, 0.09), either(0.35, half_y), either(0.025, 0.3)),
        frame.yaw,
        role="fabric",
    )
    for side in (-1.0, 1.0):
        size = xyz(0.4 * half_x.clamp(max=0.7), 0.17 + 0 * half_x, random.uniform(0.06, 0.1))
        spot = frame.point(side * 0.48 * half_x, 0.32, 2 * low + 2 * soft + 0.05)
        build.put("ellipsoid", spot, size, frame.yaw, role="fabric")
    return frame.point(0, 0.7 * half_y, 2 * low + 2 * soft)


def shelf(build: PlaceBuilder, frame: Frame, half_x: Tensor, height: Tensor) -> Tensor:
    """Rows of books or drawers along the wall behind the frame: 1 box."""
    random = build.random
    deep = random.uniform(0.14, 0.22)
    is_open = random.chance(0.7)
    cells = inset(
        (2 * half_x / random.uniform(0.5, 1.0)).round().clamp(min=1),
        (height / random.uniform(0.28, 0.42)).round().clamp(min=1),
        random.uniform(0.9, 0.96),
        random.uniform(0.86, 0.94),
        torch.where(is_open, random.uniform(0.03, 0.15), 0.012),
        vary=torch.where(is_open, 1.0, 0.0),
        frame=1.0,
    )
    center = frame.point(0, deep, 0.5 * height)
    half = xyz(half_x, deep, 0.5 * height)
    build.put("box", center, half, frame.yaw, role="wood", openings=cells, behind="books")
    finish = build.finishes["box"]
    doors = build.textures_for("wood")[:, None]
    finish.inset_texture[-1] = torch.where(is_open[:, None], finish.inset_texture[-1], doors)
    return frame.point(0, 2 * deep, 0.5 * height)


def standing_lamp(build: PlaceBuilder, frame: Frame) -> None:
    """A shade on a thin pole: 1 cylinder, 1 ellipsoid, and a lamp."""
    random = build.random
    height, wide = random.uniform(1.2, 1.7), random.uniform(0.12, 0.24)
    thin = 0.012 + 0 * height
    build.put(
        "cylinder", frame.point(0, 0, 0.5 * height), xyz(thin, thin, 0.5 * height), role="skin"
    )
    shade = xyz(wide, wide, random.uniform(0.1, 0.18))
    build.put("ellipsoid", frame.point(0, 0, height), shade, role="plain", glow=1.0)
    build.lamps.append(frame.point(0, 0.05, height + 0.3))


def on_wall(
    build: PlaceBuilder,
    frame: Frame,
    half_x: Tensor,
    half_z: Tensor,
    z: Tensor | float,
    role: str,
    *,
    shine: Tensor | float = 0.0,
    glow: Tensor | float = 0.0,
) -> Tensor:
    """A picture, window, door or mirror on the wall behind the frame: 1 box; its centre."""
    center = frame.point(0, 0.02, z)
    half = xyz(half_x, 0.02 + 0 * half_x, half_z)
    build.put("box", center, half, frame.yaw, role=role, shine=shine, glow=glow)
    return center


def clutter(
    build: PlaceBuilder, frame: Frame, spread_x: Tensor, spread_y: Tensor, z: Tensor, kinds: str
) -> None:
    """Small things on a surface; ``kinds``: a letter each, b(ox), e(llipsoid), c(ylinder)."""
    random = build.random
    names = {"b": "box", "e": "ellipsoid", "c": "cylinder"}
    for number, letter in enumerate(kinds):
        size = random.log_uniform(0.04, 0.14)
        half = size[:, None] * random.log_uniform(0.5, 1.4, 3)
        if letter == "c":
            half = torch.stack((half[:, 0], half[:, 0], half[:, 2]), -1)
        angle = 2.4 * number + random.uniform(-0.7, 0.7)
        out = math.sqrt((number + 0.5) / len(kinds)) * random.uniform(0.6, 0.95)
        spot = frame.point(
            out * spread_x * angle.cos(), out * spread_y * angle.sin(), z + half[:, 2]
        )
        role = ("any", "picture", "skin", "fabric")[number % 4]
        shine = random.chance(0.3).float() * random.uniform(0.05, 0.3).float()
        build.put(names[letter], spot, half, random.yaw(), role=role, shine=shine)


def person(build: PlaceBuilder, frame: Frame, group: int) -> None:
    """Somebody: 2 ellipsoids, 1 cylinder."""
    random = build.random
    size = random.uniform(0.88, 1.05)
    torso = xyz(0.24 * size, 0.15 * size, 0.36 * size)
    build.put(
        "ellipsoid", frame.point(0, 0, 1.18 * size), torso, frame.yaw, role="fabric", group=group
    )
    head = xyz(0.1 * size, 0.11 * size, 0.13 * size)
    build.put(
        "ellipsoid", frame.point(0, 0.02, 1.63 * size), head, frame.yaw, role="skin", group=group
    )
    legs = xyz(0.16 * size, 0.1 * size, 0.45 * size)
    build.put("cylinder", frame.point(0, 0, 0.45 * size), legs, frame.yaw, role="skin", group=group)


def car(build: PlaceBuilder, frame: Frame, group: int = 0) -> Tensor:
    """Along the frame's x: 2 boxes, the upper one with windows; its middle."""
    random = build.random
    long, wide = random.uniform(1.8, 2.4), random.uniform(0.8, 0.95)
    low = random.uniform(0.36, 0.45)
    paint = build.put(
        "box",
        frame.point(0, 0, 0.2 + low),
        xyz(long, wide, low),
        frame.yaw,
        role="skin",
        shine=0.12,
        group=group,
    )
    glass = inset(random.integers(2).double() + 2, 1 + 0 * long, 0.88, 0.72, 0.015, glass=0.3)
    build.put(
        "box",
        frame.point(random.uniform(-0.35, 0.1), 0, 0.2 + 2 * low + 0.26),
        xyz(long * random.uniform(0.5, 0.72), 0.88 * wide, 0.27 + 0 * low),
        frame.yaw,
        role="skin",
        texture=paint,
        shine=0.12,
        openings=glass,
        group=group,
    )
    return frame.point(0, 0, 0.8)


def tree(build: PlaceBuilder, frame: Frame, height: Tensor, crowns: int = 3) -> Tensor:
    """A thin trunk and crossing panels of leaves: 1 cylinder, ``crowns`` leaves; the crown."""
    random = build.random
    trunk = height * random.uniform(0.012, 0.03)
    build.put(
        "cylinder", frame.point(0, 0, 0.35 * height), xyz(trunk, trunk, 0.35 * height), role="wood"
    )
    wide = height * random.uniform(0.22, 0.36)
    leaf = build.textures_for("leaf")
    first = random.uniform(0, math.pi)
    for number in range(crowns):
        turned = frame.turned(first + number * math.pi / crowns)
        phases = random.uniform(0, 6.28, 5)
        pattern = leaf_pattern(random.uniform(8, 18), random.uniform(-0.2, 0.7), phases)
        tall = height * random.uniform(0.28, 0.36)
        build.put(
            "leaves",
            turned.point(0, 0, 0.68 * height),
            _panel_half(wide, tall),
            _upright(turned),
            role="leaf",
            texture=leaf,
            pattern=pattern,
        )
    return frame.point(0, 0, 0.5 * height)


def lamp_post(build: PlaceBuilder, frame: Frame) -> None:
    """A street lamp: 1 cylinder, 1 ellipsoid, and a lamp."""
    random = build.random
    height, thin = random.uniform(3.0, 5.5), random.uniform(0.035, 0.07)
    build.put(
        "cylinder", frame.point(0, 0, 0.5 * height), xyz(thin, thin, 0.5 * height), role="skin"
    )
    bulb = random.uniform(0.15, 0.25)
    build.put("ellipsoid", frame.point(0, 0, height), xyz(bulb, bulb, bulb), role="plain", glow=3.0)
    build.lamps.append(frame.point(0, 0, height - 0.4))


def railing(
    build: PlaceBuilder,
    frame: Frame,
    half_x: Tensor,
    height: Tensor | float,
    z: Tensor | float = 0.0,
    *,
    spacing: tuple[float, float] = (0.12, 0.3),
    role: str = "skin",
) -> None:
    """Bars along the frame's x, upright, with rails or as a lattice: 1 fence."""
    random = build.random
    tall = 0.5 * height + 0 * half_x
    leaning = random.chance(0.25).double()
    pattern = fence_pattern(
        (2 * half_x / random.uniform(*spacing)).round().clamp(min=2),
        random.uniform(0.14, 0.4),
        random.integers(3).double() + 1,
        random.uniform(0.05, 0.14),
        like=half_x,
        at_ends=(True, True),
        lean=leaning * 0.5,
    )
    build.put(
        "fence",
        frame.point(0, 0, z + tall),
        _panel_half(half_x, tall),
        _upright(frame),
        role=role,
        pattern=pattern,
    )
