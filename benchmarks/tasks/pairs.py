"""What the tasks on single pairs share: pixels of the scored frame, and oracles."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import ScoredFrame
from benchmarks.core.samples import FloatArray, PairSample, PoseTruth
from benchmarks.core.tasks import Answered, OracleOptions
from matcher.errors import InputError
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.structures import ImageSize

__all__ = [
    "oracle_prediction",
    "oracle_random",
    "resized_homography",
    "resized_intrinsics",
    "resized_keypoints",
    "single_answer",
]


def single_answer(answers: Sequence[Answered]) -> Answered:
    """The only answer of a unit.

    Raises:
        InputError: the data set gave several pairs one unit.
    """
    if len(answers) != 1:
        raise InputError("unit", "one pair", f"{len(answers)}")
    return answers[0]


def resized_keypoints(answered: Answered) -> tuple[FloatArray, FloatArray]:
    """(M, 2) keypoints of both images in pixels of the resized photographs."""
    prediction, frame = answered.prediction, answered.frame
    return (
        _resized(prediction.keypoints0, frame.stored0, frame.resized0),
        _resized(prediction.keypoints1, frame.stored1, frame.resized1),
    )


def resized_intrinsics(truth: PoseTruth, frame: ScoredFrame) -> tuple[FloatArray, FloatArray]:
    """(3, 3) intrinsics of both resized photographs."""
    return (
        resize_transform(frame.stored0, frame.resized0) @ truth.k0,
        resize_transform(frame.stored1, frame.resized1) @ truth.k1,
    )


def resized_homography(h1_from_0: FloatArray, frame: ScoredFrame) -> FloatArray:
    """(3, 3) homography between the resized photographs, from the one between the stored."""
    stored0_from_resized = resize_transform(frame.resized0, frame.stored0)
    return resize_transform(frame.stored1, frame.resized1) @ h1_from_0 @ stored0_from_resized


def oracle_random(sample: PairSample, options: OracleOptions) -> np.random.Generator:
    """Randomness of an oracle: another for each pair, the same in every run."""
    return np.random.default_rng([options.seed, zlib.crc32(sample.name.encode())])


def oracle_prediction(
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    frame: ScoredFrame,
    options: OracleOptions,
    random: np.random.Generator,
    points0: FloatArray | None = None,
) -> MatchPrediction:
    """True matches, spoiled as asked.

    Args:
        keypoints0: (M, 2) true pixels of stored image 0.
        keypoints1: (M, 2) the same in stored image 1.
        frame: in whose resized pixels the noise counts.
        options: noise and shuffling.
        random: where the noise comes from.
        points0: (M, 3) points of keypoints 0, metres; left out where there are none.
    """
    ends = []
    for keypoints, stored, resized in (
        (keypoints0, frame.stored0, frame.resized0),
        (keypoints1, frame.stored1, frame.resized1),
    ):
        noise = options.noise_px * random.standard_normal(keypoints.shape)
        ends.append(
            keypoints + noise * [stored.width / resized.width, stored.height / resized.height]
        )
    if options.shuffled:
        ends[1] = ends[1][random.permutation(len(ends[1]))]
    points = np.zeros((0, 3)) if points0 is None else points0
    return MatchPrediction(ends[0], ends[1], np.ones(len(ends[0])), points)


def _resized(keypoints: FloatArray, stored: ImageSize, resized: ImageSize) -> FloatArray:
    return transform_keypoints(resize_transform(stored, resized), keypoints)
