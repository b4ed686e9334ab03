"""The workshop of the layouts: random draws, and primitives padded to a fixed number."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from matcher.synthetic.finish import Finish
from matcher.synthetic.scene import FACES, Scene, ShapeCounts
from matcher.synthetic.textures import MipAtlas

__all__ = ["COUNTS", "SceneBuilder", "SceneRandom", "xyz", "yaw_matrix"]

COUNTS = ShapeCounts(boxes=20, ellipsoids=5, cylinders=3)


class SceneRandom:
    """Draws for n scenes from one generator."""

    def __init__(self, generator: torch.Generator, num: int) -> None:
        self.generator, self.num = generator, num

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape) float64, uniform between ``low`` and ``high``."""
        draw = torch.rand(self.num, *shape, generator=self.generator, dtype=torch.float64)
        return low + (high - low) * draw

    def log_uniform(self, low: float, high: float, *shape: int) -> Tensor:
        """(n, *shape) float64 whose logarithm is uniform."""
        return self.uniform(math.log(low), math.log(high), *shape).exp()

    def sign(self, *shape: int) -> Tensor:
        """(n, *shape) float64, -1 or 1."""
        return torch.where(self.chance(0.5, *shape), 1.0, -1.0).double()

    def chance(self, probability: float, *shape: int) -> Tensor:
        """(n, *shape) bool, true with this probability."""
        return self.uniform(0, 1, *shape) < probability

    def integers(self, high: int, *shape: int) -> Tensor:
        """(n, *shape) int64 below ``high``."""
        return torch.randint(high, (self.num, *shape), generator=self.generator)

    def yaw(self, spread: float = math.pi) -> Tensor:
        """(n, 3, 3) rotations about z by up to ``spread`` radians."""
        return yaw_matrix(self.uniform(-spread, spread))

    def rotation(self) -> Tensor:
        """(n, 3, 3) uniform rotations."""
        q = torch.randn(self.num, 4, generator=self.generator, dtype=torch.float64)
        w, x, y, z = torch.nn.functional.normalize(q, dim=-1).unbind(-1)
        rows = (
            (1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)),
            (2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)),
            (2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)),
        )
        return torch.stack([torch.stack(row, -1) for row in rows], -2)


