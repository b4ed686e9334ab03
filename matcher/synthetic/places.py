"""The workshop of places: surfaces with a role and a finish, put into frames of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from matcher.synthetic.builder import SceneBuilder, SceneRandom, yaw_matrix
from matcher.synthetic.finish import (
    INSET_COLUMNS,
    LAMPS,
    PASSERS_BY,
    PATTERN_COLUMNS,
    Finish,
)
from matcher.synthetic.patterns import ROLES
from matcher.synthetic.scene import FACES, Scene, ShapeCounts
from matcher.synthetic.textures import MipAtlas

__all__ = ["PLACE_COUNTS", "Frame", "PlaceBuilder", "blank_finish"]

PLACE_COUNTS = ShapeCounts(boxes=28, ellipsoids=10, cylinders=14, fences=9, leaves=8)
_METRES = {
    "any": (0.8, 3.0),
    "wall": (1.5, 4.0),
    "ground": (1.5, 4.5),
    "wood": (0.6, 1.6),
    "fabric": (0.3, 1.2),
    "leaf": (0.8, 2.0),
    "roof": (1.5, 3.5),
    "plain": (1.0, 3.0),
    "skin": (0.5, 1.5),
}
"""Metres that one repeat of a texture covers; the roles left out cover a face exactly."""
_ODD_ONE = 0.07  # chance that a surface shows any texture at all: the world is not tidy


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A place to build in: origin (n, 3) on the ground, and yaw (n, 3, 3); y is its front."""

    origin: Tensor
    yaw: Tensor

    def point(self, x: Tensor | float, y: Tensor | float, z: Tensor | float) -> Tensor:
        """(n, 3) world point of local coordinates."""
        like = self.origin[:, 0]
        local = [
            value if isinstance(value, Tensor) else torch.full_like(like, value)
            for value in (x, y, z)
        ]
        return self.origin + (self.yaw @ torch.stack(local, -1)[..., None])[..., 0]

    def moved(self, x: Tensor | float, y: Tensor | float, z: Tensor | float = 0.0) -> Frame:
        """The same directions elsewhere."""
        return Frame(self.point(x, y, z), self.yaw)

    def turned(self, angle: Tensor) -> Frame:
        """The same origin, turned by ``angle`` (n,) radians."""
        return Frame(self.origin, self.yaw @ yaw_matrix(angle))


@dataclass(slots=True)
class _Finishes:
    """Finish of the primitives of one kind, in the making."""

    emission: list[Tensor] = field(default_factory=list)
    mirror: list[Tensor] = field(default_factory=list)
    inset: list[Tensor] = field(default_factory=list)
    inset_texture: list[Tensor] = field(default_factory=list)
    pattern: list[Tensor] = field(default_factory=list)
    group: list[Tensor] = field(default_factory=list)


