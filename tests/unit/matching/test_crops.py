"""Crops about matches of known motion: what they show, and that both show it alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from matcher.errors import InputError
from matcher.matching import CropPair, plan_crops
from matcher.structures import ImageSize, Matches

SIZE = ImageSize(768, 1024)


def as_matches(keypoints0, keypoints1, confidence=0.9):
    return Matches(
        torch.from_numpy(np.asarray(keypoints0, dtype=np.float32)),
        torch.from_numpy(np.asarray(keypoints1, dtype=np.float32)),
        torch.full((len(keypoints0),), confidence),
    )


def affine(tilt=1.0, turn_deg=0.0, scale=1.0):
    """(2, 2): a stretch along x, then a turn."""
    angle = np.radians(turn_deg)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * turn @ np.diag([np.sqrt(tilt), 1 / np.sqrt(tilt)])


def moved(keypoints0, linear, centre0=(512, 384), centre1=(512, 384)):
    return (keypoints0 - np.array(centre0)) @ linear.T + np.array(centre1)


def scattered(count=800, seed=0, low=(150, 150), high=(874, 618)):
    return np.random.default_rng(seed).uniform(low, high, (count, 2))


def remaining(pair: CropPair, linear):
    """(2, 2) motion that is left from crop 0 to crop 1."""
    before = np.linalg.inv(pair.crop_from_original0[:2, :2])
    return pair.crop_from_original1[:2, :2] @ linear @ before


@given(
    tilt=st.floats(0.3, 3),
    turn_deg=st.floats(-180, 180),
    scale=st.floats(0.5, 2),
    wrong=st.floats(0, 0.5),
)
@settings(max_examples=20, deadline=None)
def test_both_crops_show_a_surface_alike(tilt, turn_deg, scale, wrong):
    linear = affine(tilt, turn_deg, scale)
    keypoints0 = scattered()
    keypoints1 = moved(keypoints0, linear)
    random = np.random.default_rng(1)
    bad = random.random(len(keypoints0)) < wrong
    keypoints1[bad] = random.uniform((0, 0), (1024, 768), (bad.sum(), 2))
    pairs = plan_crops(as_matches(keypoints0, keypoints1), SIZE, SIZE)
    assert 1 <= len(pairs) <= 8
    for pair in pairs[:3]:
        np.testing.assert_allclose(remaining(pair, linear), np.eye(2), atol=0.05)
        # Photograph 0 is stretched but not turned; together they keep the area.
        stretch0 = pair.crop_from_original0[:2, :2]
        np.testing.assert_allclose(stretch0, stretch0.T, atol=0.02)
        assert np.linalg.eigvalsh(stretch0).min() > 0
        assert pair.original_px[0] / pair.original_px[1] == pytest.approx(1 / scale, rel=0.05)
        # The same point of the surface lies in the same place of both.
        point0 = np.linalg.inv(pair.crop_from_original0) @ [200, 150, 1]
        point1 = moved(point0[None, :2], linear)[0]
        seen1 = pair.crop_from_original1 @ [*point1, 1]
        np.testing.assert_allclose(seen1[:2], [200, 150], atol=12)


def test_every_slope_gets_a_crop_of_its_own():
    """A wall and the wall around the corner, side by side in both photographs."""
    left, right = scattered(high=(500, 618)), scattered(low=(524, 150), seed=1)
    slopes = affine(0.4), affine(2.2, 10)
    keypoints1 = np.concatenate(
        [moved(left, slopes[0], (512, 384)), moved(right, slopes[1], (512, 384))]
    )
    pairs = plan_crops(as_matches(np.concatenate([left, right]), keypoints1), SIZE, SIZE)
    off = np.array(
        [[np.abs(remaining(pair, slope) - np.eye(2)).max() for slope in slopes] for pair in pairs]
    )
    assert (off.min(axis=0) < 0.1).all()
    assert all(pair.changes_shape for pair in pairs)


def test_most_matches_are_shown_and_the_most_useful_crop_comes_first():
    keypoints0 = scattered(low=(0, 0), high=(1024, 768))
    matches = as_matches(keypoints0, keypoints0 + 3)
    pairs = plan_crops(matches, SIZE, SIZE)
    shown = np.zeros(len(keypoints0), dtype=bool)
    for pair in pairs:
        assert pair.size == ImageSize(384, 512)
        assert not pair.changes_shape
        assert pair.original_px == pytest.approx((1.0, 1.0), rel=0.02)
        corner = np.linalg.inv(pair.crop_from_original0) @ [0, 0, 1]
        assert (corner[:2] > -8).all()
        places = np.column_stack([keypoints0, np.ones(len(keypoints0))])
        places = places @ pair.crop_from_original0.T
        shown |= ((places[:, :2] >= 0) & (places[:, :2] < [pair.size.width, pair.size.height])).all(
            1
        )
    assert shown.mean() > 0.8
    expected = [pair.expected_right for pair in pairs]
    assert expected[0] == max(expected) > 100
    first = plan_crops(matches, SIZE, SIZE, max_crops=2)
    assert len(first) == 2
    for pair, same in zip(pairs[:2], first, strict=True):
        np.testing.assert_array_equal(pair.crop_from_original0, same.crop_from_original0)


@pytest.mark.parametrize(
    ("size", "side"), [(ImageSize(480, 640), 416), (ImageSize(3000, 4000), 1400)]
)
def test_crops_enlarge_small_photographs_and_cover_large_ones(size, side):
    scale = size.width / 1024
    keypoints0 = scattered() * scale
    for pair in plan_crops(as_matches(keypoints0, keypoints0), size, size):
        assert pair.original_px[0] == pytest.approx(side / 512, rel=0.02)


def test_too_little_to_plan_with():
    keypoints0 = scattered(11)
    assert plan_crops(as_matches(keypoints0, keypoints0), SIZE, SIZE) == []
    assert plan_crops(Matches.empty(), SIZE, SIZE) == []
    mirrored = scattered(300) * [-1, 1] + [1024, 0]
    assert plan_crops(as_matches(scattered(300), mirrored), SIZE, SIZE) == []
    unlikely = as_matches(scattered(300), scattered(300), confidence=1e-3)
    assert plan_crops(unlikely, SIZE, SIZE) == []


def test_sizes_are_multiples_of_the_patch():
    matches = as_matches(scattered(), scattered())
    pairs = plan_crops(matches, SIZE, SIZE, max_size=100, patch_size=14)
    assert {(pair.size.height, pair.size.width) for pair in pairs} == {(70, 98)}
    tall = plan_crops(matches, ImageSize(1024, 768), SIZE)
    assert {(pair.size.height, pair.size.width) for pair in tall} == {(512, 384)}


@pytest.mark.parametrize("name", ["max_size", "max_crops", "patch_size"])
def test_bad_numbers_are_named(name):
    with pytest.raises(InputError, match=name):
        plan_crops(Matches.empty(), SIZE, SIZE, **{name: 0})
