"""An endless stream of training batches, mixed from the sources and cut to the current stage."""

from __future__ import annotations

import ctypes
import dataclasses
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from matcher.errors import DatasetError, InputError
from matcher.training.config import RunConfig
from matcher.training.motion import Motion
from matcher.training.samples import TrainingBatch, TrainingSample, collate
from matcher.training.sources import (
    MatchedPhotos,
    PairSource,
    PosedDepth,
    ScenePool,
    SinglePhotos,
    find_photos,
    posed_groups,
)

__all__ = ["PairStream", "build_sources", "held_out_photos", "make_loader"]

_HELD_OUT_EVERY = 25
_MAX_FAILURES = 25


def held_out_photos(config: RunConfig) -> list[str]:
    """Photographs that are never trained on: every 25th, for the validation figure."""
    return [str(path) for path in find_photos(config.data.photos)[::_HELD_OUT_EVERY]]


def build_sources(config: RunConfig) -> tuple[list[PairSource], list[float]]:
    """The sources that have data, and how often to draw from each.

    Raises:
        InputError: no source at all.
        DatasetError: a source's files are missing or malformed.
    """
    data = config.data
    sources: list[tuple[PairSource, float]] = []
    if data.scene_pools and data.scene_weight:
        sources.append((ScenePool(data.scene_pools), data.scene_weight))
    if data.photos and data.photo_weight:
        photos = find_photos(data.photos)
        kept = [path for index, path in enumerate(photos) if index % _HELD_OUT_EVERY]
        sources.append((SinglePhotos(kept or photos), data.photo_weight))
    if data.pair_manifests and data.pair_weight:
        sources.append((MatchedPhotos(data.pair_manifests), data.pair_weight))
    if data.view_manifests and data.view_weight:
        sources.append((PosedDepth(posed_groups(data.view_manifests)), data.view_weight))
    if not sources:
        raise InputError("data", "at least one source of training pairs", "none")
    total = sum(weight for _, weight in sources)
    return [source for source, _ in sources], [weight / total for _, weight in sources]


class PairStream(IterableDataset[TrainingBatch]):
    """Batches without end; ``set_stage`` reaches the worker processes.

    Everything about a pair follows from the seed, the number of its batch, its row and the stage:
    a resumed run goes on with the very pairs that an uninterrupted one would have seen, and
    several processes that share a batch draw together what one would have drawn alone.

    Args:
        config: the run.
        first_batch: number of the batch to begin with.
        rank, world_size: this process among those that share every batch.

    Raises:
        InputError: no source, or a batch that cannot be shared evenly.
        DatasetError: a source's files are missing or malformed.
    """

    def __init__(
        self, config: RunConfig, first_batch: int = 0, *, rank: int = 0, world_size: int = 1
    ) -> None:
        super().__init__()
        for stage in config.stages:
            if stage.batch_size % world_size:
                raise InputError(
                    "stage batch_size",
                    f"a multiple of the {world_size} processes",
                    f"{stage.batch_size}",
                )
        self.config = config
        self.first_batch = first_batch
        self.rank = rank
        self.world_size = world_size
        self._stage = multiprocessing.Value(ctypes.c_int, 0)
        self.sources, self.probabilities = build_sources(config)

    def set_stage(self, index: int) -> None:
        """Choose the stage of the batches drawn from now on, in a run bounded by time."""
        self._stage.value = index

    def batch(self, number: int) -> TrainingBatch:
        """The batch with a number: the same number, seed and stage give the same batch.

        A pair that cannot be drawn is drawn again, and counted in ``skipped``.

        Raises:
            DatasetError: many draws in a row failed: the data is wrong, not unlucky.
        """
        stage = self.config.stages[self._stage_of(number)]
        shapes = stage.shapes
        shape = shapes[int(np.random.default_rng([self.config.seed, number]).integers(len(shapes)))]
        rows = stage.batch_size // self.world_size
        samples: list[TrainingSample] = []
        skipped: list[str] = []
        for row in range(self.rank * rows, (self.rank + 1) * rows):
            random = np.random.default_rng([self.config.seed, number, row])
            samples.append(self._draw(random, shape, stage.motion, skipped))
        return dataclasses.replace(collate(samples), skipped=tuple(skipped))

    def _stage_of(self, number: int) -> int:
        """Workers draw ahead: only the number of a batch says when it will be used."""
        if self.config.max_steps is None:
            return int(self._stage.value)
        return self.config.stage_index(self.config.progress(number, 0.0))

    def _draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        motion: Motion,
        skipped: list[str],
    ) -> TrainingSample:
        """A pair of a source; where that has none for this shape and motion, of whichever has."""
        for _ in range(_MAX_FAILURES):
            source = self.sources[int(random.choice(len(self.sources), p=self.probabilities))]
            try:
                sample = source.draw(random, shape, self.config.data.num_matches, motion)
                _check_points(sample)
                return sample
            except DatasetError as error:
                skipped.append(str(error))
        raise DatasetError(f"{_MAX_FAILURES} draws in a row failed, the last one: {skipped[-1]}")

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            _prepare_worker()
        number = self.first_batch + start
        while True:
            yield self.batch(number)
            number += step


def _prepare_worker() -> None:
    """One thread, below the training process, and deaf to Ctrl-C and SIGTERM."""
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    if hasattr(os, "nice"):
        os.nice(5)  # the training process waits at every barrier when it is interrupted
    # Both may reach the whole group; the training process decides when its workers end. One that
    # died earlier would raise an error there, in the middle of whatever the step is doing.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _check_points(sample: TrainingSample) -> None:
    for points, valid in ((sample.points0, sample.valid0), (sample.points1, sample.valid1)):
        if points is not None and valid is not None and not np.isfinite(points[valid]).all():
            raise DatasetError(f"{sample.source}: NaN or infinity among the points of a pair")


def make_loader(stream: PairStream) -> DataLoader[TrainingBatch]:
    """A loader over ``stream``; its batches are already collated."""
    workers = stream.config.num_workers
    return DataLoader(
        stream,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=3 if workers else None,
        # Forked workers share what the sources hold in memory; elsewhere forking is not safe.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        # Its own generator: the loader would draw the workers' seed from the global one.
        generator=torch.Generator().manual_seed(stream.config.seed),
        pin_memory=stream.config.device.startswith("cuda"),
    )
