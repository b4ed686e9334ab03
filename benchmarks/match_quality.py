"""Which matches are right, judged by the truth of a pair alone."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.core.samples import FloatArray, HomographyTruth, PoseTruth
from benchmarks.core.tasks import Answered
from benchmarks.metrics.errors import fundamental_from_pose, symmetric_epipolar_errors_px
from benchmarks.tasks.pairs import resized_intrinsics, resized_keypoints

__all__ = ["match_errors_px", "right_matches"]


def right_matches(answered: Answered, radius_px: float) -> npt.NDArray[np.bool_] | None:
    """(M,) whether each match lies within ``radius_px`` resized pixels of the truth.

    ``None`` where the truth says nothing about single matches.
    """
    errors = match_errors_px(answered)
    return None if errors is None else errors <= radius_px


def match_errors_px(answered: Answered) -> FloatArray | None:
    """(M,) distance of each match from the truth, pixels of the resized photographs.

    Against a homography it is the distance in photograph 1. Against a pose with depth of photograph
    0 (``PoseTruth.depth0``) likewise, and infinite where the depth is not known; without depth it
    is the symmetric distance from the epipolar lines, which a wrong match may pass by chance.
    """
    truth, prediction, frame = answered.sample.truth, answered.prediction, answered.frame
    scale1 = frame.resized1.width / frame.stored1.width
    ends0, ends1 = prediction.keypoints0, prediction.keypoints1
    if not len(ends0):
        return np.zeros(0)
    if isinstance(truth, HomographyTruth):
        moved = cv2.perspectiveTransform(ends0[None], truth.h1_from_0)[0]
        return np.asarray(np.linalg.norm(moved - ends1, axis=1) * scale1)
    if isinstance(truth, PoseTruth) and truth.is_scored:
        if truth.depth0 is not None:
            return _reprojection_errors(truth, ends0, ends1) * scale1
        fundamental = fundamental_from_pose(*resized_intrinsics(truth, frame), truth.cam1_from_cam0)
        return symmetric_epipolar_errors_px(*resized_keypoints(answered), fundamental)
    return None


def _reprojection_errors(truth: PoseTruth, ends0: FloatArray, ends1: FloatArray) -> FloatArray:
    depth = cv2.imread(str(truth.depth0), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.ndim != 2:
        return np.full(len(ends0), np.inf)
    rows = np.clip(np.rint(ends0[:, 1]).astype(int), 0, depth.shape[0] - 1)
    columns = np.clip(np.rint(ends0[:, 0]).astype(int), 0, depth.shape[1] - 1)
    z = depth[rows, columns].astype(np.float64) / truth.depth_scale
    rays = np.concatenate([ends0, np.ones((len(ends0), 1))], axis=1) @ np.linalg.inv(truth.k0).T
    points = (rays * z[:, None]) @ truth.cam1_from_cam0[:3, :3].T + truth.cam1_from_cam0[:3, 3]
    projected = points @ truth.k1.T
    known = (z > 0) & (projected[:, 2] > 1e-9)
    pixels = projected[:, :2] / np.where(known, projected[:, 2], 1.0)[:, None]
    return np.where(known, np.linalg.norm(pixels - ends1, axis=1), np.inf)
