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
_SHARES = {"within_1px", "within_3px", "within_10px"}


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
    axes = figure.subplots(2, 2).ravel()
    for axis, name, title in (
        (axes[0], "matching_error", "matching loss (InfoNCE, nats)"),
        (axes[1], "pointmap_error", "pointmap error (scale-normalised, both views)"),
    ):
        # A loss that was not finite is null in the log, and a gap in the curve.
        losses = [record["losses"][name] for record in records]
        axis.plot(minutes, [math.nan if loss is None else loss for loss in losses], linewidth=0.8)
        axis.set_title(title)
    measured = [record for record in records if record.get("validation")]
    for name in ("within_1px", "within_3px", "within_10px"):
        axes[2].plot(
            [record["minutes"] for record in measured],
            [record["validation"][name] for record in measured],
            marker=".",
            label=name.replace("_", " "),
        )
    axes[2].set_title("held-out photographs: nearest descriptor")
    axes[2].set_ylim(0, 1)
    if measured:
        axes[2].legend()
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
    validation = record.get("validation")
    measured = validation is None or (isinstance(validation, dict) and set(validation) >= _SHARES)
    return measured and set(record["losses"]) >= _ERRORS and all(_is_number(one) for one in numbers)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
