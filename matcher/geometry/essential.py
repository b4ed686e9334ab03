"""Relative pose from correspondences, with known intrinsics or with one shared unknown focal."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import kornia.geometry as kornia_geometry
import numpy as np
import numpy.typing as npt
import poselib
import torch

from matcher.geometry.camera import camera_from_focal, normalize, undistort_keypoints
from matcher.geometry.pixels import image_center
from matcher.geometry.pose import essential_from_pose, pose_from_essential, unit_pose
from matcher.geometry.ransac import (
    RansacOptions,
    expand_mask,
    finite_rows,
    poselib_camera,
    poselib_options,
    usac_params,
)
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = [
    "EssentialEstimate",
    "epipolar_errors_px",
    "estimate_essential",
    "estimate_shared_focal",
]

_MIN_MATCHES_CALIBRATED = 5
_MIN_MATCHES_SHARED_FOCAL = 6
# Focals outside these multiples of the long side (113 to 3.6 degrees) are no photographs.
_FOCAL_RANGE = (0.33, 16.0)


@dataclass(frozen=True, slots=True, eq=False)
class EssentialEstimate:
    """A relative pose from epipolar geometry.

    Attributes:
        cam1_from_cam0: the pose; its translation has length 1.
        inlier_mask: (M,) bool, correspondences within the threshold.
        camera0: camera the estimate holds for (given, or with the focal that was found).
        camera1: the same for image 1.
    """

    cam1_from_cam0: Pose
    inlier_mask: npt.NDArray[np.bool_]
    camera0: Camera
    camera1: Camera

    @property
    def num_inliers(self) -> int:
        """Number of correspondences within the threshold."""
        return int(np.count_nonzero(self.inlier_mask))


def estimate_essential(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    camera0: Camera,
    camera1: Camera,
    options: RansacOptions | None = None,
) -> EssentialEstimate | None:
    """Relative pose of two calibrated cameras.

    Args:
        keypoints0: (M, 2) pixels in image 0, as photographed (the lens is removed here).
        keypoints1: (M, 2) the same in image 1. Rows with NaN count as outliers.
        camera0: intrinsics of image 0.
        camera1: intrinsics of image 1.
        options: the threshold is a Sampson error in pixels, weighted between the two images by
            their focals.

    Returns:
        The estimate, or ``None`` with fewer than 5 usable correspondences or no model.
    """
    options = options or RansacOptions()
    finite, (pixels0, pixels1) = finite_rows(
        ("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2)
    )
    invertible, (pixels0, pixels1) = finite_rows(
        ("keypoints0", undistort_keypoints(pixels0, camera0), 2),
        ("keypoints1", undistort_keypoints(pixels1, camera1), 2),
    )
    if len(pixels0) < _MIN_MATCHES_CALIBRATED:
        return None
    solve = _magsac if options.estimator == "magsac" else _poselib
    answer = solve(pixels0, pixels1, camera0, camera1, options)
    if answer is None:
        return None
    pose, inliers = answer
    mask = expand_mask(finite, expand_mask(invertible, inliers))
    return EssentialEstimate(pose, mask, camera0, camera1)


def estimate_shared_focal(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    size0: ImageSize,
    size1: ImageSize,
    options: RansacOptions | None = None,
) -> EssentialEstimate | None:
    """Relative pose of two photographs of one camera with unknown focal, by the 6-point solver.

    The focal is the same in units of the image's long side, pixels are square, and the principal
    point is the middle of the image. PoseLib solves it; ``options.estimator`` is ignored. Some
    motions, such as turning around a point that both optical axes meet, leave the focal open.

    Args:
        keypoints0: (M, 2) pixels in image 0.
        keypoints1: (M, 2) pixels in image 1. Rows with NaN count as outliers.
        size0: size of image 0.
        size1: size of image 1.
        options: the threshold is a Sampson error in pixels of image 0.

    Returns:
        The estimate with the cameras found, or ``None`` with fewer than 6 usable correspondences
        or no plausible focal.
    """
    options = options or RansacOptions()
    finite, (pixels0, pixels1) = finite_rows(
        ("keypoints0", keypoints0, 2), ("keypoints1", keypoints1, 2)
    )
    if len(pixels0) < _MIN_MATCHES_SHARED_FOCAL:
        return None
    long0, long1 = max(size0.height, size0.width), max(size1.height, size1.width)
    pair, info = poselib.estimate_shared_focal_relative_pose(
        pixels0 - np.array(image_center(size0)),
        (pixels1 - np.array(image_center(size1))) * (long0 / long1),
        np.zeros(2),
        poselib_options(options),
        {},
    )
    focal = float(pair.camera1.focal())
    pose = unit_pose(pair.pose.R, pair.pose.t)
    if pose is None or not _FOCAL_RANGE[0] <= focal / long0 <= _FOCAL_RANGE[1]:
        return None
    return EssentialEstimate(
        pose,
        expand_mask(finite, info["inliers"]),
        camera_from_focal(focal, size0),
        camera_from_focal(focal * long1 / long0, size1),
    )


def epipolar_errors_px(
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    camera0: Camera,
    camera1: Camera,
    cam1_from_cam0: Pose,
) -> FloatArray:
    """(M,) Sampson distances to a pose, pixels (in units of the mean of the two focals)."""
    rays0 = torch.from_numpy(normalize(keypoints0, camera0))[None]
    rays1 = torch.from_numpy(normalize(keypoints1, camera1))[None]
    essential = torch.from_numpy(essential_from_pose(cam1_from_cam0))[None]
    squared = kornia_geometry.sampson_epipolar_distance(rays0, rays1, essential, squared=True)
    errors: FloatArray = np.sqrt(squared[0].numpy()) / _pixel_in_ray_units(camera0, camera1)
    return errors


def _poselib(
    pixels0: FloatArray,
    pixels1: FloatArray,
    camera0: Camera,
    camera1: Camera,
    options: RansacOptions,
) -> tuple[Pose, npt.NDArray[np.bool_]] | None:
    found, info = poselib.estimate_relative_pose(
        pixels0,
        pixels1,
        poselib_camera(camera0),
        poselib_camera(camera1),
        poselib_options(options),
        {},
    )
    pose = unit_pose(found.R, found.t)
    return None if pose is None else (pose, np.array(info["inliers"], dtype=np.bool_))


def _magsac(
    pixels0: FloatArray,
    pixels1: FloatArray,
    camera0: Camera,
    camera1: Camera,
    options: RansacOptions,
) -> tuple[Pose, npt.NDArray[np.bool_]] | None:
    try:
        essential, mask = cv2.findEssentialMat(
            pixels0, pixels1, camera0.matrix, camera1.matrix, None, None, usac_params(options)
        )
    except cv2.error:  # OpenCV throws where its solver finds no model at all
        return None
    if essential is None or essential.shape != (3, 3) or not np.isfinite(essential).all():
        return None
    inliers = mask.reshape(-1).astype(np.bool_)
    rays0 = (pixels0 - np.array(camera0.principal_point)) / np.array(camera0.focals)
    rays1 = (pixels1 - np.array(camera1.principal_point)) / np.array(camera1.focals)
    pose = pose_from_essential(essential, rays0[inliers], rays1[inliers])
    return None if pose is None else (pose, inliers)


def _pixel_in_ray_units(camera0: Camera, camera1: Camera) -> float:
    focals = [float(np.mean(camera.focals)) for camera in (camera0, camera1)]
    return 0.5 * (1 / focals[0] + 1 / focals[1])
