"""What all verbs share: answers go to standard output, the rest to standard error.

Exit status: 0 with an answer, 2 for a mistake in what was asked, 3 when it ran and there is no
answer.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

__all__ = [
    "ERRORS",
    "EXIT_NO_ANSWER",
    "EXIT_USAGE",
    "app",
    "fail",
    "progress_bar",
    "say",
    "write_json",
]

EXIT_USAGE = 2
EXIT_NO_ANSWER = 3

app = typer.Typer(
    name="widebase",
    help="Match two photographs taken from very different viewpoints, and find the relative pose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
_ANSWERS = Console(highlight=False, soft_wrap=True)


def write_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")


def say(text: str) -> None:
    """A line for a person, on standard output, without markup: a path may hold brackets."""
    _ANSWERS.print(text, markup=False, emoji=False)


def fail(message: str) -> None:
    """One line on standard error, without markup."""
    ERRORS.print(f"error: {' '.join(message.split())}", markup=False, emoji=False, style="red")


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error where that is a terminal; call it with how many of how many."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERRORS, transient=True, disable=not ERRORS.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
