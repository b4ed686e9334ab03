"""The configuration of a training or pretraining run."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from matcher.errors import InputError
from matcher.model.config import ModelConfig
from matcher.training.stages import LOSS_WEIGHTS, Stage, check_count

__all__ = ["ConfigT", "DataConfig", "PretrainConfig", "RunConfig", "Stage", "TrainConfig"]

ConfigT = TypeVar("ConfigT", bound="RunConfig")


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
        check_count("num_matches", self.num_matches, 8)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What every run needs, whatever it learns; stored with every checkpoint.

    Attributes:
        model: the network.
        data: the pairs.
        stages: resolutions over the run, in order; the last ends at 1.
        max_minutes: bound of the whole run, resumed parts together.
        max_steps: a bound in steps. With it, learning rate and stages follow the steps instead of
            the clock: only such a run, interrupted and resumed, ends with the very same weights.
        clock: ``wall``, or ``cpu``: the minutes count the processor time of the training process,
            for comparisons on a machine with other work to do.
        learning_rate: peak, after ``warmup_steps``, decayed by a cosine over the run.
        stem_learning_rate_scale: factor for the convolutional stem.
        stem_frozen_until: share of the run during which the stem stays as it was initialised.
        initialise: ``trunk`` (the stem from an ImageNet trunk), ``random``, or the name or file of
            a checkpoint of the same network (or, for a patch stem, of a CroCo network), to train
            it further.
        ema_decay: of the averaged weights that are shipped.
        precision: ``bf16`` (autocast) or ``fp32``.
        compile_steps: compile the network's forward pass; done on a GPU only.
        device: where to train; under ``torchrun``, ``cuda`` is each process's own GPU.
        seed: of the weights, the order and the augmentation of the pairs.
        num_threads, num_workers: for the CPU; 0 workers load in the training process.
        checkpoint_minutes, validate_minutes: how often to save and to measure.
        licence: of the weights that come out; it follows from the data and the initial weights.
    """

    model: ModelConfig = field(default_factory=ModelConfig.small)
    data: DataConfig = field(default_factory=DataConfig)
    stages: tuple[Stage, ...] = (Stage(0.5, 192, 8), Stage(0.85, 256, 6), Stage(1.0, 384, 3))
    max_minutes: float = 60.0
    max_steps: int | None = None
    clock: Literal["wall", "cpu"] = "wall"
    learning_rate: float = 5e-4
    stem_learning_rate_scale: float = 0.2
    stem_frozen_until: float = 0.25
    weight_decay: float = 0.05
    warmup_steps: int = 200
    gradient_clip: float = 1.0
    initialise: str = "trunk"
    ema_decay: float = 0.999
    precision: Literal["bf16", "fp32"] = "bf16"
    compile_steps: bool = True
    device: str = "cpu"
    seed: int = 0
    num_threads: int = 2
    num_workers: int = 1
    checkpoint_minutes: float = 5.0
    validate_minutes: float = 5.0
    licence: str = "unknown"

    def __post_init__(self) -> None:
        if not isinstance(self.initialise, str) or not self.initialise:
            raise InputError(
                "initialise", "'trunk', 'random' or a checkpoint", f"{self.initialise!r}"
            )
        if self.initialise == "trunk" and self.model.stem != "convolutional":
            raise InputError("initialise", "'random' without a convolutional stem", "'trunk'")
        for name, choices in (("precision", ("bf16", "fp32")), ("clock", ("wall", "cpu"))):
            if getattr(self, name) not in choices:
                wanted = " or ".join(map(repr, choices))
                raise InputError(name, wanted, f"{getattr(self, name)!r}")
        ends = [stage.until for stage in self.stages]
        if not ends or ends != sorted(set(ends)) or ends[-1] != 1:
            raise InputError("stages", "ends that rise to 1", f"{ends}")
        _check_numbers(self, ("max_minutes", "learning_rate", "gradient_clip"), above_zero=True)
        _check_numbers(
            self,
            (
                "stem_learning_rate_scale",
                "stem_frozen_until",
                "weight_decay",
                "checkpoint_minutes",
                "validate_minutes",
            ),
        )
        for name, least in (
            ("warmup_steps", 0),
            ("seed", 0),
            ("num_threads", 1),
            ("num_workers", 0),
        ):
            check_count(name, getattr(self, name), least)
        if self.max_steps is not None:
            check_count("max_steps", self.max_steps, 1)
        if not 0 <= self.ema_decay < 1:
            raise InputError("ema_decay", "a number in [0, 1)", f"{self.ema_decay}")

    def stage_index(self, progress: float) -> int:
        """Index of the stage at a share of the run."""
        for index, stage in enumerate(self.stages):
            if progress < stage.until:
                return index
        return len(self.stages) - 1

    def progress(self, step: int, seconds: float) -> float:
        """Share of the run that is done: of its steps where they are bounded, else of its time."""
        if self.max_steps is not None:
            return step / self.max_steps
        return seconds / (60 * self.max_minutes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON can hold."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        values["model"] = self.model.to_dict()
        values["stages"] = [stage.to_dict() for stage in self.stages]
        values["data"] = {
            key: list(entry) if isinstance(entry, tuple) else entry
            for key, entry in dataclasses.asdict(self.data).items()
        }
        return values

    @classmethod
    def from_dict(cls: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
        """The inverse of ``to_dict``; raises ``InputError`` on an unknown key or value."""
        try:
            parts = dict(values)
            if "model" in parts:
                parts["model"] = ModelConfig.from_dict(parts["model"])
            if "data" in parts:
                parts["data"] = DataConfig(**parts["data"])
            if "stages" in parts:
                parts["stages"] = tuple(Stage.from_dict(stage) for stage in parts["stages"])
            return cls(**parts)
        except InputError:
            raise
        except (TypeError, ValueError) as error:
            raise InputError("train config", "a complete configuration", str(error)) from None


@dataclass(frozen=True, slots=True)
class TrainConfig(RunConfig):
    """A run that learns to match; see ``RunConfig`` for what all runs share.

    Attributes:
        matching_weight, pointmap_weight: the two losses; a stage may have its own.
        ray_weight: of the rays of view 0 within the pointmap loss; a stage may have its own.
        distance_weight: of log distances within the pointmap loss; a stage may have its own.
        match_alpha: reward for confident descriptors.
        temperature: of InfoNCE.
    """

    matching_weight: float = 1.0
    pointmap_weight: float = 0.5
    ray_weight: float = 0.0
    distance_weight: float = 0.0
    match_alpha: float = 1.0
    temperature: float = 0.07

    def __post_init__(self) -> None:
        # Not super(): a dataclass with slots is another class than the one this method knows.
        RunConfig.__post_init__(self)
        _check_numbers(self, ("temperature",), above_zero=True)
        _check_numbers(self, (*LOSS_WEIGHTS, "match_alpha"))
        everything = {"encoder", "decoder", "heads"}
        if self.model.points_depth:
            everything.add("points")
        for stage in self.stages:
            if everything <= set(stage.frozen):
                raise InputError("stage frozen", "a part that learns", "all of them")


@dataclass(frozen=True, slots=True)
class PretrainConfig(RunConfig):
    """A run of masked cross-view completion (CroCo v2); see ``RunConfig`` for the rest.

    Attributes:
        mask_ratio: share of view 0's patches that is hidden.
    """

    mask_ratio: float = 0.9

    def __post_init__(self) -> None:
        RunConfig.__post_init__(self)
        if not 0 < self.mask_ratio < 1:
            raise InputError("mask_ratio", "a share in (0, 1)", f"{self.mask_ratio}")
        for stage in self.stages:
            if {"encoder", "decoder"} <= set(stage.frozen):
                raise InputError("stage frozen", "an encoder or a decoder that learns", "neither")
            if any(getattr(stage, name) is not None for name in LOSS_WEIGHTS):
                raise InputError("stage weights", "none in a pretraining", "a weight of matching")


def _check_numbers(config: RunConfig, names: tuple[str, ...], above_zero: bool = False) -> None:
    for name in names:
        value = getattr(config, name)
        if not 0 <= value < math.inf or (above_zero and value == 0):
            wanted = "a positive number" if above_zero else "a number >= 0"
            raise InputError(name, wanted, f"{value}")
