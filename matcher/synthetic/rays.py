"""Rays against primitives, exactly, in each primitive's own unit frame.

A ray through pixel (u, v) is K^-1 (u, v, 1); it is left at z = 1, so the ray parameter is the
z-depth. Rays from elsewhere (to a light, off a mirror) live in the same space of homogeneous
pixels, with a start. A shape is met in its unit frame, where the ray is ``o + t d``.

Two ways to the same hits: primitive after primitive, each only where it can be seen (a CPU), and
all primitives of a kind in one expression (an accelerator, where a compiler makes one kernel of
the expression and the minimum over it).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matcher.structures import ImageSize
from matcher.synthetic.holes import solid_fence, solid_leaves
from matcher.synthetic.scene import ShapeKind
from matcher.synthetic.tables import NEAREST, RayTables

__all__ = ["Rays", "gather_rows", "pixel_grid", "trace", "trace_grid", "unit", "worth_it"]

_NOT_ZERO = 1e-12  # far below any direction that matters; keeps 1 / direction finite


@dataclass(frozen=True, slots=True, eq=False)
class Rays:
    """N rays in each of B views, in the space of homogeneous pixels.

    Attributes:
        direction: (B or 1, 3, N); a primary ray's is (u, v, 1).
        start: (B, 3, N), where they begin; None: in the camera.
    """

    direction: Tensor
    start: Tensor | None = None

    def at(self, travel: Tensor) -> Tensor:
        """(B, 3, N) points after ``travel`` (B, N)."""
        point = travel[:, None] * self.direction
        return point if self.start is None else point + self.start


def _meet_cube(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave (..., N) the unit cube; they miss unless enter < leave.

    origin (..., 3, 1 or N), direction (..., 3, N).
    """
    inverse = 1.0 / (direction + _NOT_ZERO)
    middle = -origin * inverse
    reach = inverse.abs()
    return (middle - reach).amax(-2), (middle + reach).amin(-2)


