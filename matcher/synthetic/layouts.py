"""Random scenes: rooms, streets, open grounds, objects on a table; and all kinds of places.

Every layout fills the same fixed number of primitives, for n scenes at a time, from one generator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.synthetic.builder import SceneBuilder, SceneRandom, xyz, yaw_matrix
from matcher.synthetic.finish import PATTERN_COLUMNS, Finish
from matcher.synthetic.indoors import gallery, interior
from matcher.synthetic.outdoors import avenue, facade, garden
from matcher.synthetic.places import blank_finish
from matcher.synthetic.scene import Scene, ShapeCounts
from matcher.synthetic.textures import MipAtlas

__all__ = ["SceneOptions", "sample_scenes"]

_ATTENTION_POINTS = 8
_FLOOR = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)  # keeps x and y, puts z on the floor


@dataclass(frozen=True, slots=True)
class SceneOptions:
    """Which places, how often: relative shares of the layouts.

    The first four show any texture on any surface; the others look like places.

    Attributes:
        rooms: boxes along walls.
        streets: two rows of boxes.
        grounds: things on open ground.
        tables: small things on a table in a room.
        interiors: furnished rooms.
        galleries: long halls with plain walls, glossy floors and repeated doors and columns.
        facades: a landmark with towers and windows, from close by and far off.
        avenues: houses with windows and balconies, lamps, trees, parked cars.
        gardens: a house with fences, trees and a pond, seen from all sides.
    """

    rooms: float = 0.35
    streets: float = 0.2
    grounds: float = 0.2
    tables: float = 0.25
    interiors: float = 0.0
    galleries: float = 0.0
    facades: float = 0.0
    avenues: float = 0.0
    gardens: float = 0.0

    def __post_init__(self) -> None:
        if min(self.shares) < 0 or sum(self.shares) <= 0:
            raise InputError("scene options", "shares of at least 0, not all 0", f"{self.shares}")

    @classmethod
    def everything(cls) -> SceneOptions:
        """The mix that training uses: most of all what the first four lack."""
        return cls(0.09, 0.06, 0.07, 0.14, 0.17, 0.08, 0.19, 0.11, 0.09)

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares in layout order."""
        return tuple(getattr(self, field.name) for field in fields(self))


def _pick(random: SceneRandom, points: list[Tensor]) -> Tensor:
    """(n, A, 3): some of the points, at random."""
    stacked = torch.stack(points, 1)
    rows = random.integers(len(points), _ATTENTION_POINTS)
    return stacked.gather(1, rows[..., None].expand(-1, -1, 3))


