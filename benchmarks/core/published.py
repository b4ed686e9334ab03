"""Values that others have published, to be printed beside ours with their source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["PublishedValue", "published_row"]


@dataclass(frozen=True, slots=True)
class PublishedValue:
    """One number of somebody else.

    Attributes:
        method: what was measured, with the estimator where the source names one.
        metric: as its source calls it, for instance ``AUC@5``.
        value: in the unit of its source: percent for AUC, precision and recall, millimetres ...
        source: who printed it.
    """

    method: str
    metric: str
    value: float
    source: str


def published_row(
    method: str, metrics: Sequence[str], values: Sequence[float], source: str
) -> tuple[PublishedValue, ...]:
    """The numbers of one row of a published table, one for each metric."""
    return tuple(
        PublishedValue(method, metric, float(value), source)
        for metric, value in zip(metrics, values, strict=True)
    )
