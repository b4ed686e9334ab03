"""Which photographs are matched again, how often, and what is kept; the network is a stand-in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from matcher.crop_matching import MaskedPhotograph, match_crops
from matcher.geometry.pixels import transform_keypoints
from matcher.structures import ImageSize, Matches
from matcher.view_matching import PairOptions, ViewMatches

SMALL, LARGE = ImageSize(480, 640), ImageSize(960, 1280)
TILT = np.array([[0.5, 0.0], [0.0, 1.2]])


def motion(size: ImageSize, linear: np.ndarray) -> np.ndarray:
    middle = np.array([size.width, size.height]) / 2
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, middle - linear @ middle
    return matrix


class Looks:
    """Finds true matches in every crop, on a grid; notes how many crops each call holds."""

    def __init__(self, size: ImageSize, linear: np.ndarray, confidence: float = 0.9) -> None:
        self.size, self.linear, self.confidence = size, linear, confidence
        self.calls: list[int] = []
        self.whole_sizes: list[tuple[int, int]] = []
        self.was_read = 0

    def photographs(self):
        self.was_read += 1
        picture = MaskedPhotograph(np.zeros((self.size.height, self.size.width, 3), np.uint8))
        return picture, picture

    def coarse(
        self,
        count: int = 400,
        num_seeds: int = 1000,
        margin: float = 0.25,
        overlap_score: float | None = 0.01,
    ) -> ViewMatches:
        inner = np.array([margin, 1 - margin])[:, None] * [self.size.width, self.size.height]
        keypoints0 = np.random.default_rng(0).uniform(*inner, (count, 2))
        return ViewMatches(self._matches(keypoints0, 0.8), overlap_score, num_seeds)

    def match(self, views0, views1, options) -> list[ViewMatches]:
        is_whole = options.matching.reach is None  # crops show the same places alike
        if is_whole:
            sizes = [[view.content_size.width for view in views] for views in (views0, views1)]
            self.whole_sizes += zip(*sizes, strict=True)
        else:
            self.calls.append(len(views0))
        found = []
        for view0, view1 in zip(views0, views1, strict=True):
            assert is_whole or view0.pixels.shape == view1.pixels.shape
            grid = np.stack(np.meshgrid(np.arange(4, 508, 14), np.arange(4, 380, 14)), -1)
            keypoints0 = transform_keypoints(view0.original_from_network, grid.reshape(-1, 2))
            last = [self.size.width - 1, self.size.height - 1]
            keypoints0 = keypoints0[((keypoints0 >= 0) & (keypoints0 <= last)).all(axis=1)]
            found.append(ViewMatches(self._matches(keypoints0, self.confidence), 0.9, 4000))
        return found

    def _matches(self, keypoints0: np.ndarray, confidence: float) -> Matches:
        keypoints1 = transform_keypoints(motion(self.size, self.linear), keypoints0)
        return Matches(
            torch.from_numpy(keypoints0.astype(np.float32)),
            torch.from_numpy(keypoints1.astype(np.float32)),
            torch.full((len(keypoints0),), confidence),
        )

    def answer(self, coarse: ViewMatches, **options) -> Matches:
        return match_crops(
            self.photographs,
            self.size,
            self.size,
            coarse,
            PairOptions(**options),
            self.match,
            patch_size=16,
            is_probability=True,
        )


def test_small_photographs_with_many_right_matches_are_not_looked_at_again() -> None:
    looks = Looks(SMALL, TILT)
    coarse = looks.coarse()
    assert looks.answer(coarse) is coarse.matches
    assert (looks.calls, looks.was_read) == ([], 0)
    assert len(looks.answer(coarse, crops="always")) > 500
    assert looks.was_read == 1


def test_few_right_matches_and_a_change_of_shape_are_looked_at_twice() -> None:
    looks = Looks(SMALL, TILT)
    coarse = looks.coarse(100, num_seeds=4000)
    found = looks.answer(coarse, max_crops=2)
    assert looks.calls == [1, 2]
    assert looks.was_read == 1
    truth = transform_keypoints(motion(SMALL, TILT), found.keypoints0.double().numpy())
    np.testing.assert_allclose(found.keypoints1.numpy(), truth, atol=1e-3)
    assert len(found) > 500


@pytest.mark.parametrize(
    ("size", "sizes"),
    [
        (LARGE, [(768, 512), (512, 768)]),
        (SMALL, [(640, 427), (427, 640)]),
        (ImageSize(288, 384), [(384, 256), (256, 384)]),
    ],
)
def test_where_a_common_place_is_likely_each_photograph_is_first_shown_larger(size, sizes) -> None:
    looks = Looks(size, TILT)
    looks.answer(looks.coarse(20, num_seeds=4000, overlap_score=0.9))
    assert looks.whole_sizes == sizes
    assert looks.calls


@pytest.mark.parametrize("score", [None, 0.04])
def test_where_no_common_place_is_likely_or_nobody_can_tell_they_are_not(score) -> None:
    looks = Looks(LARGE, TILT)
    looks.answer(looks.coarse(20, num_seeds=4000, overlap_score=score))
    assert looks.whole_sizes == []


def test_tiny_photographs_have_nothing_larger_to_show() -> None:
    looks = Looks(ImageSize(90, 120), TILT)
    looks.answer(looks.coarse(20, num_seeds=4000, overlap_score=0.9))
    assert looks.whole_sizes == []


def test_what_the_larger_views_show_plans_the_crops() -> None:
    """Not one match of the first look is left; the larger views find some."""
    looks = Looks(LARGE, TILT)
    found = looks.answer(looks.coarse(0, num_seeds=4000, overlap_score=0.9))
    assert looks.whole_sizes
    assert sum(looks.calls) > 0
    assert len(found) > 500


def test_where_the_larger_views_show_nothing_either_the_first_matches_stay() -> None:
    """They are what the reason of an empty answer counts."""
    looks = Looks(LARGE, TILT, confidence=0.05)
    coarse = looks.coarse(300, num_seeds=4000, overlap_score=0.9)
    improbable = replace(
        coarse,
        matches=replace(coarse.matches, confidence=torch.full((300,), 0.05)),
    )
    assert looks.answer(improbable) is improbable.matches
    assert looks.whole_sizes


def test_without_a_change_of_shape_they_are_looked_at_once() -> None:
    looks = Looks(SMALL, np.eye(2))
    looks.answer(looks.coarse(100, num_seeds=4000), max_crops=2)
    assert len(looks.calls) == 1


def test_large_photographs_are_looked_at_until_there_are_enough() -> None:
    looks = Looks(LARGE, np.eye(2))
    spread = looks.coarse(1500, num_seeds=4000, margin=0.01)
    looks.answer(spread)
    assert sum(looks.calls) == 4  # some 960 matches each
    doubtful = Looks(LARGE, np.eye(2), confidence=0.2)
    doubtful.answer(spread)
    assert sum(doubtful.calls) > 4
    everything = Looks(LARGE, np.eye(2))
    everything.answer(spread, crops="always")
    assert sum(everything.calls) == sum(doubtful.calls)


def test_improbable_matches_of_crops_take_no_place() -> None:
    looks = Looks(LARGE, np.eye(2), confidence=0.05)
    coarse = looks.coarse()
    found = looks.answer(coarse)
    assert sum(looks.calls) > 0
    assert torch.equal(found.keypoints0, coarse.matches.keypoints0)


@pytest.mark.parametrize("count", [0, 5])
def test_too_few_matches_are_left_as_they_are(count: int) -> None:
    looks = Looks(LARGE, np.eye(2))
    coarse = looks.coarse(count)
    assert looks.answer(coarse) is coarse.matches
    assert looks.was_read == 0
