"""The parts of a training run: resolution, losses, motion and frozen parts, one after another."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matcher.errors import InputError
from matcher.training.motion import ANY_MOTION, Motion

__all__ = ["FREEZABLE_PARTS", "LOSS_WEIGHTS", "Stage", "check_count"]

LOSS_WEIGHTS = ("matching_weight", "pointmap_weight", "ray_weight", "distance_weight")
"""Of a run; each of its stages may have its own."""

FREEZABLE_PARTS: Mapping[str, tuple[str, ...]] = {
    "stem": ("encoder.stem.",),
    "encoder": ("encoder.",),
    "decoder": ("decoder.",),
    "heads": ("head0.", "head1."),
    "features": (
        *(
            f"{head}.fused.{layer}"
            for head in ("head0", "head1")
            for layer in ("tokens.", "down.", "lateral.", "detail.", "refine.", "features_out.")
        ),
        "head0.local_features.",
        "head1.local_features.",
    ),
    "points": ("points_decoder.", "head0.fused_points."),
}
"""Names of parts that a stage may freeze, and how their parameters' names begin."""


def check_count(name: str, value: object, least: int) -> None:
    """Raise ``InputError`` unless ``value`` is a whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(name, f"a whole number, at least {least}", f"{value!r}")


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run.

    Attributes:
        until: share of the run at which the stage ends, in (0, 1].
        image_size: side of a square training image, pixels; landscape and portrait shapes of about
            the same area (4:3) are mixed in.
        batch_size: pairs a step, of all processes together.
        matching_weight, pointmap_weight, ray_weight, distance_weight: weights of the losses during
            the stage; ``None``: those of the run.
        motion: which pairs of posed views are drawn.
        frozen: parts of the network that do not learn: ``stem``, ``encoder`` (with its stem),
            ``decoder``, ``heads``, ``features`` (what descriptors are read from: the layers of a
            head that are not the pointmap's alone), ``points`` (the trunk that pointmaps have to
            themselves). With ``encoder``, ``decoder`` and ``features`` at rest pointmaps learn and
            descriptors stay the same to the bit.
    """

    until: float
    image_size: int
    batch_size: int
    matching_weight: float | None = None
    pointmap_weight: float | None = None
    ray_weight: float | None = None
    distance_weight: float | None = None
    motion: Motion = ANY_MOTION
    frozen: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise InputError("stage until", "a share in (0, 1]", f"{self.until}")
        check_count("stage image_size", self.image_size, 32)
        check_count("stage batch_size", self.batch_size, 1)
        for name in LOSS_WEIGHTS:
            weight = getattr(self, name)
            if weight is not None and not 0 <= weight < math.inf:
                raise InputError(f"stage {name}", "a number >= 0", f"{weight}")
        parts = tuple(self.frozen)
        unknown = [part for part in parts if part not in FREEZABLE_PARTS]
        if unknown:
            raise InputError("stage frozen", f"some of {', '.join(FREEZABLE_PARTS)}", f"{unknown}")
        object.__setattr__(self, "frozen", parts)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the images of a batch, multiples of 16."""
        short = max(16, round(self.image_size * math.sqrt(3 / 4) / 16) * 16)
        long = max(16, round(self.image_size * math.sqrt(4 / 3) / 16) * 16)
        square = max(16, round(self.image_size / 16) * 16)
        return (square, square), (short, long), (long, short)

    @property
    def learns_points_alone(self) -> bool:
        """Whether nothing that descriptors are read from can learn."""
        return {"encoder", "decoder", "features"} <= set(self.frozen)

    @property
    def leaves_points(self) -> bool:
        """Whether what pointmaps have to themselves rests, and their loss counts for nothing."""
        return "points" in self.frozen and self.pointmap_weight == 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = dataclasses.asdict(self)
        values["motion"] = {name: list(ends) for name, ends in values["motion"].items()}
        values["frozen"] = list(self.frozen)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage:
        """The inverse of ``to_dict``; a wrong key or type raises ``TypeError``."""
        parts = dict(values)
        if "motion" in parts:
            parts["motion"] = Motion(**parts["motion"])
        return cls(**parts)
