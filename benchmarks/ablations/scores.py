"""What a trained variant can do: held-out photographs, and the pose of development pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from scipy.spatial import cKDTree

from benchmarks.core.predictions import MatchPrediction, Method, MethodInfo
from benchmarks.core.runner import evaluate, export, open_cache
from benchmarks.core.samples import Dataset
from benchmarks.core.tasks import Metric
from benchmarks.datasets.selection import subset
from benchmarks.methods import MethodOptions
from benchmarks.methods.base import NO_MATCHES
from benchmarks.methods.widebase import build_widebase
from benchmarks.metrics.bootstrap import bootstrap_interval
from benchmarks.protocols import POSE_PRESETS
from benchmarks.tasks import task_for
from matcher import Matcher
from matcher.checkpoints import load_checkpoint
from matcher.geometry.pixels import transform_keypoints
from matcher.images import RgbArray
from matcher.pipeline import PairOptions
from matcher.structures import FloatArray
from matcher.training.samples import TrainingBatch
from matcher.training.validate import MatchBy, matching_errors

__all__ = ["Number", "PointMatching", "photo_numbers", "pose_numbers"]

_LIMITS_PX = (1.5, 3.0, 10.0)
_POINT_STRIDE = 4


@dataclass(frozen=True, slots=True)
class Number:
    """A value with its 95 % bootstrap interval over pairs.

    Attributes:
        value: a share or an AUC, in [0, 1].
        low, high: its interval; NaN with fewer than two pairs.
        count: pairs behind it.
    """

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def of_metric(cls, metric: Metric) -> Number:
        """A number of a benchmark's summary."""
        return cls(metric.value, metric.low, metric.high, metric.count)


def photo_numbers(
    checkpoint: Path, batches: Sequence[TrainingBatch], by: MatchBy
) -> dict[str, Number]:
    """Share of true matches found within some pixels, held-out photographs under homographies."""
    network = load_checkpoint(checkpoint).network
    errors = matching_errors(network, batches, by)
    numbers = {}
    for limit in _LIMITS_PX:
        shares = np.array([float((one <= limit).float().mean()) for one in errors])
        low, high = bootstrap_interval(shares, lambda rows: float(rows.mean()))
        numbers[f"within {limit:g} px"] = Number(float(shares.mean()), low, high, len(shares))
    return numbers


def pose_numbers(
    checkpoint: Path, dataset: Dataset, count: int, view_size: int, by: MatchBy
) -> dict[str, Number]:
    """AUC of the relative pose on a random part of a list of pairs, protocol ``ours``.

    Args:
        checkpoint: the model.
        dataset: all pairs.
        count: so many of them at random, the same for every variant.
        view_size: long side of the network's view, pixels; no crops.
        by: how matches are found.
    """
    options = MethodOptions(pair=PairOptions(max_size=view_size, crops="never"))
    ours = build_widebase(str(checkpoint), options)
    method: Method = ours if by == "descriptors" else PointMatching(ours.info, ours.matcher)
    protocol, chosen = POSE_PRESETS["ours"], subset(dataset, count)
    task = task_for(dataset.kind)
    # The weights of a variant are asked once: nothing is worth keeping.
    with TemporaryDirectory() as folder:
        path = Path(folder) / "predictions.h5"
        with open_cache(path, dataset, method.info, protocol.resize) as cache:
            export(chosen, method, protocol.resize, cache)
            scores, _ = evaluate(chosen, cache, task, protocol, torch.get_num_threads())
    metrics = task.summarise(scores, protocol).metrics
    return {
        metric.name: Number.of_metric(metric) for metric in metrics if metric.name.startswith("AUC")
    }


@dataclass(frozen=True, slots=True, eq=False)
class PointMatching:
    """Matches that are each other's nearest points in camera 0's frame (3-D matching).

    Attributes:
        info: of the model.
        matcher: whose pointmaps are compared; its own matches are not looked at.
    """

    info: MethodInfo
    matcher: Matcher

    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        maps = self.matcher.match(image0, image1).pointmaps
        if maps is None:
            return MatchPrediction.failed(NO_MATCHES)
        pixels0, points0 = _thinned(maps.points0)
        pixels1, points1 = _thinned(maps.points1)
        forth = cKDTree(points1).query(points0)[1]
        back = cKDTree(points0).query(points1)[1]
        mutual = np.flatnonzero(back[forth] == np.arange(len(points0)))
        if not len(mutual):
            return MatchPrediction.failed(NO_MATCHES)
        return MatchPrediction(
            transform_keypoints(maps.original0_from_network, pixels0[mutual]),
            transform_keypoints(maps.original1_from_network, pixels1[forth[mutual]]),
            np.ones(len(mutual)),
        )


def _thinned(points: np.ndarray) -> tuple[FloatArray, FloatArray]:
    """Every fourth pixel of a pointmap: (N, 2) pixels, x then y, and (N, 3) points."""
    kept = [np.arange(_POINT_STRIDE // 2, side, _POINT_STRIDE) for side in points.shape[:2]]
    rows, columns = (part.ravel() for part in np.meshgrid(*kept, indexing="ij"))
    chosen = points[rows, columns].astype(np.float64)
    known = np.isfinite(chosen).all(axis=1)
    return np.stack([columns, rows], axis=1)[known].astype(np.float64), chosen[known]
