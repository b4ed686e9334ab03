"""The solvers behind the relative pose, each on one problem of usable matches.

Every solver takes a :class:`RelativeProblem` and gives a :class:`RelativeAnswer` or ``None``;
:mod:`matcher.geometry.relative` chooses among them and judges what they say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.essential import (
    EssentialEstimate,
    estimate_essential,
    estimate_shared_focal,
)
from matcher.geometry.planes import settle_planes
from matcher.geometry.pnp import estimate_absolute_pose
from matcher.geometry.procrustes import estimate_registration
from matcher.geometry.ransac import Estimator, RansacOptions
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = [
    "RelativeAnswer",
    "RelativeMethod",
    "RelativePoseOptions",
    "RelativeProblem",
    "by_essential",
    "by_pnp",
    "by_procrustes",
    "by_shared_focal",
]

RelativeMethod = Literal["auto", "essential", "shared_focal", "pnp", "procrustes"]


@dataclass(frozen=True, slots=True)
class RelativePoseOptions:
    """How a relative pose is estimated.

    Attributes:
        estimator: ``"poselib"`` (LO-RANSAC) or ``"magsac"`` (OpenCV's MAGSAC++).
        method: ``"auto"`` picks by what is known (the module's table).
        max_epipolar_error_px: Sampson error up to which a match agrees, original pixels.
        max_reprojection_error_px: the same for ``"pnp"`` and ``"procrustes"``, pixels of image 1;
            wider, because a pointmap is less exact than a match.
        max_iterations: no more RANSAC hypotheses than this.
        confidence: probability of having met the best model, at which the search may stop.
        min_inliers: fewer give no answer; many matches ask for more (``required_inliers``).
        seed: the same seed and input give the same answer.

    Raises:
        InputError: a value out of its range.
    """

    estimator: Estimator = "poselib"
    method: RelativeMethod = "auto"
    max_epipolar_error_px: float = 1.0
    max_reprojection_error_px: float = 5.0
    max_iterations: int = 20_000
    confidence: float = 0.9999
    min_inliers: int = 15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in get_args(RelativeMethod):
            raise InputError("method", " or ".join(get_args(RelativeMethod)), repr(self.method))
        if self.min_inliers < 1:
            raise InputError("min_inliers", "at least 1", f"{self.min_inliers}")
        for name in ("max_epipolar_error_px", "max_reprojection_error_px"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise InputError(name, "a positive number of pixels", f"{getattr(self, name)}")
        self.ransac(self.max_epipolar_error_px)  # checks the rest

    def ransac(self, max_error_px: float, *, progressive: bool = False) -> RansacOptions:
        """The same options for one robust estimator with its own threshold."""
        return RansacOptions(
            progressive=progressive,
            max_error_px=max_error_px,
            max_iterations=self.max_iterations,
            confidence=self.confidence,
            seed=self.seed,
            estimator=self.estimator,
        )


@dataclass(frozen=True, slots=True, eq=False)
class RelativeProblem:
    """The usable matches and what is known about them.

    With ``is_ordered`` the likeliest matches come first.
    """

    keypoints0: FloatArray
    keypoints1: FloatArray
    camera0: Camera | None
    camera1: Camera | None
    size0: ImageSize
    size1: ImageSize
    options: RelativePoseOptions
    points0: FloatArray | None
    points1: FloatArray | None
    points1_in_camera1: FloatArray | None
    is_metric: bool
    is_ordered: bool = False

    def __len__(self) -> int:
        return len(self.keypoints0)

    def ransac(self, max_error_px: float) -> RansacOptions:
        """The options of a robust estimator for these matches."""
        return self.options.ransac(max_error_px, progressive=self.is_ordered)


@dataclass(frozen=True, slots=True, eq=False)
class RelativeAnswer:
    """What a solver found, before anyone asked whether chance could have."""

    pose: Pose
    inliers: npt.NDArray[np.bool_]
    camera0: Camera
    camera1: Camera
    method: str

    @property
    def num_inliers(self) -> int:
        """Number of matches within the threshold."""
        return int(np.count_nonzero(self.inliers))


def by_essential(problem: RelativeProblem) -> RelativeAnswer | None:
    """5-point RANSAC with the problem's two cameras; matches on one plane are settled apart."""
    if problem.camera0 is None or problem.camera1 is None:
        raise InputError("camera0", "a camera, or a focal guess, for method essential", "None")
    options = problem.ransac(problem.options.max_epipolar_error_px)
    ends = problem.keypoints0, problem.keypoints1
    estimate = estimate_essential(*ends, problem.camera0, problem.camera1, options)
    if estimate is None:
        return None
    depths0 = None if problem.points0 is None else problem.points0[:, 2]
    estimate = settle_planes(*ends, estimate, options, depths0)
    return _answer(estimate, "essential")


def by_shared_focal(problem: RelativeProblem) -> RelativeAnswer | None:
    """6-point RANSAC for the pose and one focal of both images."""
    estimate = estimate_shared_focal(
        problem.keypoints0,
        problem.keypoints1,
        problem.size0,
        problem.size1,
        problem.ransac(problem.options.max_epipolar_error_px),
    )
    if estimate is None:
        return None
    answer = _answer(estimate, "shared_focal")
    if problem.options.estimator == "magsac":  # it has no focal solver: it takes over from here
        known = replace(problem, camera0=answer.camera0, camera1=answer.camera1)
        polished = by_essential(known)
        if polished is not None:
            return replace(polished, method="shared_focal")
    return answer


def by_pnp(problem: RelativeProblem) -> RelativeAnswer | None:
    """Camera 1 against the pointmap of image 0 (or, without it, its own in camera 0's frame)."""
    points = problem.points1 if problem.points0 is None else problem.points0
    if points is None or problem.camera0 is None or problem.camera1 is None:
        raise InputError(
            "points0", "pointmap points, and cameras or focal guesses, for method pnp", "None"
        )
    estimate = estimate_absolute_pose(
        problem.keypoints1,
        points,
        problem.camera1,
        problem.ransac(problem.options.max_reprojection_error_px),
    )
    if estimate is None:
        return None
    return RelativeAnswer(
        estimate.cam_from_world, estimate.inlier_mask, problem.camera0, problem.camera1, "pnp"
    )


def by_procrustes(problem: RelativeProblem) -> RelativeAnswer | None:
    """The pointmap of image 0 onto the pointmap of image 1, each in its own camera's frame."""
    if (
        problem.points0 is None
        or problem.points1_in_camera1 is None
        or problem.camera0 is None
        or problem.camera1 is None
    ):
        raise InputError(
            "points1_in_camera1",
            "points0 and points1_in_camera1, and cameras or focal guesses, for method procrustes",
            "None",
        )
    focal = float(np.mean(problem.camera1.focals))
    estimate = estimate_registration(
        problem.points0,
        problem.points1_in_camera1,
        max_relative_error=problem.options.max_reprojection_error_px / focal,
        kind="rigid" if problem.is_metric else "similarity",
        max_iterations=problem.options.max_iterations,
        confidence=problem.options.confidence,
        seed=problem.options.seed,
    )
    if estimate is None:
        return None
    found = estimate.registration
    # Two pointmaps of different scale: the translation in the unit of the first one's.
    pose = Pose(
        found.target_from_source.rotation, found.target_from_source.translation / found.scale
    )
    return RelativeAnswer(
        pose, estimate.inlier_mask, problem.camera0, problem.camera1, "procrustes"
    )


def _answer(estimate: EssentialEstimate, method: str) -> RelativeAnswer:
    return RelativeAnswer(
        estimate.cam1_from_cam0, estimate.inlier_mask, estimate.camera0, estimate.camera1, method
    )
