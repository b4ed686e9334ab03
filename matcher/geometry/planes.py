"""Matches that lie on one plane: which motion they mean, and how exactly.

Matches on a floor, a wall or a poster fix a homography, and a homography leaves up to two motions
with all points in front of both cameras (Faugeras and Lustman 1988; Ma, Soatto, Kosecka and Sastry,
"An Invitation to 3-D Vision", 5.3). Both agree with nearly the same matches, so that noise decides
which one RANSAC returns. They tilt the plane differently, though, and a pointmap knows its tilt.

The motion is also known better through the homography than through epipolar lines: every match
then says where it lies along its line, too.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from matcher.errors import InputError
from matcher.geometry.camera import undistort_keypoints, undistorted_camera
from matcher.geometry.essential import EssentialEstimate, epipolar_errors_px
from matcher.geometry.homography import (
    HomographyEstimate,
    estimate_homography,
    transfer_errors_px,
)
from matcher.geometry.pose import rotation_error_deg, unit_pose
from matcher.geometry.ransac import RansacOptions, expand_mask, poselib_camera
from matcher.geometry.triangulation import triangulate
from matcher.structures import FloatArray, Pose

__all__ = ["depth_disagreement", "settle_planes"]

_FEWEST_MATCHES = 8
# Depth and sides are votes; so many matches, evenly chosen, do.
_MOST_ASKED = 400
# A homography has fewer degrees of freedom to follow the noise of points than epipolar lines.
_PLANE_TOLERANCE = 2.0
_PLANE_SHARE = 0.5
_IN_FRONT_SHARE = 0.9
_POLISH_ROUNDS = 3
# Of the development pairs and rendered ones whose answer a twin with seven tenths of the matches
# would change, all that got better had 0.93 of them or more, all that got worse less than 0.85.
_AS_MANY = 0.9
# Twins differ by more: the wrong one of a plane disagrees 2.5 to 9 times as much.
_CLEARLY_LESS = 0.7
# From here on the plane's own motion was the better one, if it kept as many matches.
_WHOLE_SHARE = 0.85
_HARDLY_FEWER = 0.97
# Of isotropic noise a match is off by 2.5 times as much along both axes as across its epipolar
# line (medians). Relief of less than the threshold is 7 to 16 times off, and no plane.
_LARGEST_RATIO = 4.0


def settle_planes(
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    estimate: EssentialEstimate,
    options: RansacOptions,
    depths0: npt.ArrayLike | None = None,
) -> EssentialEstimate:
    """The pose found, unless its matches lie on a plane and another motion is the better answer.

    Where half of the agreeing matches follow a homography and two motions explain them, predicted
    depth decides, if it is given and clear. Where nearly all of them do, the motion comes from the
    homography.

    Args:
        keypoints0: (M, 2) pixels in image 0, as photographed.
        keypoints1: (M, 2) the same in image 1.
        estimate: what epipolar geometry found in these matches.
        options: those it was found with.
        depths0: (M,) depth in camera 0 that was predicted at ``keypoints0``, in any unit; what is
            not finite or not positive is not asked.

    Returns:
        ``estimate`` itself, or one with another pose and the matches that agree with it.

    Raises:
        InputError: not one depth a match.
    """
    depths = None if depths0 is None else np.asarray(depths0, dtype=np.float64)
    if depths is not None and depths.shape != (len(keypoints0),):
        raise InputError("depths0", f"shape ({len(keypoints0)},)", f"{depths.shape}")
    # Homographies and motions are those of pinholes: the lens is taken out once.
    pinholes = replace(
        estimate,
        camera0=undistorted_camera(estimate.camera0),
        camera1=undistorted_camera(estimate.camera1),
    )
    pixels0 = undistort_keypoints(keypoints0, estimate.camera0)
    pixels1 = undistort_keypoints(keypoints1, estimate.camera1)
    plane = _find_plane(pixels0, pixels1, pinholes, options)
    if plane is None:
        return estimate
    is_flat = _is_flat(pixels0, pixels1, pinholes, plane)
    if depths is None and not is_flat:
        return estimate
    motions = _motions(pixels0, pixels1, pinholes, plane)
    best = pinholes
    if depths is not None:
        best = _by_depth(pixels0, pixels1, depths, pinholes, motions, options)
    if is_flat:
        best = _by_homography(pixels0, pixels1, best, motions, options)
    if best is pinholes:
        return estimate
    return replace(estimate, cam1_from_cam0=best.cam1_from_cam0, inlier_mask=best.inlier_mask)


def depth_disagreement(measured: FloatArray, predicted: FloatArray) -> float:
    """Mean absolute difference of the logarithms of depths, after one scale for all of them.

    Args:
        measured: (M,) depths; not finite or not positive ones do not count.
        predicted: (M,) the same points' depths from elsewhere, in another unit.

    Returns:
        0.1 for depths that are off by about a tenth; infinity with fewer than 8 to compare.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = np.log(measured) - np.log(predicted)
    ratios = ratios[np.isfinite(ratios)]
    if len(ratios) < _FEWEST_MATCHES:
        return float("inf")
    return float(np.mean(np.abs(ratios - np.median(ratios))))


def _find_plane(
    pixels0: FloatArray, pixels1: FloatArray, estimate: EssentialEstimate, options: RansacOptions
) -> HomographyEstimate | None:
    """The homography that at least half of the agreeing matches follow; its mask is over all."""
    agreed = estimate.inlier_mask
    tolerance = _PLANE_TOLERANCE * options.max_error_px
    # Nearly all the matches that agree are right: there is no order to try them in.
    search = replace(options, max_error_px=tolerance, progressive=False)
    found = estimate_homography(pixels0[agreed], pixels1[agreed], search)
    if found is None or found.num_inliers < max(
        _FEWEST_MATCHES, _PLANE_SHARE * estimate.num_inliers
    ):
        return None
    return replace(found, inlier_mask=expand_mask(agreed, found.inlier_mask))


