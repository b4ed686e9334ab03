"""How well descriptors find their counterparts on photographs that were never trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from matcher.model.network import TwoViewNetwork
from matcher.training.samples import TrainingBatch, TrainingSample, collate
from matcher.training.sources import homography_pair, read_photo

__all__ = ["MatchBy", "ValidationResult", "make_validation_set", "matching_errors", "validate"]

MatchBy = Literal["descriptors", "points"]

_VALIDATION_SEED = 20_260
_NUM_PAIRS = 24
_NUM_QUERIES = 256


@dataclass(frozen=True, slots=True)
class ValidationResult:
    """Share of correspondences whose nearest descriptor in the whole other image is close.

    Attributes:
        within_1px, within_3px: distance to the true counterpart, network pixels; diagonal
            neighbours count as 1 pixel away.
        within_10px: the coarse figure: the right place, not yet the right pixel.
    """

    within_1px: float
    within_3px: float
    within_10px: float


def make_validation_set(
    photos: Sequence[str], image_size: int = 224, num_pairs: int | None = None
) -> list[TrainingBatch]:
    """A fixed set of homography pairs of held-out photographs (the same on every call)."""
    wanted = _NUM_PAIRS if num_pairs is None else num_pairs
    random = np.random.default_rng(_VALIDATION_SEED)
    samples: list[TrainingSample] = []
    attempts = 0
    while len(samples) < wanted and attempts < 10 * wanted:
        photo = read_photo(Path(photos[attempts % len(photos)]))
        attempts += 1
        sample = homography_pair(random, photo, (image_size, image_size), _NUM_QUERIES)
        if sample is not None:
            samples.append(sample)
    return [collate(samples[start : start + 4]) for start in range(0, len(samples), 4)]


@torch.inference_mode()
def matching_errors(
    network: TwoViewNetwork, batches: Sequence[TrainingBatch], by: MatchBy = "descriptors"
) -> list[Tensor]:
    """How far from its counterpart each correspondence's nearest pixel of the other image lies.

    Args:
        network: in evaluation mode; it runs in float32, on its own device.
        batches: pairs with their correspondences.
        by: what is compared: ``descriptors``, or ``points``: both pointmaps lie in camera 0's
            frame, where the counterpart is the nearest point (3-D matching, MASt3R, section 3.3).

    Returns:
        one tensor a pair, (N,) distances in pixels of the view.
    """
    device = next(network.parameters()).device
    distances: list[Tensor] = []
    for batch in batches:
        moved = batch.to(device)
        prediction = network(moved.pixels0, moved.pixels1)
        dense0, dense1 = (
            output.descriptors if by == "descriptors" else output.points
            for output in (prediction.output0, prediction.output1)
        )
        assert dense0 is not None
        assert dense1 is not None
        width = dense1.shape[2]
        for row in range(dense0.shape[0]):
            valid = moved.correspondences.valid[row]
            start = moved.correspondences.pixels0[row][valid]
            end = moved.correspondences.pixels1[row][valid]
            queries, others = dense0[row, start[:, 1], start[:, 0]], dense1[row].flatten(0, 1)
            if by == "descriptors":
                nearest = (queries @ others.T).argmax(dim=1)
            else:
                nearest = torch.cdist(queries, others).argmin(dim=1)
            found = torch.stack([nearest % width, nearest // width], dim=1)
            distances.append((found - end).float().norm(dim=1).cpu())
    return distances


def validate(network: TwoViewNetwork, batches: Sequence[TrainingBatch]) -> ValidationResult:
    """Measure ``network`` on prepared batches (float32, on the network's device)."""
    together = torch.cat(matching_errors(network, batches))
    return ValidationResult(
        *(float((together <= limit).float().mean()) for limit in (1.5, 3.0, 10.0))
    )
