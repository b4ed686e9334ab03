"""Train a variant, score it, and keep both: an interrupted row of variants goes on."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.ablations.scores import Number, photo_numbers, pose_numbers
from benchmarks.ablations.variants import Recipe, Variant, base_config
from benchmarks.core.samples import Dataset
from matcher.checkpoints import load_checkpoint
from matcher.errors import InputError
from matcher.files import replaced
from matcher.training.config import PretrainConfig, RunConfig, TrainConfig
from matcher.training.pretrain import pretrain
from matcher.training.samples import TrainingBatch
from matcher.training.train import LAST_NAME, LOG_NAME, MODEL_NAME, train
from matcher.training.validate import MatchBy

__all__ = ["Evaluation", "VariantResult", "read_result", "run_variant"]

_RESULT_NAME = "result.json"
_BOTH: tuple[MatchBy, ...] = ("descriptors", "points")


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What every variant is measured on.

    Attributes:
        photos: prepared batches of held-out photographs.
        pairs: the list of calibrated pairs, or ``None``: poses are not measured.
        num_pairs: so many of them at random.
        view_size: long side of the network's view of them, pixels.
    """

    photos: Sequence[TrainingBatch]
    pairs: Dataset | None
    num_pairs: int
    view_size: int


@dataclass(frozen=True, slots=True)
class VariantResult:
    """A row of the table.

    Attributes:
        name, question: of the variant.
        parameters: of its network, millions.
        minutes: compute spent, a pretraining included.
        steps, pairs: seen by the training (not by a pretraining).
        numbers: by the way of matching, then by name.
        plan: everything that decides the row, to tell rows of other options.
    """

    name: str
    question: str
    parameters: float
    minutes: float
    steps: int
    pairs: int
    numbers: dict[str, dict[str, Number]]
    plan: dict[str, Any]


def run_variant(
    variant: Variant,
    recipe: Recipe,
    evaluation: Evaluation,
    folder: Path,
    say: Callable[[str], None],
) -> VariantResult:
    """Train and score a variant in ``folder``; what is there already is not done again.

    Raises:
        InputError: ``folder`` holds the variant under other options.
    """
    config = variant.change(base_config(recipe))
    plan = _plan(variant, config, evaluation)
    known = read_result(folder)
    if known is not None:
        if known.plan != plan:
            raise InputError("--out", "a folder of the same options", f"{folder}, of others")
        say(f"{variant.name}: known")
        return known
    spent = 0.0
    if variant.pretrain_share:
        before = _pretraining(config, variant.pretrain_share)
        say(f"{variant.name}: completion for {before.max_minutes:g} minutes")
        state = pretrain(before, folder / "completion", resume=_has_run(folder / "completion"))
        spent = state.seconds / 60
        config = dataclasses.replace(
            config,
            initialise=str(folder / "completion" / MODEL_NAME),
            max_minutes=config.max_minutes - before.max_minutes,
        )
    say(f"{variant.name}: training for {config.max_minutes:g} minutes")
    _check_same_run(folder / "training", config)
    trained = train(config, folder / "training", resume=_has_run(folder / "training"))
    say(f"{variant.name}: {trained.step} steps, {trained.pairs} pairs; measuring")
    model = folder / "training" / MODEL_NAME
    result = VariantResult(
        variant.name,
        variant.question,
        load_checkpoint(model).network.num_parameters / 1e6,
        spent + trained.seconds / 60,
        trained.step,
        trained.pairs,
        {by: _measure(model, evaluation, by) for by in _BOTH},
        plan,
    )
    with replaced(folder / _RESULT_NAME) as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(result), indent=2) + "\n", "utf-8")
    return result


def read_result(folder: Path) -> VariantResult | None:
    """The result that a folder holds, or ``None``; a file of another kind counts as none."""
    try:
        values = json.loads((folder / _RESULT_NAME).read_text("utf-8"))
        values["numbers"] = {
            by: {name: Number(**number) for name, number in numbers.items()}
            for by, numbers in values["numbers"].items()
        }
        return VariantResult(**values)
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _measure(model: Path, evaluation: Evaluation, by: MatchBy) -> dict[str, Number]:
    numbers = photo_numbers(model, evaluation.photos, by)
    if evaluation.pairs is None:
        return numbers
    poses = pose_numbers(model, evaluation.pairs, evaluation.num_pairs, evaluation.view_size, by)
    return numbers | poses


def _pretraining(config: TrainConfig, share: float) -> PretrainConfig:
    """The same data, network and optimiser for a share of the compute."""
    shared = {field.name: getattr(config, field.name) for field in dataclasses.fields(RunConfig)}
    return PretrainConfig(**{**shared, "max_minutes": share * config.max_minutes})


def _has_run(folder: Path) -> bool:
    return (folder / LAST_NAME).exists()


def _check_same_run(folder: Path, config: TrainConfig) -> None:
    path = folder / "config.json"
    if not path.exists() or not (folder / LOG_NAME).exists():
        return
    if json.loads(path.read_text("utf-8")) != json.loads(json.dumps(config.to_dict())):
        raise InputError("--out", "a folder of the same options", f"{folder}, of others")


def _plan(variant: Variant, config: TrainConfig, evaluation: Evaluation) -> dict[str, Any]:
    plan = {
        "config": config.to_dict(),
        "pretrain_share": variant.pretrain_share,
        "photo_pairs": sum(len(batch.sources) for batch in evaluation.photos),
        "pose_pairs": evaluation.num_pairs if evaluation.pairs is not None else 0,
        "view_size": evaluation.view_size,
    }
    plain: dict[str, Any] = json.loads(json.dumps(plan))
    return plain
