"""The table of an ablation."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.ablations.runs import Evaluation, VariantResult
from benchmarks.ablations.scores import Number
from benchmarks.ablations.variants import Recipe

__all__ = ["as_markdown"]

_PHOTO_COLUMNS = ("within 1.5 px", "within 3 px", "within 10 px")
_POSE_COLUMNS = ("AUC@5", "AUC@10", "AUC@20")


def as_markdown(results: Sequence[VariantResult], recipe: Recipe, evaluation: Evaluation) -> str:
    """One table: a row a variant and a way of matching, intervals in brackets."""
    has_pose = evaluation.pairs is not None
    columns = (*_PHOTO_COLUMNS, *(_POSE_COLUMNS if has_pose else ()))
    head = ("variant", "what it changes", "M parameters", "steps", "pairs", "matched by", *columns)
    lines = [_introduction(recipe, evaluation), "", _row(head), _row(["---"] * len(head))]
    for result in results:
        for by, numbers in result.numbers.items():
            is_first = by == next(iter(result.numbers))
            lines.append(
                _row(
                    (
                        f"`{result.name}`" if is_first else "",
                        result.question if is_first else "",
                        f"{result.parameters:.1f}" if is_first else "",
                        f"{result.steps}" if is_first else "",
                        f"{result.pairs}" if is_first else "",
                        by,
                        *(_cell(numbers.get(column)) for column in columns),
                    )
                )
            )
    return "\n".join(lines) + "\n"


def _introduction(recipe: Recipe, evaluation: Evaluation) -> str:
    kind = "processor time of the training process" if recipe.clock == "cpu" else "wall time"
    photos = sum(len(batch.sources) for batch in evaluation.photos)
    text = (
        f"Equal compute: {recipe.minutes:g} minutes of {kind} on {recipe.threads} thread(s) for "
        f"every variant, drawing of the pairs included; {recipe.image_size} px, "
        f"{recipe.batch_size} pairs a step, seed {recipe.seed}. Percent, 95 % bootstrap intervals "
        f"over pairs in brackets. `within N px`: share of true matches whose nearest pixel of the "
        f"whole other image is that close, {photos} homography pairs of held-out photographs."
    )
    if evaluation.pairs is not None:
        text += (
            f" AUC of the relative pose on {evaluation.num_pairs} random pairs, protocol `ours`, "
            f"views of {evaluation.view_size} px, no crops. Matched by descriptors, or by points: "
            f"mutually nearest in both pointmaps."
        )
    return text


def _cell(number: Number | None) -> str:
    if number is None or math.isnan(number.value):
        return "-"
    text = f"{100 * number.value:.1f}"
    if math.isnan(number.low):
        return text
    return f"{text} ({100 * number.low:.0f} to {100 * number.high:.0f})"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
