"""Real pairs with sparse matches, for instance from structure from motion; no depth is needed.

Where a manifest knows cameras and poses, the matches are triangulated: real photographs then teach
pointmaps, and lenses, at the pixels that matched.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError
from matcher.geometry.triangulation import triangulate, triangulation_angles_deg
from matcher.training.augment import photometric, resize_image
from matcher.training.manifest import CorrespondencePair, read_correspondences, read_pairs
from matcher.training.motion import ANY_MOTION, MAX_ATTEMPTS, MIN_MATCHES, Motion, focal_of
from matcher.training.photo_files import read_photo
from matcher.training.posed_views import CENTRED_SHARE, smallest_windows
from matcher.training.samples import TrainingSample, select_matches

__all__ = ["MatchedPhotos"]

ByteImage = npt.NDArray[np.uint8]
_LEAST_PARALLAX_DEGREES = 1.5
_SPLAT_RADIUS = 2


class MatchedPhotos:
    """Real pairs with sparse matches, and their points where cameras and pose are known."""

    def __init__(self, manifests: Sequence[str]) -> None:
        self.pairs = [pair for manifest in manifests for pair in read_pairs(Path(manifest))]
        if not self.pairs:
            raise DatasetError(f"pair_manifests: expected pairs in {', '.join(manifests)}")
        self._allowed: dict[Motion, list[CorrespondencePair]] = {}

    def draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        num_matches: int,
        motion: Motion = ANY_MOTION,
    ) -> TrainingSample:
        """One pair, cropped around a match or, with its cameras, mostly about the axis.

        Pairs without a pose belong to every motion, photographs without a camera to every lens.
        """
        pairs = self._pairs_of(motion)
        for _ in range(MAX_ATTEMPTS):
            pair = pairs[int(random.integers(len(pairs)))]
            ends = [end.astype(np.float64) for end in read_correspondences(pair.correspondences)]
            if len(ends[0]) < MIN_MATCHES:
                continue
            images = [read_photo(pair.image0), read_photo(pair.image1)]
            order = (0, 1) if random.random() < 0.5 else (1, 0)
            cameras = (pair.camera0, pair.camera1)
            centre = int(random.integers(len(ends[0])))
            about_axis = _knows_points(pair) and random.random() < CENTRED_SHARE
            crops, keypoints, focals = [], [], []
            smallest = smallest_windows(random, usual=0.55, close_up=0.25)
            for side, least in zip(order, smallest, strict=True):
                camera = cameras[side]
                middle = ends[side][centre]
                if about_axis and camera is not None:
                    middle = camera.matrix[:2, 2]
                crop, moved, scale = _crop_around(
                    random,
                    images[side],
                    ends[side],
                    middle,
                    shape,
                    least,
                    centred=about_axis,
                )
                crops.append(crop)
                keypoints.append(moved)
                if camera is not None:
                    focals.append(focal_of(camera.matrix * scale, shape))
            if not all(motion.allows_focal(focal) for focal in focals):
                continue
            limit = np.array([shape[1] - 1, shape[0] - 1])
            inside = np.ones(len(ends[0]), dtype=bool)
            for moved in keypoints:
                inside &= ((moved >= 0) & (moved <= limit)).all(axis=1)
            if inside.sum() < MIN_MATCHES:
                continue
            points = _points_of(pair, ends[0][inside], ends[1][inside], first=order[0])
            maps = [_splat(points, moved[inside], shape) for moved in keypoints]
            (points0, valid0), (points1, valid1) = maps
            return TrainingSample(
                photometric(random, crops[0]),
                photometric(random, crops[1]),
                select_matches(
                    random,
                    keypoints[0][inside],
                    keypoints[1][inside],
                    shape,
                    num_matches,
                    exact=False,
                ),
                points0,
                points1,
                valid0,
                valid1,
                source="pairs",
            )
        raise DatasetError(f"pair manifests: no crop with enough matches in {MAX_ATTEMPTS} draws")

    def _pairs_of(self, motion: Motion) -> list[CorrespondencePair]:
        if motion not in self._allowed:
            angles = [pair.rotation_degrees for pair in self.pairs]
            self._allowed[motion] = [
                pair
                for pair, angle in zip(self.pairs, angles, strict=True)
                if angle is None or motion.allows_rotation(angle)
            ]
        if not self._allowed[motion]:
            raise DatasetError(f"pair manifests: no pair with {motion}")
        return self._allowed[motion]


def _knows_points(pair: CorrespondencePair) -> bool:
    """Whether its matches can be triangulated."""
    cameras = pair.camera0 is not None and pair.camera1 is not None
    return cameras and pair.cam1_from_cam0 is not None


def _points_of(
    pair: CorrespondencePair,
    keypoints0: npt.NDArray[np.float64],
    keypoints1: npt.NDArray[np.float64],
    first: int,
) -> npt.NDArray[np.float64] | None:
    """(M, 3) points of the matches in the frame of camera ``first``; NaN where rays hardly cross.

    ``None`` for a pair whose cameras or pose are not known.
    """
    camera0, camera1, pose = pair.camera0, pair.camera1, pair.cam1_from_cam0
    if camera0 is None or camera1 is None or pose is None:
        return None
    ends = keypoints0, keypoints1, camera0, camera1, pose
    points = triangulate(*ends)
    points[triangulation_angles_deg(*ends) < _LEAST_PARALLAX_DEGREES] = np.nan
    return points if first == 0 else pose.transform(points)


def _splat(
    points: npt.NDArray[np.float64] | None,
    pixels: npt.NDArray[np.float64],
    shape: tuple[int, int],
) -> tuple[npt.NDArray[np.float32] | None, npt.NDArray[np.bool_] | None]:
    """A (H, W, 3) pointmap, and where it is known: within a few pixels of a match, as it was there.

    Matches are sparse, and a training looks at every few pixels only.
    """
    if points is None:
        return None, None
    known = np.isfinite(points).all(axis=1)
    places = np.rint(pixels[known]).astype(int)
    maps = np.zeros((*shape, 3), dtype=np.float32)
    valid = np.zeros(shape, dtype=bool)
    reach = range(-_SPLAT_RADIUS, _SPLAT_RADIUS + 1)
    steps = sorted(itertools.product(reach, reach), key=lambda step: -np.hypot(*step))
    for down, right in steps:  # the nearest match wins: those farther away are written first
        columns = np.clip(places[:, 0] + right, 0, shape[1] - 1)
        rows = np.clip(places[:, 1] + down, 0, shape[0] - 1)
        maps[rows, columns] = points[known]
        valid[rows, columns] = True
    return maps, valid


def _crop_around(
    random: np.random.Generator,
    image: ByteImage,
    keypoints: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    shape: tuple[int, int],
    smallest: float,
    *,
    centred: bool = False,
) -> tuple[ByteImage, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A window that contains ``centre``, resized to ``shape``; the keypoints in it, and the scale.

    ``centred``: with ``centre`` in its middle, as far as the photograph reaches.
    """
    height, width = image.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * random.uniform(smallest, 1.0)
    window = np.array([max(16, round(shape[1] * scale)), max(16, round(shape[0] * scale))])
    window = np.minimum(window, [width, height])
    place = np.full(2, 0.5) if centred else random.uniform(0.25, 0.75, 2)
    offset = centre - window * place
    left, top = np.clip(np.rint(offset), 0, np.array([width, height]) - window).astype(int)
    crop = np.ascontiguousarray(image[top : top + window[1], left : left + window[0]])
    ratio = np.array([shape[1], shape[0]]) / window
    moved = (keypoints - [left, top] + 0.5) * ratio - 0.5
    return resize_image(crop, shape), moved, np.array([[ratio[0]], [ratio[1]], [1.0]])
