"""The relative pose of two photographs, by the solver that fits what is known.

==========================  ==================  ==============================================
known                       method              what it does
==========================  ==================  ==============================================
both cameras                essential           5-point LO-RANSAC, or MAGSAC++
one camera                  essential           the other focal: its guess, else the same lens
focals from EXIF or         essential           5-point with those focals; the shared-focal
pointmaps                                       answer instead where clearly more matches agree
nothing                     shared_focal        6-point LO-RANSAC
pointmaps (on request)      pnp, procrustes     image 1 against the points of image 0
==========================  ==================  ==============================================

Where the matches that agree with an essential matrix lie on one plane,
:mod:`matcher.geometry.planes` settles the pose, with the depth of ``points0`` where it is given.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.camera import camera_from_focal
from matcher.geometry.essential import epipolar_errors_px
from matcher.geometry.ransac import expand_mask, finite_rows
from matcher.geometry.relative_solvers import (
    RelativeAnswer,
    RelativeMethod,
    RelativePoseOptions,
    RelativeProblem,
    by_essential,
    by_pnp,
    by_procrustes,
    by_shared_focal,
)
from matcher.geometry.support import (
    is_collinear,
    required_inliers,
    rotation_only_displacements_px,
    translation_is_observable,
)
from matcher.geometry.triangulation import triangulate
from matcher.structures import Camera, FloatArray, ImageSize, Pose, RelativePose

__all__ = ["RelativeMethod", "RelativePoseOptions", "estimate_relative_pose"]

_MIN_MATCHES = {"essential": 5, "shared_focal": 6, "pnp": 4, "procrustes": 4}
# The shared-focal solver has one more degree of freedom to collect inliers with: it replaces the
# focals of the pointmaps only with clearly more of them.
_ORDER_FACTOR = 1.5
_UNKNOWN_FOCAL_FACTOR = 2.0
_SHARED_FOCAL_ADVANTAGE = 1.1
_COLLINEAR_TOLERANCE_PX = 1.0
_NO_BASELINE = (
    "a rotation alone explains the matches: the two photographs were taken from the same place, "
    "so the direction of the translation cannot be seen"
)


def estimate_relative_pose(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    *,
    camera0: Camera | None,
    camera1: Camera | None,
    size0: ImageSize,
    size1: ImageSize,
    options: RelativePoseOptions | None = None,
    confidence: npt.ArrayLike | None = None,
    points0: npt.ArrayLike | None = None,
    points1: npt.ArrayLike | None = None,
    points1_in_camera1: npt.ArrayLike | None = None,
    focal0_guess: float | None = None,
    focal1_guess: float | None = None,
    is_metric: bool = False,
) -> RelativePose:
    """Where camera 1 stood relative to camera 0, or why that cannot be said.

    Args:
        keypoints0: (M, 2) pixels of original image 0, x then y.
        keypoints1: (M, 2) the same in image 1. Rows with NaN never count as inliers.
        camera0: intrinsics of image 0, if known; its lens distortion is removed.
        camera1: intrinsics of image 1, if known.
        size0: size of original image 0.
        size1: size of original image 1.
        options: solver, thresholds, seed.
        confidence: (M,) how likely each match is right; the likely ones are then tried first
            (``RansacOptions.progressive``). Only its order counts.
        points0: (M, 3) pointmap at the keypoints of image 0, in camera 0's frame.
        points1: (M, 3) pointmap at the keypoints of image 1, in camera 0's frame too.
        points1_in_camera1: (M, 3) the same in camera 1's frame; ``"procrustes"`` needs it.
        focal0_guess: focal of image 0 from its file or its pointmap, original pixels.
        focal1_guess: the same for image 1.
        is_metric: the pointmaps are in metres; then the translation is too.

    Returns:
        The pose ``cam1_from_cam0``, its inliers among the M matches and the cameras used; or no
        pose and a reason. The translation has length 1 unless ``is_metric`` and pointmaps are
        given.

    Raises:
        InputError: wrong shapes, or a method whose inputs are missing.
    """
    options = options or RelativePoseOptions()
    rows, (pixels0, pixels1) = finite_rows(
        ("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2)
    )
    num_matches = len(rows)
    order = _likeliest_first(confidence, rows)
    uncalibrated = camera0 is None and camera1 is None
    camera0, camera1 = _complete_cameras(camera0, camera1, size0, size1, focal0_guess, focal1_guess)
    problem = RelativeProblem(
        keypoints0=pixels0[order],
        keypoints1=pixels1[order],
        camera0=camera0,
        camera1=camera1,
        size0=size0,
        size1=size1,
        options=options,
        points0=_points_at("points0", points0, rows, order),
        points1=_points_at("points1", points1, rows, order),
        points1_in_camera1=_points_at("points1_in_camera1", points1_in_camera1, rows, order),
        is_metric=is_metric,
        is_ordered=confidence is not None,
    )
    answer = _solve(problem, uncalibrated)
    if isinstance(answer, str):
        return RelativePose.none(num_matches, answer)
    reason = _why_not(problem, answer, uncalibrated)
    if reason is not None:
        return RelativePose.none(num_matches, reason)
    pose, in_metres = _scale(problem, answer)
    inliers = np.zeros_like(answer.inliers)
    inliers[order] = answer.inliers
    return RelativePose(
        pose,
        expand_mask(rows, inliers),
        method=answer.method,
        is_metric=in_metres,
        camera0=answer.camera0,
        camera1=answer.camera1,
    )


def _solve(problem: RelativeProblem, uncalibrated: bool) -> RelativeAnswer | str:
    """The estimator's answer, or a reason why there is none."""
    method = problem.options.method
    if method == "auto":
        method = "shared_focal" if problem.camera0 is None else "essential"
    if len(problem) < _MIN_MATCHES[method]:
        return (
            f"{len(problem)} usable matches; the method {method} needs "
            f"at least {_MIN_MATCHES[method]}"
        )
    tolerance = _COLLINEAR_TOLERANCE_PX
    if is_collinear(problem.keypoints0, tolerance) or is_collinear(problem.keypoints1, tolerance):
        return "the matches lie on one line or in one point, which many poses explain equally"
    if method == "pnp":
        answer = by_pnp(problem)
    elif method == "procrustes":
        answer = by_procrustes(problem)
    elif method == "shared_focal":
        answer = by_shared_focal(problem)
    else:
        answer = by_essential(problem)
        if problem.options.method == "auto" and uncalibrated:
            answer = _better(answer, by_shared_focal(problem))
    return answer or f"no pose agrees with enough of the {len(problem)} matches"


