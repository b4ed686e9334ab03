"""An endless stream of training batches, mixed from the sources and cut to the current stage."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import sys
from collections.abc import Iterator

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from matcher.errors import DatasetError, InputError
from matcher.training.config import TrainConfig
from matcher.training.samples import TrainingBatch, collate
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
_MAX_FAILURES = 50


def held_out_photos(config: TrainConfig) -> list[str]:
    """Photographs that are never trained on: every 25th, for the validation figure."""
    return [str(path) for path in find_photos(config.data.photos)[::_HELD_OUT_EVERY]]


def build_sources(config: TrainConfig) -> tuple[list[PairSource], list[float]]:
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
    """Batches without end; ``set_stage`` reaches the worker processes."""

    def __init__(self, config: TrainConfig, first_batch: int = 0) -> None:
        super().__init__()
        self.config = config
        self.first_batch = first_batch
        self._stage = multiprocessing.Value(ctypes.c_int, 0)
        self.sources, self.probabilities = build_sources(config)

    def set_stage(self, index: int) -> None:
        """Choose the stage of the batches drawn from now on."""
        self._stage.value = index

    def batch(self, number: int) -> TrainingBatch:
        """The batch with a number: the same number, seed and stage give the same batch."""
        stage = self.config.stages[self._stage.value]
        random = np.random.default_rng([self.config.seed, number])
        shape = stage.shapes[int(random.integers(len(stage.shapes)))]
        samples = []
        for _ in range(stage.batch_size):
            source = self.sources[int(random.choice(len(self.sources), p=self.probabilities))]
            samples.append(source.draw(random, shape, self.config.data.num_matches))
        return collate(samples)

    def __iter__(self) -> Iterator[TrainingBatch]:
        worker = get_worker_info()
        start, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if worker is not None:
            cv2.setNumThreads(0)
            torch.set_num_threads(1)
            if hasattr(os, "nice"):
                os.nice(5)  # the training process waits at every barrier when it is interrupted
        number = self.first_batch + start
        failures = 0
        while True:
            try:
                yield self.batch(number)
                failures = 0
            except DatasetError:
                failures += 1
                # The very first batch, or many in a row: the data is wrong, not unlucky.
                if number == self.first_batch + start or failures >= _MAX_FAILURES:
                    raise
            number += step


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
