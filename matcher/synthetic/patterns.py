"""Made-up textures of what places are built of: walls, ground, wood, windows, books, leaves.

No file is needed, so what is drawn with them alone may be shown and shared freely.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from matcher.synthetic.textures import cell_grid, smooth_noise

__all__ = ["ROLES", "role_of_file", "role_textures"]

ROLES = (
    "any",
    "wall",
    "ground",
    "wood",
    "fabric",
    "window",
    "books",
    "leaf",
    "roof",
    "plain",
    "picture",
    "door",
    "skin",
)
"""What a texture can be for; ``any`` is for everything."""

_WORDS = {
    "wall": ("wall", "brick", "stone", "plaster", "concrete", "marble", "cliff", "rock", "struct"),
    "ground": ("grass", "dirt", "gravel", "paving", "sand", "snow", "road", "asphalt", "ground"),
    "wood": ("wood", "plank", "bark", "parquet"),
    "fabric": ("fabric", "cloth", "carpet", "leather", "wool"),
    "roof": ("roof", "tile"),
    "leaf": ("leaf", "leaves", "hedge", "ivy", "forest"),
}


def role_of_file(path: Path, *, photograph: str = "picture") -> int:
    """Index in ``ROLES`` that the words of a file's name stand for.

    A name that says nothing is a ``photograph``: something to hang on a wall.
    """
    name = path.stem.lower()
    for role, words in _WORDS.items():
        if any(word in name for word in words):
            return ROLES.index(role)
    return ROLES.index(photograph)


class _Draw:
    """Draws for one texture."""

    def __init__(self, generator: torch.Generator, size: int) -> None:
        self.generator, self.size = generator, size
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        self.x, self.y = (x + 0.5) / size, (y + 0.5) / size

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def integer(self, low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=self.generator))

    def rows(self, count: int, columns: int = 1) -> Tensor:
        return torch.rand(count, columns, generator=self.generator)

    def noise(self, roughness: float) -> Tensor:
        """(3, size, size) in [0, 1]."""
        return smooth_noise(self.generator, 1, self.size, roughness)[0]

    def colour(self, *choices: tuple[float, float, float], spread: float = 0.08) -> Tensor:
        """(3, 1, 1) close to one of the colours given."""
        base = torch.tensor(choices[self.integer(0, len(choices))])
        change = 1 + spread * (2 * torch.rand(3, generator=self.generator) - 1)
        shade = 1 + 0.2 * (2 * torch.rand(1, generator=self.generator) - 1)
        return (base * change * shade).clamp(0.02, 1)[:, None, None]


_PLASTER = (
    (0.85, 0.8, 0.7),
    (0.8, 0.6, 0.45),
    (0.9, 0.88, 0.82),
    (0.75, 0.72, 0.6),
    (0.8, 0.7, 0.68),
)
_STONE = ((0.7, 0.65, 0.55), (0.55, 0.53, 0.5), (0.78, 0.72, 0.6), (0.62, 0.45, 0.36))
_BRICK = ((0.6, 0.28, 0.2), (0.65, 0.4, 0.28), (0.5, 0.3, 0.25), (0.75, 0.65, 0.5))
_WOOD = (
    (0.55, 0.36, 0.2),
    (0.72, 0.53, 0.33),
    (0.4, 0.25, 0.15),
    (0.8, 0.68, 0.5),
    (0.9, 0.88, 0.84),
)
_GREEN = ((0.25, 0.4, 0.14), (0.35, 0.45, 0.18), (0.2, 0.33, 0.15), (0.45, 0.42, 0.15))


def _wall(draw: _Draw) -> Tensor:
    kind = draw.integer(0, 4)
    grain = draw.noise(draw.uniform(0.75, 0.95)).mean(0, keepdim=True)
    if kind == 0:  # plaster with stains
        return draw.colour(*_PLASTER) * (0.8 + 0.3 * grain)
    brick = kind == 1
    rows = draw.integer(14, 24) if brick else draw.integer(4, 9)
    columns = rows // draw.integer(2, 4) if brick else draw.integer(2, 6)
    number, fx, fy = cell_grid(draw.size, max(2, columns), rows, kind != 3)
    shade = draw.rows(int(number.max()) + 1)[number][..., 0]
    joint = draw.uniform(0.03, 0.07)
    inside = (fx > joint * columns / rows) & (fy > joint * (2 if brick else 1))
    base = draw.colour(*(_BRICK if brick else _STONE))
    bright = torch.where(
        inside, 0.75 + 0.35 * shade, torch.full_like(shade, 0.6 if kind != 1 else 0.95)
    )
    return base * bright * (0.7 + 0.45 * grain)


def _ground(draw: _Draw) -> Tensor:
    kind = draw.integer(0, 4)
    grain = draw.noise(draw.uniform(0.85, 1.0))
    if kind == 0:  # asphalt, sand
        base = draw.colour((0.35, 0.35, 0.36), (0.7, 0.62, 0.45), (0.5, 0.48, 0.45))
        return base * (0.65 + 0.6 * grain.mean(0, keepdim=True))
    if kind == 1:  # grass
        return draw.colour(*_GREEN) * (0.35 + 1.2 * grain)
    rows = draw.integer(6, 16)
    number, fx, fy = cell_grid(draw.size, rows if kind == 2 else rows // 2, rows, kind == 3)
    shade = draw.rows(int(number.max()) + 1)[number][..., 0]
    round_ = ((fx - 0.5).abs() ** 3 + (fy - 0.5).abs() ** 3) < (0.1 if kind == 2 else 0.16)
    bright = torch.where(round_, 0.65 + 0.5 * shade, torch.full_like(shade, 0.4))
    return draw.colour(*_STONE) * bright * (0.75 + 0.4 * grain.mean(0, keepdim=True))


def _wood(draw: _Draw) -> Tensor:
    planks = draw.integer(2, 8)
    number = (draw.y * planks).long()
    start = draw.rows(planks)[number][..., 0]
    wave = draw.noise(0.55).mean(0)
    rings = torch.sin(40 * (draw.y * planks) + 9 * wave + 30 * start + 2 * torch.sin(6.28 * draw.x))
    fine = smooth_noise(draw.generator, 1, draw.size, 1.0)[0].mean(0)
    fine = fine.roll(3, 1) * 0.25 + fine.roll(6, 1) * 0.25 + fine * 0.5
    seam = ((draw.y * planks) % 1 < 0.035) | (((draw.x + start) * 2 % 1) < 0.008)
    bright = (0.8 + 0.12 * rings + 0.3 * (fine - 0.5) + 0.25 * (start - 0.5)) * torch.where(
        seam, 0.5, 1.0
    )
    return draw.colour(*_WOOD) * bright


def _fabric(draw: _Draw) -> Tensor:
    first = draw.colour(
        (0.7, 0.2, 0.2), (0.2, 0.3, 0.55), (0.8, 0.75, 0.65), (0.3, 0.45, 0.35), (0.5, 0.5, 0.5)
    )
    second = draw.colour((0.9, 0.85, 0.75), (0.15, 0.15, 0.2), (0.8, 0.55, 0.25), (0.5, 0.15, 0.3))
    count = draw.integer(2, 9)
    kind = draw.integer(0, 4)
    across, up = torch.sin(6.2832 * count * draw.x), torch.sin(6.2832 * count * draw.y)
    if kind == 0:
        mask = (across > 0.3).float()
    elif kind == 1:
        mask = 0.5 * (across > 0).float() + 0.5 * (up > 0).float()
    elif kind == 2:
        mask = (across * up > draw.uniform(0.0, 0.5)).float()
    else:
        mask = (draw.noise(0.6).mean(0) > 0.5).float()
    weave = 0.9 + 0.1 * torch.sin(6.2832 * 60 * draw.x) * torch.sin(6.2832 * 60 * draw.y)
    grain = 0.85 + 0.25 * draw.noise(0.9).mean(0)
    return (first * (1 - mask) + second * mask) * weave * grain


def _window(draw: _Draw) -> Tensor:
    frame = draw.colour(
        (0.92, 0.92, 0.9), (0.35, 0.22, 0.14), (0.2, 0.25, 0.25), (0.75, 0.72, 0.66)
    )
    across, up = draw.integer(1, 4), draw.integer(1, 5)
    rim = draw.uniform(0.04, 0.09)
    fx, fy = (draw.x * across) % 1, (draw.y * up) % 1
    bar = rim * 0.6
    bars = (fx < bar * across) | (fx > 1 - bar * across) | (fy < bar * up) | (fy > 1 - bar * up)
    bars |= ((draw.x - 0.5).abs() > 0.5 - rim) | ((draw.y - 0.5).abs() > 0.5 - rim)
    glass = draw.colour((0.25, 0.3, 0.36), (0.12, 0.14, 0.16), (0.4, 0.48, 0.55))
    glass = glass * (0.6 + 0.9 * draw.noise(0.45).mean(0) * (1.2 - draw.y))
    drawn = draw.uniform(0.0, 0.42)
    folds = 0.75 + 0.2 * torch.sin(6.2832 * draw.uniform(8, 14) * draw.x)
    curtain = draw.colour((0.85, 0.82, 0.75), (0.7, 0.35, 0.3), (0.6, 0.65, 0.7)) * folds
    behind = torch.where((draw.x - 0.5).abs() > 0.5 - drawn, 0.75 * curtain, glass)
    return torch.where(bars, frame, behind)


def _books(draw: _Draw) -> Tensor:
    widths = 0.012 + 0.035 * draw.rows(80)[:, 0]
    ends = widths.cumsum(0)
    book = torch.searchsorted(ends, draw.x[0].contiguous() * float(ends[-1]) * 0.45)
    book = book.clamp(max=79)
    colours = (0.12 + 0.75 * draw.rows(80, 3) ** 1.4).T
    tops = 0.05 + 0.3 * draw.rows(80)[:, 0]
    image = colours[:, book][:, None].expand(-1, draw.size, -1)
    left = torch.cat((torch.zeros(1), ends))[book]
    place = (draw.x[0] * float(ends[-1]) * 0.45 - left) / widths[book]
    image = image * (0.65 + 0.5 * torch.sin(3.14 * place.clamp(0, 1)))
    title = (draw.rows(80)[:, 0] * 0.5 + 0.25)[book]
    band = (draw.y - title).abs() < 0.05 + 0.1 * draw.rows(80)[:, 0][book]
    letters = torch.sin(draw.y * 300 + 7 * book) > 0.1
    inked = band & letters & ((place - 0.5).abs() < 0.25)
    image = torch.where(inked, 0.9 - 0.6 * image, image)
    return torch.where(draw.y < tops[book], torch.full_like(image, 0.07), image)


def _leaf(draw: _Draw) -> Tensor:
    grain = draw.noise(1.0)
    spots = draw.noise(0.85).mean(0, keepdim=True)
    return draw.colour(*_GREEN, (0.6, 0.3, 0.1)) * (0.3 + 1.0 * grain) * (0.5 + 0.9 * spots)


def _roof(draw: _Draw) -> Tensor:
    rows = draw.integer(8, 18)
    number, fx, fy = cell_grid(draw.size, rows, rows, True)
    shade = draw.rows(int(number.max()) + 1)[number][..., 0]
    bright = (0.55 + 0.45 * torch.sin(3.14 * fx)) * (1 - 0.4 * fy) * (0.8 + 0.3 * shade)
    return (
        draw.colour((0.6, 0.27, 0.17), (0.35, 0.36, 0.4), (0.5, 0.4, 0.33), (0.35, 0.5, 0.42))
        * bright
    )


def _plain(draw: _Draw) -> Tensor:
    base = draw.colour(*_PLASTER, (0.95, 0.95, 0.93), (0.6, 0.68, 0.72), (0.25, 0.26, 0.28))
    return base * (0.96 + 0.07 * draw.noise(0.7).mean(0, keepdim=True))


def _picture(draw: _Draw) -> Tensor:
    image = draw.noise(0.5) * 0.8 + 0.1
    for _ in range(draw.integer(6, 16)):
        cx, cy, wide, tall = (draw.uniform(0.05, 0.95) for _ in range(4))
        turn = draw.uniform(0, 3.14)
        dx, dy = draw.x - cx, draw.y - cy
        cos, sin = torch.cos(torch.tensor(turn)), torch.sin(torch.tensor(turn))
        u, v = (dx * cos + dy * sin) / (0.4 * wide), (dy * cos - dx * sin) / (0.3 * tall)
        inside = (
            (u * u + v * v < 1) if draw.uniform(0, 1) < 0.5 else ((u.abs() < 0.8) & (v.abs() < 0.8))
        )
        colour = draw.rows(3)[..., None]
        image = torch.where(inside, colour * (0.8 + 0.2 * v), image)
    rim = draw.uniform(0.03, 0.08)
    frame = ((draw.x - 0.5).abs() > 0.5 - rim) | ((draw.y - 0.5).abs() > 0.5 - rim)
    mat = ((draw.x - 0.5).abs() > 0.5 - 2 * rim) | ((draw.y - 0.5).abs() > 0.5 - 2 * rim)
    image = torch.where(
        mat & (torch.tensor(draw.uniform(0, 1)) < 0.4), 0.92 * torch.ones(()), image
    )
    return torch.where(frame, draw.colour(*_WOOD, (0.1, 0.1, 0.1), (0.75, 0.6, 0.25)), image)


def _door(draw: _Draw) -> Tensor:
    image = draw.colour(*_WOOD, (0.2, 0.35, 0.3), (0.5, 0.15, 0.12)) * (
        0.85 + 0.2 * draw.noise(0.7).mean(0)
    )
    across, up = draw.integer(1, 3), draw.integer(2, 4)
    fx, fy = ((draw.x - 0.06) / 0.88 * across) % 1, ((draw.y - 0.04) / 0.92 * up) % 1
    edge = torch.minimum((fx - 0.5).abs() - 0.36, (fy - 0.5).abs() - 0.4)
    edge = torch.maximum((fx - 0.5).abs() - 0.36, (fy - 0.5).abs() - 0.4)
    image = (
        image * torch.where(edge.abs() < 0.025, 0.55, 1.0) * torch.where(edge < -0.025, 1.12, 1.0)
    )
    rim = ((draw.x - 0.5).abs() > 0.46) | (draw.y < 0.03)
    image = torch.where(rim, 0.6 * image, image)
    handle = ((draw.x - 0.88).abs() < 0.035) & ((draw.y - 0.52).abs() < 0.012)
    return torch.where(handle, draw.colour((0.85, 0.8, 0.6), (0.7, 0.7, 0.72)), image)


def _skin(draw: _Draw) -> Tensor:
    base = draw.colour(
        (0.2, 0.25, 0.4), (0.75, 0.2, 0.2), (0.15, 0.15, 0.16), (0.85, 0.85, 0.8), (0.8, 0.6, 0.45)
    )
    return base * (0.8 + 0.3 * draw.noise(0.6).mean(0, keepdim=True))


_MAKERS: dict[str, Callable[[_Draw], Tensor]] = {
    "wall": _wall,
    "ground": _ground,
    "wood": _wood,
    "fabric": _fabric,
    "window": _window,
    "books": _books,
    "leaf": _leaf,
    "roof": _roof,
    "plain": _plain,
    "picture": _picture,
    "door": _door,
    "skin": _skin,
}


def role_textures(generator: torch.Generator, each: int, size: int = 256) -> tuple[Tensor, Tensor]:
    """``each`` textures for every role but ``any``.

    Args:
        generator: source of all randomness, on the CPU.
        each: textures a role.
        size: side, a power of two.

    Returns:
        (T, 3, size, size) uint8 RGB and their roles (T,) int64.
    """
    images, roles = [], []
    for role, maker in _MAKERS.items():
        for _ in range(each):
            image = maker(_Draw(generator, size)).expand(3, size, size)
            images.append((image.clamp(0, 1) * 255).round().byte())
            roles.append(ROLES.index(role))
    return torch.stack(images), torch.tensor(roles)
