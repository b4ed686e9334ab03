"""The configuration of a run: what it refuses, and that it survives JSON."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.training.config import DataConfig, Stage, TrainConfig


def test_json_keeps_everything() -> None:
    config = TrainConfig(
        model=ModelConfig.tiny(),
        data=DataConfig(scene_pools=("a", "b"), photos=("c",), pair_weight=0.0, num_matches=99),
        stages=(Stage(0.25, 64, 8), Stage(1.0, 128, 2)),
        max_minutes=12.5,
        learning_rate=3e-4,
        initialise="random",
        precision="fp32",
        seed=7,
    )
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert TrainConfig.from_dict({}) == TrainConfig()


@pytest.mark.parametrize(
    "values",
    [
        {"learning_rte": 1e-3},
        {"data": {"folders": ["a"]}},
        {"stages": [{"until": 1.0, "image_size": 64, "batch_size": 2, "colour": 1}]},
        {"stages": [{"until": 1.0}]},
        {"stages": 3},
        {"model": {"width": 3}},
        {"model": 3},
        {"max_minutes": "long"},
        {"data": {"scene_weight": "much"}},
        "text",
    ],
)
def test_unknown_keys_and_types_are_refused_in_one_line(values: Any) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig.from_dict(values)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"max_minutes": 0}, "max_minutes"),
        ({"max_minutes": math.nan}, "max_minutes"),
        ({"max_minutes": math.inf}, "max_minutes"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"temperature": 0.0}, "temperature"),
        ({"gradient_clip": 0.0}, "gradient_clip"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"matching_weight": -1.0}, "matching_weight"),
        ({"ema_decay": 1.0}, "ema_decay"),
        ({"precision": "fp16"}, "precision"),
        ({"initialise": ""}, "initialise"),
        ({"num_threads": 0}, "num_threads"),
        ({"num_workers": -1}, "num_workers"),
        ({"num_workers": 1.5}, "num_workers"),
        ({"seed": -1}, "seed"),
        ({"stages": ()}, "stages"),
        ({"stages": (Stage(0.5, 64, 2),)}, "stages"),
        ({"stages": (Stage(0.7, 64, 2), Stage(0.7, 64, 2), Stage(1.0, 64, 2))}, "stages"),
    ],
)
def test_impossible_runs_are_refused(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError) as caught:
        TrainConfig(**changes)
    assert caught.value.argument == name


def test_a_trunk_needs_a_convolutional_stem() -> None:
    values = ModelConfig.tiny().to_dict()
    values["stem"] = "patch"
    values["head"] = {"points": "linear", "local_features": "none"}
    values["points_depth"] = 0
    with pytest.raises(InputError, match="initialise: expected 'random'"):
        TrainConfig(model=ModelConfig.from_dict(values))


@pytest.mark.parametrize("arguments", [(0.0, 64, 2), (1.1, 64, 2), (1.0, 16, 2), (1.0, 64, 0)])
def test_impossible_stages_are_refused(arguments: tuple[float, int, int]) -> None:
    with pytest.raises(InputError, match="stage"):
        Stage(*arguments)


def test_impossible_data_is_refused() -> None:
    with pytest.raises(InputError, match="photos: expected a list of paths, got 'holiday'"):
        DataConfig(photos="holiday")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="scene_weight"):
        DataConfig(scene_weight=-0.5)
    with pytest.raises(InputError, match="num_matches"):
        DataConfig(num_matches=7)


def test_shapes_have_about_one_area_and_fit_the_patches() -> None:
    assert Stage(1.0, 384, 1).shapes == ((384, 384), (336, 448), (448, 336))
    assert Stage(1.0, 192, 1).shapes == ((192, 192), (160, 224), (224, 160))
    assert Stage(1.0, 48, 1).shapes == ((48, 48), (48, 48), (48, 48))
    for height, width in Stage(1.0, 500, 1).shapes:
        assert height % 16 == width % 16 == 0
        assert abs(height * width / 500**2 - 1) < 0.06


def test_stages_follow_the_progress() -> None:
    config = TrainConfig(stages=(Stage(0.5, 64, 2), Stage(0.85, 96, 2), Stage(1.0, 128, 2)))
    shares = (0.0, 0.49, 0.5, 0.84, 0.85, 0.99, 1.0, 3.0)
    assert [config.stage_index(share) for share in shares] == [0, 0, 1, 1, 2, 2, 2, 2]
