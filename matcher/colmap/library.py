"""pycolmap itself: found, kept quiet, its messages made readable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from matcher.errors import MissingDependencyError

__all__ = ["import_pycolmap", "quiet", "reason_of"]


def import_pycolmap(purpose: str) -> Any:
    """The module ``pycolmap``.

    Args:
        purpose: what it is needed for, for the message.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pycolmap
    except ImportError:
        raise MissingDependencyError("pycolmap", "colmap", purpose) from None
    return pycolmap


@contextmanager
def quiet(pycolmap: Any) -> Iterator[None]:
    """No log from COLMAP while this lasts: what matters comes back as values and exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def reason_of(error: BaseException) -> str:
    """The message of one of pycolmap's exceptions in one line, without its place in the source."""
    text = " ".join(str(error).split())
    return text.split("] ", 1)[1] if text.startswith("[") and "] " in text else text
