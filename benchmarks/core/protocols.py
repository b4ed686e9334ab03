"""A protocol: everything between a method's matches and a number that could move a digit."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from matcher.errors import InputError
from matcher.structures import ImageSize

__all__ = ["EstimatorOptions", "Protocol", "ResizeRule", "ScoredFrame"]

ResizeKind = Literal["none", "long", "short", "exact"]
Estimator = Literal["poselib", "poselib-pnp", "opencv-ransac", "opencv-magsac"]


@dataclass(frozen=True, slots=True)
class ResizeRule:
    """How photographs are resized before a method sees them; never cropped.

    Attributes:
        kind: ``none``; ``long`` or ``short``: that side becomes ``side``; ``exact``: height and
            width become ``height`` and ``side``.
        side: pixels.
        height: for ``exact``.
        only_shrink: leave smaller photographs as they are.
    """

    kind: ResizeKind = "none"
    side: int = 0
    height: int = 0
    only_shrink: bool = False

    def __post_init__(self) -> None:
        if self.kind not in get_args(ResizeKind):
            raise InputError("resize", " or ".join(get_args(ResizeKind)), f"{self.kind!r}")
        if self.kind != "none" and self.side < 1:
            raise InputError("resize side", "at least 1 pixel", f"{self.side}")

    def apply(self, size: ImageSize) -> ImageSize:
        """Size of a resized photograph."""
        if self.kind == "none":
            return size
        if self.kind == "exact":
            return ImageSize(self.height, self.side)
        reference = max(size.height, size.width)
        if self.kind == "short":
            reference = min(size.height, size.width)
        scale = self.side / reference
        if self.only_shrink and scale >= 1:
            return size
        return ImageSize(
            max(1, math.floor(size.height * scale + 0.5)),
            max(1, math.floor(size.width * scale + 0.5)),
        )


@dataclass(frozen=True, slots=True)
class EstimatorOptions:
    """The robust estimator.

    Attributes:
        estimator: ``poselib`` LO-RANSAC, or OpenCV's RANSAC or MAGSAC++; ``poselib-pnp`` (metric
            poses only): keypoints 1 against the points that the method gives for image 0.
        thresholds: pixels of the resized photographs; more than one: the best is reported, which
            is optimistic and said so.
        confidence, max_iterations: of the estimator.
        repeats: times the matches are sampled and estimated anew, all errors counted.
        max_matches: matches drawn for each repeat; 0: all.
        mean_focal: ``pair`` divides the threshold by the mean focal of both cameras; ``loftr`` by
            mean(fx0, fy1, fx0, fy1), as that evaluation does.
        seed: of sampling and estimator.
        progressive: samples are drawn from each method's most confident matches first (PROSAC);
            methods that give no confidence are searched as ever.
        settles_planes: matches on one plane are settled apart: the pose comes from their
            homography, and where that leaves two open, the depth decides that a method may give.
    """

    estimator: Estimator = "poselib"
    thresholds: tuple[float, ...] = (1.0,)
    confidence: float = 0.9999
    max_iterations: int = 100_000
    repeats: int = 1
    max_matches: int = 0
    mean_focal: Literal["pair", "loftr"] = "pair"
    seed: int = 0
    progressive: bool = False
    settles_planes: bool = False

    def __post_init__(self) -> None:
        for name in ("progressive", "settles_planes"):
            if getattr(self, name) and (self.estimator != "poselib" or self.repeats > 1):
                raise InputError(name, "poselib and one repeat", f"{self}")
        if self.settles_planes and self.max_matches:
            raise InputError("settles_planes", "all matches", f"{self}")
        if self.estimator not in get_args(Estimator):
            raise InputError("estimator", " or ".join(get_args(Estimator)), f"{self.estimator!r}")
        if not self.thresholds or min(self.thresholds) <= 0:
            raise InputError("thresholds", "positive pixels", f"{self.thresholds}")
        if not 0 < self.confidence < 1 or self.max_iterations < 1 or self.repeats < 1:
            raise InputError("estimator options", "a confidence in (0, 1), counts >= 1", f"{self}")


@dataclass(frozen=True, slots=True)
class Protocol:
    """A named, versioned way to score.

    Attributes:
        name: as on the command line (``ours``, ``loftr``, ``roma``, ``glue-factory``, ``xfeat``).
        version: changes whenever a number could.
        resize: before matching; thresholds in pixels count in the resized photographs.
        estimator: the robust estimator.
        auc_thresholds: of the error the task measures.
        is_headline: fixed threshold, chosen on another set: fit for claims.
        note: what a reader must know.
    """

    name: str
    version: int = 1
    resize: ResizeRule = ResizeRule()
    estimator: EstimatorOptions = EstimatorOptions()
    auc_thresholds: tuple[float, ...] = (5.0, 10.0, 20.0)
    is_headline: bool = False
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class ScoredFrame:
    """Sizes in which the pixels of a pair's matches count.

    Attributes:
        stored0, stored1: sizes of the photographs as they lie on disk, upright.
        resized0, resized1: after the protocol's resize rule.
    """

    stored0: ImageSize
    stored1: ImageSize
    resized0: ImageSize
    resized1: ImageSize

    @classmethod
    def of(cls, rule: ResizeRule, stored0: ImageSize, stored1: ImageSize) -> ScoredFrame:
        """The frame that a resize rule gives two photographs."""
        return cls(stored0, stored1, rule.apply(stored0), rule.apply(stored1))
