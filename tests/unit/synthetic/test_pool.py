"""The pool on disk is complete, exact enough and repeatable."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from matcher.errors import InputError
from matcher.synthetic import correspondences, relative_pose
from matcher.synthetic.pool import PoolOptions, main, write_pool
from matcher.synthetic.render import RenderedViews

OPTIONS = PoolOptions(scenes=3, views=3, size=64, seed=4, textures=20, texture_size=64, batch=1)


def test_files_hold_what_training_needs(tmp_path: Path) -> None:
    paths = list(write_pool(tmp_path, [], OPTIONS))
    assert [path.name for path in paths] == [f"scene_00000{i}.npz" for i in range(3)]
    assert sorted(path.name for path in tmp_path.iterdir()) == [path.name for path in paths]
    sizes = []
    for path in paths:
        with np.load(path) as data:
            assert data["image"].dtype == np.uint8
            assert data["depth"].dtype == np.float16
            assert data["image"].shape == (*data["depth"].shape, 3)
            assert data["k"].shape == (3, 3, 3)
            assert data["cam_from_world"].shape == (3, 4, 4)
            sizes.append(data["depth"].shape[1:])
            depth = torch.from_numpy(data["depth"].astype(np.float32))
            k, pose = torch.from_numpy(data["k"]), torch.from_numpy(data["cam_from_world"])
        found = correspondences(
            depth[0], k[0], depth[1], k[1], relative_pose(pose[0], pose[1]), tolerance=0.01
        )
        assert found.valid.shape == depth[0].shape
    assert sizes == [(64, 64), (72, 56), (56, 72)]


def test_a_pool_can_be_continued(tmp_path: Path) -> None:
    whole = list(write_pool(tmp_path / "whole", [], OPTIONS))
    late = PoolOptions(
        scenes=1, views=3, size=64, seed=4, textures=20, texture_size=64, batch=1, first=2
    )
    (part,) = write_pool(tmp_path / "part", [], late)
    with np.load(whole[2]) as expected, np.load(part) as actual:
        for name in ("image", "depth", "k", "cam_from_world"):
            assert np.array_equal(expected[name], actual[name])


def test_depth_that_a_file_cannot_hold_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matcher.synthetic import pool

    def far_views(*arguments: object) -> RenderedViews:
        views = take_views(*arguments)
        depth = views.depth.clone()
        depth[:, 0, :4] = torch.tensor([1e5, math.inf, math.nan, 65504.0])[:, None]
        return dataclasses.replace(views, depth=depth)

    take_views = pool.take_views
    monkeypatch.setattr(pool, "take_views", far_views)
    (path,) = write_pool(tmp_path, [], dataclasses.replace(OPTIONS, scenes=1))
    with np.load(path) as data:
        assert np.isfinite(data["depth"]).all()
        assert (data["depth"][0, :3] == 0).all()
        assert (data["depth"][0, 3] == 65504).all()


def test_command_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from matcher.synthetic import pool

    with caplog.at_level("INFO"), pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pool,
            "_textures",
            lambda *_: (
                pool.procedural_textures(torch.Generator().manual_seed(0), 5, 32),
                torch.zeros(5, dtype=torch.int64),
            ),
        )
        main(["--out", str(tmp_path), "--scenes", "1", "--views", "2", "--size", "32"])
    assert (tmp_path / "scene_000000.npz").exists()
    assert "1 of 1 scenes" in caplog.text


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match="pool options"):
        PoolOptions(scenes=0)


def test_height_fields_join_the_scenes(tmp_path: Path) -> None:
    flat, hilly = tmp_path / "flat", tmp_path / "hilly"
    common = ["--scenes", "1", "--views", "2", "--size", "32", "--batch", "1"]
    common += ["--texture-size", "32"]
    main(["--out", str(flat), *common])
    main(["--out", str(hilly), *common, "--reliefs", "2"])
    with np.load(flat / "scene_000000.npz") as one, np.load(hilly / "scene_000000.npz") as two:
        assert one["depth"].shape == two["depth"].shape
        assert not np.array_equal(one["depth"], two["depth"])
