"""Cells and tables of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar

from benchmarks.core.predictions import MethodInfo
from benchmarks.core.tasks import Metric
from benchmarks.report.numbers import shown, shown_value

__all__ = [
    "cell",
    "code_cell",
    "count_suffix",
    "in_order",
    "markdown_table",
    "method_cell",
    "metric_named",
    "value_cell",
]

_T = TypeVar("_T")


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], *, num_left: int = 1
) -> str:
    """Rows of cells below a header; the first columns to the left, the others to the right."""
    rule = ["---" if column < num_left else "---:" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def metric_named(metrics: Sequence[Metric], name: str) -> Metric | None:
    """The metric of a name, if it was measured."""
    return next((metric for metric in metrics if metric.name == name), None)


def in_order(values: Iterable[_T]) -> list[_T]:
    """Each value once, in the order of first appearance."""
    return list(dict.fromkeys(values))


def value_cell(metric: Metric | None, is_best: bool, *, interval: bool = False) -> str:
    """A number, bold if best, with its interval on request."""
    if metric is None:
        return "–"
    value = f"**{shown_value(metric)}**" if is_best else shown_value(metric)
    return value + (shown(metric)[len(shown_value(metric)) :] if interval else "")


def count_suffix(column: Sequence[Metric | None]) -> str:
    """The number of units behind a row or column of numbers, in parentheses."""
    count = max((metric.count for metric in column if metric is not None), default=0)
    return f" ({count})" if count else ""


def method_cell(method: MethodInfo) -> str:
    """A method's name; whether it is one of this project's models."""
    return code_cell(method.name) + (" (ours)" if method.is_ours else "")


def code_cell(name: str) -> str:
    """A name in typewriter letters."""
    return f"`{cell(name)}`"


def cell(text: str) -> str:
    """One line without the character that would end a cell."""
    return " ".join(text.split()).replace("|", "\\|")
