"""Tracks: keypoints of all pairs of an image merged, without conflicts or broken matches."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from matcher.errors import InputError
from matcher.export.nodes import gather
from matcher.export.positions import Links, local_affine, settle
from matcher.export.tracks import Tracks, default_cell_px, merge_tracks
from matcher.pair_records import PairRecord
from matcher.structures import ImageSize, Matches
from tests.unit.export.relief_records import (
    SIZE,
    empty_record,
    name,
    record,
    records,
    true_gaps,
)

CELL = 8.0


@pytest.fixture(scope="module")
def five() -> list[PairRecord]:
    return records(5)


@pytest.fixture(scope="module")
def merged(five: list[PairRecord]) -> Tracks:
    return merge_tracks(five, CELL)


def matched_gaps(tracks: Tracks) -> np.ndarray:
    """How far the keypoints of all matches are from true partners, pixels."""
    gaps = []
    for (index0, index1), matches in tracks.matches.items():
        rows0, rows1 = matches.indices.T
        keypoints = tracks.keypoints[index0][rows0], tracks.keypoints[index1][rows1]
        gaps.append(true_gaps(*keypoints, (index0, index1)))
    return np.concatenate(gaps)


def test_tracks_are_long_and_the_keypoints_stay_where_they_belong(merged: Tracks) -> None:
    assert merged.names == tuple(name(index) for index in range(5))
    # Five images see the wall; without merging, every match would be a track of 2.
    assert merged.mean_length > 3.0
    assert merged.lengths.min() >= 2
    assert merged.lengths.max() == 5
    # Keypoints move by a quarter of a cell, but together with their partners.
    assert 1.0 < merged.merge_error_px < CELL / 2
    assert merged.disagreement_px < 0.15
    gaps = matched_gaps(merged)
    assert np.median(gaps) < 0.1
    assert np.mean(gaps < 0.5) > 0.95


def test_a_track_has_one_keypoint_an_image(merged: Tracks) -> None:
    for tracks in merged.tracks:
        assert len(np.unique(tracks)) == len(tracks)
    for (index0, index1), matches in merged.matches.items():
        rows0, rows1 = matches.indices.T
        np.testing.assert_array_equal(merged.tracks[index0][rows0], merged.tracks[index1][rows1])
        assert len(np.unique(rows0)) == len(rows0)
        assert (matches.confidence > 0.5).all()


def test_keypoints_of_an_image_keep_their_distance(merged: Tracks) -> None:
    for keypoints in merged.keypoints:
        gaps = np.linalg.norm(keypoints[:, None] - keypoints[None], axis=2)
        gaps[np.diag_indices(len(gaps))] = np.inf
        assert np.median(gaps.min(axis=1)) > CELL / 3


def test_larger_cells_make_longer_tracks(five: list[PairRecord], merged: Tracks) -> None:
    assert merged.mean_length > merge_tracks(five, CELL / 3).mean_length + 0.5


def test_neither_the_order_of_pairs_nor_of_their_ends_matters(five: list[PairRecord]) -> None:
    def turned(pair: PairRecord) -> PairRecord:
        matches = Matches(pair.matches.keypoints1, pair.matches.keypoints0, pair.matches.confidence)
        return PairRecord(pair.name1, pair.name0, matches, pair.size1, pair.size0)

    straight, other = merge_tracks(five, CELL), merge_tracks([*map(turned, five[::-1])], CELL)
    assert other.names == straight.names
    assert other.mean_length == pytest.approx(straight.mean_length, rel=0.02)
    assert other.num_kept == pytest.approx(straight.num_kept, rel=0.02)
    again = merge_tracks(five, CELL)
    for ours, theirs in zip(straight.keypoints, again.keypoints, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_few_wrong_matches_do_not_pull(five: list[PairRecord]) -> None:
    spoilt = merge_tracks(records(5, wrong=0.1), CELL)
    assert spoilt.mean_length > 2.7
    assert np.median(matched_gaps(spoilt)) < 0.25


def matches_of(*rows: tuple[float, float, float, float, float]) -> Matches:
    values = torch.tensor(rows, dtype=torch.float32).reshape(-1, 5)
    return Matches(values[:, :2], values[:, 2:4], values[:, 4])


def pair(index0: int, index1: int, matches: Matches) -> PairRecord:
    return PairRecord(name(index0), name(index1), matches, SIZE, SIZE)


def test_a_conflict_is_settled_for_the_more_confident() -> None:
    # 0-1 and 1-2 say one thing; 0-2, weaker, would bring a second place of image 2 into the track.
    found = merge_tracks(
        [
            pair(0, 1, matches_of((20, 20, 60, 20, 0.9))),
            pair(1, 2, matches_of((60, 20, 100, 20, 0.8))),
            pair(0, 2, matches_of((20, 20, 200, 200, 0.3))),
        ],
        CELL,
    )
    assert found.lengths.tolist() == [3]
    assert set(found.matches) == {(0, 1), (1, 2)}
    np.testing.assert_allclose(found.keypoints[2], [[100, 20]], atol=1e-6)
    assert (found.num_matches, found.num_kept) == (3, 2)


def test_keypoints_of_one_cell_become_one_and_its_partners_follow() -> None:
    # Image 0 has (20, 20) in one pair and (22, 20) in the other: partners shift by as much.
    found = merge_tracks(
        [
            pair(0, 1, matches_of((20, 20, 60, 20, 0.8))),
            pair(0, 2, matches_of((22, 20, 102, 20, 0.8))),
        ],
        CELL,
    )
    assert found.lengths.tolist() == [3]
    x0, x1, x2 = (float(keypoints[0, 0]) for keypoints in found.keypoints)
    assert 20 < x0 < 22
    assert x1 - x0 == pytest.approx(40, abs=0.05)
    assert x2 - x0 == pytest.approx(80, abs=0.05)
    # Two keypoints moved by 1 px or less, their partners with them.
    assert 0.5 < found.merge_error_px <= 1.0
    assert found.disagreement_px < 0.05


def test_nothing_to_merge_is_no_track() -> None:
    nothing = merge_tracks([])
    assert (nothing.names, nothing.mean_length, len(nothing.lengths)) == ((), 0.0, 0)
    empty = merge_tracks([empty_record(0, 1)])
    assert empty.names == (name(0), name(1))
    assert [len(keypoints) for keypoints in empty.keypoints] == [0, 0]
    assert (empty.matches, empty.num_kept, len(empty.lengths)) == ({}, 0, 0)
    assert np.isnan(empty.merge_error_px)
    assert np.isnan(empty.disagreement_px)


def test_senseless_input_is_named() -> None:
    for cell in (0.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="cell_px: expected a positive number"):
            merge_tracks([], cell)
    one = record(0, 1, rng=np.random.default_rng(0))
    other = dataclasses.replace(one, name1=name(2), size0=ImageSize(10, 10))
    with pytest.raises(InputError, match=r"one size of sub/00\.jpg"):
        merge_tracks([one, other])


def test_the_default_cell_follows_the_size_of_the_photograph() -> None:
    assert default_cell_px(ImageSize(683, 1024)) == 8.0
    assert default_cell_px(ImageSize(4096, 3072)) == 32.0
    assert default_cell_px(ImageSize(20, 20)) == 1.0


def test_gathering_ignores_the_borders_of_cells() -> None:
    # 7.9 and 8.1 lie in two cells of a grid of 8, and are one keypoint all the same.
    keypoints = np.array([[7.9, 4.0], [8.1, 4.0], [30.0, 4.0]])
    groups = gather(keypoints, np.array([0.5, 0.9, 0.7]), 8.0)
    assert groups[0] == groups[1] != groups[2]
    assert sorted(set(groups.tolist())) == [0, 1]
    assert len(gather(np.zeros((0, 2)), np.zeros(0), 8.0)) == 0


def test_the_affine_map_of_neighbours_is_found_in_spite_of_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    keypoints0 = rng.uniform(0, 200, (600, 2))
    expected = np.array([[1.4, -0.3], [0.2, 0.7]])
    keypoints1 = keypoints0 @ expected.T + 5
    keypoints1[::20] += 50
    found = local_affine(keypoints0, keypoints1, np.ones(600))
    right = np.ones(600, np.bool_)
    right[::20] = False
    assert np.median(np.abs(found[right] - expected)) < 0.03
    np.testing.assert_array_equal(
        local_affine(np.ones((2, 2)), np.ones((2, 2)), np.ones(2))[1], np.eye(2)
    )


def test_settled_nodes_agree_under_an_affine_map() -> None:
    # Two pairs share a node of image 0; the second image is seen at twice the scale.
    links = Links(
        node0=np.array([0, 0]),
        node1=np.array([1, 2]),
        keypoints0=np.array([[10.0, 10.0], [12.0, 10.0]]),
        keypoints1=np.array([[20.0, 20.0], [24.0, 20.0]]),
        confidence=np.ones(2),
        affine=np.tile(2 * np.eye(2), (2, 1, 1)),
    )
    positions = settle(links, 4)
    np.testing.assert_allclose(positions[1], 2 * positions[0], atol=0.05)
    np.testing.assert_allclose(positions[2], 2 * positions[0], atol=0.05)
    assert np.isnan(positions[3]).all()
