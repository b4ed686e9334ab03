"""The two loops and their cache: nothing lost, nothing mixed, every failure counted."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from benchmarks.core.cache import CachedAnswer, PredictionCache
from benchmarks.core.predictions import MatchPrediction, MethodInfo
from benchmarks.core.protocols import ResizeRule, ScoredFrame
from benchmarks.core.provenance import Provenance, collect_provenance, pair_list_sha256
from benchmarks.core.runner import (
    cache_path,
    evaluate,
    export,
    open_cache,
    resize_photograph,
    to_stored,
)
from benchmarks.core.samples import Dataset, PairSample, PoseTruth
from benchmarks.protocols import POSE_PRESETS
from benchmarks.tasks import task_for
from matcher.errors import InputError
from matcher.structures import ImageSize
from tests.benchmarks.miniature import relative, render_views

INFO = MethodInfo("oracle", "Apache-2.0", "1", "exact")
RULE = ResizeRule()
SIZE = ImageSize(120, 160)
FRAME = ScoredFrame(SIZE, SIZE, SIZE, SIZE)


class Oracle:
    """Answers with the truth through the rendered depth; raises where it is told to."""

    info = INFO

    def __init__(self, raises_on: int | None = None) -> None:
        self.asked = 0
        self.raises_on = raises_on

    def match(self, image0: np.ndarray, image1: np.ndarray) -> MatchPrediction:
        self.asked += 1
        if self.asked == self.raises_on:
            raise ZeroDivisionError("a method's\nown bug")
        views = render_views()
        first = next(v for v in views if np.array_equal(v.image, image0))
        second = next(v for v in views if np.array_equal(v.image, image1))
        rows, columns = (grid.ravel() for grid in np.mgrid[4:116:8, 4:156:8])
        depth = first.depth[rows, columns].astype(np.float64)
        pixels = np.stack([columns, rows], axis=1).astype(np.float64)
        rays = np.column_stack([pixels, np.ones(len(pixels))]) @ np.linalg.inv(first.k).T
        pose = relative(first, second)
        points = (rays * depth[:, None]) @ pose[:3, :3].T + pose[:3, 3]
        projected = points @ second.k.T
        kept = (depth > 0) & (projected[:, 2] > 0.1)
        ends = projected[kept, :2] / projected[kept, 2:]
        return MatchPrediction(pixels[kept], ends, np.ones(kept.sum()))


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    views = render_views()
    for number, view in enumerate(views):
        assert cv2.imwrite(str(tmp_path / f"{number}.png"), view.image[..., ::-1])
    samples = tuple(
        PairSample(
            f"scene/{i}-{j}",
            tmp_path / f"{i}.png",
            tmp_path / f"{j}.png",
            PoseTruth(views[i].k, views[j].k, relative(views[i], views[j])),
            group="scene",
        )
        for i, j in ((0, 1), (0, 2), (1, 2))
    )
    return Dataset("mini", "Miniature", samples, "pose", tmp_path)


def some_prediction(count: int = 5) -> MatchPrediction:
    random = np.random.default_rng(count)
    return MatchPrediction(
        random.uniform(0, 100, (count, 2)),
        random.uniform(0, 100, (count, 2)),
        random.uniform(0.1, 1, count),
        random.normal(size=(count, 3)),
        0.25,
        1.5,
    )


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "below" / "a.h5"
    prediction = some_prediction()
    with PredictionCache(path, {"a": 1}) as cache:
        cache.store("x/y", CachedAnswer(prediction, FRAME))
        cache.store("failed", CachedAnswer(MatchPrediction.failed("no\n luck"), FRAME))
    with PredictionCache(path, {"a": 1}) as cache:
        loaded = cache.load("x/y")
        assert loaded is not None
        assert loaded.frame == FRAME
        np.testing.assert_allclose(loaded.prediction.keypoints1, prediction.keypoints1, atol=1e-5)
        np.testing.assert_allclose(loaded.prediction.points0, prediction.points0, atol=1e-6)
        assert (loaded.prediction.pair_score, loaded.prediction.seconds) == (0.25, 1.5)
        failed = cache.load("failed")
        assert failed is not None
        assert failed.prediction.failure == "no luck"
        assert cache.load("never") is None


def test_another_configuration_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with PredictionCache(path, {"method": "sift", "resize": [1, 2]}) as cache:
        cache.store("pair", CachedAnswer(some_prediction(), FRAME))
    with pytest.raises(InputError, match="differs in resize"):
        PredictionCache(path, {"method": "sift", "resize": [1, 3]})
    with PredictionCache(path, {"method": "sift", "resize": [1, 2]}) as cache:
        assert "pair" in cache


def test_a_damaged_pair_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with PredictionCache(path, {}) as cache:
        cache.store("pair", CachedAnswer(some_prediction(), FRAME))
    with h5py.File(path, "a") as file:
        group = next(entry for entry in file.values() if isinstance(entry, h5py.Group))
        group["keypoints0"][0, 0] += 1
    with PredictionCache(path, {}) as cache:
        assert cache.load("pair") is None
        cache.store("pair", CachedAnswer(some_prediction(7), FRAME))
        again = cache.load("pair")
        assert again is not None
        assert len(again.prediction) == 7


def test_a_truncated_cache_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with PredictionCache(path, {}) as cache:
        cache.store("pair", CachedAnswer(some_prediction(), FRAME))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3])
    with PredictionCache(path, {}) as cache:
        assert cache.was_damaged
        assert cache.load("pair") is None
        cache.store("pair", CachedAnswer(some_prediction(), FRAME))
        assert "pair" in cache
    assert (tmp_path / "a.damaged0").read_bytes() == whole[: len(whole) // 3]


def test_a_second_start_goes_on_where_the_first_stopped(dataset: Dataset, tmp_path: Path) -> None:
    path = cache_path(tmp_path / "cache", dataset, INFO, RULE)
    first = Oracle()
    part = dataclasses.replace(dataset, samples=dataset.samples[:2])
    with open_cache(path, dataset, INFO, RULE) as cache:
        assert export(part, first, RULE, cache).computed == 2
    second = Oracle()
    with open_cache(path, dataset, INFO, RULE) as cache:
        summary = export(dataset, second, RULE, cache)
        assert (summary.computed, summary.reused, second.asked) == (1, 2, 1)
        scores, answers = evaluate(dataset, cache, task_for("pose"), POSE_PRESETS["ours"])
        twice, _ = evaluate(dataset, cache, task_for("pose"), POSE_PRESETS["ours"], 2)
    assert len(answers) == 3
    assert [score.errors for score in twice] == [score.errors for score in scores]
    assert max(score.error for score in scores) < 0.5


def test_a_method_that_raises_is_one_failure(dataset: Dataset, tmp_path: Path) -> None:
    said: list[str] = []
    path = tmp_path / "a.h5"
    with open_cache(path, dataset, INFO, RULE) as cache:
        summary = export(
            dataset,
            Oracle(raises_on=2),
            RULE,
            cache,
            progress=lambda done, total, failure: said.append(failure),
        )
        scores, _ = evaluate(dataset, cache, task_for("pose"), POSE_PRESETS["ours"])
        assert summary.failures == (("scene/0-2", "ZeroDivisionError: a method's own bug"),)
        assert [bool(text) for text in said] == [False, True, False]
        assert [math.isinf(score.error) for score in scores] == [False, True, False]
        retried = Oracle()
        export(dataset, retried, RULE, cache, retry_failures=True)
        assert retried.asked == 1


def test_an_absent_photograph_and_an_unreadable_line_count(
    dataset: Dataset, tmp_path: Path
) -> None:
    (tmp_path / "2.png").unlink()
    spoiled = dataclasses.replace(dataset, problems=(("line 9", "K0: expected (3, 3)"),))
    with open_cache(tmp_path / "a.h5", spoiled, INFO, RULE) as cache:
        summary = export(spoiled, Oracle(), RULE, cache)
        scores, _ = evaluate(spoiled, cache, task_for("pose"), POSE_PRESETS["ours"])
    assert [name for name, _ in summary.failures] == ["scene/0-2", "scene/1-2"]
    assert "2.png" in summary.failures[0][1]
    assert [score.unit for score in scores if score.failure] == [
        "scene/0-2",
        "scene/1-2",
        "line 9",
    ]
    table = task_for("pose").summarise(scores, POSE_PRESETS["ours"])
    assert (table.num_units, table.num_failures) == (4, 3)
    assert table.metrics[0].value == pytest.approx(0.25, abs=0.02)


def test_an_empty_cache_is_no_answer(dataset: Dataset, tmp_path: Path) -> None:
    with (
        open_cache(tmp_path / "a.h5", dataset, INFO, RULE) as cache,
        pytest.raises(InputError, match="which has none"),
    ):
        evaluate(dataset, cache, task_for("pose"), POSE_PRESETS["ours"])


def test_resized_pixels_come_back_without_bias() -> None:
    stored, resized = ImageSize(300, 400), ImageSize(150, 200)
    # The centre of the first resized pixel lies between the first two stored ones.
    moved = to_stored(np.array([[0.0, 0.0], [199.0, 149.0]]), stored, resized)
    np.testing.assert_allclose(moved, [[0.5, 0.5], [398.5, 298.5]])
    ramp = np.tile(np.arange(400, dtype=np.uint8)[None, :, None] // 2, (300, 1, 3))
    half = resize_photograph(ramp, resized)
    assert half.shape == (150, 200, 3)
    assert resize_photograph(ramp, stored) is ramp


@pytest.mark.parametrize(
    ("rule", "size", "expected"),
    [
        (ResizeRule("long", 1200), (600, 800), (900, 1200)),
        (ResizeRule("long", 1200, only_shrink=True), (600, 800), (600, 800)),
        (ResizeRule("short", 480), (960, 1440), (480, 720)),
        (ResizeRule("exact", 640, 480), (968, 1296), (480, 640)),
        (ResizeRule(), (7, 9), (7, 9)),
    ],
)
def test_resize_rules(rule: ResizeRule, size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert rule.apply(ImageSize(*size)) == ImageSize(*expected)


def test_the_pair_list_hash_follows_the_truth_not_the_folder(dataset: Dataset) -> None:
    moved = dataclasses.replace(dataset, root=Path("elsewhere"))
    assert pair_list_sha256(moved) == pair_list_sha256(dataset)
    first = dataset.samples[0]
    assert isinstance(first.truth, PoseTruth)
    pose = first.truth.cam1_from_cam0.copy()
    pose[0, 3] += 1e-9
    other = dataclasses.replace(first, truth=dataclasses.replace(first.truth, cam1_from_cam0=pose))
    changed = dataclasses.replace(dataset, samples=(other, *dataset.samples[1:]))
    assert pair_list_sha256(changed) != pair_list_sha256(dataset)


def test_provenance_survives_a_round_trip(dataset: Dataset) -> None:
    provenance = collect_provenance(dataset)
    assert Provenance.from_dict(provenance.to_dict()) == provenance
    assert dict(provenance.versions)["numpy"] == np.__version__
    assert provenance.num_pairs == 3
