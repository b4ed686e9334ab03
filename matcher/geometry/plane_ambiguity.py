"""Two motions explain the matches of one plane; the depth that a network sees tells which is true.

Matches on a floor, a wall or a poster fix a homography, and a homography leaves up to two motions
with all points in front of both cameras (Faugeras and Lustman 1988; Ma, Soatto, Kosecka and Sastry,
"An Invitation to 3-D Vision", 5.3). Both agree with nearly the same matches, so that noise decides
which one RANSAC returns. They tilt the plane differently, though, and a pointmap knows its tilt.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from matcher.errors import InputError
from matcher.geometry.camera import undistort_keypoints
from matcher.geometry.essential import EssentialEstimate, epipolar_errors_px, unit_pose
from matcher.geometry.homography import estimate_homography
from matcher.geometry.ransac import RansacOptions, poselib_camera
from matcher.geometry.triangulation import triangulate
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["choose_by_depth", "depth_disagreement"]

_FEWEST_MATCHES = 8
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


def choose_by_depth(
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    depths0: npt.ArrayLike,
    estimate: EssentialEstimate,
    options: RansacOptions,
) -> EssentialEstimate:
    """The pose found, or its twin where a plane leaves both open and depth speaks for the other.

    Args:
        keypoints0: (M, 2) pixels in image 0, as photographed.
        keypoints1: (M, 2) the same in image 1.
        depths0: (M,) depth in camera 0 that was predicted at ``keypoints0``, in any unit; what is
            not finite or not positive is not asked.
        estimate: what epipolar geometry found in these matches.
        options: those it was found with.

    Returns:
        ``estimate`` itself, or one with the other pose and the matches that agree with it.

    Raises:
        InputError: not one depth a match.
    """
    depths = np.asarray(depths0, dtype=np.float64)
    if depths.shape != (len(keypoints0),):
        raise InputError("depths0", f"shape ({len(keypoints0)},)", f"{depths.shape}")
    best = estimate
    least = _CLEARLY_LESS * _disagreement(keypoints0, keypoints1, depths, estimate)
    if not np.isfinite(least):
        return estimate
    for pose in _motions_of_the_plane(keypoints0, keypoints1, estimate, options):
        errors = epipolar_errors_px(
            keypoints0, keypoints1, estimate.camera0, estimate.camera1, pose
        )
        twin = replace(estimate, cam1_from_cam0=pose, inlier_mask=errors <= options.max_error_px)
        if twin.num_inliers < _AS_MANY * estimate.num_inliers:
            continue
        disagreement = _disagreement(keypoints0, keypoints1, depths, twin)
        if disagreement <= least:
            best, least = twin, disagreement
    return best


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


def _disagreement(
    keypoints0: FloatArray, keypoints1: FloatArray, depths: FloatArray, estimate: EssentialEstimate
) -> float:
    agreed = estimate.inlier_mask
    points = triangulate(
        keypoints0[agreed],
        keypoints1[agreed],
        estimate.camera0,
        estimate.camera1,
        estimate.cam1_from_cam0,
    )
    return depth_disagreement(points[:, 2], depths[agreed])


def _motions_of_the_plane(
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    estimate: EssentialEstimate,
    options: RansacOptions,
) -> Iterator[Pose]:
    """Motions of the homography that most of the agreeing matches follow, fitted to all matches."""
    cameras = _without_lens(estimate.camera0), _without_lens(estimate.camera1)
    pixels0 = undistort_keypoints(keypoints0, estimate.camera0)
    pixels1 = undistort_keypoints(keypoints1, estimate.camera1)
    agreed = estimate.inlier_mask
    tolerance = _PLANE_TOLERANCE * options.max_error_px
    plane = estimate_homography(
        pixels0[agreed], pixels1[agreed], replace(options, max_error_px=tolerance)
    )
    if plane is None or plane.num_inliers < max(
        _FEWEST_MATCHES, _PLANE_SHARE * estimate.num_inliers
    ):
        return
    on_plane = np.flatnonzero(agreed)[plane.inlier_mask]
    k0, k1 = (camera.matrix for camera in cameras)
    rays1_from_rays0 = np.linalg.inv(k1) @ plane.image1_from_image0 @ k0
    # OpenCV leaves it to the caller which motions see the points: those of its normals that face
    # away from them belong to the same plane behind the cameras.
    _, rotations, translations, _ = cv2.decomposeHomographyMat(rays1_from_rays0, np.eye(3))
    for rotation, translation in zip(rotations, translations, strict=True):
        motion = poselib.CameraPose()
        motion.R, motion.t = rotation, translation[:, 0]
        pose = unit_pose(motion)
        if pose is None:
            continue
        points = triangulate(pixels0[on_plane], pixels1[on_plane], *cameras, pose)
        if np.isfinite(points[:, 2]).mean() < _IN_FRONT_SHARE:
            continue
        polished = _polish(pixels0, pixels1, cameras, pose, options.max_error_px)
        if polished is not None:
            yield polished


def _polish(
    pixels0: FloatArray,
    pixels1: FloatArray,
    cameras: tuple[Camera, Camera],
    pose: Pose,
    max_error_px: float,
) -> Pose | None:
    """The pose fitted to the matches near it, a few times over."""
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
        fitted = unit_pose(found)
        if fitted is None:
            return None
        pose = fitted
    return pose


def _without_lens(camera: Camera) -> Camera:
    return Camera.pinhole(*camera.focals, *camera.principal_point, camera.size)
