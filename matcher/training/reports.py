"""One line of a run's log."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

__all__ = ["StepReport", "report_record"]

LossesT = TypeVar("LossesT")
ValidationT = TypeVar("ValidationT")


@dataclass(frozen=True, slots=True)
class StepReport(Generic[LossesT, ValidationT]):
    """One line of the log.

    Attributes:
        step, progress, minutes, pairs: how far the run is.
        pairs_per_second: since the line before.
        learning_rate: of this step; 0 in the last line.
        losses: of this step's batch.
        skipped: draws that gave no pair so far: broken files, views without a common part.
        validation: where it was measured.
    """

    step: int
    progress: float
    minutes: float
    pairs: int
    pairs_per_second: float
    learning_rate: float
    losses: LossesT
    skipped: int = 0
    validation: ValidationT | None = None


def report_record(report: StepReport[Any, Any]) -> dict[str, Any]:
    """Plain values that JSON can hold: a number that is not finite becomes ``None``."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(entry) for key, entry in value.items()}
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {key: plain(entry) for key, entry in dataclasses.asdict(report).items()}
