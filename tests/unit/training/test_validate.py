"""The validation figure at its two ends, and that its pairs are always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from heads import DenseOutput
from matcher.structures import PairPrediction
from matcher.training import validate as validation
from matcher.training.samples import TrainingBatch, TrainingSample, collate, select_matches
from matcher.training.validate import make_validation_set, validate

SIZE = 64


def batch_of(pairs: int) -> TrainingBatch:
    random = np.random.default_rng(0)
    image = np.zeros((SIZE, SIZE, 3), dtype=np.uint8)
    samples = []
    for _ in range(pairs):
        cells = random.permutation(SIZE * SIZE)[: 2 * 100].reshape(2, 100)
        ends = [np.stack([cell % SIZE, cell // SIZE], axis=1).astype(float) for cell in cells]
        matches = select_matches(random, *ends, (SIZE, SIZE), 128, exact=True)
        samples.append(TrainingSample(image, image, matches))
    return collate(samples)


class Stub(nn.Module):
    """Says what it is told to say, whatever it sees."""

    def __init__(self, descriptors0: Tensor, descriptors1: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.outputs = [self._output(one) for one in (descriptors0, descriptors1)]

    @staticmethod
    def _output(descriptors: Tensor) -> DenseOutput:
        points = torch.zeros(*descriptors.shape[:3], 3)
        return DenseOutput(points, torch.ones(descriptors.shape[:3]), descriptors)

    def forward(self, pixels0: Tensor, pixels1: Tensor) -> PairPrediction:
        assert pixels0.shape == pixels1.shape
        return PairPrediction(self.outputs[0], self.outputs[1])


def random_descriptors(pairs: int, seed: int) -> Tensor:
    raw = torch.randn(pairs, SIZE, SIZE, 24, generator=torch.Generator().manual_seed(seed))
    return raw / raw.norm(dim=-1, keepdim=True)


def shifted(batch: TrainingBatch, shift: int) -> tuple[Tensor, Tensor]:
    """Descriptors whose nearest is ``shift`` columns to the right of the truth (wrapped)."""
    descriptors1 = random_descriptors(2, 1)
    descriptors0 = random_descriptors(2, 2)
    matches = batch.correspondences
    for row in range(2):
        valid = matches.valid[row]
        x0, y0 = matches.pixels0[row][valid].T
        x1, y1 = matches.pixels1[row][valid].T
        descriptors0[row, y0, x0] = descriptors1[row, y1, (x1 + shift) % SIZE]
    return descriptors0, descriptors1


@pytest.mark.parametrize(
    ("shift", "least"), [(0, (1.0, 1.0, 1.0)), (2, (0.0, 0.9, 0.9)), (8, (0.0, 0.0, 0.8))]
)
def test_perfect_and_shifted_descriptors(shift: int, least: tuple[float, ...]) -> None:
    batch = batch_of(2)
    result = validate(Stub(*shifted(batch, shift)), [batch])  # type: ignore[arg-type]
    shares = (result.within_1px, result.within_3px, result.within_10px)
    for share, bound in zip(shares, least, strict=True):
        # Counterparts at the right border wrap around: a few are lost.
        assert bound <= share <= (1.0 if bound else 0.02)


def test_random_descriptors_find_nothing() -> None:
    batch = batch_of(2)
    stub = Stub(random_descriptors(2, 1), random_descriptors(2, 2))
    result = validate(stub, [batch, batch])  # type: ignore[arg-type]
    assert result.within_1px < 0.02
    assert result.within_3px < 0.04
    assert result.within_10px < 0.15  # a disc of 10 px is 8 % of the image


def test_the_pairs_are_always_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_NUM_PAIRS", 6)
    names = [str(path) for path in sorted(photos.iterdir())]
    one, again = make_validation_set(names, 64), make_validation_set(names, 64)
    assert [batch.pixels0.shape[0] for batch in one] == [4, 2]
    for first, second in zip(one, again, strict=True):
        assert first.pixels0.shape[1:] == (3, 64, 64)
        assert torch.equal(first.pixels0, second.pixels0)
        assert torch.equal(first.correspondences.pixels1, second.correspondences.pixels1)
        assert first.correspondences.valid.sum(1).min() >= 64
