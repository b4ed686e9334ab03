"""Is the confidence a probability, and does the overlap score tell places apart?

    python -m benchmarks calibration --set pairs --root DATA/dev --methods small --report DIR

Matches of pairs with known truth are sorted into bins of confidence; in each, the share that lies
within 5 px of the truth (pixels at a long side of 512, as the network sees the photographs) should
be what the confidence says. The same photographs, paired across groups, show no common place: the
score of a pair should be low there. A method without a score of its own is ranked by its number of
matches. Where a pair's truth is a pose without depth, a match counts as right within 5 px of its
epipolar lines, which a wrong match may pass by chance: the report says so.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.core.predictions import Method, MethodInfo
from benchmarks.core.protocols import ResizeRule, ScoredFrame
from benchmarks.core.provenance import Provenance, collect_provenance
from benchmarks.core.runner import cache_path, export, file_stem, open_cache
from benchmarks.core.samples import Dataset, FloatArray, HomographyTruth, PairSample, PoseTruth
from benchmarks.core.tasks import Answered
from benchmarks.datasets.registry import find_reader
from benchmarks.datasets.selection import subset
from benchmarks.match_quality import right_matches
from benchmarks.methods import MethodOptions, build_method
from benchmarks.report import PairRanking, draw_roc, reliability_diagram
from benchmarks.run import pinned_threads
from matcher.errors import InputError, MatcherError, MissingDependencyError
from matcher.files import replaced
from matcher.pipeline import PairOptions
from matcher.training.calibrate import expected_calibration_error
from matcher.view_matching import CropMode

__all__ = ["CalibrationResult", "measure_calibration", "unrelated_pairs"]

_RADIUS_PX = 5.0
_FRAME = ResizeRule("long", 512)
_AS_STORED = ResizeRule()
_NUM_BINS = 10


@dataclass(frozen=True, slots=True, eq=False)
class CalibrationResult:
    """How far a method's confidence can be trusted.

    Attributes:
        method: who answered.
        edges: (B + 1,) of the bins of confidence.
        accuracy: (B,) share of right matches; NaN in an empty bin.
        counts: (B,) matches.
        expected_calibration_error: over the bins, weighted by matches; in [0, 1].
        mean_confidence, share_right: of all matches.
        pair_score_area: area under the ROC curve of the pairs' scores; NaN without unrelated pairs.
        ranked_by: ``pair score`` or ``number of matches``.
        ranking: what the area was computed from, or ``None``.
        judged_by: ``depth``, ``homography`` or ``epipolar distance``.
    """

    method: MethodInfo
    edges: FloatArray
    accuracy: FloatArray
    counts: FloatArray
    expected_calibration_error: float
    mean_confidence: float
    share_right: float
    pair_score_area: float
    ranked_by: str
    ranking: PairRanking | None
    judged_by: str


def unrelated_pairs(dataset: Dataset, count: int, seed: int = 0) -> Dataset:
    """Pairs of photographs of different groups (so of different places), drawn at random.

    Raises:
        InputError: all pairs belong to one group.
    """
    groups = sorted({sample.group for sample in dataset.samples})
    if len(groups) < 2:
        raise InputError("--root", "pairs of at least two groups", f"{', '.join(groups) or 'none'}")
    random = np.random.default_rng(seed)
    truth = PoseTruth(np.eye(3), np.eye(3), np.eye(4), overlap=0.0, is_scored=False)
    samples: dict[str, PairSample] = {}
    for _ in range(20 * count):
        one, two = (dataset.samples[int(i)] for i in random.integers(len(dataset.samples), size=2))
        name = f"{one.image0} | {two.image1}"
        if one.group != two.group and name not in samples:
            short = f"{one.group}/{one.image0.name} | {two.group}/{two.image1.name}"
            samples[name] = PairSample(f"{len(samples):04d} {short}", one.image0, two.image1, truth)
        if len(samples) == count:
            break
    return dataclasses.replace(
        dataset,
        name=f"{dataset.name}-unrelated",
        title=f"{dataset.title}, photographs of different places",
        samples=tuple(samples.values()),
        problems=(),
        kind="pose",
    )


def measure_calibration(
    dataset: Dataset, unrelated: Dataset | None, method: Method, cache: Path
) -> CalibrationResult:
    """Match all pairs (or take them from the cache) and judge confidence and pair score.

    Raises:
        InputError: no match with known truth.
    """
    related = _answers(dataset, method, cache)
    confidence, right = [], []
    for answered in related:
        judged = right_matches(answered, _RADIUS_PX)
        if judged is not None and len(judged):
            confidence.append(answered.prediction.confidence)
            right.append(judged)
    if not confidence:
        raise InputError("--root", "pairs whose single matches can be judged", dataset.title)
    sure, flags = np.concatenate(confidence), np.concatenate(right)
    edges = np.linspace(0, 1, _NUM_BINS + 1)
    bins = np.minimum((sure * _NUM_BINS).astype(int), _NUM_BINS - 1)
    counts = np.bincount(bins, minlength=_NUM_BINS).astype(np.float64)
    hits = np.bincount(bins, flags.astype(np.float64), minlength=_NUM_BINS)
    accuracy = np.where(counts > 0, hits / np.maximum(counts, 1), np.nan)
    others = [] if unrelated is None else _answers(unrelated, method, cache)
    ranking, ranked_by = _ranking(related, others)
    return CalibrationResult(
        method.info,
        edges,
        accuracy,
        counts,
        expected_calibration_error(sure, flags, num_bins=_NUM_BINS),
        float(sure.mean()),
        float(flags.mean()),
        math.nan,
        ranked_by,
        ranking,
        _judged_by(dataset),
    )


def _answers(dataset: Dataset, method: Method, cache: Path) -> list[Answered]:
    path = cache_path(cache, dataset, method.info, _AS_STORED)
    with open_cache(path, dataset, method.info, _AS_STORED) as opened:
        export(dataset, method, _AS_STORED, opened)
        found = [(sample, opened.load(sample.name)) for sample in dataset.samples]
    return [
        Answered(
            sample,
            cached.prediction,
            ScoredFrame.of(_FRAME, cached.frame.stored0, cached.frame.stored1),
        )
        for sample, cached in found
        if cached is not None and not cached.prediction.failure
    ]


def _ranking(
    related: Sequence[Answered], unrelated: Sequence[Answered]
) -> tuple[PairRanking | None, str]:
    answers = [*related, *unrelated]
    score = np.array([answered.prediction.pair_score for answered in answers])
    ranked_by = "pair score"
    if np.isnan(score).all():
        score = np.array([float(len(answered.prediction)) for answered in answers])
        ranked_by = "number of matches"
    if not related or not unrelated:
        return None, ranked_by
    overlaps = np.arange(len(answers)) < len(related)
    return PairRanking(score, overlaps), ranked_by


def _judged_by(dataset: Dataset) -> str:
    truths = [sample.truth for sample in dataset.samples]
    if all(isinstance(truth, HomographyTruth) for truth in truths):
        return "homography"
    if all(isinstance(truth, PoseTruth) and truth.depth0 is not None for truth in truths):
        return "depth"
    return "epipolar distance"


def _write(
    folder: Path, dataset: Dataset, results: Sequence[CalibrationResult], provenance: Provenance
) -> list[CalibrationResult]:
    folder.mkdir(parents=True, exist_ok=True)
    for result in results:
        reliability_diagram(
            result.edges,
            result.accuracy,
            result.counts,
            result.expected_calibration_error,
            folder / f"{dataset.name}-{file_stem(result.method.name)}-reliability.png",
        )
    ranked = [(one.method, one.ranking) for one in results if one.ranking is not None]
    if ranked:
        areas = dict(
            zip(
                (method.name for method, _ in ranked),
                draw_roc(ranked, folder / f"{dataset.name}-roc.png"),
                strict=True,
            )
        )
        results = [
            dataclasses.replace(one, pair_score_area=areas.get(one.method.name, math.nan))
            for one in results
        ]
    record = {
        "dataset": dataset.title,
        "is_synthetic": dataset.is_synthetic,
        "radius_px": _RADIUS_PX,
        "frame": "long side 512",
        "provenance": provenance.to_dict(),
        "results": [_record(one) for one in results],
    }
    with replaced(folder / f"{dataset.name}-calibration.json") as temporary:
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return list(results)


def _record(result: CalibrationResult) -> dict[str, object]:
    def plain(value: float) -> float | None:
        return round(float(value), 6) if math.isfinite(value) else None

    return {
        "method": dataclasses.asdict(result.method),
        "edges": [plain(value) for value in result.edges],
        "accuracy": [plain(value) for value in result.accuracy],
        "counts": [int(value) for value in result.counts],
        "expected_calibration_error": plain(result.expected_calibration_error),
        "mean_confidence": plain(result.mean_confidence),
        "share_right": plain(result.share_right),
        "pair_score_area": plain(result.pair_score_area),
        "ranked_by": result.ranked_by,
        "judged_by": result.judged_by,
    }


def main() -> int:
    """Measure, print, and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks calibration")
    parser.add_argument("--set", default="pairs", help="a data set of pairs or homographies")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--methods", default="small")
    parser.add_argument("--subset", type=int, metavar="N")
    parser.add_argument("--unrelated", type=int, default=100, help="pairs of different places")
    parser.add_argument("--cache", type=Path, default=Path("benchmark-cache"))
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--crops", choices=get_args(CropMode), default="never")
    options = parser.parse_args()
    try:
        with pinned_threads(options.threads):
            dataset = subset(find_reader(options.set).read(options.root), options.subset)
            unrelated = unrelated_pairs(dataset, options.unrelated) if options.unrelated else None
            made = MethodOptions(pair=PairOptions(crops=options.crops), device=options.device)
            results = []
            for name in options.methods.split(","):
                try:
                    method = build_method(name, made)
                except MissingDependencyError as error:
                    print(f"{name}: skipped: {error}")
                    continue
                results.append(measure_calibration(dataset, unrelated, method, options.cache))
            provenance = collect_provenance(dataset, options.device)
            for one in _write(options.report, dataset, results, provenance):
                print(
                    f"{one.method.name}: expected calibration error "
                    f"{one.expected_calibration_error:.3f}, mean confidence "
                    f"{one.mean_confidence:.3f}, share right {one.share_right:.3f} "
                    f"(judged by {one.judged_by}); ROC area of the {one.ranked_by} "
                    f"{one.pair_score_area:.3f}"
                )
    except MatcherError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
