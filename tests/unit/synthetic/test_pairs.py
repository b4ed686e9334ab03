"""Correspondences, pointmaps and overlaps on geometry simple enough to do by hand."""

from __future__ import annotations

import pytest
import torch

from matcher.errors import InputError
from matcher.structures import ImageSize
from matcher.synthetic import (
    correspondences,
    make_test_pair,
    overlap,
    overlap_matrix,
    points_in_camera0,
    sample_pairs,
)

K = torch.tensor([[50.0, 0, 19.5], [0, 50.0, 14.5], [0, 0, 1]], dtype=torch.float64)


def shift_x(metres: float) -> torch.Tensor:
    pose = torch.eye(4, dtype=torch.float64)
    pose[0, 3] = metres
    return pose


def test_same_view_maps_to_itself() -> None:
    depth = 1 + torch.rand(30, 40, generator=torch.Generator().manual_seed(0))
    found = correspondences(depth, K, depth, K, torch.eye(4))
    y, x = torch.meshgrid(torch.arange(30), torch.arange(40), indexing="ij")
    assert bool(found.valid.all())
    assert torch.allclose(found.target, torch.stack((x, y), -1).float(), atol=1e-4)


def test_plane_shifts_by_disparity() -> None:
    depth = torch.full((30, 40), 2.0)
    found = correspondences(depth, K, depth, K, shift_x(-0.2))
    # disparity 50 * 0.2 / 2 = 5 pixels to the left; the first five columns leave the image.
    assert torch.allclose(found.target[:, 7, 0], torch.full((30,), 2.0), atol=1e-4)
    assert not bool(found.valid[:, :5].any())
    assert bool(found.valid[:, 5:].all())


def test_occluded_pixels_do_not_count() -> None:
    depth0 = torch.full((30, 40), 4.0)
    depth1 = depth0.clone()
    depth1[10:20, 10:20] = 2.0  # something in front, seen in view 1 only
    found = correspondences(depth0, K, depth1, K, torch.eye(4))
    assert not bool(found.valid[10:20, 10:20].any())
    assert bool(found.valid[:10].all())


def test_unknown_depth_never_counts() -> None:
    depth0, depth1 = torch.full((30, 40), 3.0), torch.full((30, 40), 3.0)
    depth0[0, 0] = 0
    depth1[5, 5] = 0
    found = correspondences(depth0, K, depth1, K, torch.eye(4))
    assert not bool(found.valid[0, 0])
    assert not bool(found.valid[5, 5])
    assert int(found.valid.sum()) == 30 * 40 - 2


def test_behind_the_camera_is_not_seen() -> None:
    turned = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64))
    depth = torch.full((30, 40), 3.0)
    assert not bool(correspondences(depth, K, depth, K, turned).valid.any())


def test_batches_agree_with_single_pairs() -> None:
    pairs = [make_test_pair(seed, ImageSize(30, 40), 25.0) for seed in (0, 1)]
    depth0, depth1, k, pose = (
        torch.stack([torch.from_numpy(getattr(pair, name)) for pair in pairs])
        for name in ("depth0", "depth1", "k", "cam1_from_cam0")
    )
    together = correspondences(depth0, k, depth1, k, pose)
    for row in range(2):
        alone = correspondences(depth0[row], k[row], depth1[row], k[row], pose[row])
        assert torch.equal(alone.valid, together.valid[row])


def test_pointmaps_are_one_frame() -> None:
    pair = make_test_pair(3, ImageSize(60, 80), 15.0)
    depth0, depth1 = torch.from_numpy(pair.depth0), torch.from_numpy(pair.depth1)
    k, pose = torch.from_numpy(pair.k), torch.from_numpy(pair.cam1_from_cam0)
    points0, points1 = points_in_camera0(depth0, k, depth1, k, pose)
    assert torch.allclose(points0[..., 2], depth0)
    found = correspondences(depth0, k, depth1, k, pose)
    x, y = found.target[found.valid].round().long().unbind(-1)
    distance = (points0[found.valid] - points1[y, x]).norm(dim=-1)
    assert found.valid.float().mean() > 0.3
    assert float(distance.median()) < 0.05  # half a pixel at 6 m and f = 69
    back = points1.double() @ pose[:3, :3].T + pose[:3, 3]
    assert torch.allclose(back[..., 2].float(), depth1, atol=1e-5)


def test_overlap_of_a_zoom_is_not_symmetric() -> None:
    depth = torch.full((30, 40), 2.0)
    near = K.clone()
    near[0, 0] = near[1, 1] = 100.0
    share, smaller = overlap(depth, K, depth, near, torch.eye(4))
    assert float(share) == pytest.approx(0.25, abs=0.03)
    assert float(smaller) == pytest.approx(float(share))
    back, _ = overlap(depth, near, depth, K, torch.eye(4))
    assert float(back) == 1.0
    stack = overlap_matrix(
        depth.expand(1, 2, 30, 40),
        torch.stack((K, near))[None],
        torch.eye(4).expand(1, 2, 4, 4),
        0.01,
    )
    assert torch.allclose(stack[0, 0, 1], share)
    assert torch.allclose(stack[0].diagonal(), torch.ones(2))


def test_sampled_pairs_are_flat_in_overlap() -> None:
    generator = torch.Generator().manual_seed(0)
    skewed = torch.rand(200, 12, 12, generator=generator) ** 2
    overlaps = torch.minimum(skewed, skewed.mT)
    pairs = sample_pairs(generator, overlaps, 6)
    assert pairs.shape == (200, 6, 2)
    assert bool((pairs[..., 0] != pairs[..., 1]).all())
    scene = torch.arange(200)[:, None]
    value = overlaps[scene, pairs[..., 0], pairs[..., 1]].flatten()
    counts = torch.histc(value, 4, 0.05, 0.85) / len(value)
    assert float(counts.min()) > 0.15
    assert float((value < 0.05).double().mean()) < 0.01


def test_a_single_view_has_no_pairs() -> None:
    with pytest.raises(InputError, match="at least 2 views"):
        sample_pairs(torch.Generator(), torch.ones(1, 1, 1), 2)


def test_batches_must_agree() -> None:
    with pytest.raises(InputError, match="depth1"):
        correspondences(torch.ones(2, 4, 4), K, torch.ones(3, 4, 4), K, torch.eye(4))