def yaw_matrix(angle: Tensor) -> Tensor:
    """(n, 3, 3) rotations about z by ``angle`` (n,) radians."""
    cos, sin = angle.cos(), angle.sin()
    zero, one = torch.zeros_like(cos), torch.ones_like(cos)
    rows = ((cos, -sin, zero), (sin, cos, zero), (zero, zero, one))
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def xyz(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """Stack coordinates (n,) to points (n, 3)."""
    return torch.stack((x, y, z), -1)


@dataclass(slots=True)
class _Parts:
    """Primitives of one kind, in the making."""

    rotation: list[Tensor] = field(default_factory=list)
    center: list[Tensor] = field(default_factory=list)
    half: list[Tensor] = field(default_factory=list)
    texture: list[Tensor] = field(default_factory=list)
    affine: list[Tensor] = field(default_factory=list)
    backdrop: list[Tensor] = field(default_factory=list)


class SceneBuilder:
    """Collects the primitives of n scenes and pads them to the fixed counts."""

    def __init__(self, random: SceneRandom, textures: int, counts: ShapeCounts = COUNTS) -> None:
        self.random, self.textures, self.counts = random, textures, counts
        self.parts: dict[str, _Parts] = {
            kind: _Parts() for kind in dict.fromkeys(counts.kinds[:-1])
        }
        self.enclosure = _Parts()

    def _face_extent(self, half: Tensor) -> Tensor:
        """(n, 6, 2) full metres of each face along its two axes."""
        axes = ((1, 2), (0, 2), (0, 1))
        pairs = [2 * half[:, list(axes[face // 2])] for face in range(FACES)]
        return torch.stack(pairs, 1)

    def _affine(self, tile: Tensor, fitted: bool) -> Tensor:
        """(n, 6, 2, 3) texture from face metres; ``tile`` (n, 6, 2) metres of one repeat."""
        random = self.random
        scale = 1 / tile
        flip = random.sign(FACES)
        zero = torch.zeros_like(flip)
        upright = torch.stack(
            (
                torch.stack((scale[..., 0] * flip, zero), -1),
                torch.stack((zero, -scale[..., 1]), -1),
            ),
            -2,
        )
        lying = upright.flip(-2)
        turned = random.chance(0.0 if fitted else 0.2, FACES)[..., None, None]
        matrix = torch.where(turned, lying, upright)
        offset = random.uniform(0, 1, FACES, 2)
        if fitted:
            offset = torch.full_like(offset, 0.5)
        return torch.cat((matrix, offset[..., None]), -1)

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
        """One primitive a scene.

        ``repeat``: length of a texture repeat relative to the long side of the face;
        ``metres``: the same in metres; ``fitted``: the texture covers the face exactly;
        ``same``: chance that all faces carry one texture.
        """
        random = self.random
        extent = self._face_extent(half)
        if fitted:
            tile = extent
        else:
            factor = random.log_uniform(*(metres or repeat), FACES, 1)
            long_side = extent.amax(-1, keepdim=True)
            tile = (factor if metres else factor * long_side).expand(-1, -1, 2)
        texture = random.integers(self.textures, FACES)
        alike = random.chance(same, 1)
        texture = torch.where(alike, texture[:, :1], texture)
        parts = self.parts.get(kind, self.enclosure)
        parts.rotation.append(random.yaw(0) if rotation is None else rotation)
        parts.center.append(center)
        parts.half.append(half)
        parts.texture.append(texture)
        parts.affine.append(self._affine(tile, fitted))
        parts.backdrop.append(torch.zeros(random.num, FACES, dtype=torch.bool))

    def add_enclosure(
        self, low: Tensor, high: Tensor, metres: tuple[float, float], open_air: bool
    ) -> None:
        """Walls at ``low`` and ``high`` (n, 3); open air: all but the floor is a backdrop."""
        if open_air:
            self.add("enclosure", (low + high) / 2, (high - low) / 2, repeat=(0.5, 1.0), same=0)
            floor_tile = self.random.log_uniform(*metres, 1, 1).expand(-1, FACES, 2)
            floor = self._affine(floor_tile, False)[:, 4]
            self.enclosure.affine[-1][:, 4] = floor
            self.enclosure.backdrop[-1][:, [0, 1, 2, 3, 5]] = True
        else:
            self.add("enclosure", (low + high) / 2, (high - low) / 2, metres=metres, same=0.1)

    def _pad(self) -> None:
        num = self.random.num
        nowhere = torch.tensor([0.0, 0.0, -500.0], dtype=torch.float64).expand(num, 3)
        for kind, parts in self.parts.items():
            count = self.counts.kinds.count(kind)
            assert len(parts.center) <= count, f"{kind}: {len(parts.center)} of {count}"
            while len(parts.center) < count:
                self.add(kind, nowhere, torch.full_like(nowhere, 0.01))

    def finish(self) -> Finish | None:
        """What the primitives have beyond plain surfaces."""
        return None

    def build(
        self,
        atlas: MipAtlas,
        attention: Tensor,
        distance: tuple[float, float],
        elevation: tuple[float, float],
        anchor: Tensor,
        anchor_size: tuple[float, float],
    ) -> Scene:
        """Pad to the fixed counts, add tints and light."""
        self._pad()
        ordered = [*self.parts.values(), self.enclosure]

        def merged(name: str) -> Tensor:
            values = [value for parts in ordered for value in getattr(parts, name)]
            return torch.stack(values, 1)

        random, shapes = self.random, self.counts.total
        tint = random.uniform(0.85, 1.3, shapes, FACES, 1) * random.uniform(0.88, 1.0, shapes, 1, 3)
        backdrop = merged("backdrop")
        tint = torch.where(backdrop[..., None], 1.0, tint)
        shiny = random.chance(0.25, shapes, 1) * random.uniform(0, 0.35, shapes, 1)
        azimuth, height = random.uniform(-math.pi, math.pi), random.uniform(0.3, 1.4)
        light = xyz(azimuth.cos() * height.cos(), azimuth.sin() * height.cos(), height.sin())
        pair = torch.ones(random.num, 1, dtype=torch.float64)
        return Scene(
            counts=self.counts,
            rotation=merged("rotation"),
            center=merged("center"),
            half_size=merged("half"),
            texture=merged("texture").to(torch.int32),
            uv_from_local=merged("affine").float(),
            tint=tint.float(),
            specular=shiny.expand(-1, -1, FACES).float(),
            is_backdrop=backdrop,
            light_direction=light,
            ambient=random.uniform(0.35, 0.8).float(),
            attention=attention,
            view_distance=pair * torch.tensor(distance, dtype=torch.float64),
            elevation=pair * torch.tensor(elevation, dtype=torch.float64),
            azimuth=pair * torch.tensor((-math.pi, math.pi), dtype=torch.float64),
            eye_height=pair * torch.tensor((-math.inf, math.inf), dtype=torch.float64),
            anchor=anchor,
            anchor_size=random.log_uniform(*anchor_size),
            atlas=atlas,
            finish=self.finish(),
        )
