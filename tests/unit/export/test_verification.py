"""Which pairs hold together, and which of their matches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from matcher.errors import InputError
from matcher.export.verification import VerificationOptions, verify_pair, verify_pairs
from matcher.geometry.camera import camera_from_focal
from matcher.pair_records import PairRecord
from matcher.structures import ImageSize, Matches
from tests.unit.export.relief_records import (
    CAMERA,
    SIZE,
    empty_record,
    name,
    record,
    records,
    true_gaps,
)

OPTIONS = VerificationOptions(max_error=0.005)


def gaps(pair: PairRecord) -> np.ndarray:
    matches = pair.matches
    return true_gaps(
        matches.keypoints0.double().numpy(), matches.keypoints1.double().numpy(), (0, 2)
    )


def test_wrong_matches_go_and_right_ones_stay() -> None:
    pair = record(0, 2, rng=np.random.default_rng(1), wrong=0.4, noise_px=0.2)
    found = verify_pair(pair, CAMERA, CAMERA, OPTIONS)
    assert found.reason is None
    assert found.names == pair.names
    right = gaps(pair) < 1.0
    assert len(found) == pytest.approx(right.sum(), rel=0.05)
    # A wrong match may lie on its epipolar line by chance.
    assert np.mean(gaps(found) < 1.0) > 0.97


def test_a_guessed_focal_is_good_enough() -> None:
    pair = record(0, 2, rng=np.random.default_rng(1), wrong=0.4, noise_px=0.2)
    guess = camera_from_focal(1.1 * CAMERA.focals[0], SIZE)
    found = verify_pair(pair, guess, guess, OPTIONS)
    assert len(found) > 0.8 * (gaps(pair) < 1.0).sum()


def test_random_matches_are_chance() -> None:
    pair = record(0, 2, rng=np.random.default_rng(1), wrong=1.0)
    found = verify_pair(pair, CAMERA, CAMERA, OPTIONS)
    assert len(found) == 0
    assert found.reason is not None
    assert "chance" in found.reason


def test_few_or_no_matches_give_the_reason() -> None:
    assert verify_pair(empty_record(0, 1), CAMERA, CAMERA).reason == "no overlap"
    few = Matches(torch.rand(4, 2), torch.rand(4, 2), torch.ones(4))
    found = verify_pair(PairRecord("a", "b", few, SIZE, SIZE), CAMERA, CAMERA)
    assert found.reason == "4 usable matches; the method essential needs at least 5"


def test_known_cameras_are_kept_and_unknown_focals_found() -> None:
    pairs = [*records(3, noise_px=0.2), empty_record(0, 9)]
    known = {name(0): CAMERA}
    found = verify_pairs(iter(pairs), known, options=OPTIONS)
    assert found.num_verified == 3
    assert found.reasons == {name(0): "no overlap", name(9): "no overlap"}
    assert list(found.cameras) == [name(index) for index in (0, 1, 2, 9)]
    assert found.cameras[name(0)].camera == CAMERA
    assert [camera.is_known for camera in found.cameras.values()] == [True] + 3 * [False]
    assert not found.cameras[name(1)].has_focal
    # To a step of the scale that is tried; the typical focal would be 384.
    for index in (1, 2):
        assert found.cameras[name(index)].camera.focals[0] == pytest.approx(300, rel=0.27)
    assert found.cameras[name(9)].camera.focals[0] == pytest.approx(1.2 * 320)


def test_the_limit_follows_the_larger_photograph() -> None:
    options = VerificationOptions()
    assert options.max_error_px(ImageSize(500, 1000), ImageSize(1500, 2000)) == pytest.approx(4.0)


@pytest.mark.parametrize(
    "values", [{"max_error": 0.0}, {"max_error": 1.5}, {"min_inliers": 0}, {"max_iterations": 0}]
)
def test_senseless_options_are_refused(values) -> None:
    with pytest.raises(InputError):
        VerificationOptions(**values)
