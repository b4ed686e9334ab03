"""The renderer's speed benchmark: stages add up, operations are counted, floors follow."""

from __future__ import annotations

import pytest
import torch

from benchmarks.speed.scenes import (
    SceneSpeed,
    Stage,
    _counting,
    measure_scenes,
    report_lines,
)
from matcher.errors import InputError
from matcher.synthetic.batches import PlaceOptions
from matcher.synthetic.layouts import SceneOptions


def test_operators_are_counted() -> None:
    first, second = torch.ones(1000), torch.ones(10, 1)
    with _counting() as count:
        total = first + 1
        view = total.reshape(10, 100)
        assert (view * second).shape == (10, 100)
    assert count.calls == 2
    assert count.elements == 2000
    assert count.bytes == 4 * (1000 + 1000 + 1000 + 10 + 1000)


@pytest.mark.slow
def test_every_stage_is_measured() -> None:
    options = PlaceOptions(SceneOptions(0, 0, 0, 1))
    result = measure_scenes(batch=1, side=32, repeats=1, options=options)
    names = [stage.name for stage in result.stages]
    assert names[:2] == ["layouts", "cameras"]
    assert {"shadows", "outlines", "reflections", "lens", "correspondences"} <= set(names)
    assert result.pairs_per_second == pytest.approx(1 / sum(s.seconds for s in result.stages))
    assert result.stages[2].operations > 100 * 2 * 32 * 32
    lines = report_lines(result, tflops=30, terabytes=2)
    assert len(lines) == 2 + len(names) + 3


def test_floors_follow_from_counts() -> None:
    stage = Stage("all", seconds=0.01, operations=3e9, gigabytes=4.0, launches=7)
    result = SceneSpeed("cpu", "2", 224, 1, 70, (stage,))
    last = report_lines(result, tflops=30, terabytes=2)[-1]
    assert "at most 500 pairs a second operator by operator, 10000 with" in last


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="batch, side, repeats"):
        measure_scenes(batch=0)
