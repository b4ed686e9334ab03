"""One benchmark, several methods: export, evaluate, report."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from benchmarks.core.predictions import Method
from benchmarks.core.protocols import Protocol
from benchmarks.core.provenance import collect_provenance
from benchmarks.core.published import PublishedValue
from benchmarks.core.runner import (
    Progress,
    cache_path,
    evaluate,
    export,
    file_stem,
    open_cache,
)
from benchmarks.core.samples import Dataset
from benchmarks.core.tasks import Answered, UnitScore
from benchmarks.datasets.selection import subset
from benchmarks.match_quality import right_matches
from benchmarks.methods import MethodOptions, build_method
from benchmarks.report import (
    BenchmarkReport,
    MatchQuality,
    MethodResult,
    PairPicture,
    best_and_worst,
    draw_pair_sheet,
    draw_precision_recall,
    figure_path,
    write_page,
    write_report,
)
from benchmarks.report.numbers import shown_value
from benchmarks.tasks import task_for
from matcher.errors import InputError, MissingDependencyError
from matcher.images import read_image

__all__ = [
    "ProgressMaker",
    "RunOptions",
    "RunResult",
    "as_lines",
    "pinned_threads",
    "run_benchmark",
    "write_report_folder",
]

_RIGHT_WITHIN_PX = 5.0
_CURVE_MATCHES = 400_000
"""A curve of precision and recall is no different with more matches than these."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run does.

    Attributes:
        protocol: how it is scored.
        methods: names, in the order of the report.
        cache: folder of the prediction caches.
        subset: so many units at random (seed 0); ``None``: all.
        min_overlap: leave out pairs whose overlap is known to be smaller.
        method: options of our own models, and the device.
        retry_failures: ask again where an earlier run failed.
        evaluate_only: take what the caches hold, ask no method.
        submission: where the file for an evaluation server goes; ``None``: none is written.
    """

    protocol: Protocol
    methods: tuple[str, ...]
    cache: Path
    subset: int | None = None
    min_overlap: float | None = None
    method: MethodOptions = field(default_factory=MethodOptions)
    retry_failures: bool = False
    evaluate_only: bool = False
    submission: Path | None = None

    def __post_init__(self) -> None:
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise InputError("--methods", "different names", f"{', '.join(self.methods)!r}")


@dataclass(frozen=True, slots=True, eq=False)
class RunResult:
    """A report, and the answers behind it by method."""

    report: BenchmarkReport
    answers: dict[str, list[Answered]]


ProgressMaker = Callable[[str, int], Progress]
"""From a method's name and the number of pairs to what is called after every pair."""


def run_benchmark(
    dataset: Dataset,
    options: RunOptions,
    published: Sequence[PublishedValue] = (),
    progress: ProgressMaker | None = None,
) -> RunResult:
    """Run every method that is installed, score it, and gather the report.

    Args:
        dataset: all pairs, also where ``options`` take a part.
        options: methods, protocol, cache.
        published: values of others on this set, for the report.
        progress: makes what is called after every pair.

    Raises:
        InputError: an unknown method, or a cache of another configuration.
    """
    chosen = subset(dataset, options.subset, options.min_overlap)
    task = task_for(dataset.kind)
    results, skipped, submissions = [], [], []
    answers: dict[str, list[Answered]] = {}
    for name in options.methods:
        try:
            method = build_method(name, options.method)
        except MissingDependencyError as error:
            skipped.append((name, str(error)))
            continue
        scores, answers[method.info.name] = _run_method(dataset, chosen, method, options, progress)
        summary = task.summarise(scores, options.protocol)
        results.append(MethodResult(method.info, summary, tuple(scores)))
        if options.submission is not None:
            target = _submission_path(options.submission, method.info.name)
            written = task.write_submission(
                chosen, answers[method.info.name], options.protocol, target
            )
            if written is not None:
                submissions.append(f"{method.info.name}: {written}")
    report = BenchmarkReport(
        dataset_name=dataset.name,
        title=dataset.title,
        protocol=options.protocol,
        results=tuple(results),
        provenance=collect_provenance(chosen, options.method.device),
        skipped=tuple(skipped),
        notes=(*chosen.notes, *submissions),
        is_synthetic=dataset.is_synthetic,
        published=() if dataset.is_synthetic else tuple(published),
    )
    return RunResult(report, answers)


def _submission_path(path: Path, method: str) -> Path:
    return path.with_name(f"{path.stem}-{file_stem(method)}{path.suffix}")