def _better(
    with_guess: RelativeAnswer | None, shared: RelativeAnswer | None
) -> RelativeAnswer | None:
    if with_guess is None or shared is None:
        return with_guess or shared
    more = shared.num_inliers > _SHARED_FOCAL_ADVANTAGE * with_guess.num_inliers
    return shared if more else with_guess


def _why_not(problem: RelativeProblem, answer: RelativeAnswer, uncalibrated: bool) -> str | None:
    """A reason to hold an answer back, or ``None``."""
    options = problem.options
    needed = required_inliers(
        len(problem),
        problem.size0,
        problem.size1,
        options.max_epipolar_error_px,
        options.min_inliers,
    )
    # The table holds for matches that are wrong at random. Those of two unrelated photographs are
    # wrong in an orderly way: up to 1.9 times as many agreed, most with focals left open.
    needed = math.ceil((_UNKNOWN_FOCAL_FACTOR if uncalibrated else _ORDER_FACTOR) * needed)
    if answer.num_inliers < needed:
        return (
            f"{answer.num_inliers} of {len(problem)} matches agree on a pose, which chance could "
            f"do; {needed} are needed"
        )
    inliers0 = problem.keypoints0[answer.inliers]
    inliers1 = problem.keypoints1[answer.inliers]
    tolerance = _COLLINEAR_TOLERANCE_PX
    if is_collinear(inliers0, tolerance) or is_collinear(inliers1, tolerance):
        return "the matches that agree lie on one line, which many poses explain equally"
    if answer.method in ("pnp", "procrustes") and problem.is_metric:
        return None  # metric points tell that nothing moved: a translation of 0 is an answer
    cameras = answer.camera0, answer.camera1
    displacements = rotation_only_displacements_px(
        inliers0, inliers1, *cameras, answer.pose.rotation
    )
    if answer.method in ("pnp", "procrustes"):
        limit = options.max_epipolar_error_px
        return None if np.nanmedian(displacements) > limit else _NO_BASELINE
    errors = epipolar_errors_px(problem.keypoints0, problem.keypoints1, *cameras, answer.pose)
    observable = translation_is_observable(displacements, errors, options.max_epipolar_error_px)
    return None if observable else _NO_BASELINE


