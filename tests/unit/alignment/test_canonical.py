"""Canonical pointmaps against the released system's values, and their focals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from matcher.alignment.canonical import CanonicalSum
from tests.unit.alignment.hilly_scene import MAP_SIZE, ORIGINAL_FROM_NETWORK, Hills

SCENE = Hills.on_arc((0.0, 10.0))
OWN = {0: ["01_{}11", "02_{}11"], 1: ["01_{}22", "12_{}11"], 2: ["02_{}22", "12_{}22"]}


def test_canonical_views_agree_with_the_released_system(shared_dir: Path) -> None:
    golden = np.load(shared_dir / "golden" / "func_sparse_ga.npz")
    for image, keys in OWN.items():
        total = CanonicalSum(np.eye(3), 8)
        for key in keys:
            total.add(golden["in" + key.format("X")], golden["in" + key.format("C")])
        view = total.finish()
        assert view is not None
        np.testing.assert_allclose(view.points[::4, ::4], golden[f"canon{image}_s4"], atol=2e-6)
        np.testing.assert_allclose(
            view.confidence[::4, ::4], golden[f"canonconf{image}_s4"], atol=2e-6
        )
        np.testing.assert_allclose(view.relative_depth, golden[f"canon2_{image}"], atol=1e-6)
        np.testing.assert_allclose(view.anchor_depth, golden[f"core_depth{image}"], atol=2e-6)
        # Their principal point is half a pixel further.
        assert view.focal() == pytest.approx(float(golden[f"canonfocal{image}"][0]), abs=0.3)


def test_more_confident_pointmaps_count_more() -> None:
    total = CanonicalSum(np.eye(3), 8)
    near = np.ones((16, 16, 3), np.float32)
    total.add(near, np.full((16, 16), 1.999, np.float32))
    total.add(4 * near, np.full((16, 16), 3.999, np.float32))
    view = total.finish()
    assert view is not None
    np.testing.assert_allclose(view.points, (1 * 1 + 3 * 4) / 4, rtol=1e-5)
    np.testing.assert_allclose(view.confidence, (1 + 9) / 4, rtol=1e-5)


def test_a_pointmap_with_holes_leaves_the_rest() -> None:
    points = SCENE.pointmap(0, 0).astype(np.float32)
    holed = points.copy()
    holed[10:20, 30:40] = np.nan
    total = CanonicalSum(ORIGINAL_FROM_NETWORK, 8)
    for part in (points, holed):
        total.add(part, np.full(points.shape[:2], 2.0, np.float32))
    view = total.finish()
    assert view is not None
    np.testing.assert_allclose(view.points, points, rtol=1e-5, atol=1e-6)


def test_the_focal_is_that_of_a_pinhole_or_none() -> None:
    points = SCENE.pointmap(0, 0).astype(np.float32)
    sure = np.full(points.shape[:2], 2.0, np.float32)
    good = CanonicalSum(ORIGINAL_FROM_NETWORK, 8)
    good.add(points, sure)
    view = good.finish()
    assert view is not None
    assert view.focal() == pytest.approx(520, rel=1e-3)
    bad = CanonicalSum(ORIGINAL_FROM_NETWORK, 8)
    noise = np.random.default_rng(0).normal(size=points.shape)
    bad.add((noise + np.array([0, 0, 4])).astype(np.float32), sure)
    view = bad.finish()
    assert view is not None
    assert view.focal() is None


def test_blocks_at_the_border_may_be_cut() -> None:
    total = CanonicalSum(np.eye(3), 8)
    total.add(np.ones((20, 13, 3), np.float32), np.full((20, 13), 2.0, np.float32))
    view = total.finish()
    assert view is not None
    assert view.anchor_depth.shape == (3, 2)
    np.testing.assert_allclose(view.relative_depth, 1)
    assert MAP_SIZE.height % 8 == 0
