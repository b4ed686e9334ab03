"""The command line: ``widebase VERB``."""

from __future__ import annotations

from matcher.cli.entry import main

__all__ = ["main"]
