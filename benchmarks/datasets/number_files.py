"""Text files of numbers, read so that a broken line is named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core.samples import FloatArray
from matcher.errors import DatasetError

__all__ = ["parse_numbers", "read_lines", "read_matrix"]


def read_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and words of each line that is neither empty nor a ``#`` comment.

    Raises:
        DatasetError: the file is absent, or is no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DatasetError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path}: cannot be read as text ({error})") from None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            yield number, words


def parse_numbers(words: Sequence[str], count: int, path: Path, line: int) -> FloatArray:
    """(count,) finite numbers of one line.

    Raises:
        DatasetError: another count, or something that is no finite number; it names file and line.
    """
    try:
        numbers = np.array([float(word) for word in words], dtype=np.float64)
    except ValueError as error:
        raise DatasetError(f"{path}:{line}: {error}") from None
    if len(numbers) != count:
        raise DatasetError(f"{path}:{line}: expected {count} numbers, got {len(numbers)}")
    if not np.isfinite(numbers).all():
        raise DatasetError(f"{path}:{line}: expected finite numbers, got {' '.join(words)}")
    return numbers


def read_matrix(path: Path, columns: int, rows: int | None = None) -> FloatArray:
    """(rows, columns) numbers of a file, separated by blanks.

    Args:
        path: the file.
        columns: numbers a line.
        rows: lines; ``None``: as many as there are, at least one.

    Raises:
        DatasetError: the file is absent or truncated, or a line is not ``columns`` numbers.
    """
    lines = [parse_numbers(words, columns, path, line) for line, words in read_lines(path)]
    if not lines or (rows is not None and len(lines) != rows):
        expected = "at least one line" if rows is None else f"{rows} lines"
        raise DatasetError(f"{path}: expected {expected} of {columns} numbers, got {len(lines)}")
    return np.stack(lines)
