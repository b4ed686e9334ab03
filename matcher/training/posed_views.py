"""One posed view cropped, turned and resized with its camera, and the truth of two of them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from matcher.synthetic.pairs import correspondences, points_in_camera0
from matcher.training.augment import photometric, resize_image
from matcher.training.motion import MIN_MATCHES
from matcher.training.samples import TrainingSample, select_matches
from matcher.turns import rotation_about_axis

__all__ = [
    "CENTRED_SHARE",
    "CameraView",
    "crop_view",
    "sample_from_views",
    "smallest_windows",
    "turn_view",
]

ByteImage = npt.NDArray[np.uint8]
_CLOSE_UP_SHARE = 0.4
CENTRED_SHARE = 0.7
"""Of the pairs of views, those whose windows lie about the optical axis."""


@dataclass(frozen=True, slots=True, eq=False)
class CameraView:
    """One cropped and resized view with its camera."""

    image: ByteImage
    depth: npt.NDArray[np.float32]
    k: npt.NDArray[np.float64]
    cam_from_world: npt.NDArray[np.float64]


def turn_view(view: CameraView, quarter_turns: int) -> CameraView:
    """The same view by a camera turned about its axis; the picture turns counter-clockwise."""
    if quarter_turns % 4 == 0:
        return view
    k, width = view.k, view.image.shape[1]
    image, depth = view.image, view.depth
    for _ in range(quarter_turns % 4):
        width = image.shape[1]
        k = np.array(
            [[k[1, 1], 0, k[1, 2]], [0, k[0, 0], width - 1 - k[0, 2]], [0, 0, 1]], dtype=np.float64
        )
        image, depth = np.rot90(image), np.rot90(depth)
    turn = np.eye(4)
    turn[:3, :3] = rotation_about_axis(quarter_turns)
    return CameraView(
        np.ascontiguousarray(image), np.ascontiguousarray(depth), k, turn @ view.cam_from_world
    )


def smallest_windows(
    random: np.random.Generator, usual: float, close_up: float
) -> tuple[float, float]:
    """The least share of either view that its crop may be: some pairs have a close-up.

    Photographs of one place differ in scale far more often than neighbouring views do.
    """
    if random.random() >= _CLOSE_UP_SHARE:
        return usual, usual
    return (usual, close_up) if random.random() < 0.5 else (close_up, usual)


def crop_view(
    random: np.random.Generator,
    view: CameraView,
    shape: tuple[int, int],
    smallest: float,
    *,
    centred: bool = False,
) -> CameraView:
    """A random window with the aspect of ``shape``, resized to it; the camera follows.

    ``centred``: the principal point stays in the middle, as in photographs nobody has cropped. What
    lies off the axis cannot be told from a picture, so pointmaps learn their spread from these.
    """
    height, width = view.image.shape[:2]
    largest = min(height / shape[0], width / shape[1])
    scale = largest * random.uniform(smallest, 1.0)
    if abs(scale - 1) < 0.12 and largest >= 1:
        scale = 1.0  # no resampling: depth and colours stay exact
    window_h = min(height, max(1, round(shape[0] * scale)))
    window_w = min(width, max(1, round(shape[1] * scale)))
    spare_h, spare_w = height - window_h, width - window_w
    if centred:
        top = min(spare_h, max(0, round(view.k[1, 2] - (window_h - 1) / 2)))
        left = min(spare_w, max(0, round(view.k[0, 2] - (window_w - 1) / 2)))
    else:
        top = int(random.integers(0, spare_h + 1))
        left = int(random.integers(0, spare_w + 1))
    rows, columns = slice(top, top + window_h), slice(left, left + window_w)
    k = view.k.copy()
    k[0, 2] -= left
    k[1, 2] -= top
    ratio = np.array([shape[1] / window_w, shape[0] / window_h])
    k[:2] *= ratio[:, None]
    k[:2, 2] += 0.5 * ratio - 0.5
    image, depth = view.image[rows, columns], view.depth[rows, columns]
    if (window_h, window_w) != shape:
        image = resize_image(np.ascontiguousarray(image), shape)
        depth = np.asarray(
            cv2.resize(
                np.ascontiguousarray(depth),
                (shape[1], shape[0]),
                interpolation=cv2.INTER_NEAREST_EXACT,
            )
        )
    return CameraView(image, depth, k, view.cam_from_world)


def sample_from_views(
    random: np.random.Generator,
    view0: CameraView,
    view1: CameraView,
    num_matches: int,
    is_metric: bool,
    source: str,
) -> TrainingSample | None:
    """Exact truth of two posed views; ``None`` where they share too little."""
    pose = view1.cam_from_world @ np.linalg.inv(view0.cam_from_world)
    depth0, depth1 = torch.from_numpy(view0.depth), torch.from_numpy(view1.depth)
    k0, k1, cam1_from_cam0 = (torch.from_numpy(m) for m in (view0.k, view1.k, pose))
    found = correspondences(depth0, k0, depth1, k1, cam1_from_cam0, tolerance=0.015)
    rows, columns = np.nonzero(found.valid.numpy())
    if len(rows) < MIN_MATCHES:
        return None
    keypoints0 = np.stack([columns, rows], axis=1).astype(np.float64)
    keypoints1 = found.target.numpy()[rows, columns].astype(np.float64)
    matches = select_matches(
        random, keypoints0, keypoints1, view0.image.shape[:2], num_matches, exact=True
    )
    if matches.valid.sum() < MIN_MATCHES // 2:
        return None
    points0, points1 = points_in_camera0(depth0, k0, depth1, k1, cam1_from_cam0)
    return TrainingSample(
        photometric(random, view0.image),
        photometric(random, view1.image),
        matches,
        points0.float().numpy(),
        points1.float().numpy(),
        view0.depth > 0,
        view1.depth > 0,
        is_metric,
        source,
    )
