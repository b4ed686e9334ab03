"""What a method answers for a pair, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from benchmarks.core.samples import FloatArray
from matcher.errors import InputError
from matcher.images import RgbArray

__all__ = ["MatchPrediction", "Method", "MethodInfo"]


@dataclass(frozen=True, slots=True, eq=False)
class MatchPrediction:
    """Matches of one pair, float64, in pixels of the images the method was given.

    In the cache, and wherever a task sees it, the pixels are those of the stored photographs.

    Attributes:
        keypoints0: (M, 2), x then y, integer pixels at pixel centres.
        keypoints1: (M, 2), row i matches row i.
        confidence: (M,) in (0, 1]; higher is surer. Methods without one give 1.
        points0: (M, 3) each match's point in camera 0's frame as the method believes it, metres;
            (0, 3) for methods without depth.
        pair_score: in [0, 1]: how sure the method is that the pair shares content; NaN: not given.
        seconds: time of the method for this pair, reading images left out.
        failure: why there is no answer, in one line; empty: there is one.
    """

    keypoints0: FloatArray
    keypoints1: FloatArray
    confidence: FloatArray
    points0: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))
    pair_score: float = float("nan")
    seconds: float = 0.0
    failure: str = ""

    def __post_init__(self) -> None:
        count = len(self.keypoints0)
        for name, shape in (
            ("keypoints0", (count, 2)),
            ("keypoints1", (count, 2)),
            ("confidence", (count,)),
        ):
            values = np.asarray(getattr(self, name), dtype=np.float64).reshape(
                shape if not count else np.shape(getattr(self, name))
            )
            if values.shape != shape or not np.isfinite(values).all():
                raise InputError(name, f"finite values of shape {shape}", f"{values.shape}")
            object.__setattr__(self, name, values)
        points = np.asarray(self.points0, dtype=np.float64).reshape(-1, 3)
        if len(points) not in (0, count):
            raise InputError("points0", f"shape ({count}, 3) or (0, 3)", f"{points.shape}")
        object.__setattr__(self, "points0", points)

    @classmethod
    def failed(cls, reason: str, seconds: float = 0.0) -> MatchPrediction:
        """No answer, with its reason."""
        line = " ".join(reason.split())[:300] or "failed without a message"
        empty = np.zeros((0, 2))
        return cls(empty, empty, np.zeros(0), seconds=seconds, failure=line)

    def __len__(self) -> int:
        return len(self.keypoints0)


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """Who answers, for the report.

    Attributes:
        name: as on the command line.
        licence: of code and weights.
        version: of the package, and the weights' hash where there are any.
        settings: everything that could move a digit, in one line.
        is_ours: one of this project's models.
    """

    name: str
    licence: str
    version: str
    settings: str
    is_ours: bool = False


@runtime_checkable
class Method(Protocol):
    """Anything that matches two photographs."""

    @property
    def info(self) -> MethodInfo:
        """Who it is."""
        ...

    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images; answers in their pixels.

        ``seconds`` is filled in by the runner. It may raise: the runner counts the pair as a
        failure and goes on.
        """
        ...
