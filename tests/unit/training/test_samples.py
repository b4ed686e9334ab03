"""The choice of correspondences and negatives, and how samples become a batch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from matcher.training.samples import SparseMatches, TrainingSample, collate, select_matches

SHAPE = (96, 128)


def candidates(count: int, seed: int = 0) -> tuple[npt.NDArray[np.float64], ...]:
    random = np.random.default_rng(seed)
    keypoints0 = random.integers(0, [128, 96], (count, 2)).astype(np.float64)
    return keypoints0, keypoints0 * 0.7 + [11.3, 8.9]


def choose(count: int = 200, *, of: int = 4000, exact: bool = True) -> SparseMatches:
    keypoints0, keypoints1 = candidates(of)
    return select_matches(
        np.random.default_rng(1), keypoints0, keypoints1, SHAPE, count, exact=exact
    )


def test_rounding_costs_a_quarter_of_a_pixel_at_most() -> None:
    chosen = choose()
    assert chosen.valid.sum() == 200
    assert chosen.pixels0.dtype == chosen.pixels1.dtype == np.int64
    truth = chosen.pixels0 * 0.7 + [11.3, 8.9]
    assert np.abs(truth - chosen.pixels1).max() <= 0.25
    loose = choose(exact=False)
    error = np.abs(loose.pixels0 * 0.7 + [11.3, 8.9] - loose.pixels1).max()
    assert 0.25 < error <= 0.5 + 1e-9


def test_a_quarter_of_the_wish_must_be_exact_or_all_are_taken() -> None:
    keypoints = np.stack([np.arange(40.0), np.arange(40.0)], axis=1)
    off_centre = keypoints + 0.4
    off_centre[:9] = keypoints[:9]  # 9 of 40 are exact: less than a quarter
    chosen = select_matches(
        np.random.default_rng(0), keypoints, off_centre, (64, 64), 40, exact=True
    )
    assert chosen.valid.sum() == 40
    off_centre[9] = keypoints[9]
    chosen = select_matches(
        np.random.default_rng(0), keypoints, off_centre, (64, 64), 40, exact=True
    )
    assert chosen.valid.sum() == 10


@pytest.mark.parametrize("view", [0, 1])
def test_negatives_lie_beside_their_positive_or_anywhere_and_clear_of_all(view: int) -> None:
    chosen = choose()
    positives = (chosen.pixels0, chosen.pixels1)[view].astype(float)
    negatives = (chosen.negatives0, chosen.negatives1)[view]
    usable = (chosen.negatives0_valid, chosen.negatives1_valid)[view]
    assert len(negatives) == 400
    assert ((negatives >= 0) & (negatives < [128, 96])).all()
    own = np.linalg.norm(negatives[:200] - positives, axis=1)[usable[:200]]
    assert len(own) > 40
    assert own.min() >= 2.5
    assert own.max() <= 8 + np.sqrt(0.5)  # the radius is drawn up to 8, then rounded to a pixel
    anywhere = negatives[200:][usable[200:]]
    assert len(anywhere) > 60
    # View 1 is covered from 9 to 98 in x: negatives also lie where no positive can.
    assert view == 0 or (anywhere[:, 0] > positives[:, 0].max() + 3).sum() > 5
    every = np.linalg.norm(negatives[usable, None] - positives[None], axis=2)
    assert every.min() >= 2.5


def test_missing_correspondences_are_padding_inside_the_image() -> None:
    chosen = choose(64, of=10, exact=False)
    count = int(chosen.valid.sum())
    assert 0 < count <= 10
    assert chosen.valid[:count].all()
    assert not chosen.pixels0[count:].any()
    assert not chosen.pixels1[count:].any()
    assert not chosen.negatives0_valid[count:64].any()
    assert not chosen.negatives1_valid[count:64].any()
    assert chosen.negatives0_valid[64:].any()
    for pixels, length in (
        (chosen.pixels0, 64),
        (chosen.pixels1, 64),
        (chosen.negatives0, 128),
        (chosen.negatives1, 128),
    ):
        assert pixels.shape == (length, 2)
        assert ((pixels >= 0) & (pixels < [128, 96])).all()


def test_candidates_outside_are_dropped_and_none_is_no_error() -> None:
    keypoints = np.array([[5.0, 5.0], [-0.6, 5.0], [5.0, 95.6], [127.4, 95.4]])
    chosen = select_matches(np.random.default_rng(0), keypoints, keypoints, SHAPE, 8, exact=False)
    assert chosen.valid.sum() == 2
    assert chosen.pixels0[:2].tolist() == [[5, 5], [127, 95]]
    empty = select_matches(
        np.random.default_rng(0), np.zeros((0, 2)), np.zeros((0, 2)), SHAPE, 8, exact=True
    )
    assert not empty.valid.any()
    assert not empty.negatives0_valid.any()


def sample(seed: int, *, points: bool) -> TrainingSample:
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (32, 48, 3), dtype=np.uint8)
    image[0, 0], image[0, 1] = 0, 255
    matches = select_matches(
        random, np.full((1, 2), 4.0), np.full((1, 2), 9.0), (32, 48), 8, exact=True
    )
    if not points:
        return TrainingSample(image, image, matches, source="photos")
    cloud = random.normal(size=(32, 48, 3)).astype(np.float32)
    known = np.ones((32, 48), dtype=bool)
    return TrainingSample(image, image, matches, cloud, cloud, known, known, True, "scenes")


def test_a_batch_holds_pixels_and_the_truth_that_there_is() -> None:
    first, second = sample(0, points=True), sample(1, points=False)
    batch = collate([first, second])
    assert batch.pixels0.shape == (2, 3, 32, 48)
    assert batch.pixels0[0, :, 0, 0].tolist() == [-1.0] * 3
    assert batch.pixels0[0, :, 0, 1].tolist() == [1.0] * 3
    expected = torch.from_numpy(first.image0).permute(2, 0, 1) / 127.5 - 1
    torch.testing.assert_close(batch.pixels0[0], expected)
    assert torch.equal(batch.targets.points0[0], torch.from_numpy(first.points0))
    assert batch.targets.valid0.flatten(1).sum(1).tolist() == [32 * 48, 0]
    assert batch.targets.valid1.flatten(1).sum(1).tolist() == [32 * 48, 0]
    assert batch.targets.is_metric.tolist() == [True, False]
    assert batch.correspondences.pixels0[:, 0].tolist() == [[4, 4], [4, 4]]
    assert batch.correspondences.pixels1[:, 0].tolist() == [[9, 9], [9, 9]]
    assert batch.correspondences.valid.sum(1).tolist() == [1, 1]
    assert batch.sources == ("scenes", "photos")
    assert batch.to(torch.device("cpu")) is batch
