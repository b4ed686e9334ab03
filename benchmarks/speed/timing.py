"""Timing: warm-up, median and quartiles, contestants in turns, a GPU that has come to rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import faiss
import numpy as np
import torch

from matcher.errors import InputError

__all__ = ["Measurement", "measure", "measure_in_turns", "pin_threads", "speedup", "synchronise"]

Work = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What repeated runs gave.

    Attributes:
        median, q25, q75: of the runs, in their unit (seconds, where time was taken).
        runs: every value, in the order it was taken.
    """

    median: float
    q25: float
    q75: float
    runs: tuple[float, ...]

    @classmethod
    def of(cls, runs: Sequence[float]) -> Measurement:
        """Median and quartiles (linear between runs) of at least one value."""
        if not runs:
            raise InputError("runs", "at least one", "none")
        low, middle, high = (float(value) for value in np.quantile(runs, (0.25, 0.5, 0.75)))
        return cls(middle, low, high, tuple(float(value) for value in runs))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "median": self.median,
            "q25": self.q25,
            "q75": self.q75,
            "runs": list(self.runs),
        }


def measure(work: Work, *, warmup: int = 1, repeats: int = 7, device: str = "cpu") -> Measurement:
    """Seconds that ``work`` takes, after ``warmup`` runs that do not count.

    Args:
        work: called without arguments.
        warmup: runs before.
        repeats: runs that count.
        device: where it computes; a GPU is waited for before and after every run.

    Raises:
        InputError: no run that counts.
    """
    return measure_in_turns([work], warmup=warmup, repeats=repeats, device=device)[0]


def measure_in_turns(
    works: Sequence[Work], *, warmup: int = 1, repeats: int = 7, device: str = "cpu"
) -> tuple[Measurement, ...]:
    """Seconds of several works that take turns, so that all meet the same state of the machine.

    Every second round goes through them backwards: whatever a work leaves behind (a warm cache, a
    hot processor) does not always meet the same successor.
    """
    if repeats < 1 or warmup < 0:
        raise InputError("repeats", "at least 1, with a warm-up of at least 0", f"{repeats}")
    for work in works:
        for _ in range(warmup):
            work()
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(repeats):
        order = range(len(works)) if turn % 2 == 0 else reversed(range(len(works)))
        for index in order:
            seconds[index].append(_seconds(works[index], device))
    return tuple(Measurement.of(runs) for runs in seconds)


def _seconds(work: Work, device: str) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def speedup(reference: Measurement, candidate: Measurement) -> Measurement:
    """How many times as fast as the reference, from runs of the same round.

    Raises:
        InputError: they were not measured in turns.
    """
    if len(reference.runs) != len(candidate.runs):
        raise InputError(
            "candidate", f"{len(reference.runs)} runs, as the reference", f"{len(candidate.runs)}"
        )
    pairs = zip(reference.runs, candidate.runs, strict=True)
    return Measurement.of([theirs / max(own, 1e-12) for theirs, own in pairs])


def synchronise(device: str) -> None:
    """Wait for everything a GPU was told to do; nothing on a CPU, which is never behind."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def pin_threads(threads: int) -> str:
    """Let every library use so many threads; says so in a line.

    Raises:
        InputError: fewer than one.
    """
    if threads < 1:
        raise InputError("threads", "at least 1", f"{threads}")
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    faiss.omp_set_num_threads(threads)
    return (
        f"threads: torch {torch.get_num_threads()}, OpenCV {cv2.getNumThreads()}, "
        f"FAISS {faiss.omp_get_max_threads()}"
    )
