"""Real pairs with sparse matches, for instance from structure from motion; no depth is needed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from matcher.errors import DatasetError
from matcher.training.augment import photometric, resize_image
from matcher.training.manifest import CorrespondencePair, read_correspondences, read_pairs
from matcher.training.motion import ANY_MOTION, MAX_ATTEMPTS, MIN_MATCHES, Motion
from matcher.training.photo_files import read_photo
from matcher.training.posed_views import smallest_windows
from matcher.training.samples import TrainingSample, select_matches

__all__ = ["MatchedPhotos"]

ByteImage = npt.NDArray[np.uint8]


class MatchedPhotos:
    """Real pairs with sparse matches, for instance from structure from motion."""

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
        """One pair, cropped around a match; pairs without a pose belong to every motion."""
        pairs = self._pairs_of(motion)
        for _ in range(MAX_ATTEMPTS):
            pair = pairs[int(random.integers(len(pairs)))]
            ends = [end.astype(np.float64) for end in read_correspondences(pair.correspondences)]
            if len(ends[0]) < MIN_MATCHES:
                continue
            images = [read_photo(pair.image0), read_photo(pair.image1)]
            order = (0, 1) if random.random() < 0.5 else (1, 0)
            centre = int(random.integers(len(ends[0])))
            crops, keypoints = [], []
            smallest = smallest_windows(random, usual=0.55, close_up=0.25)
            for side, least in zip(order, smallest, strict=True):
                crop, moved = _crop_around(
                    random, images[side], ends[side], ends[side][centre], shape, least
                )
                crops.append(crop)
                keypoints.append(moved)
            limit = np.array([shape[1] - 1, shape[0] - 1])
            inside = np.ones(len(ends[0]), dtype=bool)
            for moved in keypoints:
                inside &= ((moved >= 0) & (moved <= limit)).all(axis=1)
            if inside.sum() < MIN_MATCHES:
                continue
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


def _crop_around(
    random: np.random.Generator,
    image: ByteImage,
    keypoints: npt.NDArray[np.float64],
    centre: npt.NDArray[np.float64],
    shape: tuple[int, int],
    smallest: float,
) -> tuple[ByteImage, npt.NDArray[np.float64]]:
    """A window that contains ``centre``, resized to ``shape``, and the keypoints in it."""
    height, width = image.shape[:2]
    scale = min(height / shape[0], width / shape[1]) * random.uniform(smallest, 1.0)
    window = np.array([max(16, round(shape[1] * scale)), max(16, round(shape[0] * scale))])
    window = np.minimum(window, [width, height])
    offset = centre - window * random.uniform(0.25, 0.75, 2)
    left, top = np.clip(np.rint(offset), 0, np.array([width, height]) - window).astype(int)
    crop = np.ascontiguousarray(image[top : top + window[1], left : left + window[0]])
    ratio = np.array([shape[1], shape[0]]) / window
    moved = (keypoints - [left, top] + 0.5) * ratio - 0.5
    return resize_image(crop, shape), moved
