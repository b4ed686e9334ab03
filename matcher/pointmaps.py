"""Both pointmaps of a pair, and how matches with a known pose make them better."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.geometry.camera import unproject
from matcher.geometry.depth_correction import correct_depth
from matcher.geometry.focal import estimate_focal
from matcher.geometry.pixels import to_original, transform_keypoints
from matcher.geometry.procrustes import fit_registration
from matcher.geometry.triangulation import triangulate, triangulation_angles_deg
from matcher.structures import Camera, FloatArray, RelativePose, as_keypoints

__all__ = ["Pointmaps", "RefinedPointmaps", "refine_pointmaps", "sample_points"]

_FOCAL_RATIOS = (0.5, 3.5)
"""Focals from pointmaps are clipped to these multiples of that of a 60 degree view."""

# Rays that meet at less say nothing; from the other angle on, a depth is trusted in full.
_LEAST_ANGLE_DEG, _FULL_ANGLE_DEG = 1.0, 4.0
_FEWEST_POINTS = 30
_REGISTRATION_ROUNDS = 5


@dataclass(frozen=True, slots=True, eq=False)
class Pointmaps:
    """Both pointmaps of a pair at network resolution, in camera 0's frame.

    Attributes:
        points0: (h0, w0, 3) float32, points of image 0.
        points1: (h1, w1, 3) float32, points of image 1, also in camera 0's frame.
        confidence0: (h0, w0) confidence of ``points0``.
        confidence1: (h1, w1) confidence of ``points1``.
        original0_from_network: (3, 3), pixels of the pointmap to pixels of photograph 0.
        original1_from_network: (3, 3), the same for photograph 1.
        points1_in_camera1: (h1, w1, 3) points of image 1 in its own frame, where the pair was
            matched symmetrically, or ``None``.
    """

    points0: npt.NDArray[np.float32]
    points1: npt.NDArray[np.float32]
    confidence0: npt.NDArray[np.float32]
    confidence1: npt.NDArray[np.float32]
    original0_from_network: FloatArray
    original1_from_network: FloatArray
    points1_in_camera1: npt.NDArray[np.float32] | None = None

    def focal0(self) -> float | None:
        """Focal of photograph 0 from its pointmap, original pixels (Weiszfeld)."""
        return _focal(self.points0, self.original0_from_network)

    def focal1(self) -> float | None:
        """The same for photograph 1; ``None`` unless the pair was matched symmetrically."""
        if self.points1_in_camera1 is None:
            return None
        return _focal(self.points1_in_camera1, self.original1_from_network)


def _focal(points: npt.NDArray[np.float32], original_from_network: FloatArray) -> float | None:
    low, high = _FOCAL_RATIOS
    focal = estimate_focal(points, min_ratio=low, max_ratio=high)
    if focal is None:
        return None
    return focal * float(np.sqrt(original_from_network[0, 0] * original_from_network[1, 1]))


def sample_points(
    points: npt.NDArray[np.float32], keypoints: FloatArray, original_from_network: FloatArray
) -> FloatArray:
    """(M, 3) points at original pixels, bilinear in the pointmap."""
    moved = transform_keypoints(np.linalg.inv(original_from_network), keypoints)
    # OpenCV remaps at most 32767 rows: one row of the target a keypoint, in columns of one pixel.
    chunks = [
        cv2.remap(
            points,
            part[:, None, 0].astype(np.float32),
            part[:, None, 1].astype(np.float32),
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )[:, 0]
        for part in np.array_split(moved, len(moved) // 30_000 + 1)
    ]
    return np.concatenate(chunks).astype(np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class RefinedPointmaps:
    """Pointmaps that agree with the matches, or why there are none.

    Attributes:
        pointmaps: in camera 0's frame, in the unit of the pose's translation, or ``None``.
        num_points: how many matches measured a depth.
        reason: ``None`` with pointmaps; otherwise one sentence that says why there are none.
    """

    pointmaps: Pointmaps | None
    num_points: int
    reason: str | None = None


def refine_pointmaps(
    maps: Pointmaps, keypoints0: npt.ArrayLike, keypoints1: npt.ArrayLike, pose: RelativePose
) -> RefinedPointmaps:
    """Bring both pointmaps to the points where the rays of matches meet.

    Each photograph's depth is multiplied by a factor that is smooth on every surface
    (:func:`matcher.geometry.depth_correction.correct_depth`), and its points are put on the rays of
    its camera. The confidences stay.

    Args:
        maps: of the pair.
        keypoints0: (M, 2) pixels of photograph 0.
        keypoints1: (M, 2) pixels of photograph 1.
        pose: of these matches; its inliers and cameras are used.

    Returns:
        Pointmaps in camera 0's frame, in the unit of the pose's translation; none where there is no
        pose, fewer than 30 inliers whose rays meet at a degree or more, or no depth where they are.

    Raises:
        InputError: keypoints and pose of different matches.
    """
    ends0, ends1 = as_keypoints("keypoints0", keypoints0), as_keypoints("keypoints1", keypoints1)
    if not len(ends0) == len(ends1) == len(pose.inlier_mask):
        raise InputError(
            "pose",
            f"that of {len(ends0)} and {len(ends1)} keypoints",
            f"one of {len(pose.inlier_mask)} matches",
        )
    if pose.cam1_from_cam0 is None or pose.camera0 is None or pose.camera1 is None:
        return RefinedPointmaps(None, 0, pose.reason or "the pose has no cameras")
    cam1_from_cam0 = pose.cam1_from_cam0
    ends0, ends1 = ends0[pose.inlier_mask], ends1[pose.inlier_mask]
    rays = ends0, ends1, pose.camera0, pose.camera1, cam1_from_cam0
    points, angles = triangulate(*rays), triangulation_angles_deg(*rays)
    kept = np.isfinite(points).all(axis=1) & (angles >= _LEAST_ANGLE_DEG)
    num_points = int(np.count_nonzero(kept))
    if num_points < _FEWEST_POINTS:
        return RefinedPointmaps(
            None,
            num_points,
            f"the rays of only {num_points} of {len(kept)} agreeing matches meet at "
            f"{_LEAST_ANGLE_DEG:g} degree or more, {_FEWEST_POINTS} are needed",
        )
    weights = np.square(np.minimum(angles[kept] / _FULL_ANGLE_DEG, 1))
    points, ends0, ends1 = points[kept], ends0[kept], ends1[kept]
    in_camera1 = cam1_from_cam0.transform(points)
    own1 = maps.points1_in_camera1
    if own1 is None:
        # Only seen from camera 0: where the matches are, both frames are known.
        seen = sample_points(maps.points1, ends1, maps.original1_from_network)
        own1 = _registered(maps.points1, seen, in_camera1, weights)
    if own1 is None:
        return RefinedPointmaps(
            None, num_points, "the points of photograph 1 do not say where they are"
        )
    refined0 = _on_rays(
        maps.points0, maps.original0_from_network, pose.camera0, ends0, points, weights
    )
    refined1 = _on_rays(own1, maps.original1_from_network, pose.camera1, ends1, in_camera1, weights)
    if refined0 is None or refined1 is None:
        number = 0 if refined0 is None else 1
        reason = f"the pointmap of photograph {number} has no depth where the matches are"
        return RefinedPointmaps(None, num_points, reason)
    refined = replace(
        maps,
        points0=refined0.astype(np.float32),
        points1=cam1_from_cam0.inverse.transform(refined1).astype(np.float32),
        points1_in_camera1=refined1.astype(np.float32),
    )
    return RefinedPointmaps(refined, num_points)


def _registered(
    points: npt.NDArray[np.float32], seen: FloatArray, wanted: FloatArray, weights: FloatArray
) -> npt.NDArray[np.float32] | None:
    """(h, w, 3) points by the similarity that takes most of ``seen`` to ``wanted``."""
    usable = np.isfinite(seen).all(axis=1)
    seen, wanted, weights = seen[usable], wanted[usable], weights[usable]
    # A pointmap errs in proportion to the distance.
    weights = weights / np.sum(wanted**2, axis=1)
    counted = weights
    registration = None
    for _ in range(_REGISTRATION_ROUNDS):
        registration = fit_registration(seen, wanted, weights=counted)
        if registration is None:
            return None
        apart = np.linalg.norm(registration.transform(seen) - wanted, axis=1)
        apart = apart / np.linalg.norm(wanted, axis=1)
        counted = weights / (1 + np.square(apart / max(1e-6, 2 * float(np.median(apart)))))
    assert registration is not None
    return registration.transform(points).astype(np.float32)


def _on_rays(
    points: npt.NDArray[np.float32],
    original_from_network: FloatArray,
    camera: Camera,
    keypoints: FloatArray,
    known: FloatArray,
    weights: FloatArray,
) -> FloatArray | None:
    """(h, w, 3) points on the rays of a camera, at depths brought to those of (M, 3) points.

    ``None``: the pointmap has no depth at any of these.
    """
    height, width = points.shape[:2]
    depth = points[..., 2]
    places = transform_keypoints(np.linalg.inv(original_from_network), keypoints)
    places = places.clip(0, [width - 1, height - 1])
    x, y = places.round().astype(int).T
    if not (np.isfinite(depth[y, x]) & (depth[y, x] > 0)).any():
        return None
    corrected = correct_depth(depth, places, known[:, 2], weights)
    rows, columns = np.indices((height, width))
    pixels = np.column_stack([columns.ravel(), rows.ravel()])
    original = to_original(pixels, original_from_network)
    return unproject(original, corrected.ravel(), camera).reshape(height, width, 3)
