"""Where the command line starts: all verbs, and one line for every error of ours."""

from __future__ import annotations

import logging

from rich.logging import RichHandler

from matcher.cli import (
    calibration_verbs,
    collection_verbs,
    data_verbs,
    export_verbs,
    localization_verbs,
    pair_verbs,
    reconstruction_verbs,
    training_verbs,
)
from matcher.cli.app import ERRORS, EXIT_USAGE, app, fail
from matcher.errors import MatcherError

__all__ = ["main"]

# The verbs registered themselves on ``app`` when they were imported.
assert calibration_verbs
assert collection_verbs
assert data_verbs
assert export_verbs
assert localization_verbs
assert pair_verbs
assert reconstruction_verbs
assert training_verbs


def main() -> None:
    """Run the command line; every error of ours is one line and exit status 2."""
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        handlers=[RichHandler(console=ERRORS, show_time=False, show_path=False)],
    )
    try:
        app()
    except MatcherError as error:
        fail(str(error))
        raise SystemExit(EXIT_USAGE) from None
    except KeyboardInterrupt:
        fail("interrupted")
        raise SystemExit(130) from None
