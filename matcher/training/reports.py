"""One line of a run's log."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

__all__ = ["StepReport", "detached", "mean_terms", "report_record"]

LossesT = TypeVar("LossesT")
ValidationT = TypeVar("ValidationT")
TermsT = TypeVar("TermsT")


@dataclass(frozen=True, slots=True)
class StepReport(Generic[LossesT, ValidationT]):
    """One line of the log.

    Attributes:
        step, progress, minutes, pairs: how far the run is.
        pairs_per_second: since the line before.
        learning_rate: of this step; 0 in the last line.
        losses: the mean over the steps since the line before; counts are sums.
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


def detached(terms: TermsT) -> TermsT:
    """A dataclass of scalar tensors without the graph that they came from."""
    fields = dataclasses.fields(terms)  # type: ignore[arg-type]
    values = {entry.name: getattr(terms, entry.name).detach() for entry in fields}
    result: TermsT = dataclasses.replace(terms, **values)  # type: ignore[type-var]
    return result


def mean_terms(steps: Sequence[TermsT]) -> TermsT:
    """The losses of several steps as one: counts added, the rest averaged.

    A part is weighted by what it was judged on (``JUDGED_ON`` of its class): a batch without depth
    says nothing of the pointmaps.
    """
    first, values = steps[0], {}
    stacked = {
        entry.name: torch.stack([getattr(step, entry.name) for step in steps])
        for entry in dataclasses.fields(first)  # type: ignore[arg-type]
    }
    for name, column in stacked.items():
        if not column.is_floating_point():
            values[name] = column.sum()
            continue
        count = first.JUDGED_ON.get(name)  # type: ignore[attr-defined]
        weights = torch.ones_like(column) if count is None else stacked[count].to(column.dtype)
        judged = weights > 0
        whole = torch.where(judged, column * weights, 0).sum()
        values[name] = torch.where(judged.any(), whole / weights.sum().clamp_min(1), 0)
    result: TermsT = dataclasses.replace(first, **values)  # type: ignore[type-var]
    return result
