"""The surface that a method's matches give between calibrated views, against the measured one.

The true cameras are given. Every match of a reference with its neighbours is triangulated; what
more than one neighbour agrees on becomes a point.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import EstimatorOptions, Protocol, ScoredFrame
from benchmarks.core.samples import Dataset, FloatArray, MultiViewTruth, PairSample
from benchmarks.core.tasks import Answered, Metric, OracleOptions, Summary, UnitScore
from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.metrics.surface import SurfaceOptions, SurfaceScore, score_surface
from benchmarks.metrics.surface_files import read_observed_volume, read_plane, read_points
from benchmarks.tasks.fusion import FusionOptions, fuse_reference
from benchmarks.tasks.pairs import oracle_random
from matcher.errors import MatcherError
from matcher.geometry.camera import project
from matcher.structures import Camera, ImageSize, Pose

__all__ = ["MultiViewTask"]

_SURFACE = SurfaceOptions()
_TRIES_PER_MATCH = 8


class MultiViewTask:
    """Scores scans; a unit is a scan with all its pairs."""

    kind = "multiview"
    ceiling = 1.0

    def score(self, answers: Sequence[Answered], protocol: Protocol) -> UnitScore:
        """Accuracy, completeness and their mean for one scan, millimetres."""
        first, truth = answers[0].sample, _truth(answers[0].sample)
        options = _options(protocol.estimator)
        by_reference: dict[Path, list[Answered]] = {}
        for answered in answers:
            by_reference.setdefault(answered.sample.image0, []).append(answered)
        points = np.concatenate([fuse_reference(pairs, options) for pairs in by_reference.values()])
        failure = "" if len(points) else "no point that two neighbours agree on"
        score = SurfaceScore(math.inf, math.inf, (0.0,) * len(_SURFACE.precision_at), 0)
        if len(points):
            try:
                score = score_surface(
                    points,
                    _surface(truth.surface),
                    read_observed_volume(truth.observed),
                    read_plane(truth.plane),
                    _SURFACE,
                )
            except MatcherError as error:
                failure = str(error)
        if not failure and math.isinf(score.overall):
            failure = "no point within reach of the surface"
        values = {
            "accuracy_mm": score.accuracy,
            "completeness_mm": score.completeness,
            "overall_mm": score.overall,
            "num_points": float(score.num_points),
        }
        for distance, share in zip(_SURFACE.precision_at, score.precision, strict=True):
            values[f"precision_{distance:g}mm"] = share
        return UnitScore(
            first.unit_name,
            first.group,
            (score.overall,),
            values,
            sum(len(answered.prediction) for answered in answers),
            sum(answered.prediction.seconds for answered in answers),
            failure,
        )

    def summarise(self, scores: Sequence[UnitScore], protocol: Protocol) -> Summary:
        """Means over scans; a scan that failed makes the distances infinite, and is counted."""
        del protocol
        metrics = [
            _metric(scores, name, key, math.inf)
            for name, key in (
                ("overall mm", "overall_mm"),
                ("accuracy mm", "accuracy_mm"),
                ("completeness mm", "completeness_mm"),
            )
        ]
        metrics += [
            _metric(scores, f"precision@{distance:g}mm", f"precision_{distance:g}mm", 0.0)
            for distance in _SURFACE.precision_at
        ]
        return Summary(
            tuple(metrics),
            {
                score.unit: (Metric("overall mm", score.error, higher_is_better=False, count=1),)
                for score in scores
            },
            num_units=len(scores),
            num_failures=sum(bool(score.failure) for score in scores),
        )

    def oracle(
        self, sample: PairSample, frame: ScoredFrame, options: OracleOptions
    ) -> MatchPrediction:
        """Measured points, seen by both true cameras.

        A reference shows its neighbours the same points at the same, equally noisy pixels.
        """
        truth = _truth(sample)
        try:
            surface = _surface(truth.surface)
        except MatcherError as error:
            return MatchPrediction.failed(str(error))
        shared = np.random.default_rng([options.seed, zlib.crc32(str(sample.image0).encode())])
        points = surface[shared.integers(0, len(surface), _TRIES_PER_MATCH * options.count)]
        noise0 = options.noise_px * shared.standard_normal((len(points), 2))
        own = oracle_random(sample, options)
        noise1 = options.noise_px * own.standard_normal((len(points), 2))
        keypoints0 = _project(points, truth.k0, truth.cam0_from_world)
        keypoints1 = _project(points, truth.k1, truth.cam1_from_world)
        seen = _inside(keypoints0, frame.stored0) & _inside(keypoints1, frame.stored1)
        rows = np.flatnonzero(seen)[: options.count]
        keypoints0 = keypoints0[rows] + noise0[rows] * _scale(frame.stored0, frame.resized0)
        keypoints1 = keypoints1[rows] + noise1[rows] * _scale(frame.stored1, frame.resized1)
        if options.shuffled:
            keypoints1 = own.permutation(keypoints1)
        return MatchPrediction(keypoints0, keypoints1, np.ones(len(rows)))

    def write_submission(
        self, dataset: Dataset, answers: Sequence[Answered], protocol: Protocol, path: Path
    ) -> str | None:
        """None is due: the surfaces are public."""
        del dataset, answers, protocol, path
        return None


@lru_cache(maxsize=1)
def _surface(path: Path) -> FloatArray:
    return read_points(path)


def _options(options: EstimatorOptions) -> FusionOptions:
    return options if isinstance(options, FusionOptions) else FusionOptions.of(options)


def _truth(sample: PairSample) -> MultiViewTruth:
    assert isinstance(sample.truth, MultiViewTruth)
    return sample.truth


def _project(points: FloatArray, k: FloatArray, cam_from_world: FloatArray) -> FloatArray:
    return project(Pose.from_matrix(cam_from_world).transform(points), Camera.from_matrix(k))


def _inside(keypoints: FloatArray, size: ImageSize) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    limit = np.array([size.width, size.height]) - 0.5
    return np.asarray(((keypoints >= -0.5) & (keypoints <= limit)).all(axis=1))


def _scale(stored: ImageSize, resized: ImageSize) -> FloatArray:
    return np.array([stored.width / resized.width, stored.height / resized.height])


def _metric(scores: Sequence[UnitScore], name: str, key: str, of_a_failure: float) -> Metric:
    values = np.array([score.values.get(key, of_a_failure) for score in scores])
    mean: Callable[[FloatArray], float] = lambda drawn: float(drawn.mean())  # noqa: E731
    value = mean(values) if len(values) else math.nan
    return Metric(name, value, *bootstrap_interval(values, mean), of_a_failure == 0, len(scores))
