"""One training pair, and a batch of them: what the losses see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.training.losses import Correspondences, PointmapTargets

__all__ = ["SparseMatches", "TrainingBatch", "TrainingSample", "collate", "select_matches"]

ByteImage = npt.NDArray[np.uint8]
_JITTER_PX = (2.5, 8.0)
_CLEAR_PX = 2.5


@dataclass(frozen=True, slots=True, eq=False)
class SparseMatches:
    """A fixed number of correspondences between integer pixels, padded; see ``Correspondences``.

    There are twice as many negatives.
    """

    pixels0: npt.NDArray[np.int64]
    pixels1: npt.NDArray[np.int64]
    valid: npt.NDArray[np.bool_]
    negatives0: npt.NDArray[np.int64]
    negatives1: npt.NDArray[np.int64]
    negatives0_valid: npt.NDArray[np.bool_]
    negatives1_valid: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TrainingSample:
    """One pair of (H, W, 3) images with whatever truth its source has.

    Attributes:
        image0, image1: uint8 RGB.
        matches: correspondences.
        points0, points1: (H, W, 3) float32 in camera 0's frame, or ``None`` where unknown.
        valid0, valid1: (H, W) bool, where the points are known.
        is_metric: whether the points are in metres.
        source: name of the source, for the log.
    """

    image0: ByteImage
    image1: ByteImage
    matches: SparseMatches
    points0: npt.NDArray[np.float32] | None = None
    points1: npt.NDArray[np.float32] | None = None
    valid0: npt.NDArray[np.bool_] | None = None
    valid1: npt.NDArray[np.bool_] | None = None
    is_metric: bool = False
    source: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class TrainingBatch:
    """Pairs of one shape: pixels (B, 3, H, W) in [-1, 1], targets, correspondences.

    ``sources`` names the source of each pair; ``skipped`` says why draws were left out.
    """

    pixels0: Tensor
    pixels1: Tensor
    targets: PointmapTargets
    correspondences: Correspondences
    sources: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def to(self, device: torch.device) -> TrainingBatch:
        """The same batch on another device."""
        if device.type == "cpu":
            return self

        def move(value: Tensor | None) -> Tensor | None:
            return None if value is None else value.to(device, non_blocking=True)

        targets, pairs = self.targets, self.correspondences
        return TrainingBatch(
            self.pixels0.to(device, non_blocking=True),
            self.pixels1.to(device, non_blocking=True),
            PointmapTargets(
                *(
                    getattr(targets, name).to(device, non_blocking=True)
                    for name in ("points0", "points1", "valid0", "valid1", "is_metric")
                )
            ),
            Correspondences(
                pairs.pixels0.to(device),
                pairs.pixels1.to(device),
                pairs.valid.to(device),
                move(pairs.negatives0),
                move(pairs.negatives1),
                move(pairs.negatives0_valid),
                move(pairs.negatives1_valid),
            ),
            self.sources,
            self.skipped,
        )


def select_matches(
    random: np.random.Generator,
    keypoints0: npt.NDArray[np.floating],
    keypoints1: npt.NDArray[np.floating],
    shape: tuple[int, int],
    count: int,
    *,
    exact: bool,
) -> SparseMatches:
    """Choose ``count`` correspondences, and pixels that match none of them.

    Descriptors live on integer pixels. Where candidates abound (``exact``), those are taken whose
    counterpart lies close to a pixel centre, so that rounding costs at most a quarter of a pixel.
    Half of the negatives lie a few pixels beside a positive and teach precision; the other half lie
    anywhere, also where the other image does not look: that is where a search goes astray.

    Args:
        random: source of randomness.
        keypoints0: (K, 2) candidates in image 0, pixels.
        keypoints1: (K, 2) their counterparts.
        shape: (height, width) of both images.
        count: correspondences wanted; fewer are padded.
        exact: whether the candidates are exact to a fraction of a pixel.
    """
    rounded0, rounded1 = np.rint(keypoints0), np.rint(keypoints1)
    height, width = shape
    upper = np.array([width - 1, height - 1])
    usable = np.ones(len(rounded0), dtype=bool)
    for rounded in (rounded0, rounded1):
        usable &= ((rounded >= 0) & (rounded <= upper)).all(axis=1)
    off_centre = np.maximum(
        np.abs(rounded0 - keypoints0).max(axis=1, initial=0),
        np.abs(rounded1 - keypoints1).max(axis=1, initial=0),
    )
    if exact:
        near = usable & (off_centre <= 0.25)
        usable = near if near.sum() >= count // 4 else usable
    chosen = np.flatnonzero(usable)
    if len(chosen) > count:
        chosen = random.choice(chosen, count, replace=False)
    pixels0 = np.zeros((count, 2), dtype=np.int64)
    pixels1 = np.zeros((count, 2), dtype=np.int64)
    valid = np.zeros(count, dtype=bool)
    pixels0[: len(chosen)] = rounded0[chosen]
    pixels1[: len(chosen)] = rounded1[chosen]
    valid[: len(chosen)] = True
    negatives0, negatives0_valid = _negatives(random, pixels0, valid, shape)
    negatives1, negatives1_valid = _negatives(random, pixels1, valid, shape)
    return SparseMatches(
        pixels0, pixels1, valid, negatives0, negatives1, negatives0_valid, negatives1_valid
    )


def _negatives(
    random: np.random.Generator,
    pixels: npt.NDArray[np.int64],
    valid: npt.NDArray[np.bool_],
    shape: tuple[int, int],
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """(2 N, 2) pixels, N beside the N given and N anywhere, and which are clear of them all."""
    height, width = shape
    angle = random.uniform(0, 2 * np.pi, len(pixels))
    radius = random.uniform(*_JITTER_PX, len(pixels))
    offset = np.stack([np.cos(angle), np.sin(angle)], axis=1) * radius[:, None]
    beside = np.rint(pixels + offset).astype(np.int64)
    anywhere = random.integers(0, (width, height), size=pixels.shape)
    chosen = np.concatenate([beside, anywhere])
    usable = np.concatenate([valid, np.ones_like(valid)])
    usable &= ((chosen >= 0) & (chosen < (width, height))).all(axis=1)
    chosen = np.clip(chosen, 0, (width - 1, height - 1))
    if not valid.any():
        return chosen, np.zeros(len(chosen), dtype=np.bool_)
    free = np.ones(shape, dtype=np.uint8)
    free[pixels[valid, 1], pixels[valid, 0]] = 0
    distance = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return chosen, usable & (distance[chosen[:, 1], chosen[:, 0]] >= _CLEAR_PX)


def collate(samples: Sequence[TrainingSample]) -> TrainingBatch:
    """Stack samples of one shape."""

    def pixels(images: list[ByteImage]) -> Tensor:
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        # Contiguous channels-last memory is what convolutions on a CPU like best.
        return stacked.float().div_(127.5).sub_(1)

    height, width = samples[0].image0.shape[:2]
    nowhere = np.zeros((height, width), dtype=bool)
    unknown = np.zeros((height, width, 3), dtype=np.float32)

    def stack(name: str, missing: npt.NDArray[np.generic]) -> Tensor:
        values = [getattr(sample, name) for sample in samples]
        return torch.from_numpy(np.stack([missing if v is None else v for v in values]))

    def matches(name: str) -> Tensor:
        return torch.from_numpy(np.stack([getattr(sample.matches, name) for sample in samples]))

    targets = PointmapTargets(
        stack("points0", unknown),
        stack("points1", unknown),
        stack("valid0", nowhere),
        stack("valid1", nowhere),
        torch.tensor([sample.is_metric for sample in samples]),
    )
    names = (
        "pixels0",
        "pixels1",
        "valid",
        "negatives0",
        "negatives1",
        "negatives0_valid",
        "negatives1_valid",
    )
    return TrainingBatch(
        pixels([sample.image0 for sample in samples]),
        pixels([sample.image1 for sample in samples]),
        targets,
        Correspondences(*(matches(name) for name in names)),
        tuple(sample.source for sample in samples),
    )
