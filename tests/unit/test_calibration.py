"""Features of matches, the fitted mapping, and its way through a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.calibration import (
    MATCH_FEATURES,
    PAIR_FEATURES,
    ConfidenceCalibration,
    LogisticMapping,
    MatchFeatures,
    match_features,
)
from matcher.checkpoints import CheckpointInfo, read_native, save_native
from matcher.errors import CheckpointError, InputError
from matcher.matching import MatchingOptions
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork
from matcher.neighbourhoods import local_motion
from matcher.pipeline import Matcher, PairOptions
from matcher.results import PairResult
from matcher.structures import GridMatches
from matcher.synthetic.fixtures import make_test_pair


def mapping(names: tuple[str, ...], weight: float = 1.0, bias: float = 0.0) -> LogisticMapping:
    count = len(names)
    return LogisticMapping(names, (0.0,) * count, (1.0,) * count, (weight,) * count, bias)


def calibration(bias: float = 0.0) -> ConfidenceCalibration:
    return ConfidenceCalibration(mapping(MATCH_FEATURES, 0.3, bias), mapping(PAIR_FEATURES))


def grid_matches(count: int = 12) -> GridMatches:
    rows, columns = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    pixels = torch.stack([columns.reshape(-1), rows.reshape(-1)], dim=1) * 8 + 4
    return GridMatches(pixels, pixels + 5, torch.full((len(pixels),), 0.9), num_seeds=200)


def features_of(matches: GridMatches, sure: torch.Tensor) -> MatchFeatures:
    motion = local_motion(matches.pixels0.float(), matches.pixels1.float())
    return match_features(matches, motion, sure, sure)


def test_a_logistic_mapping_is_the_formula() -> None:
    one = LogisticMapping(("a", "b"), (1.0, -2.0), (2.0, 0.5), (0.7, -0.4), 0.3)
    features = torch.tensor([[1.5, -1.0], [100.0, 0.0]])
    expected = 1 / (1 + math.exp(-(0.7 * 0.25 - 0.4 * 2.0 + 0.3)))
    probability = one.probability(features)
    assert float(probability[0]) == pytest.approx(expected, abs=1e-6)
    assert 0 < float(probability[1]) <= 1


def test_a_match_that_leaves_its_neighbours_stands_out() -> None:
    matches = grid_matches()
    wrong = 70
    moved = matches.pixels1.clone()
    moved[wrong] = torch.tensor([300, 10])
    spoiled = GridMatches(matches.pixels0, moved, matches.similarity)
    sure = torch.full((128, 320), 0.5)
    column = MATCH_FEATURES.index("stretch")
    straight = features_of(matches, sure).match
    bent = features_of(spoiled, sure).match
    assert float(straight[:, column].max()) == pytest.approx(0, abs=1e-6)
    assert float(bent[wrong, column]) > 2
    assert float(bent[:, column].median()) == pytest.approx(0, abs=1e-6)
    confidence = MATCH_FEATURES.index("log_descriptor_confidence")
    np.testing.assert_allclose(straight[:, confidence].numpy(), math.log(0.5), atol=1e-6)
    np.testing.assert_allclose(
        straight[:, MATCH_FEATURES.index("pair_log_share")].numpy(), math.log(144 / 200), atol=1e-5
    )


def test_support_is_the_share_of_neighbours_that_move_along() -> None:
    matches = grid_matches()
    column = MATCH_FEATURES.index("support")
    # An affine map: everyone agrees. Rounding to whole pixels costs little.
    sheared = matches.pixels0 @ torch.tensor([[2, 1], [-1, 1]]) + 150
    sure = torch.full((400, 500), 0.5)
    moved = GridMatches(matches.pixels0, sheared, matches.similarity)
    assert float(features_of(moved, sure).match[:, column].min()) > 0.99
    # Half of them go anywhere: those lose their support, the others keep about half.
    generator = torch.Generator().manual_seed(0)
    wrong = torch.rand(len(matches), generator=generator) < 0.5
    ends = sheared.clone()
    ends[wrong] = torch.randint(0, 400, (int(wrong.sum()), 2), generator=generator)
    spoiled = dataclasses.replace(matches, pixels1=ends)
    features = features_of(spoiled, sure).match
    support = features[:, column]
    assert float(support[~wrong].median()) > 2 * float(support[wrong].median())
    # Asked again among those with support, right ones are no longer talked down by wrong ones.
    at_last = features[:, MATCH_FEATURES.index("support_at_last")]
    assert float(at_last[~wrong].median()) > 0.95
    assert float(at_last[~wrong].median()) > float(support[~wrong].median()) + 0.2
    assert float(at_last[wrong].median()) < 0.2
    # All end in one place: from there nobody knows the way back.
    sunk = GridMatches(matches.pixels0, torch.full_like(ends, 200), matches.similarity)
    assert float(features_of(sunk, sure).match[:, column].max()) < 0.3


def test_a_mapping_of_fewer_features_stays_good() -> None:
    features = features_of(grid_matches(), torch.ones(128, 128))
    old = ConfidenceCalibration(mapping(("stretch",), -2.0), mapping(("pair_similarity_top",)))
    assert np.allclose(old.match_probability(features).numpy(), 0.5, atol=1e-6)
    assert old.pair_probability(features) == pytest.approx(1 / (1 + math.exp(-0.9)), abs=1e-6)


def test_stretch_does_not_mind_scale_and_turn() -> None:
    matches = grid_matches()
    turned = torch.stack([-matches.pixels0[:, 1] * 2 + 400, matches.pixels0[:, 0] * 2], dim=1)
    turned_matches = GridMatches(matches.pixels0, turned, matches.similarity)
    sure = torch.ones(320, 420)
    features = features_of(turned_matches, sure).pair
    assert float(features[PAIR_FEATURES.index("pair_stretch")]) == pytest.approx(0, abs=1e-6)


def test_a_pair_without_matches_has_features() -> None:
    none = torch.zeros(0, 2, dtype=torch.int64)
    sure = torch.ones(8, 8)
    features = features_of(GridMatches(none, none, torch.zeros(0)), sure)
    assert features.pair.shape == (len(PAIR_FEATURES),)
    assert bool(features.pair.isfinite().all())
    assert features.match.shape == (0, len(MATCH_FEATURES))


def test_plain_values_and_back() -> None:
    one = calibration(0.25)
    assert ConfidenceCalibration.from_dict(json.loads(json.dumps(one.to_dict()))) == one


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"match": None}, "calibration"),
        ({"radius": 5.0}, "entries"),
        ({"radius_px": "wide"}, "complete"),
    ],
)
def test_broken_values_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConfidenceCalibration.from_dict({**calibration().to_dict(), **change})


def test_impossible_mappings_are_refused() -> None:
    with pytest.raises(InputError, match="weights"):
        LogisticMapping(("a",), (0.0,), (1.0,), (math.nan,), 0.0)
    with pytest.raises(InputError, match="scales"):
        LogisticMapping(("a",), (0.0,), (0.0,), (1.0,), 0.0)
    with pytest.raises(InputError, match="features"):
        ConfidenceCalibration(mapping(("weather",)), mapping(PAIR_FEATURES))


@pytest.fixture(scope="module")
def network() -> TwoViewNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TwoViewNetwork(ModelConfig.tiny()).eval()


def test_a_checkpoint_keeps_its_calibration(tmp_path: Path, network: TwoViewNetwork) -> None:
    path = tmp_path / "model.safetensors"
    info = CheckpointInfo("tiny", calibration=calibration(0.5))
    save_native(path, network, info)
    assert read_native(path)[1].calibration == calibration(0.5)
    save_native(path, network, CheckpointInfo("tiny"))
    assert read_native(path)[1].calibration is None


def test_a_checkpoint_with_a_broken_calibration_is_refused(
    tmp_path: Path, network: TwoViewNetwork
) -> None:
    path = tmp_path / "model.safetensors"
    save_native(path, network, CheckpointInfo("tiny", calibration=calibration()))
    data = path.read_bytes()
    # The header is JSON inside JSON: same length, another name.
    assert data.count(b"radius_px") == 1
    path.write_bytes(data.replace(b"radius_px", b"radius_xp"))
    with pytest.raises(CheckpointError, match="bad calibration"):
        read_native(path)


def test_the_pipeline_answers_with_calibrated_numbers(network: TwoViewNetwork) -> None:
    pair = make_test_pair(0)
    everything = PairOptions(matching=MatchingOptions(min_confidence=0.0))

    def found(info: CheckpointInfo) -> PairResult:
        return Matcher(network, info, everything).match(pair.image0, pair.image1)

    plain = found(CheckpointInfo("tiny"))
    assert plain.overlap_score is None
    info = CheckpointInfo("tiny", calibration=calibration(-0.5))
    low = found(info)
    high = found(dataclasses.replace(info, calibration=calibration(2.0)))
    assert len(low) == len(high) == len(plain) > 0
    assert float(low.confidence.mean()) < float(high.confidence.mean())
    assert bool(((low.confidence > 0) & (low.confidence <= 1)).all())
    assert low.overlap_score is not None
    assert 0 < low.overlap_score <= 1
    assert low.to_dict()["overlap_score"] == round(low.overlap_score, 6)


def test_improbable_matches_are_dropped_unless_they_are_wanted(network: TwoViewNetwork) -> None:
    pair = make_test_pair(0)

    def found(bias: float | None, options: MatchingOptions) -> PairResult:
        known = None if bias is None else calibration(bias)
        matcher = Matcher(network, CheckpointInfo("tiny", calibration=known))
        pair_options = PairOptions(matching=options, crops="never")
        return matcher.match(pair.image0, pair.image1, options=pair_options)

    unmoved = found(0.0, MatchingOptions(min_confidence=0.0, backend="exact")).confidence
    bias = math.log(0.1 / 0.9) - float(torch.logit(unmoved).median())  # half of them above 0.1
    everything = found(bias, MatchingOptions(min_confidence=0.0, backend="exact"))
    probable = found(bias, MatchingOptions(backend="exact"))
    assert 0 < len(probable) < len(everything)
    assert torch.equal(probable.confidence, everything.confidence[everything.confidence >= 0.1])
    assert probable.overlap_score == everything.overlap_score
    # What is not a probability is not judged as one.
    assert len(found(None, MatchingOptions(backend="exact"))) == len(everything)

    nothing = found(-20.0, MatchingOptions(backend="exact"))
    assert len(nothing) == 0
    assert nothing.overlap_score is not None
    count = len(everything)
    assert nothing.reason == f"none of {count} possible matches had a confidence of at least 0.1"
