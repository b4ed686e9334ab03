"""The training curve as a picture."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from matcher.errors import DatasetError, MissingDependencyError

__all__ = ["plot_log"]

_ERRORS = {"matching_error", "pointmap_error"}
_SHARES = ("within_1px", "within_3px", "within_10px")
_COMPLETION = "completion_error"
_LOSS_TITLES = {
    "matching_error": "matching loss (InfoNCE, nats)",
    "pointmap_error": "pointmap error (scale-normalised, both views)",
    "total": "completion error (normalised pixels; 1: each patch's mean)",
}


def plot_log(log: str | os.PathLike[str], picture: str | os.PathLike[str]) -> None:
    """Draw losses, learning rate, speed and validation of a ``log.jsonl``.

    Raises:
        DatasetError: a log that is missing, or broken before its last line.
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("matplotlib", "plot", "drawing the training curve") from None
    records = _read(Path(log))
    minutes = [record["minutes"] for record in records]
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    completes = bool(records) and not set(records[0]["losses"]) >= _ERRORS
    losses = ("total",) if completes else ("matching_error", "pointmap_error")
    measures = (_COMPLETION,) if completes else _SHARES
    axes = figure.subplots(2, 2).ravel()
    for axis, name in zip(axes, losses, strict=False):
        values = [_drawn(record["losses"], name) for record in records]
        axis.plot(minutes, values, linewidth=0.5, marker=".", markersize=4)
        axis.set_title(_LOSS_TITLES[name])
    measured = [record for record in records if record.get("validation")]
    validation = axes[1] if completes else axes[2]
    for name in measures:
        validation.plot(
            [record["minutes"] for record in measured],
            [record["validation"][name] for record in measured],
            marker=".",
            label=name.replace("_", " "),
        )
    if completes:
        validation.set_title("held-out photographs: completion error")
        axes[2].set_visible(False)
    else:
        validation.set_title("held-out photographs: nearest descriptor")
        validation.set_ylim(0, 1)
    if measured:
        validation.legend()
    running = [record for record in records if record["learning_rate"] > 0]
    axes[3].plot(
        [record["minutes"] for record in running],
        [record["pairs_per_second"] for record in running],
        linewidth=0.8,
        label="pairs a second",
    )
    rate = axes[3].twinx()
    rate.plot(
        [record["minutes"] for record in running],
        [record["learning_rate"] for record in running],
        color="tab:orange",
    )
    rate.set_ylabel("learning rate", color="tab:orange")
    axes[3].set_title("pairs a second")
    for axis in axes:
        axis.set_xlabel("minutes")
        axis.grid(alpha=0.3)
    figure.savefig(picture, dpi=110)


def _drawn(losses: dict[str, Any], name: str) -> float:
    """A gap in the curve where the loss was not finite (null), or had nothing to judge."""
    value = losses[name]
    silent = name == "pointmap_error" and losses.get("num_pixels") == 0
    return math.nan if value is None or silent else value


def _read(log: Path) -> list[dict[str, Any]]:
    try:
        lines = log.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DatasetError(f"{log}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{log}: expected lines of JSON, got other bytes") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            if number < len(lines):  # the last line may have been cut by an interrupt
                raise DatasetError(f"{log}:{number}: not JSON") from None
            continue
        if not _is_report(record):
            raise DatasetError(f"{log}:{number}: expected a line of a training log")
        records.append(record)
    return records


def _is_report(record: object) -> bool:
    if not isinstance(record, dict) or not isinstance(record.get("losses"), dict):
        return False
    numbers = (record.get(name) for name in ("minutes", "learning_rate", "pairs_per_second"))
    losses, validation = set(record["losses"]), record.get("validation")
    completes = "total" in losses and not losses & _ERRORS
    measures = {_COMPLETION} if completes else set(_SHARES)
    measured = validation is None or (isinstance(validation, dict) and set(validation) >= measures)
    known = completes or losses >= _ERRORS
    return measured and known and all(_is_number(one) for one in numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
