"""The verbs, and what leaves the program: answers on standard output, the rest on standard error.

Exit status: 0 with an answer, 2 for a mistake in what was asked, 3 when it ran and there is no
answer.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from matcher.errors import MatcherError

__all__ = ["EXIT_NO_ANSWER", "EXIT_USAGE", "app", "fail", "main", "say", "write_json"]

EXIT_USAGE = 2
EXIT_NO_ANSWER = 3

app = typer.Typer(
    name="widebase",
    help="Match two photographs taken from very different viewpoints, and find the relative pose.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
_ERRORS = Console(stderr=True, highlight=False, soft_wrap=True)
_ANSWERS = Console(highlight=False, soft_wrap=True)


def write_json(values: dict[str, Any]) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")


def say(text: str) -> None:
    """A line for a person, on standard output, without markup: a path may hold brackets."""
    _ANSWERS.print(text, markup=False, emoji=False)


def fail(message: str) -> None:
    """One line on standard error, without markup."""
    _ERRORS.print(f"error: {' '.join(message.split())}", markup=False, emoji=False, style="red")


def main() -> None:
    """Run the command line; every error of ours is one line and exit status 2."""
    # The verbs register themselves on ``app``.
    from matcher.cli import pair_verbs, training_verbs

    assert pair_verbs
    assert training_verbs
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=_ERRORS, show_time=False, show_path=False)],
    )
    try:
        app()
    except MatcherError as error:
        fail(str(error))
        raise SystemExit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        fail("interrupted")
        raise SystemExit(130) from None
