"""A task turns the predictions of a unit into a score, and the scores into a table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol as TypingProtocol

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, PairSample

__all__ = ["Answered", "Metric", "OracleOptions", "Summary", "Task", "UnitScore"]


@dataclass(frozen=True, slots=True, eq=False)
class Answered:
    """A pair with its answer in pixels of the stored photographs."""

    sample: PairSample
    prediction: MatchPrediction
    frame: ScoredFrame


@dataclass(frozen=True, slots=True)
class UnitScore:
    """Score of one unit: a pair, or a query with its references, or a scan.

    Attributes:
        unit: its name.
        group: scene or category.
        errors: what AUCs and recalls count, in the task's unit; infinite: a failure. More than one
            where the protocol repeats the estimation.
        values: further numbers by name (``rotation_deg``, ``precision_1px``, ``num_inliers`` ...);
            NaN where one does not exist for this unit.
        num_matches: matches in all.
        seconds: the method's time.
        failure: why there is no answer; empty: there is one.
    """

    unit: str
    group: str
    errors: tuple[float, ...]
    values: Mapping[str, float] = field(default_factory=dict)
    num_matches: int = 0
    seconds: float = 0.0
    failure: str = ""

    @property
    def error(self) -> float:
        """The median of ``errors``, by which the best and the worst units are found."""
        return float(np.median(self.errors)) if self.errors else math.inf


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a summary.

    Attributes:
        name: with its unit, for instance ``AUC@20`` or ``median translation cm``.
        value: NaN: cannot be computed.
        low, high: 95 % bootstrap interval over units (or groups); NaN where there is none.
        higher_is_better: for the reader.
        count: units behind it.
    """

    name: str
    value: float
    low: float = math.nan
    high: float = math.nan
    higher_is_better: bool = True
    count: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """The numbers of one method on one data set under one protocol.

    Attributes:
        metrics: overall, most important first.
        by_group: the first metric (and what the task adds) for each scene or category.
        by_viewpoint: the first metric in bins of viewpoint change, label -> metric; may be empty.
        num_units, num_failures: how many, and how many had no answer.
    """

    metrics: tuple[Metric, ...]
    by_group: Mapping[str, tuple[Metric, ...]] = field(default_factory=dict)
    by_viewpoint: Mapping[str, Metric] = field(default_factory=dict)
    num_units: int = 0
    num_failures: int = 0


@dataclass(frozen=True, slots=True)
class OracleOptions:
    """What the self-test's oracle answers: the truth, noisy, or shuffled.

    Attributes:
        noise_px: standard deviation of Gaussian noise on both ends, pixels of the resized image.
        shuffled: match the true ends at random: nothing is right.
        count: matches a pair.
        seed: of all randomness.
    """

    noise_px: float = 0.0
    shuffled: bool = False
    count: int = 500
    seed: int = 0


class Task(TypingProtocol):
    """How one kind of truth is scored.

    Attributes:
        kind: of the data sets it scores.
        ceiling: what perfect matches score in the metric that the self-test looks at.
    """

    kind: str
    ceiling: float

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Score one unit; never raises for what a method answered."""
        ...

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """The table of all units; failures count as infinite errors."""
        ...

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """What a perfect method would answer, spoiled as asked; stored pixels."""
        ...

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """Write the file an evaluation server takes; what was written, or ``None``: none is due."""
        ...