def _scale(problem: RelativeProblem, answer: RelativeAnswer) -> tuple[Pose, bool]:
    """The pose with a translation in metres where the pointmaps are, of length 1 elsewhere."""
    length = float(np.linalg.norm(answer.pose.translation))
    if answer.method in ("pnp", "procrustes"):
        if problem.is_metric or length == 0:
            return answer.pose, problem.is_metric
        return Pose(answer.pose.rotation, answer.pose.translation / length), False
    if not problem.is_metric or (problem.points0 is None and problem.points1 is None):
        return answer.pose, False
    scale = _metres_per_unit(problem, answer)
    if scale is None:
        return answer.pose, False
    return Pose(answer.pose.rotation, scale * answer.pose.translation), True


def _metres_per_unit(problem: RelativeProblem, answer: RelativeAnswer) -> float | None:
    """Median ratio of the pointmaps' depths (camera 0) to the triangulated depths of inliers."""
    inliers = answer.inliers
    depth = triangulate(
        problem.keypoints0[inliers],
        problem.keypoints1[inliers],
        answer.camera0,
        answer.camera1,
        answer.pose,
    )[:, 2]
    ratios = [
        points[inliers, 2] / depth
        for points in (problem.points0, problem.points1)
        if points is not None
    ]
    usable = np.concatenate(ratios)
    usable = usable[np.isfinite(usable) & (usable > 0)]
    return float(np.median(usable)) if len(usable) else None


def _complete_cameras(
    camera0: Camera | None,
    camera1: Camera | None,
    size0: ImageSize,
    size1: ImageSize,
    focal0_guess: float | None,
    focal1_guess: float | None,
) -> tuple[Camera | None, Camera | None]:
    """Both cameras, by guesses where one is missing; neither, where nothing is known."""
    long0, long1 = max(size0.height, size0.width), max(size1.height, size1.width)
    focal0 = _known_focal("focal0_guess", camera0, focal0_guess)
    focal1 = _known_focal("focal1_guess", camera1, focal1_guess)
    if focal0 is None and focal1 is not None:
        focal0 = focal1 * long0 / long1
    if focal1 is None and focal0 is not None:
        focal1 = focal0 * long1 / long0
    if focal0 is None or focal1 is None:
        return None, None
    return camera0 or camera_from_focal(focal0, size0), camera1 or camera_from_focal(focal1, size1)


def _known_focal(name: str, camera: Camera | None, guess: float | None) -> float | None:
    if camera is not None:
        return float(np.mean(camera.focals))
    if guess is not None and not (np.isfinite(guess) and guess > 0):
        raise InputError(name, "a positive number of pixels, or None", f"{guess}")
    return guess


def _likeliest_first(
    confidence: npt.ArrayLike | None, rows: npt.NDArray[np.bool_]
) -> npt.NDArray[np.intp]:
    """The order in which the usable matches are tried; as they came, without a confidence."""
    if confidence is None:
        return np.arange(np.count_nonzero(rows))
    values = np.asarray(confidence, dtype=np.float64)
    if values.shape != (len(rows),):
        raise InputError("confidence", f"shape ({len(rows)},)", f"{values.shape}")
    order: npt.NDArray[np.intp] = np.argsort(-values[rows], kind="stable")
    return order


def _points_at(
    name: str,
    points: npt.ArrayLike | None,
    rows: npt.NDArray[np.bool_],
    order: npt.NDArray[np.intp],
) -> FloatArray | None:
    if points is None:
        return None
    array = np.asarray(points, dtype=np.float64)
    if array.shape != (len(rows), 3):
        raise InputError(name, f"shape ({len(rows)}, 3)", f"{array.shape}")
    selected: FloatArray = array[rows][order]
    return selected
