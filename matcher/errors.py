"""The exceptions of Widebase.

    MatcherError
      InputError(ValueError)              wrong shape, dtype, range, unreadable image
      CheckpointError(ValueError)         unreadable file, unknown layout, keys that do not fit
      DatasetError(FileNotFoundError)     training or benchmark data missing or malformed
      MissingDependencyError(ImportError) an optional package is needed

The caller's mistake and a broken file raise one of these, with a message of one line. Data that
simply holds no answer (no overlap, a blank image) never raises: it gives an empty result, or a
pose that is ``None``, with a reason.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "DatasetError",
    "InputError",
    "MatcherError",
    "MissingDependencyError",
]


class MatcherError(Exception):
    """Base of every exception raised on purpose by this library."""


class InputError(MatcherError, ValueError):
    """An argument is not what the function needs.

    Args:
        argument: name of the argument as the caller wrote it.
        expected: what it should have been.
        actual: what came instead.
    """

    def __init__(self, argument: str, expected: str, actual: str) -> None:
        self.argument = argument
        self.expected = expected
        self.actual = actual
        super().__init__(f"{argument}: expected {expected}, got {actual}")

    def __reduce__(self) -> tuple[type[InputError], tuple[str, str, str]]:
        return type(self), (self.argument, self.expected, self.actual)


class CheckpointError(MatcherError, ValueError):
    """A weight file cannot be read, has an unknown layout, or does not fit its configuration."""


class DatasetError(MatcherError, FileNotFoundError):
    """Training or benchmark data is missing or malformed."""


class MissingDependencyError(MatcherError, ImportError):
    """An optional package is needed.

    Args:
        package: distribution to install, as pip names it.
        extra: the extra of this distribution that brings it.
        purpose: what it is needed for.
        command: what installs it, where the extra does not.
    """

    def __init__(self, package: str, extra: str, purpose: str, command: str = "") -> None:
        self.package = package
        self.extra = extra
        self.purpose = purpose
        self.command = command or f"pip install 'widebase[{extra}]'"
        super().__init__(f"{purpose} needs {package}; install it with: {self.command}")

    def __reduce__(self) -> tuple[type[MissingDependencyError], tuple[str, str, str, str]]:
        return type(self), (self.package, self.extra, self.purpose, self.command)