def _room(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """Furniture along the walls, pictures on them, a table in the middle."""
    build = SceneBuilder(random, atlas.count)
    half_x, half_y = random.uniform(1.6, 4.5), random.uniform(1.6, 4.5)
    height = random.uniform(2.3, 3.8)
    zero = torch.zeros_like(height)
    build.add_enclosure(
        xyz(-half_x, -half_y, zero), xyz(half_x, half_y, height), (1.5, 5.0), open_air=False
    )
    attention = [xyz(zero, zero, 0.4 * height)]
    extents = torch.stack((half_x, half_y), -1)

    def at_wall(side: int, along: Tensor, out: Tensor, z: Tensor) -> Tensor:
        """A point ``out`` metres in front of wall ``side``, ``along`` in -1..1 of it."""
        axis, sign = side // 2, 1.0 if side % 2 else -1.0
        across = sign * (extents[:, axis] - out)
        sideways = along * extents[:, 1 - axis]
        return xyz(across, sideways, z) if axis == 0 else xyz(sideways, across, z)

    def wall_half(side: int, out: Tensor, wide: Tensor, tall: Tensor) -> Tensor:
        return xyz(out, wide, tall) if side < 2 else xyz(wide, out, tall)

    for piece in range(5):
        side = piece % 4
        out = random.uniform(0.15, 0.45)
        wide, tall = random.uniform(0.2, 1.0), random.log_uniform(0.15, 1.0)
        along = random.uniform(-0.8, 0.8)
        base = at_wall(side, along, out + random.uniform(0.01, 0.3), tall)
        turn = random.yaw(0.3)
        build.add("box", base, wall_half(side, out, wide, tall), turn)
        top_tall = random.uniform(0.06, 0.35)
        top_half = wall_half(
            side, out * random.uniform(0.3, 0.8), wide * random.uniform(0.2, 0.8), top_tall
        )
        top = base + xyz(zero, zero, tall + top_tall)
        build.add("box", top, top_half, turn @ random.yaw(0.4))
        attention.append(top)
    for piece in range(6):
        side = piece % 4
        wide, tall = random.uniform(0.2, 0.8), random.uniform(0.2, 0.6)
        z = random.uniform(0.5, 0.75) * height
        center = at_wall(side, random.uniform(-0.8, 0.8), 0.02 + zero, z)
        build.add("box", center, wall_half(side, 0.02 + zero, wide, tall), fitted=True, same=0)
        attention.append(center)
    table_half = xyz(random.uniform(0.3, 0.8), random.uniform(0.3, 0.6), 0.04 + zero)
    spot = xyz(random.uniform(-0.4, 0.4) * half_x, random.uniform(-0.4, 0.4) * half_y, zero)
    table_top = random.uniform(0.4, 0.8)
    yaw = random.yaw()
    build.add("box", spot + xyz(zero, zero, table_top), table_half, yaw)
    foot = table_half * torch.tensor([0.25, 0.25, 0.0], dtype=torch.float64)
    foot = foot + xyz(zero, zero, table_top / 2 - 0.02)
    build.add("box", spot + xyz(zero, zero, table_top / 2 - 0.02), foot, yaw)
    _scatter(random, build, spot + xyz(zero, zero, table_top + 0.04), 0.35, 0.06, 0.18, 2, 3, 2)
    attention.append(spot + xyz(zero, zero, table_top + 0.1))
    for _ in range(2):
        radius = random.uniform(0.15, 0.5)
        place = xyz(
            random.uniform(-0.8, 0.8) * half_x, random.uniform(-0.8, 0.8) * half_y, radius * 0.8
        )
        build.add("ellipsoid", place, radius[:, None] * random.uniform(0.6, 1.0, 3))
    pillar = random.uniform(0.08, 0.3)
    corner = xyz(
        random.sign() * (half_x - 0.4),
        random.sign() * (half_y - 0.4),
        random.uniform(0.2, 1.0) * height / 2,
    )
    build.add("cylinder", corner, xyz(pillar, pillar, corner[:, 2]))
    return build.build(atlas, _pick(random, attention), (0.6, 5.0), (-0.5, 1.1), -spot, (0.6, 1.8))


def _scatter(
    random: SceneRandom,
    build: SceneBuilder,
    center: Tensor,
    spread: float,
    smallest: float,
    largest: float,
    boxes: int,
    balls: int,
    tubes: int,
) -> list[Tensor]:
    """Objects standing or lying around ``center`` on the plane through it; their centres."""
    kinds = ["box"] * boxes + ["ellipsoid"] * balls + ["cylinder"] * tubes
    places: list[Tensor] = []
    for number, kind in enumerate(kinds):
        size = random.log_uniform(smallest, largest)
        half = size[:, None] * random.log_uniform(0.4, 1.3, 3)
        if kind == "cylinder":
            half = torch.stack((half[:, 0], half[:, 0], half[:, 2]), -1)
        angle = 2.4 * number + random.uniform(-0.6, 0.6)
        radius = spread * math.sqrt((number + 0.3) / len(kinds)) * random.uniform(0.8, 1.1)
        tilted = random.chance(0.25)[:, None, None]
        rotation = torch.where(tilted, random.rotation(), random.yaw())
        # The lowest point of a turned shape is at most its projected half sizes below its centre.
        reach = (rotation[:, 2].abs() * half).sum(-1)
        if kind == "ellipsoid":
            reach = (rotation[:, 2].square() * half.square()).sum(-1).sqrt()
        place = center + xyz(radius * angle.cos(), radius * angle.sin(), 0.97 * reach)
        build.add(kind, place, half, rotation)
        places.append(place)
    return places


def _street(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """Two rows of buildings with facades, things on the pavement, a backdrop at the ends."""
    build = SceneBuilder(random, atlas.count)
    zero = torch.zeros(random.num, dtype=torch.float64)
    far = random.uniform(40, 70)
    build.add_enclosure(xyz(-far, -far, zero), xyz(far, far, 0.8 * far), (3.0, 9.0), open_air=True)
    width = random.uniform(4, 11)
    attention: list[Tensor] = []
    for side in (-1.0, 1.0):
        start = random.uniform(-28, -18)
        for _ in range(5):
            wide, deep, tall = (
                random.uniform(3, 6.5),
                random.uniform(3, 6),
                random.uniform(2.5, 9),
            )
            back = random.uniform(0, 1.5)
            center = xyz(side * (width + deep + back), start + wide, tall)
            build.add(
                "box", center, xyz(deep, wide, tall), random.yaw(0.06), repeat=(0.5, 1.2), same=0.4
            )
            attention.append(
                xyz(side * (width + back), start + wide, tall.clamp(max=2.5) * 0.9 + 0.4)
            )
            start = start + 2 * wide + random.chance(0.3) * random.uniform(0, 5)
    for _ in range(10):
        half = random.log_uniform(0.3, 1.8)[:, None] * random.log_uniform(0.5, 1.2, 3)
        place = xyz(
            random.sign() * width * random.uniform(0.4, 0.9), random.uniform(-18, 18), half[:, 2]
        )
        build.add("box", place, half, random.yaw(0.3))
        attention.append(place)
    for _ in range(3):
        radius, tall = random.uniform(0.07, 0.3), random.uniform(1.2, 3)
        across = random.sign() * width * random.uniform(0.6, 0.9)
        build.add("cylinder", xyz(across, random.uniform(-15, 15), tall), xyz(radius, radius, tall))
    for _ in range(5):
        half = random.uniform(0.7, 2.2)[:, None] * random.uniform(0.6, 1.2, 3)
        across = random.sign() * width * random.uniform(0.6, 1.0)
        place = xyz(across, random.uniform(-18, 18), half[:, 2] + random.uniform(0, 1.8))
        build.add("ellipsoid", place, half, random.yaw())
    return build.build(
        atlas, _pick(random, attention), (3.0, 16.0), (-0.05, 0.5), place * _FLOOR, (2.0, 6.0)
    )


def _ground(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """An open ground with big and small things and mounds."""
    build = SceneBuilder(random, atlas.count)
    zero = torch.zeros(random.num, dtype=torch.float64)
    far = random.uniform(15, 40)
    build.add_enclosure(xyz(-far, -far, zero), xyz(far, far, 0.9 * far), (2.0, 7.0), open_air=True)
    middle = torch.zeros(random.num, 3, dtype=torch.float64)
    attention = _scatter(random, build, middle, 4.0, 0.3, 1.3, 11, 2, 3)
    for number in range(6):
        angle = number * math.pi / 3 + random.uniform(-0.4, 0.4)
        radius = random.uniform(6, 11)
        half = xyz(random.uniform(0.3, 1.5), random.uniform(1, 3.5), random.uniform(0.8, 3))
        place = xyz(radius * angle.cos(), radius * angle.sin(), half[:, 2])
        build.add("box", place, half, yaw_matrix(angle) @ random.yaw(0.5), same=0.2)
        attention.append(place * torch.tensor([0.85, 0.85, 0.8], dtype=torch.float64))
    for _ in range(3):
        build.add(
            "box",
            xyz(random.uniform(-6, 6), random.uniform(-6, 6), zero),
            random.uniform(0.3, 1.0, 3),
            random.rotation(),
        )
    for _ in range(3):
        half = xyz(random.uniform(1.5, 4), random.uniform(1.5, 4), random.uniform(0.3, 1.2))
        place = xyz(random.uniform(-8, 8), random.uniform(-8, 8), -0.2 * half[:, 2])
        build.add("ellipsoid", place, half, random.yaw())
    return build.build(
        atlas, _pick(random, attention), (1.5, 9.0), (0.0, 1.2), 0.3 * place * _FLOOR, (1.5, 4.5)
    )


def _table(random: SceneRandom, atlas: MipAtlas) -> Scene:
    """A few objects on a table in a room, seen from all around."""
    build = SceneBuilder(random, atlas.count)
    zero = torch.zeros(random.num, dtype=torch.float64)
    half_x, half_y = random.uniform(1.8, 4), random.uniform(1.8, 4)
    height = random.uniform(2.3, 3.2)
    build.add_enclosure(
        xyz(-half_x, -half_y, zero), xyz(half_x, half_y, height), (1.0, 4.0), open_air=False
    )
    level = random.uniform(0.0, 0.9)
    slab = xyz(random.uniform(0.5, 1.1), random.uniform(0.5, 1.1), 0.05 + zero)
    yaw = random.yaw()
    build.add("box", xyz(zero, zero, level - 0.05), slab, yaw, repeat=(0.4, 1.2))
    build.add(
        "box",
        xyz(zero, zero, (level - 0.1).clamp(min=0.02) / 2),
        xyz(slab[:, 0] * 0.7, slab[:, 1] * 0.7, (level - 0.1).clamp(min=0.02) / 2),
        yaw,
    )
    top = xyz(zero, zero, level)
    attention = _scatter(random, build, top, 0.3, 0.06, 0.22, 6, 3, 2)
    # One bigger thing in the middle that hides what is behind it.
    big = random.log_uniform(0.1, 0.3)[:, None] * random.log_uniform(0.6, 1.4, 3)
    build.add("box", top + xyz(zero, zero, big[:, 2]), big, random.yaw(), same=0.1)
    attention += [top + xyz(zero, zero, big[:, 2])] * 4
    ball = random.log_uniform(0.08, 0.25)[:, None] * random.uniform(0.6, 1.2, 3)
    offset = xyz(random.uniform(-0.2, 0.2), random.uniform(-0.2, 0.2), 2 * big[:, 2] + ball[:, 2])
    build.add("ellipsoid", top + offset, ball, random.yaw())
    reach = random.uniform(0.1, 0.3)
    corner = top + xyz(reach, random.uniform(-0.25, 0.25), zero)
    for piece in range(11):
        axis, sign = piece % 2, 1.0 if piece % 4 < 2 else -1.0
        out, wide, tall = (
            random.uniform(0.02, 0.3),
            random.uniform(0.25, 0.8),
            random.uniform(0.3, 0.9),
        )
        hanging = random.chance(0.5)
        out = torch.where(hanging, 0.02, out)
        z = torch.where(hanging, 0.6 * height, tall)
        tall = torch.where(hanging, tall * 0.6, tall)
        if axis == 0:
            place = xyz(sign * (half_x - out), random.uniform(-0.9, 0.9) * half_y, z)
            half = xyz(out, wide, tall)
        else:
            place = xyz(random.uniform(-0.9, 0.9) * half_x, sign * (half_y - out), z)
            half = xyz(wide, out, tall)
        build.add("box", place, half, same=0.1)
    return build.build(
        atlas, _pick(random, attention), (0.45, 2.2), (0.0, 1.25), corner, (0.25, 0.55)
    )


def _padded(scene: Scene, counts: ShapeCounts) -> Scene:
    """A scene with more primitives, the new ones out of sight, and a finish."""
    scene = scene if scene.finish is not None else replace(scene, finish=blank_finish(scene))
    if scene.counts == counts:
        return scene
    assert scene.finish is not None, "just given one"
    room = scene.counts.total - 1
    order: list[int] = []
    blank: list[bool] = []
    start = 0
    for has, wanted in zip(scene.counts.of_each, counts.of_each, strict=True):
        assert has <= wanted, "padding only adds"
        order += [*range(start, start + has), *[0] * (wanted - has)]
        blank += [False] * has + [True] * (wanted - has)
        start += has
    rows, away = torch.tensor([*order, room]), torch.tensor([*blank, False])
    center = scene.center[:, rows].clone()
    center[:, away] = torch.tensor([0.0, 0.0, -500.0], dtype=center.dtype)
    half = torch.where(away[:, None], 0.01, scene.half_size[:, rows])
    finish = scene.finish
    spread = ("emission", "mirror", "inset", "inset_texture", "group")
    pattern = torch.zeros(len(scene), counts.panels, PATTERN_COLUMNS)
    return replace(
        scene,
        counts=counts,
        center=center,
        half_size=half,
        **{
            name: getattr(scene, name)[:, rows]
            for name in (
                "rotation",
                "texture",
                "uv_from_local",
                "tint",
                "specular",
                "is_backdrop",
            )
        },
        finish=replace(
            finish, pattern=pattern, **{name: getattr(finish, name)[:, rows] for name in spread}
        ),
    )


def _concatenate(scenes: list[Scene], order: Tensor) -> Scene:
    """Join batches of scenes and put them in order."""
    most = max((scene.counts for scene in scenes), key=lambda counts: counts.total)
    if most.panels:
        scenes = [_padded(scene, most) for scene in scenes]
    joined: dict[str, Any] = {
        name: torch.cat([getattr(scene, name) for scene in scenes])[order]
        for name in Scene.__dataclass_fields__
        if name not in ("counts", "atlas", "mesh", "finish")
    }
    finishes = [scene.finish for scene in scenes if scene.finish is not None]
    if finishes:
        joined["finish"] = Finish(
            *(
                torch.cat([getattr(finish, field.name) for finish in finishes])[order]
                for field in fields(Finish)
            )
        )
    return Scene(counts=scenes[0].counts, atlas=scenes[0].atlas, **joined)


_MAKERS: tuple[Callable[[SceneRandom, MipAtlas], Scene], ...] = (
    _room,
    _street,
    _ground,
    _table,
    interior,
    gallery,
    facade,
    avenue,
    garden,
)


def sample_scenes(
    generator: torch.Generator,
    num_scenes: int,
    textures: MipAtlas,
    options: SceneOptions | None = None,
) -> Scene:
    """Random places.

    Args:
        generator: source of all randomness, on the CPU.
        num_scenes: how many.
        textures: what the surfaces show, by role where the atlas has roles.
        options: shares of the layouts; ``SceneOptions.everything()`` by default.

    Returns:
        ``num_scenes`` scenes on the device of the textures.

    Raises:
        InputError: ``num_scenes`` below 1.
    """
    if num_scenes < 1:
        raise InputError("num_scenes", "at least 1", f"{num_scenes}")
    options = options or SceneOptions.everything()
    shares = torch.tensor(options.shares, dtype=torch.float64)
    layout = torch.multinomial(shares, num_scenes, replacement=True, generator=generator)
    scenes: list[Scene] = []
    rows: list[Tensor] = []
    for kind, maker in enumerate(_MAKERS):
        chosen = (layout == kind).nonzero()[:, 0]
        if len(chosen):
            scenes.append(maker(SceneRandom(generator, len(chosen)), textures))
            rows.append(chosen)
    order = torch.cat(rows).argsort()
    device = textures.packed.device
    return _concatenate(scenes, order).to(device)
