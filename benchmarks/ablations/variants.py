"""The recipe that all variants share, and the one thing that each of them changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from heads import HeadConfig
from matcher.errors import InputError
from matcher.model.config import ModelConfig, TransformerConfig
from matcher.training.config import DataConfig, Stage, TrainConfig

__all__ = ["VARIANTS", "Recipe", "Variant", "base_config", "chosen_variants"]

BASE_NAME = "base"


@dataclass(frozen=True, slots=True)
class Recipe:
    """What all variants share.

    Attributes:
        data: the pairs.
        model: ``small`` or ``tiny``.
        minutes: compute of each variant, a pretraining included.
        clock: ``cpu``: the minutes are processor time of the training process, drawing of the
            pairs included; ``wall``.
        image_size, batch_size: one stage.
        learning_rate: peak.
        threads: of the training.
        seed: of weights and pairs.
    """

    data: DataConfig
    model: str = "small"
    minutes: float = 10.0
    clock: str = "cpu"
    image_size: int = 144
    batch_size: int = 6
    learning_rate: float = 7e-4
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.model not in ("small", "tiny"):
            raise InputError("--model", "small or tiny", f"{self.model!r}")


@dataclass(frozen=True, slots=True)
class Variant:
    """One training.

    Attributes:
        name: on the command line and in the table.
        question: what it answers; variants of a question stand together.
        change: what it does to the base configuration.
        pretrain_share: share of its minutes that goes into masked completion before.
    """

    name: str
    question: str
    change: Callable[[TrainConfig], TrainConfig] = lambda config: config
    pretrain_share: float = 0.0


def base_config(recipe: Recipe) -> TrainConfig:
    """The training that every variant changes in one way."""
    model = ModelConfig.small() if recipe.model == "small" else ModelConfig.tiny()
    # What pointmaps and descriptors take from each other is part of the questions.
    model = dataclasses.replace(model, points_depth=0)
    return TrainConfig(
        model=model,
        data=recipe.data,
        stages=(Stage(1.0, recipe.image_size, recipe.batch_size),),
        max_minutes=recipe.minutes,
        clock="cpu" if recipe.clock == "cpu" else "wall",
        learning_rate=recipe.learning_rate,
        stem_frozen_until=0.0,
        warmup_steps=40,
        pointmap_weight=0.25,
        ema_decay=0.99,
        initialise="trunk" if recipe.model == "small" else "random",
        seed=recipe.seed,
        num_threads=recipe.threads,
        # In the training process: what a source costs is part of the variant's compute.
        num_workers=0,
        checkpoint_minutes=2.0,
        validate_minutes=1e6,
    )


def _with_model(config: TrainConfig, **changes: object) -> TrainConfig:
    model = dataclasses.replace(config.model, **changes)  # type: ignore[arg-type]
    return dataclasses.replace(config, model=model)


def _scaled(stack: TransformerConfig, width: float = 1.0, depth: float = 1.0) -> TransformerConfig:
    """Heads keep their size: a wider stack has more of them."""
    size = stack.embed_dim // stack.num_heads
    heads = max(1, round(stack.num_heads * width))
    layers = max(1, round(stack.depth * depth))
    return TransformerConfig(size * heads, layers, heads, stack.mlp_ratio)


def _encoder(width: float = 1.0, depth: float = 1.0) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: _with_model(config, encoder=_scaled(config.model.encoder, width, depth))


def _random(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(config, initialise="random")


def _mlp_features(config: TrainConfig) -> TrainConfig:
    return _with_model(config, head=HeadConfig(points="linear", local_features="mlp"))


def _released_form(config: TrainConfig) -> TrainConfig:
    return _with_model(_random(_mlp_features(config)), stem="patch")


def _weights(**changes: float) -> Callable[[TrainConfig], TrainConfig]:
    return lambda config: dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def _sources(**weights: float) -> Callable[[TrainConfig], TrainConfig]:
    """Only the sources that are named, with these weights."""
    names = ("scene_weight", "photo_weight", "pair_weight", "view_weight")
    kept = {name: weights.get(name, 0.0) for name in names}
    return lambda config: dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, **kept),  # type: ignore[arg-type]
    )


VARIANTS = (
    Variant(BASE_NAME, "base"),
    Variant("mlp", "local features: released MLP on the same stem", _mlp_features),
    Variant("released", "local features: patch stem and MLP, from random weights", _released_form),
    Variant("random", "local features: the base from random weights", _random),
    Variant("narrow", "encoder: 2/3 of the width", _encoder(width=2 / 3)),
    Variant("wide", "encoder: 4/3 of the width", _encoder(width=4 / 3)),
    Variant("shallow", "encoder: half the blocks", _encoder(depth=0.5)),
    Variant("deep", "encoder: twice the blocks", _encoder(depth=2.0)),
    Variant("no-pointmaps", "losses: matching alone", _weights(pointmap_weight=0.0)),
    Variant("pointmaps-only", "losses: pointmaps alone", _weights(matching_weight=0.0)),
    Variant("scenes", "data: rendered scenes alone", _sources(scene_weight=1.0)),
    Variant("homographies", "data: homographies alone", _sources(photo_weight=1.0)),
    Variant("croco", "completion first: 30 % of the compute", pretrain_share=0.3),
    Variant("croco-random", "completion first, from random weights", _random, pretrain_share=0.3),
)
"""All variants, in the order of the table."""


def chosen_variants(names: str | None) -> tuple[Variant, ...]:
    """The variants of a list with commas; all without one.

    Raises:
        InputError: an unknown name.
    """
    if names is None:
        return VARIANTS
    known = {variant.name: variant for variant in VARIANTS}
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        raise InputError("--variants", f"some of {', '.join(known)}", f"{', '.join(unknown)!r}")
    return tuple(variant for variant in VARIANTS if variant.name in wanted)
