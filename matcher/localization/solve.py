"""From correspondences to an absolute pose: the part of localization that needs no network.

How many correspondences agree with the best pose when all are wrong? Measured with PoseLib's
LO-RANSAC on random pixels of 640 x 480 with random points of one to four photographs of a room (6
draws a cell, 20,000 iterations, the largest count met):

    correspondences          50   100   200   500   1,000   2,000   5,000
    within 0.8 % of diagonal  4     5     6     6       7       9      13
    we ask for                9    10    11    15      21      34      71
    within 1.6 %              5     7     8    10      11      15
    we ask for               11    14    19    34      59     109

and never for fewer than ``min_inliers``. The count grows by ``p`` a correspondence, ``p`` the share
of the image within the threshold of a pixel; the search multiplies that by choosing, about six
times here. Matches of photographs of two places are worse than random ones, because neighbours err
together: of the bundled model's with two references each, 106 of 22,702 and 128 of 25,101 agreed,
eleven and twelve times ``p``. We ask for thirty times, about one correspondence in eighty at 0.8 %;
with a smaller share of right ones the search would hardly find them.

Correspondences of one place of the query with several references err together too, so agreeing
places are counted, not correspondences: any pose that brings some points to one spot agrees with
all that end there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from matcher.geometry.camera import camera_from_focal
from matcher.geometry.covariance import pose_covariance
from matcher.geometry.pnp import AbsolutePoseEstimate, estimate_absolute_pose
from matcher.geometry.pnp_focal import estimate_pose_and_focal
from matcher.localization.answer import AbsolutePose, UsedReference
from matcher.localization.correspondences import Correspondences
from matcher.localization.options import LocalizationOptions
from matcher.structures import Camera, FloatArray, ImageSize

__all__ = ["required_inliers", "solve_pose"]

_CHANCE_OFFSET = 8
_CHANCE_FACTOR = 30.0


def required_inliers(
    num_correspondences: int, size: ImageSize, max_error_px: float, min_inliers: int
) -> int:
    """Inliers below which a pose may be the work of chance (the module's table)."""
    share = min(math.pi * max_error_px**2 / (size.height * size.width), 1.0)
    by_chance = _CHANCE_OFFSET + _CHANCE_FACTOR * share * num_correspondences
    return max(min_inliers, math.ceil(by_chance))


def solve_pose(
    correspondences: Correspondences,
    references: Sequence[UsedReference],
    camera: Camera | None,
    size: ImageSize,
    options: LocalizationOptions,
    *,
    is_metric: bool = False,
    focal_guess: float | None = None,
) -> AbsolutePose:
    """The pose that most correspondences agree with, if more do than chance explains.

    Args:
        correspondences: of the query; ``reference`` counts ``references``.
        references: what the query was matched with; their inliers are counted here.
        camera: the query's intrinsics, or ``None``: the focal is estimated too (square pixels, the
            principal point in the middle, no lens).
        size: of the query.
        options: threshold, iterations, seed.
        is_metric: whether the points are in metres.
        focal_guess: pixels, where the camera is not known.

    Returns:
        The answer; its references are sorted, the most inliers first.
    """
    ransac = options.ransac(size)
    pixels, points = correspondences.keypoints, correspondences.points
    if camera is None:
        both = estimate_pose_and_focal(pixels, points, size, ransac, focal_guess=focal_guess)
        estimate = None if both is None else both[0]
        used_camera = None if both is None else camera_from_focal(both[1], size)
    else:
        estimate, used_camera = estimate_absolute_pose(pixels, points, camera, ransac), camera
    reason = _why_not(estimate, correspondences, size, options)
    if reason is not None or estimate is None or used_camera is None:
        return AbsolutePose.none(reason or "no pose", references, correspondences)
    inliers = estimate.inlier_mask
    ordered, numbered = _by_inliers(references, correspondences, inliers)
    return AbsolutePose(
        estimate.cam_from_world,
        ordered,
        numbered,
        inliers,
        used_camera,
        pose_covariance(pixels[inliers], points[inliers], used_camera, estimate.cam_from_world),
        is_metric,
        "pnp" if camera is not None else "pnp_focal",
    )


def _why_not(
    estimate: AbsolutePoseEstimate | None,
    correspondences: Correspondences,
    size: ImageSize,
    options: LocalizationOptions,
) -> str | None:
    """One sentence where there is no answer."""
    count = len(correspondences)
    if not count:
        return "no match with a reference shows a point that the map knows"
    if count < options.min_inliers:
        return (
            f"{count} places of the query show points of the map; {options.min_inliers} are needed"
        )
    if estimate is None:
        return f"no pose agrees with the {count} places of the query that show points of the map"
    max_error_px = options.ransac(size).max_error_px
    needed = required_inliers(count, size, max_error_px, options.min_inliers)
    places = _num_places(correspondences.keypoints[estimate.inlier_mask], max_error_px)
    if places >= needed:
        return None
    return (
        f"only {estimate.num_inliers} of {count} correspondences agree on a pose, at {places} "
        f"places of the query; wrong ones could do as well with fewer than {needed}"
    )


def _num_places(pixels: FloatArray, max_error_px: float) -> int:
    """How many squares of the threshold's side hold a pixel, (N, 2)."""
    return len(np.unique(np.floor(pixels / max_error_px), axis=0))


def _by_inliers(
    references: Sequence[UsedReference],
    correspondences: Correspondences,
    inliers: npt.NDArray[np.bool_],
) -> tuple[tuple[UsedReference, ...], Correspondences]:
    """The references with their inliers, most first, and the correspondences renumbered."""
    counts = np.bincount(correspondences.reference[inliers], minlength=len(references))
    order = np.argsort(-counts, kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    ordered = tuple(replace(references[row], num_inliers=int(counts[row])) for row in order)
    return ordered, replace(correspondences, reference=place[correspondences.reference])