def _is_flat(
    pixels0: FloatArray, pixels1: FloatArray, estimate: EssentialEstimate, plane: HomographyEstimate
) -> bool:
    """Whether nearly all agreeing matches lie on the plane, none standing out but for noise."""
    if plane.num_inliers < _WHOLE_SHARE * estimate.num_inliers:
        return False
    agreed = estimate.inlier_mask
    ends = pixels0[agreed], pixels1[agreed]
    forward = transfer_errors_px(*ends, plane.image1_from_image0)
    backward = transfer_errors_px(*ends[::-1], np.linalg.inv(plane.image1_from_image0))
    across = epipolar_errors_px(*ends, estimate.camera0, estimate.camera1, estimate.cam1_from_cam0)
    along_both = np.sqrt(np.median(forward) * np.median(backward))
    return bool(along_both <= _LARGEST_RATIO * np.median(across))


def _motions(
    pixels0: FloatArray, pixels1: FloatArray, estimate: EssentialEstimate, plane: HomographyEstimate
) -> list[Pose]:
    """The motions of a homography that put the plane before both cameras; unit translations."""
    cameras = estimate.camera0, estimate.camera1
    k0, k1 = (camera.matrix for camera in cameras)
    rays1_from_rays0 = np.linalg.inv(k1) @ plane.image1_from_image0 @ k0
    asked = _some(np.flatnonzero(plane.inlier_mask))
    motions = []
    # OpenCV leaves it to the caller which motions see the points; half of them put the plane
    # behind the cameras.
    _, rotations, translations, _ = cv2.decomposeHomographyMat(rays1_from_rays0, np.eye(3))
    for rotation, translation in zip(rotations, translations, strict=True):
        pose = unit_pose(rotation, translation[:, 0])
        if pose is None:
            continue
        points = triangulate(pixels0[asked], pixels1[asked], *cameras, pose)
        if np.isfinite(points[:, 2]).mean() >= _IN_FRONT_SHARE:
            motions.append(pose)
    return motions


def _by_depth(
    pixels0: FloatArray,
    pixels1: FloatArray,
    depths: FloatArray,
    estimate: EssentialEstimate,
    motions: list[Pose],
    options: RansacOptions,
) -> EssentialEstimate:
    """The one of the plane's motions, fitted to all matches, that depth clearly speaks for."""
    best = estimate
    least = _CLEARLY_LESS * _disagreement(pixels0, pixels1, depths, estimate)
    if not np.isfinite(least):
        return estimate
    for motion in motions:
        pose = _polish(pixels0, pixels1, estimate, motion, options.max_error_px)
        if pose is None:
            continue
        twin = _with_pose(pixels0, pixels1, estimate, pose, options)
        if twin.num_inliers < _AS_MANY * estimate.num_inliers:
            continue
        disagreement = _disagreement(pixels0, pixels1, depths, twin)
        if disagreement <= least:
            best, least = twin, disagreement
    return best


def _by_homography(
    pixels0: FloatArray,
    pixels1: FloatArray,
    estimate: EssentialEstimate,
    motions: list[Pose],
    options: RansacOptions,
) -> EssentialEstimate:
    """The plane's motion nearest to the pose, if hardly a match is lost by it."""
    if not motions:
        return estimate
    rotation = estimate.cam1_from_cam0.rotation
    nearest = min(motions, key=lambda one: rotation_error_deg(one.rotation, rotation))
    exact = _with_pose(pixels0, pixels1, estimate, nearest, options)
    return exact if exact.num_inliers >= _HARDLY_FEWER * estimate.num_inliers else estimate


def _some(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    return rows[:: max(1, len(rows) // _MOST_ASKED)]


def _with_pose(
    pixels0: FloatArray,
    pixels1: FloatArray,
    estimate: EssentialEstimate,
    pose: Pose,
    options: RansacOptions,
) -> EssentialEstimate:
    errors = epipolar_errors_px(pixels0, pixels1, estimate.camera0, estimate.camera1, pose)
    return replace(estimate, cam1_from_cam0=pose, inlier_mask=errors <= options.max_error_px)


def _disagreement(
    pixels0: FloatArray, pixels1: FloatArray, depths: FloatArray, estimate: EssentialEstimate
) -> float:
    asked = _some(np.flatnonzero(estimate.inlier_mask))
    points = triangulate(
        pixels0[asked],
        pixels1[asked],
        estimate.camera0,
        estimate.camera1,
        estimate.cam1_from_cam0,
    )
    return depth_disagreement(points[:, 2], depths[asked])


def _polish(
    pixels0: FloatArray,
    pixels1: FloatArray,
    estimate: EssentialEstimate,
    pose: Pose,
    max_error_px: float,
) -> Pose | None:
    """The pose fitted to the matches near it, a few times over."""
    cameras = estimate.camera0, estimate.camera1
    for _ in range(_POLISH_ROUNDS):
        errors = epipolar_errors_px(pixels0, pixels1, *cameras, pose)
        near = errors <= _PLANE_TOLERANCE * max_error_px
        if np.count_nonzero(near) < _FEWEST_MATCHES:
            return None
        start = poselib.CameraPose()
        start.R, start.t = pose.rotation, pose.translation
        found, _ = poselib.refine_relative_pose(
            pixels0[near],
            pixels1[near],
            start,
            poselib_camera(cameras[0]),
            poselib_camera(cameras[1]),
            {"loss_type": "TRUNCATED", "loss_scale": max_error_px},
        )
        fitted = unit_pose(found.R, found.t)
        if fitted is None:
            return None
        pose = fitted
    return pose
