"""Pointmaps against measured depth."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.pointmaps import (
    PointmapErrors,
    as_markdown,
    chosen_pairs,
    main,
    point_truth,
    pointmap_errors,
)
from matcher.checkpoints import CheckpointInfo, save_native
from matcher.model.config import ModelConfig
from matcher.model.network import TwoViewNetwork
from matcher.pointmaps import Pointmaps
from matcher.structures import ImageSize
from matcher.synthetic.fixtures import TestPair, make_test_pair
from matcher.training.posed_depth import DepthGroup, overlap_table


@pytest.fixture(scope="module")
def pair() -> TestPair:
    return make_test_pair(5, ImageSize(96, 128), 15.0)


@pytest.fixture(scope="module")
def group(pair: TestPair) -> DepthGroup:
    """The two frames, and a third that is the first one again."""
    depths = [pair.depth0, pair.depth1, pair.depth0]
    intrinsics = np.stack([pair.k] * 3)
    poses = np.stack([np.eye(4), pair.cam1_from_cam0, np.eye(4)])
    table = overlap_table(depths, intrinsics, poses)
    images = [pair.image0, pair.image1, pair.image0]
    return DepthGroup(images, depths, intrinsics, poses, table, True)


def _maps(group: DepthGroup, scale: float = 1.0) -> Pointmaps:
    """True pointmaps of the middle of both photographs, at half their resolution."""
    truth = point_truth(group, 0, 1)
    original_from_network = np.array([[2.0, 0, 8], [0, 2.0, 4], [0, 0, 1]])
    # Where nothing was measured a network answers something all the same.
    points0, points1 = (
        np.nan_to_num(scale * points[4:84:2, 8:120:2], nan=7.0).astype(np.float32)
        for points in (truth.points0, truth.points1)
    )
    ones = np.ones(points0.shape[:2], np.float32)
    return Pointmaps(
        points0, points1, ones, ones, original_from_network, original_from_network.copy()
    )


def test_true_pointmaps_of_any_scale_have_no_error(group: DepthGroup) -> None:
    errors = pointmap_errors(_maps(group, 3.0), point_truth(group, 0, 1))
    assert errors.depth < 1e-5
    assert errors.points1 < 1e-5


def test_errors_are_those_that_were_put_in(group: DepthGroup) -> None:
    truth, maps = point_truth(group, 0, 1), _maps(group)
    ramp = np.linspace(0.8, 1.2, maps.points0.shape[1], dtype=np.float32)
    stretched = maps.points0 * ramp[None, :, None]
    errors = pointmap_errors(dataclasses.replace(maps, points0=stretched), truth)
    assert errors.depth == pytest.approx(0.1, abs=0.02)
    distance = np.linalg.norm(truth.points1, axis=2)
    offset = 0.25 * float(np.nanmedian(distance))
    shifted = maps.points1 + np.array([0, offset, 0], np.float32)
    errors = pointmap_errors(dataclasses.replace(maps, points1=shifted), truth)
    assert errors.depth < 1e-5
    assert errors.points1 == pytest.approx(0.25, rel=0.15)


def test_the_focal_of_a_pointmap_around_the_middle(group: DepthGroup) -> None:
    truth = point_truth(group, 0, 1)
    points = np.nan_to_num(truth.points0, nan=0.0).astype(np.float32)
    maps = dataclasses.replace(_maps(group), points0=points, original0_from_network=np.eye(3))
    assert pointmap_errors(maps, truth).focal < 0.02
    squeezed = dataclasses.replace(maps, points0=points * np.array([1, 1, 0.8], np.float32))
    assert pointmap_errors(squeezed, truth).focal == pytest.approx(0.2, abs=0.02)


def test_one_depth_everywhere_is_wrong_by_the_relief(group: DepthGroup) -> None:
    truth = point_truth(group, 0, 1)
    errors = pointmap_errors(None, truth)
    depth = truth.points0[..., 2][np.isfinite(truth.points0[..., 2])]
    expected = np.median(np.abs(np.median(depth) - depth) / depth)
    assert errors.depth == pytest.approx(expected, rel=1e-5)
    assert np.isnan(errors.focal)


def test_nothing_measured_is_not_a_number(group: DepthGroup) -> None:
    empty = dataclasses.replace(group, depths=[np.zeros_like(depth) for depth in group.depths])
    errors = pointmap_errors(_maps(group), point_truth(empty, 0, 1))
    assert np.isnan([errors.depth, errors.points1]).all()


def test_frames_go_with_the_wanted_overlap(group: DepthGroup) -> None:
    shared = float(min(group.overlaps[0, 1], group.overlaps[1, 0]))
    assert chosen_pairs(group, 3, shared) == [(0, 1), (1, 0), (2, 1)]
    assert chosen_pairs(group, 3, 1.0)[0] == (0, 2)


def test_the_table_says_what_is_missing() -> None:
    errors = [PointmapErrors(0.1, 0.2, np.nan), PointmapErrors(0.3, 0.2, 0.5)]
    table = as_markdown([("one", errors)], "views.jsonl")
    assert "2 pairs of `views.jsonl`" in table
    assert "| one | 20.0 (" in table
    assert "1 without" in table


@pytest.fixture
def manifest(group: DepthGroup, tmp_path: Path) -> Path:
    lines = []
    for index in range(2):
        image, depth = group.images[index], group.depths[index]
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), image[..., ::-1])
        assert cv2.imwrite(str(tmp_path / f"{index}d.png"), (1000 * depth).astype(np.uint16))
        record = {
            "image": f"{index}.png",
            "K": group.intrinsics[index].tolist(),
            "cam_from_world": group.cam_from_world[index].tolist(),
            "depth": f"{index}d.png",
            "depth_scale": 1000.0,
        }
        lines.append(json.dumps(record) + "\n")
    path = tmp_path / "views.jsonl"
    path.write_text("".join(lines))
    return path


def test_the_command(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "tiny.safetensors"
    save_native(model, TwoViewNetwork(ModelConfig.tiny()), CheckpointInfo("tiny"))
    arguments = ["--views", str(manifest), "--pairs", "2", "--threads", "1"]
    arguments += ["--models", str(model), "--max-size", "64", "--report", str(tmp_path / "out")]
    assert main(arguments) == 0
    table = (tmp_path / "out" / "pointmaps.md").read_text()
    assert table == capsys.readouterr().out
    assert "| one depth everywhere |" in table
    assert "tiny.safetensors |" in table
    assert "tiny.safetensors, with its matches |" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--pairs", "1"], "--pairs: expected at least 2"),
        (["--overlap", "1.5"], "--overlap: expected a share"),
        (["--models", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input(
    manifest: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["--views", str(manifest), *arguments]) == 2
    assert message in capsys.readouterr().err
