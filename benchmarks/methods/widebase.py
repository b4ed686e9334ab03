"""This project's models, and whatever checkpoint its registry can read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.ndimage import map_coordinates

from benchmarks.core.predictions import MatchPrediction, MethodInfo
from benchmarks.core.samples import FloatArray
from benchmarks.methods.base import NO_MATCHES, MethodOptions
from matcher import Matcher, __version__
from matcher.images import RgbArray
from matcher.results import PairResult

__all__ = ["WidebaseMethod", "build_widebase", "matched_points0"]


@dataclass(frozen=True, slots=True, eq=False)
class WidebaseMethod:
    """A two-view network with this project's matching."""

    info: MethodInfo
    matcher: Matcher

    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        result = self.matcher.match(image0, image1)
        return MatchPrediction(
            result.keypoints0.numpy(),
            result.keypoints1.numpy(),
            result.confidence.numpy(),
            matched_points0(result),
            math.nan if result.overlap_score is None else result.overlap_score,
            # A pair without matches keeps its score: that is when the score is asked for.
            failure="" if len(result) else result.reason or NO_MATCHES,
        )


def matched_points0(result: PairResult) -> FloatArray:
    """(M, 3) points of the matches in camera 0's frame, bilinear in the pointmap, or (0, 3)."""
    maps = result.pointmaps
    if maps is None or not len(result):
        return np.zeros((0, 3))
    network_from_original = np.linalg.inv(maps.original0_from_network)
    keypoints = result.keypoints0.numpy().astype(np.float64)
    places = keypoints @ network_from_original[:2, :2].T + network_from_original[:2, 2]
    axes = [
        map_coordinates(maps.points0[..., axis], places[:, ::-1].T, order=1, mode="nearest")
        for axis in range(3)
    ]
    return np.stack(axes, axis=1).astype(np.float64)


def build_widebase(name_or_path: str, options: MethodOptions) -> WidebaseMethod:
    """A model by its name or its checkpoint's path.

    Raises:
        InputError: an unknown name, or a device that is not here.
        CheckpointError: a file that cannot be read or does not fit.
    """
    matcher = Matcher.from_pretrained(name_or_path, device=options.device, options=options.pair)
    units = "metric" if matcher.info.is_metric else "unscaled"
    path = Path(name_or_path)
    # The folder above tells checkpoints of one name apart; the rest of the path is this machine's.
    is_file = path.exists() and len(path.parts) > 1
    info = MethodInfo(
        f"{path.parent.name}/{path.stem}".lstrip("/") if is_file else name_or_path,
        matcher.info.licence,
        f"widebase {__version__}, sha256 {matcher.info.sha256[:16]}",
        f"{_settings(options)}, {units} pointmaps, {options.device}",
        is_ours=matcher.info.layout == "native",
    )
    return WidebaseMethod(info, matcher)


def _settings(options: MethodOptions) -> str:
    values = options.pair.to_dict()
    matching = values.pop("matching")
    return ", ".join(f"{name} {value}" for name, value in (values | matching).items())
