"""How the surfaces of a scene are finished: openings, holes, gloss, light of their own.

All of it is optional and of a fixed size, so that a batch of different places stays one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

__all__ = [
    "INSET_COLUMNS",
    "LAMPS",
    "PASSERS_BY",
    "PATTERN_COLUMNS",
    "Finish",
    "fence_pattern",
    "inset",
    "leaf_pattern",
]

INSET_COLUMNS = 9
PATTERN_COLUMNS = 8
LAMPS = 3
"""Lamps a scene."""
PASSERS_BY = 4
"""Groups of primitives a scene that can be there in one view and gone in another."""


@dataclass(frozen=True, slots=True, eq=False)
class Finish:
    """What S scenes of P primitives (6 faces each; Q of them panels) have beyond plain surfaces.

    Attributes:
        emission: (S, P, 6) float32, light of a face's own where lamps are on.
        mirror: (S, P, 6) float32, share of the light that is reflected as by a mirror, seen
            straight on; more at grazing angles.
        inset: (S, P, 6, 9) float32, a grid of openings sunk into a flat face (see ``inset``).
        inset_texture: (S, P, 6) int32, what the back of the openings shows.
        pattern: (S, Q, 8) float32, holes of the panels (``fence_pattern``, ``leaf_pattern``).
        lamps: (S, 3, 3) float64 positions, world frame, metres.
        group: (S, P) int64: 0 stays, g belongs to passer-by g and may be missing in a view.
        open_air: (S,) bool, whether there is a sky.
    """

    emission: Tensor
    mirror: Tensor
    inset: Tensor
    inset_texture: Tensor
    pattern: Tensor
    lamps: Tensor
    group: Tensor
    open_air: Tensor

    def to(self, device: torch.device | str) -> Finish:
        """The same on another device."""
        return Finish(*(getattr(self, field.name).to(device) for field in fields(self)))

    def select(self, rows: Tensor) -> Finish:
        """That of some of the scenes, by index."""
        return Finish(*(getattr(self, field.name)[rows] for field in fields(self)))


def _row(values: list[Tensor | float], like: Tensor) -> Tensor:
    """(n, columns) float32 of columns that are numbers or (n,)."""
    columns = [
        value if isinstance(value, Tensor) else torch.full_like(like, value) for value in values
    ]
    return torch.stack(columns, -1).float()


def inset(
    columns: Tensor,
    rows: Tensor,
    wide: Tensor | float,
    tall: Tensor | float,
    depth: Tensor | float,
    *,
    vary: Tensor | float = 0.0,
    glass: Tensor | float = 0.0,
    lit: Tensor | float = 0.0,
    frame: Tensor | float = 1.0,
) -> Tensor:
    """(n, 9): openings in ``columns`` x ``rows`` (n,) equal cells of a face.

    Args:
        columns: along the face's first axis.
        rows: along its second.
        wide: share of the cell's width that is open, below 1.
        tall: the same of its height.
        depth: how far the back lies behind the face, metres.
        vary: how much of its texture's width the back is shifted by from cell to cell.
        glass: how much the back reflects.
        lit: share of the openings that are lit from inside when lamps are on.
        frame: brightness of the wall close to an opening, relative to the rest of it.
    """
    return _row([columns, rows, wide, tall, depth, vary, glass, lit, frame], columns)


def fence_pattern(
    across: Tensor | float,
    across_share: Tensor | float,
    up: Tensor | float,
    up_share: Tensor | float,
    *,
    like: Tensor,
    at_ends: tuple[bool, bool] = (False, False),
    sag: Tensor | float = 0.0,
    lean: Tensor | float = 0.0,
) -> Tensor:
    """(n, 8): ``across`` bars side by side and ``up`` bars above each other over a panel.

    Args:
        across: number of upright bars.
        across_share: share of their spacing that they fill; 0: there are none.
        up: number of lying bars.
        up_share: share of their spacing.
        like: (n,), for its size.
        at_ends: whether the first and last bar lie on the panel's rim (half of them, then).
        sag: by how much the lying bars hang down in the middle, half heights.
        lean: slant of both kinds; 1 makes a lattice of diamonds.
    """
    starts = [0.5 if end else 0.0 for end in at_ends]
    return _row([across, across_share, starts[0], up, up_share, starts[1], sag, lean], like)


def leaf_pattern(waves: Tensor, fill: Tensor | float, phases: Tensor) -> Tensor:
    """(n, 8): foliage of about ``waves`` (n,) leaves across; ``fill`` in -1..1; phases (n, 5)."""
    return torch.cat((_row([waves, fill, 0.0], waves), phases.float()), -1)
