"""The stream of batches: repeatable, shared between workers, and what a failure does."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from matcher.errors import DatasetError, InputError
from matcher.training import datasets
from matcher.training.config import DataConfig, Stage, TrainConfig
from matcher.training.datasets import PairStream, build_sources, held_out_photos, make_loader
from matcher.training.motion import Motion
from matcher.training.samples import TrainingBatch, TrainingSample, select_matches

Make = Callable[..., TrainConfig]


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return (
        torch.equal(one.pixels0, other.pixels0)
        and torch.equal(one.pixels1, other.pixels1)
        and torch.equal(one.correspondences.pixels1, other.correspondences.pixels1)
        and torch.equal(one.targets.points1, other.targets.points1)
        and one.sources == other.sources
    )


def test_number_and_seed_decide_a_batch(toy: Make, photos: Path, pool: Path) -> None:
    data = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), num_matches=32)
    one, again = PairStream(toy(data=data)), PairStream(toy(data=data))
    reseeded = PairStream(toy(data=data, seed=1))
    assert same(one.batch(5), again.batch(5))
    assert not torch.equal(one.batch(5).pixels0, one.batch(6).pixels0)
    assert not torch.equal(one.batch(5).pixels0, reseeded.batch(5).pixels0)


def test_the_stage_decides_size_and_shape(toy: Make) -> None:
    stream = PairStream(toy(stages=(Stage(0.5, 48, 2), Stage(1.0, 64, 3))))
    assert stream.batch(0).pixels0.shape == (2, 3, 48, 48)
    stream.set_stage(1)
    shapes = {tuple(stream.batch(number).pixels0.shape) for number in range(6)}
    assert shapes <= {(3, 3, 64, 64), (3, 3, 48, 80), (3, 3, 80, 48)}
    assert len(shapes) > 1


@pytest.mark.parametrize(
    ("worker", "expected"), [(None, [7, 8, 9]), (0, [7, 9, 11]), (1, [8, 10, 12])]
)
def test_workers_share_the_numbers(
    toy: Make, monkeypatch: pytest.MonkeyPatch, worker: int | None, expected: list[int]
) -> None:
    stream = PairStream(toy(), first_batch=7)
    info = None if worker is None else SimpleNamespace(id=worker, num_workers=2)
    monkeypatch.setattr(datasets, "get_worker_info", lambda: info)
    # What a worker process does to itself is not to be done to this one.
    monkeypatch.setattr(datasets, "cv2", SimpleNamespace(setNumThreads=lambda count: None))
    monkeypatch.setattr(datasets, "torch", SimpleNamespace(set_num_threads=lambda count: None))
    monkeypatch.setattr(datasets, "os", SimpleNamespace(nice=lambda step: None))
    monkeypatch.setattr(datasets.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(stream, "batch", lambda number: number)
    assert list(islice(stream, 3)) == expected


class Unlucky:
    """A source whose draws fail as it is told; the number of a draw is its image's colour."""

    def __init__(self, fails: Callable[[int], bool]) -> None:
        self.fails = fails
        self.draws = 0

    def draw(
        self, random: np.random.Generator, shape: tuple[int, int], num_matches: int, motion: Motion
    ) -> TrainingSample:
        number = self.draws
        self.draws += 1
        if self.fails(number):
            raise DatasetError(f"draw {number} is broken")
        image = np.full((*shape, 3), number, dtype=np.uint8)
        nothing = np.zeros((0, 2))
        matches = select_matches(random, nothing, nothing, shape, num_matches, exact=True)
        return TrainingSample(image, image, matches)


def unlucky(config: TrainConfig, fails: Callable[[int], bool]) -> PairStream:
    stream = PairStream(config)
    stream.sources, stream.probabilities = [Unlucky(fails)], [1.0]
    return stream


def test_a_draw_that_fails_is_replaced_and_counted(toy: Make) -> None:
    stream = unlucky(toy(stages=(Stage(1.0, 48, 3),)), lambda number: number in (0, 2))
    batch = stream.batch(0)
    assert batch.skipped == ("draw 0 is broken", "draw 2 is broken")
    colours = (batch.pixels0[:, 0, 0, 0] * 127.5 + 127.5).round().tolist()
    assert colours == [1, 3, 4]
    assert stream.batch(1).skipped == ()


