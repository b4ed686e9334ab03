"""The configuration of a training run."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from matcher.errors import InputError
from matcher.model.config import ModelConfig

__all__ = ["DataConfig", "Stage", "TrainConfig"]


def _check_count(name: str, value: object, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(name, f"a whole number, at least {least}", f"{value!r}")


@dataclass(frozen=True, slots=True)
class Stage:
    """A part of the run at one resolution.

    Attributes:
        until: share of the run at which the stage ends, in (0, 1].
        image_size: side of a square training image, pixels; landscape and portrait shapes of about
            the same area (4:3) are mixed in.
        batch_size: pairs a step.
    """

    until: float
    image_size: int
    batch_size: int

    def __post_init__(self) -> None:
        if not 0 < self.until <= 1:
            raise InputError("stage until", "a share in (0, 1]", f"{self.until}")
        _check_count("stage image_size", self.image_size, 32)
        _check_count("stage batch_size", self.batch_size, 1)

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """(height, width) of the images of a batch, multiples of 16."""
        short = max(16, round(self.image_size * math.sqrt(3 / 4) / 16) * 16)
        long = max(16, round(self.image_size * math.sqrt(4 / 3) / 16) * 16)
        square = max(16, round(self.image_size / 16) * 16)
        return (square, square), (short, long), (long, short)


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the pairs come from; an empty tuple leaves a source out.

    Attributes:
        scene_pools: folders of ``scene_*.npz`` written by ``matcher.synthetic.pool``.
        photos: folders searched for photographs, for homography pairs.
        pair_manifests: pair manifests (``matcher.training.manifest``), for real sparse matches.
        view_manifests: view manifests with depth and poses.
        scene_weight, photo_weight, pair_weight, view_weight: how often each source is drawn.
        num_matches: correspondences a pair that the matching loss sees.
    """

    scene_pools: tuple[str, ...] = ()
    photos: tuple[str, ...] = ()
    pair_manifests: tuple[str, ...] = ()
    view_manifests: tuple[str, ...] = ()
    scene_weight: float = 0.5
    photo_weight: float = 0.2
    pair_weight: float = 0.2
    view_weight: float = 0.1
    num_matches: int = 512

    def __post_init__(self) -> None:
        for name in ("scene_pools", "photos", "pair_manifests", "view_manifests"):
            paths = getattr(self, name)
            if isinstance(paths, str | os.PathLike):
                raise InputError(name, "a list of paths", f"{str(paths)!r}")
            object.__setattr__(self, name, tuple(str(path) for path in paths))
        for name in ("scene_weight", "photo_weight", "pair_weight", "view_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(name, "a number >= 0", f"{getattr(self, name)}")
        _check_count("num_matches", self.num_matches, 8)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Everything that decides a run; stored with every checkpoint.

    Attributes:
        model: the network.
        data: the pairs.
        stages: resolutions over the run, in order; the last ends at 1.
        max_minutes: wall-clock bound of the whole run, resumed parts together.
        learning_rate: peak, after ``warmup_steps``, decayed by a cosine over the run.
        stem_learning_rate_scale: factor for the convolutional stem.
        stem_frozen_until: share of the run during which the stem stays as it was initialised.
        initialise: ``trunk`` (the stem from an ImageNet trunk), ``random``, or the name or file of
            a checkpoint of the same network, to train it further.
        matching_weight, pointmap_weight: the two losses.
        temperature: of InfoNCE.
        ema_decay: of the averaged weights that are shipped.
        precision: ``bf16`` (autocast) or ``fp32``.
        num_threads, num_workers: for the CPU; 0 workers load in the training process.
        checkpoint_minutes, validate_minutes: how often to save and to measure.
    """

    model: ModelConfig = field(default_factory=ModelConfig.small)
    data: DataConfig = field(default_factory=DataConfig)
    stages: tuple[Stage, ...] = (Stage(0.5, 192, 8), Stage(0.85, 256, 6), Stage(1.0, 384, 3))
    max_minutes: float = 60.0
    learning_rate: float = 5e-4
    stem_learning_rate_scale: float = 0.2
    stem_frozen_until: float = 0.25
    weight_decay: float = 0.05
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    initialise: str = "trunk"
    matching_weight: float = 1.0
    pointmap_weight: float = 0.5
    match_alpha: float = 1.0
    temperature: float = 0.07
    ema_decay: float = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    device: str = "cpu"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 1
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.initialise, str) or not self.initialise:
            raise InputError(
                "initialise", "'trunk', 'random' or a checkpoint", f"{self.initialise!r}"
            )
        if self.initialise == "trunk" and self.model.stem != "convolutional":
            raise InputError("initialise", "'random' without a convolutional stem", "'trunk'")
        if self.precision not in ("bf16", "fp32"):
            raise InputError("precision", "'bf16' or 'fp32'", f"{self.precision!r}")
        if not 0 < self.max_minutes < math.inf:
            raise InputError("max_minutes", "a positive number", f"{self.max_minutes}")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise InputError("stages", "ends that rise to 1", f"{ends}")
        for name in ("learning_rate", "temperature", "gradient_clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(name, "a positive number", f"{getattr(self, name)}")
        for name in (
            "stem_learning_rate_scale",
            "stem_frozen_until",
            "weight_decay",
            "matching_weight",
            "pointmap_weight",
            "match_alpha",
            "checkpoint_minutes",
            "validate_minutes",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(name, "a number >= 0", f"{getattr(self, name)}")
        for name, least in (("warmup_steps", 0), ("seed", 0), ("num_threads", 1)):
            _check_count(name, getattr(self, name), least)
        _check_count("num_workers", self.num_workers, 0)
        if not 0 <= self.ema_decay < 1:
            raise InputError("ema_decay", "a number in [0, 1)", f"{self.ema_decay}")

    def stage_index(self, progress: float) -> int:
        """Index of the stage at a share of the run."""
        for index, stage in enumerate(self.stages):
            if progress < stage.until:
                return index
        return len(self.stages) - 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = dataclasses.asdict(self)
        values["model"] = self.model.to_dict()
        values["stages"] = [dataclasses.asdict(stage) for stage in self.stages]
        values["data"] = {
            key: list(entry) if isinstance(entry, tuple) else entry
            for key, entry in dataclasses.asdict(self.data).items()
        }
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of ``to_dict``; raises ``InputError`` on an unknown key or value."""
        try:
            parts = dict(values)
            if "model" in parts:
                parts["model"] = ModelConfig.from_dict(parts["model"])
            if "data" in parts:
                parts["data"] = DataConfig(**parts["data"])
            if "stages" in parts:
                parts["stages"] = tuple(Stage(**stage) for stage in parts["stages"])
            return cls(**parts)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError("train config", "a complete configuration", str(error)) from None
