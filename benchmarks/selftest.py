"""The self-test of a protocol: an oracle whose score is known before any method is asked.

Perfect matches must score about 1 and shuffled ones about 0; one pixel of noise on both ends must
fall into a band. A protocol that fails this says nothing about methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.core.protocols import Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, PairSample
from benchmarks.core.tasks import Answered, OracleOptions, Summary, Task
from matcher.errors import InputError, MatcherError
from matcher.images import read_image
from matcher.structures import ImageSize

__all__ = ["SelfTestCase", "SelfTestResult", "run_selftest"]

_PERFECT_SHARE = 0.98
_NOISY_SHARE = 0.25
_SHUFFLED_AT_MOST = 0.05


@dataclass(frozen=True, slots=True)
class SelfTestCase:
    """One oracle and its score.

    Attributes:
        name: ``perfect``, ``noise 1 px`` or ``shuffled``.
        metric: name of the headline metric, in [0, 1], higher is better.
        value: what it scored.
        low, high: what it must lie in.
    """

    name: str
    metric: str
    value: float
    low: float
    high: float

    @property
    def passed(self) -> bool:
        """Whether the value lies in the band."""
        return self.low <= self.value <= self.high


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """All cases of one protocol on one data set."""

    cases: tuple[SelfTestCase, ...]
    num_units: int

    @property
    def passed(self) -> bool:
        """Whether every case passed."""
        return all(case.passed for case in self.cases)


def run_selftest(dataset: Dataset, task: Task, protocol: Protocol) -> SelfTestResult:
    """Score the oracles on the pairs of ``dataset`` through the whole evaluation.

    Raises:
        InputError: no pair with known truth.
    """
    framed = [(sample, frame) for sample in dataset.samples if (frame := _frame(sample, protocol))]
    if not framed:
        raise InputError("--selftest", "at least one readable pair", f"{dataset.name}, with none")
    perfect = _summary(framed, task, protocol, OracleOptions())
    noisy = _summary(framed, task, protocol, OracleOptions(noise_px=1.0))
    shuffled = _summary(framed, task, protocol, OracleOptions(shuffled=True))
    ceiling = task.ceiling + 1e-9
    cases = (
        SelfTestCase("perfect", *_headline(perfect), _PERFECT_SHARE * task.ceiling, ceiling),
        # Noise costs little, and most where corners lie far from the matches (homographies of
        # small overlap); an error of unit or convention costs all.
        SelfTestCase("noise 1 px", *_headline(noisy), _NOISY_SHARE * task.ceiling, ceiling),
        SelfTestCase("shuffled", *_headline(shuffled), 0.0, _SHUFFLED_AT_MOST),
    )
    return SelfTestResult(cases, perfect.num_units)


def _frame(sample: PairSample, protocol: Protocol) -> ScoredFrame | None:
    try:
        sizes = [
            ImageSize(*read_image(path, path.name).shape[:2])
            for path in (sample.image0, sample.image1)
        ]
    except MatcherError:
        return None
    return ScoredFrame.of(protocol.resize, sizes[0], sizes[1])


def _summary(
    framed: Sequence[tuple[PairSample, ScoredFrame]],
    task: Task,
    protocol: Protocol,
    options: OracleOptions,
) -> Summary:
    units: dict[str, list[Answered]] = {}
    for sample, frame in framed:
        answered = Answered(sample, task.oracle(sample, frame, options), frame)
        units.setdefault(sample.unit_name, []).append(answered)
    return task.summarise([task.score(unit, protocol) for unit in units.values()], protocol)


def _headline(summary: Summary) -> tuple[str, float]:
    """The metric that decides: the first that rises with success, at its widest threshold."""
    rising = [metric for metric in summary.metrics if metric.higher_is_better]
    family = rising[0].name.partition("@")[0]
    same = [metric for metric in rising if metric.name.partition("@")[0] == family]
    chosen = same[-1]
    return chosen.name, chosen.value if not math.isnan(chosen.value) else 0.0
