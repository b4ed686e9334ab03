"""What the caller may choose about matching."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from matcher.errors import InputError

__all__ = ["MatchingOptions", "SearchBackend"]

_LEAST_PROBABILITY = 0.1
SearchBackend = Literal["auto", "exact", "torch", "faiss", "cells", "sampled"]


@dataclass(frozen=True, slots=True)
class MatchingOptions:
    """Options of the reciprocal search and of the choice among its matches.

    Attributes:
        subsample: spacing of the seeds, network pixels; 1 finds every mutual nearest neighbour.
        max_iterations: how often a seed may go to the other map and back before it is given up.
        border: matches closer than this to a border of either map are dropped, pixels.
        min_sharpness: only pixels are matched whose descriptors can be told from those beside them:
            sharper than this share of the 90th percentile of their map, and seeds start at the
            sharpest pixel of each square (``descriptor_sharpness``). ``None``: seeds on a regular
            grid, and any pixel may be matched, as in the MASt3R paper; so it is for 3-D points.
        reach: how far from its own place in the other map a pixel is searched for, as a share of
            the long side of map 0; for maps that show the same things at the same places, as the
            two crops of a pair do; up to twice as far, see ``NearbyNearest``, which is used
            whatever the backend (within the sample, for ``sampled``). ``None``: everywhere.
        symmetric: start seeds in both maps and keep the union; twice the work at most.
        backend: which search. ``sampled`` is not exact: it compares with the sharpest pixel of
            every 2 x 2 first (``SampledNearest``), and needs ``min_sharpness``; the others find
            what complete comparison finds. ``exact`` takes cells on the CPU and torch elsewhere;
            so does ``auto``, but on the CPU ``sampled`` with ``min_sharpness``.
        top_k: keep at most so many matches, or ``None``: all of them.
        balance: with ``top_k``, map 0 is divided into so many cells along each side, and no cell
            may crowd out the others; 0 keeps the most confident, wherever they are.
        min_confidence: matches below are dropped; in [0, 1]. ``None``: 0.1 where a confidence is
            the probability that the match is right (a calibrated model), 0 elsewhere.
        seed: seed of whatever is random downstream of matching; the search itself draws nothing.

    Raises:
        InputError: a value out of its range.
    """

    subsample: int = 7
    max_iterations: int = 10
    border: int = 3
    min_sharpness: float | None = 0.3
    reach: float | None = None
    symmetric: bool = False
    backend: SearchBackend = "auto"
    top_k: int | None = None
    balance: int = 8
    min_confidence: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (
            ("subsample", 1),
            ("max_iterations", 1),
            ("border", 0),
            ("balance", 0),
            ("seed", 0),
        ):
            _check_integer(name, getattr(self, name), least)
        if self.min_sharpness is not None:
            _check_share("min_sharpness", self.min_sharpness)
        if self.reach is not None:
            _check_share("reach", self.reach)
            if not self.reach:
                raise InputError("reach", "a share of more than 0", f"{self.reach}")
        if self.top_k is not None:
            _check_integer("top_k", self.top_k, 1)
        if not isinstance(self.symmetric, bool):
            raise InputError("symmetric", "true or false", repr(self.symmetric))
        if self.backend not in get_args(SearchBackend):
            raise InputError("backend", " or ".join(get_args(SearchBackend)), repr(self.backend))
        if self.min_confidence is not None:
            _check_share("min_confidence", self.min_confidence)

    def least_confidence(self, *, is_probability: bool) -> float:
        """The confidence below which matches are dropped.

        Args:
            is_probability: whether confidences are probabilities.
        """
        if self.min_confidence is not None:
            return self.min_confidence
        return _LEAST_PROBABILITY if is_probability else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The options as plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MatchingOptions:
        """Options from plain values; what is not named keeps its default.

        Raises:
            InputError: an unknown name, or a value out of its range.
        """
        known = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise InputError("matching options", f"names among {sorted(known)}", f"{unknown}")
        return cls(**values)


def _check_share(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(name, "a number", repr(value))
    if not (math.isfinite(value) and 0 <= value <= 1):
        raise InputError(name, "a number in [0, 1]", repr(value))


def _check_integer(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(name, f"an integer of at least {least}", repr(value))