def _meet_ball(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the unit ball, by the closest approach (stable far away)."""
    inverse_square = 1.0 / direction.square().sum(-2)
    closest = -(origin * direction).sum(-2) * inverse_square
    inside = 1.0 - (origin + closest[..., None, :] * direction).square().sum(-2)
    reach = torch.sqrt(inside.clamp(min=0) * inverse_square)
    return closest - reach, closest + reach


def _meet_cylinder(origin: Tensor, direction: Tensor) -> tuple[Tensor, Tensor]:
    """The same for the unit cylinder along z, |z| <= 1."""
    enter_side, leave_side = _meet_ball(origin[..., :2, :], direction[..., :2, :] + _NOT_ZERO)
    inverse = 1.0 / (direction[..., 2, :] + _NOT_ZERO)
    middle, reach = -origin[..., 2, :] * inverse, inverse.abs()
    enter = torch.maximum(enter_side, middle - reach)
    return enter, torch.minimum(leave_side, middle + reach)


def _meet_panel(
    origin: Tensor, direction: Tensor, pattern: Tensor, kind: ShapeKind
) -> tuple[Tensor, Tensor]:
    """The same for the square |x|, |y| <= 1 in z = 0 with holes; pattern (..., 8)."""
    enter = -origin[..., 2, :] / (direction[..., 2, :] + _NOT_ZERO)
    x = origin[..., 0, :] + enter * direction[..., 0, :]
    y = origin[..., 1, :] + enter * direction[..., 1, :]
    solid = solid_fence if kind == "fence" else solid_leaves
    flat = (-1, x.shape[-1])
    filled = solid(pattern.reshape(-1, pattern.shape[-1]), x.reshape(flat), y.reshape(flat))
    met = (x.abs() <= 1) & (y.abs() <= 1) & filled.view_as(x)
    return enter, torch.where(met, torch.inf, -torch.inf)


def _meet_kind(
    kind: ShapeKind, origin: Tensor, direction: Tensor, pattern: Tensor | None
) -> tuple[Tensor, Tensor]:
    if kind == "ellipsoid":
        return _meet_ball(origin, direction)
    if kind == "cylinder":
        return _meet_cylinder(origin, direction)
    if kind in ("fence", "leaves"):
        assert pattern is not None, "a scene with panels has their patterns"
        return _meet_panel(origin, direction, pattern, kind)
    return _meet_cube(origin, direction)


def _meet(tables: RayTables, index: int, rays: Rays) -> tuple[Tensor, Tensor]:
    """Where the rays (B, N) enter and leave one primitive; z-depths for primary rays."""
    matrix = tables.local_from_pixel[:, index]
    origin = tables.origin[:, index, :, None]
    if rays.start is not None:
        origin = origin + matrix @ rays.start
    kind, counts = tables.counts.kinds[index], tables.counts
    pattern = None
    if kind in ("fence", "leaves") and tables.pattern is not None:
        pattern = tables.pattern[:, index - (counts.total - 1 - counts.panels)]
    return _meet_kind(kind, origin, matrix @ rays.direction, pattern)


def _closer(
    tables: RayTables, index: int, rays: Rays, nearest: Tensor, owner: Tensor
) -> tuple[Tensor, Tensor]:
    """Let one primitive take the rays it stops first."""
    enter, leave = _meet(tables, index, rays)
    closer = (enter < torch.minimum(leave, nearest)) & (enter > NEAREST)
    return torch.where(closer, enter, nearest), torch.where(closer, index, owner)


def _trace_in_turn(tables: RayTables, rays: Rays, shapes: Sequence[int]) -> tuple[Tensor, Tensor]:
    last = tables.counts.total - 1
    _, nearest = _meet(tables, last, rays)
    owner = torch.full_like(nearest, last, dtype=torch.int64)
    for index in shapes:
        if index != last:
            nearest, owner = _closer(tables, index, rays, nearest, owner)
    return nearest, owner


def _transformed(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix (B, P, 3, 3) times vector (B or 1, 3, N) as (B, P, 3, N), written out: it fuses."""
    columns = matrix[..., None]
    rows = vector[:, None, None]
    return (
        columns[..., 0, :] * rows[..., 0, :]
        + columns[..., 1, :] * rows[..., 1, :]
        + columns[..., 2, :] * rows[..., 2, :]
    )


def _nearest_together(
    of_each: tuple[int, ...],
    matrix: Tensor,
    origin: Tensor,
    pattern: Tensor | None,
    direction: Tensor,
    start: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """All primitives of a kind in one expression, reduced at once; tensors in, tensors out."""
    kinds: tuple[ShapeKind, ...] = ("box", "ellipsoid", "cylinder", "fence", "leaves")
    first = first_panel = 0
    nearest = torch.full_like(matrix[:, 0, 0, :1] * direction[:, 0], torch.inf)
    owner = torch.full_like(nearest, sum(of_each), dtype=torch.int64)
    for kind, number in zip(kinds, of_each, strict=True):
        if not number:
            continue
        of_kind = slice(first, first + number)
        begin = origin[:, of_kind, :, None]
        if start is not None:
            begin = begin + _transformed(matrix[:, of_kind], start)
        holes = None
        if kind in ("fence", "leaves") and pattern is not None:
            holes = pattern[:, first_panel : first_panel + number]
            first_panel += number
        ahead = _transformed(matrix[:, of_kind], direction)
        enter, leave = _meet_kind(kind, begin, ahead, holes)
        stops = (enter < leave) & (enter > NEAREST)
        best, which = torch.where(stops, enter, torch.inf).min(1)
        owner = torch.where(best < nearest, which + first, owner)
        nearest = torch.minimum(best, nearest)
        first += number
    return nearest, owner


@functools.cache
def _compiled() -> Callable[..., tuple[Tensor, Tensor]]:
    compiled: Callable[..., tuple[Tensor, Tensor]] = torch.compile(_nearest_together, dynamic=False)
    return compiled


def _trace_together(tables: RayTables, rays: Rays, compiled: bool) -> tuple[Tensor, Tensor]:
    """``_trace_in_turn`` for all primitives, by ``_nearest_together``."""
    last = tables.counts.total - 1
    _, wall = _meet(tables, last, rays)
    nearest_of = _compiled() if compiled else _nearest_together
    nearest, owner = nearest_of(
        tables.counts.of_each,
        tables.local_from_pixel[:, :last],
        tables.origin[:, :last],
        tables.pattern,
        rays.direction,
        rays.start,
    )
    return torch.minimum(nearest, wall), torch.where(nearest < wall, owner, last)


def trace(
    tables: RayTables,
    rays: Rays,
    shapes: Sequence[int] | None = None,
    *,
    together: bool = False,
    compiled: bool = False,
) -> tuple[Tensor, Tensor]:
    """Nearest hit: travel (B, N), the z-depth of primary rays, and primitive (B, N) int64.

    Args:
        tables: of the views.
        rays: B x N of them.
        shapes: the primitives to try, in turn; None: all.
        together: all of a kind in one expression, where ``shapes`` is None.
        compiled: that expression as one kernel, by ``torch.compile``.
    """
    if together and shapes is None:
        return _trace_together(tables, rays, compiled)
    everything = range(tables.counts.total - 1)
    return _trace_in_turn(tables, rays, everything if shapes is None else shapes)


def _bounding_boxes(tables: RayTables, size: ImageSize) -> list[list[int]]:
    """Rows (top, bottom, left, right) of the pixels each primitive may cover in any view."""
    signs = torch.tensor([-1.0, 1.0], device=tables.origin.device)
    corners = torch.cartesian_prod(signs, signs, signs)
    rays = corners - tables.origin[:, :, None]
    seen = rays.double() @ torch.linalg.inv(tables.local_from_pixel.double()).mT
    z = seen[..., 2]
    # A shape behind the camera covers nothing, one that reaches through it may cover everything.
    behind, crossing = (z < NEAREST).all(-1), (z < NEAREST).any(-1)
    place = seen[..., :2] / z.clamp(min=NEAREST)[..., None]
    low, high = place.amin(-2).floor() - 1, place.amax(-2).ceil() + 2
    limit = torch.tensor([size.width, size.height], dtype=low.dtype, device=low.device)
    low = torch.where(crossing[..., None], 0.0, low).clamp(min=0)
    high = torch.where(crossing[..., None], limit, torch.minimum(high, limit))
    nothing = (behind | (low >= high).any(-1))[..., None]
    low, high = torch.where(nothing, limit, low).amin(0), torch.where(nothing, 0.0, high).amax(0)
    box = torch.stack((low[:, 1], high[:, 1], low[:, 0], high[:, 0]), -1)
    return [[int(value) for value in row] for row in box.tolist()]


def trace_grid(tables: RayTables, size: ImageSize) -> tuple[Tensor, Tensor]:
    """``trace`` for all pixels of the image, trying each primitive only where it may be."""
    grid = pixel_grid(size, tables.origin)
    nearest, owner = trace(tables, Rays(grid), ())
    view = (-1, size.height, size.width)
    grid, nearest, owner = grid.view(1, 3, *view[1:]), nearest.view(view), owner.view(view)
    for index, (top, bottom, left, right) in enumerate(_bounding_boxes(tables, size)[:-1]):
        if top >= bottom or left >= right:
            continue
        window = (..., slice(top, bottom), slice(left, right))
        depth, shape = nearest[window], owner[window]
        rays = Rays(grid[window].flatten(2))
        found = _closer(tables, index, rays, depth.flatten(1), shape.flatten(1))
        nearest[window] = found[0].view_as(depth)
        owner[window] = found[1].view_as(shape)
    return nearest.flatten(1), owner.flatten(1)


def worth_it(mask: Tensor) -> bool:
    """Whether anything is true; always yes where asking would hold up or cut a compiled graph."""
    if mask.device.type != "cpu" or torch.compiler.is_compiling():
        return True
    return bool(mask.any())


def unit(vector: Tensor) -> Tensor:
    """Vectors (..., 3) of length 1; several times as fast as the library's norm of short rows."""
    return vector * torch.rsqrt(vector.square().sum(-1, keepdim=True).clamp(min=_NOT_ZERO**2))


def gather_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows (B, N) of a table (B, R, C), as (B, N, C)."""
    batch = torch.arange(table.shape[0], device=table.device)[:, None] * table.shape[1]
    return table.flatten(0, 1)[(rows + batch).flatten()].reshape(*rows.shape, table.shape[-1])


def pixel_grid(size: ImageSize, like: Tensor) -> Tensor:
    """(1, 3, H * W) homogeneous pixel centres."""
    y, x = torch.meshgrid(
        torch.arange(size.height, device=like.device, dtype=like.dtype),
        torch.arange(size.width, device=like.device, dtype=like.dtype),
        indexing="ij",
    )
    return torch.stack((x.flatten(), y.flatten(), torch.ones_like(x).flatten()))[None]