class PlaceBuilder(SceneBuilder):
    """Collects primitives with finishes."""

    def __init__(self, random: SceneRandom, atlas: MipAtlas) -> None:
        super().__init__(random, atlas.count, PLACE_COUNTS)
        self.atlas = atlas
        self.finishes = {kind: _Finishes() for kind in (*self.parts, "enclosure")}
        self.lamps: list[Tensor] = []
        self.open_air = torch.zeros(1, dtype=torch.bool)
        self._roles: dict[str, Tensor] = {}

    def textures_for(self, role: str) -> Tensor:
        """(n,) textures of a role, or of one of ``this|that``; of any where there is none."""
        if "|" in role:
            first, second = (self.textures_for(part) for part in role.split("|"))
            return torch.where(self.random.chance(0.5), first, second)
        if role not in self._roles:
            roles = self.atlas.roles
            found = torch.arange(self.textures)
            if roles is not None and role != "any" and bool((roles == ROLES.index(role)).any()):
                found = (roles == ROLES.index(role)).nonzero()[:, 0]
            self._roles[role] = found
        chosen = self._roles[role][self.random.integers(len(self._roles[role]))]
        odd = self.random.chance(0.0 if role in ("window", "door", "books") else _ODD_ONE)
        return torch.where(odd, self.random.integers(self.textures), chosen)

    def add(
        self,
        kind: str,
        center: Tensor,
        half: Tensor,
        rotation: Tensor | None = None,
        repeat: tuple[float, float] = (0.8, 1.4),
        metres: tuple[float, float] | None = None,
        fitted: bool = False,
        same: float = 0.3,
    ) -> None:
        """One primitive a scene, without a finish."""
        super().add(kind, center, half, rotation, repeat, metres, fitted, same)
        num = self.random.num
        finish = self.finishes[kind if kind in self.parts else "enclosure"]
        zero = torch.zeros(num, FACES)
        finish.emission.append(zero)
        finish.mirror.append(zero)
        finish.inset.append(torch.zeros(num, FACES, INSET_COLUMNS))
        finish.inset_texture.append(torch.zeros(num, FACES, dtype=torch.int64))
        finish.group.append(torch.zeros(num, dtype=torch.int64))
        if kind in ("fence", "leaves"):
            finish.pattern.append(torch.zeros(num, PATTERN_COLUMNS))

    def put(
        self,
        kind: str,
        center: Tensor,
        half: Tensor,
        rotation: Tensor | None = None,
        *,
        role: str = "any",
        texture: Tensor | None = None,
        shine: Tensor | float = 0.0,
        glow: Tensor | float = 0.0,
        openings: Tensor | None = None,
        behind: str = "window",
        pattern: Tensor | None = None,
        group: int = 0,
    ) -> Tensor:
        """One primitive a scene; returns its texture (n,), for its like.

        Args:
            kind: of the primitive.
            center: (n, 3) metres.
            half: (n, 3) metres.
            rotation: (n, 3, 3).
            role: what its texture shows.
            texture: (n,) instead of a random one of the role.
            shine: how much it reflects.
            glow: how much light of its own it has.
            openings: (n, 9) of its upright faces, the narrow ones left out.
            behind: role of what shows at their backs.
            pattern: (n, 8) holes of a panel.
            group: passer-by that it belongs to.
        """
        scale = _METRES.get(role.split("|")[0])
        fitted = scale is None and kind != "ellipsoid"
        PlaceBuilder.add(self, kind, center, half, rotation, metres=scale, fitted=fitted, same=1.0)
        chosen = self.textures_for(role) if texture is None else texture
        parts = self.parts.get(kind, self.enclosure)
        parts.texture[-1] = chosen[:, None].expand(-1, FACES)
        if fitted:
            # Upright: what hangs on a wall must not be mirrored or turned.
            parts.affine[-1] = parts.affine[-1].clone()
            parts.affine[-1][..., 0, 0] = parts.affine[-1][..., 0, 0].abs()
        finish = self.finishes[kind if kind in self.parts else "enclosure"]
        ones = torch.ones(self.random.num, FACES)

        def column(value: Tensor | float) -> Tensor:
            return ones * (value[:, None] if isinstance(value, Tensor) else value)

        finish.mirror[-1], finish.emission[-1] = column(shine), column(glow)
        finish.group[-1] = torch.full((self.random.num,), group)
        if pattern is not None:
            finish.pattern[-1] = pattern
        if openings is not None:
            self._open(finish, half, openings, behind)
        return chosen

    def _open(self, finish: _Finishes, half: Tensor, openings: Tensor, behind: str) -> None:
        """The same cells on all four sides: narrower sides get fewer columns."""
        widest = half[:, :2].amax(-1)
        sunk = finish.inset[-1].clone()
        for face in range(4):
            across = half[:, 1] if face < 2 else half[:, 0]
            sunk[:, face] = openings
            columns = (openings[:, 0] * (across / widest).float()).round()
            sunk[:, face, 0] = columns.clamp(min=1)
            # No way through: openings of opposite faces must not meet.
            depth = torch.minimum(openings[:, 4], 0.4 * half[:, face // 2].float())
            sunk[:, face, 4] = torch.where(columns >= 1, depth, torch.zeros_like(depth))
        finish.inset[-1] = sunk
        finish.inset_texture[-1] = self.textures_for(behind)[:, None].expand(-1, FACES)

    def enclose(
        self,
        low: Tensor,
        high: Tensor,
        *,
        floor: str,
        walls: str = "wall",
        ceiling: str = "plain",
        floor_shine: Tensor | float = 0.0,
        open_air: bool = False,
    ) -> None:
        """The room, or the ground and the backdrop around it."""
        center, half = (low + high) / 2, (high - low) / 2
        self.open_air = torch.tensor([open_air])
        if open_air:
            self.add_enclosure(low, high, _METRES["ground"], True)
        else:
            self.put("enclosure", center, half, role=walls)
            other = self.random.log_uniform(*_METRES[floor.split("|")[0]], 1, 1).expand(
                -1, FACES, 2
            )
            self.enclosure.affine[-1][:, 4] = self._affine(other, False)[:, 4]
        texture = self.enclosure.texture[-1].clone()
        texture[:, 4] = self.textures_for(floor)
        if not open_air:
            texture[:, 5] = self.textures_for(ceiling)
        self.enclosure.texture[-1] = texture
        mirror = self.finishes["enclosure"].mirror[-1].clone()
        mirror[:, 4] = floor_shine
        self.finishes["enclosure"].mirror[-1] = mirror

    def finish(self) -> Finish:
        """What was put, and the lamps."""
        kinds = [*self.parts, "enclosure"]

        def merged(name: str) -> Tensor:
            values = [value for kind in kinds for value in getattr(self.finishes[kind], name)]
            return torch.stack(values, 1)

        num = self.random.num
        lamps = (self.lamps + [self.enclosure.center[0]] * LAMPS)[:LAMPS]
        finish = Finish(
            emission=merged("emission").float(),
            mirror=merged("mirror").float(),
            inset=merged("inset").float(),
            inset_texture=merged("inset_texture").to(torch.int32),
            pattern=merged("pattern"),
            lamps=torch.stack(lamps, 1),
            group=merged("group"),
            open_air=self.open_air.expand(num),
        )
        assert int(finish.group.max()) <= PASSERS_BY
        return finish

    def finish_place(
        self,
        attention: list[Tensor],
        *,
        distance: tuple[float, float],
        elevation: tuple[float, float],
        anchor: Tensor,
        anchor_size: tuple[float, float],
        azimuth: tuple[float, float] = (-math.pi, math.pi),
        eye_height: tuple[float, float] = (-math.inf, math.inf),
    ) -> Scene:
        """Pad, build and finish; ``attention``: points (n, 3) worth looking at."""
        stacked = torch.stack(attention, 1)
        rows = self.random.integers(len(attention), 8)
        points = stacked.gather(1, rows[..., None].expand(-1, -1, 3))
        scene = self.build(self.atlas, points, distance, elevation, anchor, anchor_size)
        ones = torch.ones(self.random.num, 1, dtype=torch.float64)
        return replace(
            scene,
            azimuth=ones * torch.tensor(azimuth, dtype=torch.float64),
            eye_height=ones * torch.tensor(eye_height, dtype=torch.float64),
        )


def blank_finish(scene: Scene) -> Finish:
    """The finish of a scene that has none."""
    num, shapes = scene.center.shape[:2]
    zero = torch.zeros(num, shapes, FACES)
    return Finish(
        emission=zero,
        mirror=zero,
        inset=torch.zeros(num, shapes, FACES, INSET_COLUMNS),
        inset_texture=torch.zeros(num, shapes, FACES, dtype=torch.int32),
        pattern=torch.zeros(num, scene.counts.panels, PATTERN_COLUMNS),
        lamps=scene.center[:, -1:].expand(-1, LAMPS, -1),
        group=torch.zeros(num, shapes, dtype=torch.int64),
        open_air=scene.is_backdrop[:, -1].any(-1),
    )
