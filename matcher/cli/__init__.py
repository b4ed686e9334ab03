"""The command line: ``widebase VERB``."""

from __future__ import annotations

from matcher.cli.app import main

__all__ = ["main"]
