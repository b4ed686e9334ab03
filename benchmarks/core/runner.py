"""The two loops: export predictions once, evaluate the cache as often as wanted.

What goes wrong with one pair (an unreadable photograph, a method that raises) is that pair's
failure, said by name and counted as an infinite error; the run goes on.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

import heads
import matcher
from benchmarks.core.cache import CachedAnswer, PredictionCache
from benchmarks.core.predictions import MatchPrediction, Method, MethodInfo
from benchmarks.core.protocols import Protocol, ResizeRule, ScoredFrame
from benchmarks.core.provenance import pair_list_sha256
from benchmarks.core.samples import Dataset, FloatArray, PairSample
from benchmarks.core.tasks import Answered, Task, UnitScore
from matcher.errors import InputError, MatcherError
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.images import RgbArray, read_image
from matcher.structures import ImageSize

__all__ = [
    "ExportSummary",
    "Progress",
    "cache_path",
    "evaluate",
    "export",
    "file_stem",
    "open_cache",
    "resize_photograph",
    "to_stored",
]

Progress = Callable[[int, int, str], None]
"""Called after every pair: pairs done, pairs in all, the failure (empty: none)."""

_UNKNOWN = ImageSize(1, 1)
_NO_FRAME = ScoredFrame(_UNKNOWN, _UNKNOWN, _UNKNOWN, _UNKNOWN)


@dataclass(frozen=True, slots=True)
class ExportSummary:
    """What an export did.

    Attributes:
        computed: pairs that the method was asked now.
        reused: pairs that were in the cache already.
        failures: (pair, reason) of all pairs without an answer, also from earlier runs.
    """

    computed: int
    reused: int
    failures: tuple[tuple[str, str], ...]


def cache_path(folder: Path, dataset: Dataset, method: MethodInfo, rule: ResizeRule) -> Path:
    """Where the predictions of a method on a data set are kept."""
    size = rule.kind if rule.kind == "none" else f"{rule.kind}{rule.side}"
    return folder / dataset.name / size / f"{file_stem(method.name)}.h5"


def file_stem(name: str) -> str:
    """A method's name, which may hold a path, as a part of a file's name."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)


def open_cache(
    path: Path, dataset: Dataset, method: MethodInfo, rule: ResizeRule
) -> PredictionCache:
    """The cache of a method, bound to everything that decides its predictions.

    The pair list counts whole: hand the full data set, also when only a part of it is run.

    Raises:
        InputError: the file holds predictions of another configuration.
    """
    configuration: dict[str, Any] = {
        "dataset": dataset.name,
        "pairs": pair_list_sha256(dataset),
        "method": method.name,
        "version": method.version,
        "settings": method.settings,
        "resize": [rule.kind, rule.side, rule.height, rule.only_shrink],
    }
    if method.is_ours:
        configuration["code"] = _own_code()
    return PredictionCache(path, configuration)


@lru_cache(maxsize=1)
def _own_code() -> str:
    """Hash of the library's source: another version of it predicts something else."""
    digest = hashlib.sha256()
    for package in (heads, matcher):
        assert package.__file__ is not None
        folder = Path(package.__file__).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def export(
    dataset: Dataset,
    method: Method,
    rule: ResizeRule,
    cache: PredictionCache,
    *,
    progress: Progress | None = None,
    retry_failures: bool = False,
) -> ExportSummary:
    """Ask ``method`` about every pair that the cache does not hold.

    Args:
        dataset: the pairs.
        method: who answers.
        rule: how photographs are resized before.
        cache: where the answers go, each as soon as it is there.
        progress: called after every pair.
        retry_failures: ask again where an earlier run failed.
    """
    computed = reused = 0
    failures = []
    read = lru_cache(maxsize=24)(_read)
    for number, sample in enumerate(dataset.samples, start=1):
        answer = cache.load(sample.name)
        if answer is not None and retry_failures and answer.prediction.failure:
            answer = None
        if answer is None:
            answer = _ask(sample, method, rule, read)
            cache.store(sample.name, answer)
            computed += 1
        else:
            reused += 1
        failure = answer.prediction.failure
        if failure:
            failures.append((sample.name, failure))
        if progress is not None:
            progress(number, len(dataset.samples), f"{sample.name}: {failure}" if failure else "")
    return ExportSummary(computed, reused, tuple(failures))


