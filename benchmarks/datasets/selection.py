"""A part of a data set: by overlap, or at random from a seed."""

from __future__ import annotations

import dataclasses

import numpy as np

from benchmarks.core.samples import Dataset, PairSample, PoseTruth
from matcher.errors import DatasetError, InputError

__all__ = ["subset"]


def subset(
    dataset: Dataset, count: int | None = None, min_overlap: float | None = None, seed: int = 0
) -> Dataset:
    """Some of the units of a data set, in its order; what was left out is noted.

    Pairs that could not be read belong to the list: they are drawn like the others, and count as
    failures where they are drawn.

    Args:
        dataset: all pairs.
        count: so many units (a pair, or a query with all its references) at random; ``None``: all.
        min_overlap: leave out pairs whose overlap is known to be smaller.
        seed: of the draw.

    Raises:
        InputError: a count below 1.
        DatasetError: nothing is left.
    """
    if count is not None and count < 1:
        raise InputError("count", "at least 1", f"{count}")
    samples, problems, notes = dataset.samples, dataset.problems, list(dataset.notes)
    if min_overlap is not None:
        samples = tuple(sample for sample in samples if _overlaps(sample, min_overlap))
        left_out = len(dataset.samples) - len(samples)
        notes.append(f"{left_out} pairs with an overlap below {min_overlap:g} left out")
    units = list(dict.fromkeys(sample.unit_name for sample in samples))
    listed = len(units) + len(problems)
    if count is not None and count < listed:
        drawn = np.sort(np.random.default_rng(seed).permutation(listed)[:count])
        kept = {units[row] for row in drawn if row < len(units)}
        samples = tuple(sample for sample in samples if sample.unit_name in kept)
        problems = tuple(problems[row - len(units)] for row in drawn if row >= len(units))
        notes.append(f"{count} of {listed} drawn at random, seed {seed}")
    if not samples:
        raise DatasetError(f"{dataset.title}: no pair is left of {len(dataset.samples)}")
    return dataclasses.replace(dataset, samples=samples, problems=problems, notes=tuple(notes))


def _overlaps(sample: PairSample, least: float) -> bool:
    truth = sample.truth
    if not isinstance(truth, PoseTruth) or truth.overlap is None:
        return True
    return truth.overlap >= least