def test_a_source_with_nothing_to_give_leaves_its_pairs_to_the_others(toy: Make) -> None:
    """For instance views that no portrait crop keeps within the lenses of a stage."""
    stream = PairStream(toy(stages=(Stage(1.0, 48, 2),)))
    good = Unlucky(lambda number: False)
    stream.sources = [Unlucky(lambda number: True), good]
    stream.probabilities = [0.6, 0.4]
    batches = [stream.batch(number) for number in range(12)]
    assert all(len(batch.sources) == 2 for batch in batches)
    assert sum(len(batch.skipped) for batch in batches) > 12


def test_failures_without_end_are_raised(toy: Make) -> None:
    stream = unlucky(toy(), lambda number: True)
    with pytest.raises(DatasetError, match="25 draws in a row failed, the last one: draw 24"):
        stream.batch(0)


def test_points_that_are_not_finite_are_left_out(toy: Make) -> None:
    stream = PairStream(toy())
    source = stream.sources[0]
    draw = source.draw

    def spoiled(*arguments: object) -> TrainingSample:
        sample = draw(*arguments)  # type: ignore[arg-type]
        assert sample.points0 is not None
        assert sample.valid0 is not None
        sample.points0[tuple(np.argwhere(sample.valid0)[0])] = np.nan
        return sample

    source.draw = spoiled  # type: ignore[method-assign]
    with pytest.raises(DatasetError, match="scenes: NaN or infinity among the points of a pair"):
        stream.batch(0)


def test_processes_share_a_batch(toy: Make) -> None:
    config = toy(stages=(Stage(1.0, 48, 4),))
    alone = PairStream(config).batch(3)
    parts = [PairStream(config, rank=rank, world_size=2).batch(3) for rank in (0, 1)]
    assert torch.equal(torch.cat([part.pixels0 for part in parts]), alone.pixels0)
    matched = torch.cat([part.correspondences.pixels1 for part in parts])
    assert torch.equal(matched, alone.correspondences.pixels1)
    with pytest.raises(InputError, match="stage batch_size: expected a multiple of the 3 proc"):
        PairStream(config, world_size=3)


def test_the_number_decides_the_stage_of_a_run_bounded_by_steps(toy: Make) -> None:
    config = toy(stages=(Stage(0.5, 32, 1), Stage(1.0, 48, 2)), max_steps=10)
    stream = PairStream(config)
    assert [len(stream.batch(number).sources) for number in (0, 4, 5, 9)] == [1, 1, 2, 2]


def test_weights_are_shares_and_zero_leaves_out(toy: Make, pool: Path, photos: Path) -> None:
    data = DataConfig(
        scene_pools=(str(pool),), photos=(str(photos),), scene_weight=0.6, photo_weight=0.2
    )
    sources, shares = build_sources(toy(data=data))
    assert [type(source).__name__ for source in sources] == ["ScenePool", "SinglePhotos"]
    assert shares == pytest.approx([0.75, 0.25])
    without = DataConfig(scene_pools=(str(pool),), photos=(str(photos),), photo_weight=0.0)
    assert build_sources(toy(data=without))[1] == [1.0]
    with pytest.raises(InputError, match="data: expected at least one source"):
        build_sources(toy(data=DataConfig()))


def test_held_out_photographs_are_not_trained_on(toy: Make, photos: Path) -> None:
    config = toy(data=DataConfig(photos=(str(photos),)))
    assert held_out_photos(config) == [str(photos / "a.png")]
    (source,), _ = build_sources(config)
    assert [path.name for path in source.photos] == ["b.png"]  # type: ignore[attr-defined]


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_worker_processes_bring_the_same_batches(toy: Make) -> None:
    stream = PairStream(toy(num_workers=2))
    batches = iter(make_loader(stream))
    brought = [next(batches) for _ in range(3)]
    batches._shutdown_workers()  # type: ignore[attr-defined]
    assert multiprocessing.active_children() == []
    assert all(same(batch, stream.batch(number)) for number, batch in enumerate(brought))
    assert np.isfinite(brought[0].pixels0.numpy()).all()