def _ask(
    sample: PairSample,
    method: Method,
    rule: ResizeRule,
    read: Callable[[Path, ResizeRule], tuple[RgbArray, ImageSize]],
) -> CachedAnswer:
    try:
        image0, stored0 = read(sample.image0, rule)
        image1, stored1 = read(sample.image1, rule)
    except MatcherError as error:
        return CachedAnswer(MatchPrediction.failed(str(error)), _NO_FRAME)
    frame = ScoredFrame.of(rule, stored0, stored1)
    started = time.perf_counter()
    try:
        prediction = method.match(image0, image1)
        seconds = time.perf_counter() - started
        answer = MatchPrediction(
            to_stored(prediction.keypoints0, frame.stored0, frame.resized0),
            to_stored(prediction.keypoints1, frame.stored1, frame.resized1),
            prediction.confidence,
            prediction.points0,
            prediction.pair_score,
            seconds,
            prediction.failure,
        )
    # A method is somebody else's code: whatever it raises is this pair's failure, not the run's.
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        answer = MatchPrediction.failed(reason, time.perf_counter() - started)
    return CachedAnswer(answer, frame)


def _read(path: Path, rule: ResizeRule) -> tuple[RgbArray, ImageSize]:
    image = read_image(path, argument=path.name)
    stored = ImageSize(*image.shape[:2])
    return resize_photograph(image, rule.apply(stored)), stored


def resize_photograph(image: RgbArray, size: ImageSize) -> RgbArray:
    """(H, W, 3) uint8 to ``size``: areas are averaged when it shrinks, cubic when it grows."""
    if image.shape[:2] == (size.height, size.width):
        return image
    shrinks = size.height * size.width < image.shape[0] * image.shape[1]
    flag = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size.width, size.height), interpolation=flag))


def to_stored(keypoints: FloatArray, stored: ImageSize, resized: ImageSize) -> FloatArray:
    """(M, 2) pixels of a resized photograph in pixels of the stored one, centre to centre."""
    return transform_keypoints(resize_transform(resized, stored), keypoints)


def evaluate(
    dataset: Dataset,
    cache: PredictionCache,
    task: Task,
    protocol: Protocol,
    num_threads: int = 1,
) -> tuple[list[UnitScore], list[Answered]]:
    """Score what the cache holds; a pair that it lacks or that could not be listed is a failure.

    Args:
        dataset: the pairs.
        cache: their predictions.
        task: how they are scored.
        protocol: under which rules.
        num_threads: units scored at a time; the estimators leave Python's lock, and the scores are
            the same with any number.

    Returns:
        The scores of all units in the order of the list, unreadable ones last, and the answers.

    Raises:
        InputError: the cache holds none of the pairs.
    """
    answers: dict[str, list[Answered]] = {}
    num_found = 0
    for sample in dataset.samples:
        found = cache.load(sample.name)
        if found is None:
            found = CachedAnswer(MatchPrediction.failed("no prediction in the cache"), _NO_FRAME)
        else:
            num_found += 1
        answered = Answered(sample, found.prediction, found.frame)
        answers.setdefault(sample.unit_name, []).append(answered)
    if dataset.samples and not num_found:
        raise InputError("cache", "predictions of these pairs", f"{cache.path}, which has none")
    with ThreadPoolExecutor(num_threads) as pool:
        scores = list(pool.map(lambda unit: _score(unit, task, protocol), answers.values()))
    for name, reason in dataset.problems:
        scores.append(UnitScore(name, "", (math.inf,), failure=reason))
    return scores, [answered for unit in answers.values() for answered in unit]


def _score(answers: Sequence[Answered], task: Task, protocol: Protocol) -> UnitScore:
    """The task's score; where every answer failed, the method's reason goes before the task's."""
    score = task.score(answers, protocol)
    if all(answered.prediction.failure for answered in answers):
        errors = (math.inf,) if score.errors else ()
        reason = answers[0].prediction.failure
        return dataclasses.replace(score, errors=errors, failure=reason)
    return score
