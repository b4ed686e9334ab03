"""What is kept of a pair when there are many: matches and pointmaps, without the photographs."""

from __future__ import annotations

from dataclasses import dataclass

from matcher.errors import InputError
from matcher.pointmaps import Pointmaps
from matcher.results import PairResult
from matcher.structures import ImageSize, Matches

__all__ = ["PairRecord"]


@dataclass(frozen=True, slots=True, eq=False)
class PairRecord:
    """The matches of two named photographs.

    Attributes:
        name0: of photograph 0, as ``Photographs`` names it.
        name1: of photograph 1.
        matches: correspondences in original pixels.
        size0: size of photograph 0.
        size1: size of photograph 1.
        overlap_score: probability that both show a common place, or ``None``: not known.
        reason: ``None`` with matches; otherwise one sentence that says why there are none.
        pointmaps: both pointmaps, or ``None`` where they were not kept.

    Raises:
        InputError: a photograph paired with itself.
    """

    name0: str
    name1: str
    matches: Matches
    size0: ImageSize
    size1: ImageSize
    overlap_score: float | None = None
    reason: str | None = None
    pointmaps: Pointmaps | None = None

    def __post_init__(self) -> None:
        if self.name0 == self.name1:
            raise InputError("pair", "two photographs", f"{self.name0} twice")

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def names(self) -> tuple[str, str]:
        """Both names."""
        return self.name0, self.name1

    @classmethod
    def from_result(
        cls, name0: str, name1: str, result: PairResult, *, keep_pointmaps: bool = True
    ) -> PairRecord:
        """What is kept of a result."""
        return cls(
            name0,
            name1,
            result.matches,
            result.size0,
            result.size1,
            result.overlap_score,
            result.reason,
            result.pointmaps if keep_pointmaps else None,
        )