def _run_method(
    dataset: Dataset,
    chosen: Dataset,
    method: Method,
    options: RunOptions,
    progress: ProgressMaker | None,
) -> tuple[list[UnitScore], list[Answered]]:
    rule = options.protocol.resize
    path = cache_path(options.cache, dataset, method.info, rule)
    if options.evaluate_only and not path.exists():
        raise InputError("--evaluate-only", "a cache of earlier predictions", f"no file {path}")
    with open_cache(path, dataset, method.info, rule) as cache:
        if not options.evaluate_only:
            shown = progress(method.info.name, len(chosen.samples)) if progress else None
            export(
                chosen,
                method,
                rule,
                cache,
                progress=shown,
                retry_failures=options.retry_failures,
            )
        task, threads = task_for(dataset.kind), torch.get_num_threads()
        return evaluate(chosen, cache, task, options.protocol, threads)


def write_report_folder(result: RunResult, folder: Path) -> tuple[Path, ...]:
    """Write ``report.json``, ``report.md`` and the figures into ``folder``; returns the files.

    Without matplotlib the page has no figures, and says so.

    Raises:
        InputError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError("--report", "a folder that can be written", f"{folder}: {error}") from None
    report = result.report
    data, page = folder / "report.json", folder / "report.md"
    write_report(report, data)
    intro = f"# {report.display_title}: protocol `{report.protocol.name}`\n"
    try:
        _draw_extras(result, folder)
        figures = write_page([report], page, folder, intro)
    except MissingDependencyError as error:
        figures = ()
        write_page([report], page, None, f"{intro}\nNo figures: {error}.\n")
    return (data, page, *figures)


def _draw_extras(result: RunResult, folder: Path) -> None:
    """The figures that need the matches themselves."""
    report = result.report
    qualities = []
    for entry in report.results:
        quality = _quality(result.answers[entry.method.name])
        if quality is not None:
            qualities.append((entry.method, quality))
    if qualities:
        draw_precision_recall(qualities, figure_path(folder, report, "precision-recall"))
    ours = [entry for entry in report.results if entry.method.is_ours] or list(report.results)
    if ours:
        best, worst = best_and_worst(ours[0].scores)
        by_unit = {
            answered.sample.unit_name: answered for answered in result.answers[ours[0].method.name]
        }
        good, bad = (
            [_picture(score, by_unit[score.unit]) for score in part if score.unit in by_unit]
            for part in (best, worst)
        )
        path = figure_path(folder, report, "pairs")
        draw_pair_sheet(good, bad, path, title=f"{report.display_title}, {ours[0].method.name}")


def _quality(answers: Sequence[Answered]) -> MatchQuality | None:
    confidence, right = [], []
    for answered in answers:
        judged = right_matches(answered, _RIGHT_WITHIN_PX)
        if judged is not None and len(judged):
            confidence.append(answered.prediction.confidence)
            right.append(judged)
    if not confidence:
        return None
    together, flags = np.concatenate(confidence), np.concatenate(right)
    if len(together) > _CURVE_MATCHES:
        rows = np.random.default_rng(0).choice(len(together), _CURVE_MATCHES, replace=False)
        together, flags = together[rows], flags[rows]
    return MatchQuality(together, flags)


def _picture(score: UnitScore, answered: Answered) -> PairPicture:
    sample, prediction = answered.sample, answered.prediction
    return PairPicture(
        caption=f"{sample.name}: error {score.error:.1f}, {score.num_matches} matches",
        image0=read_image(sample.image0),
        image1=read_image(sample.image1),
        keypoints0=prediction.keypoints0,
        keypoints1=prediction.keypoints1,
        confidence=prediction.confidence,
        correct=right_matches(answered, _RIGHT_WITHIN_PX),
    )


@contextmanager
def pinned_threads(count: int) -> Iterator[None]:
    """Torch and OpenCV with ``count`` threads, and as they were afterwards."""
    before = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


def as_lines(report: BenchmarkReport) -> Iterator[str]:
    """One line a method, for a terminal."""
    for entry in report.results:
        numbers = "  ".join(
            f"{metric.name} {shown_value(metric)}" for metric in entry.summary.metrics
        )
        failed = f"  failed {entry.summary.num_failures}" if entry.summary.num_failures else ""
        yield f"{entry.method.name:20s} {numbers}{failed}  [{entry.method.licence}]"
    for name, reason in report.skipped:
        yield f"{name:20s} skipped: {reason}"
