"""Small sources of pairs, and a run of seconds, shared by the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from matcher.model.config import ModelConfig
from matcher.synthetic.pool import PoolOptions, write_pool
from matcher.training.config import DataConfig, Stage, TrainConfig

ByteImage = npt.NDArray[np.uint8]


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of two rendered scenes with four views each."""
    folder = tmp_path_factory.mktemp("pool")
    options = PoolOptions(scenes=2, views=4, size=64, seed=4, textures=20, texture_size=64, batch=1)
    assert len(list(write_pool(folder, [], options))) == 2
    return folder


@pytest.fixture(scope="session")
def photo() -> ByteImage:
    """(200, 260, 3) smooth noise: every place looks different, neighbours look alike."""
    noise = np.random.default_rng(3).uniform(0, 255, (200, 260, 3)).astype(np.float32)
    smooth = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4))
    spread = (smooth - smooth.mean()) / smooth.std() * 50 + 128
    return np.clip(spread, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, photo: ByteImage) -> Path:
    """A folder of two photographs."""
    folder = tmp_path_factory.mktemp("photos")
    assert cv2.imwrite(str(folder / "a.png"), photo)
    assert cv2.imwrite(str(folder / "b.png"), photo[::-1])
    return folder


@pytest.fixture
def toy(pool: Path) -> Callable[..., TrainConfig]:
    """Makes the configuration of a run of about a second; keywords override it."""

    def make(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "model": ModelConfig.tiny(),
            "data": DataConfig(scene_pools=(str(pool),), num_matches=64),
            "stages": (Stage(1.0, 48, 2),),
            "max_minutes": 0.015,
            "warmup_steps": 2,
            "initialise": "random",
            "precision": "fp32",
            "num_threads": 1,
            "num_workers": 0,
        }
        return TrainConfig(**{**values, **changes})

    return make
