"""The training curve as a picture."""

from __future__ import annotations

import json
import os
from pathlib import Path

from matcher.errors import DatasetError, MissingDependencyError

__all__ = ["plot_log"]


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
        axis.plot(minutes, [record["losses"][name] for record in records], linewidth=0.8)
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


def _read(log: Path) -> list[dict[str, object] | dict[str, dict[str, float]]]:
    try:
        lines = log.read_text().splitlines()
    except OSError as error:
        raise DatasetError(f"{log}: cannot be read ({error.strerror})") from None
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):  # the last line may have been cut by an interrupt
                raise DatasetError(f"{log}:{number}: not JSON") from None
    return records
