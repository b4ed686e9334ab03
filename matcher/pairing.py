"""Which photographs of a collection to match with which: pairs of zero-based indices ``i < j``.

Pair files are hloc's: two names a line, separated by white space.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import combinations
from pathlib import Path

from matcher.errors import InputError

__all__ = [
    "complete_pairs",
    "name_pairs",
    "one_to_all_pairs",
    "read_pairs",
    "window_pairs",
    "write_pairs",
]


def complete_pairs(num_images: int) -> list[tuple[int, int]]:
    """Every photograph with every other: ``N (N - 1) / 2`` pairs.

    Raises:
        InputError: a negative number of images.
    """
    _check_count(num_images)
    return list(combinations(range(num_images), 2))


def window_pairs(num_images: int, window: int, *, cyclic: bool = False) -> list[tuple[int, int]]:
    """Every photograph with the ``window`` that follow it, as in a video.

    Args:
        num_images: number of photographs, in the order they were taken.
        window: how many followers each is matched with.
        cyclic: the last is followed by the first (a walk around an object).

    Raises:
        InputError: a negative number of images, a window below 1.
    """
    _check_count(num_images)
    if window < 1:
        raise InputError("window", "at least 1", f"{window}")
    steps = ((first, first + step) for first in range(num_images) for step in range(1, window + 1))
    if cyclic:
        wrapped = ((first, second % num_images) for first, second in steps)
        return sorted({(min(pair), max(pair)) for pair in wrapped if pair[0] != pair[1]})
    return [pair for pair in steps if pair[1] < num_images]


def one_to_all_pairs(num_images: int, reference: int = 0) -> list[tuple[int, int]]:
    """One photograph with every other; the pair keeps the order of the indices.

    Raises:
        InputError: a reference that is not among the images.
    """
    _check_count(num_images)
    if not 0 <= reference < num_images:
        raise InputError("reference", f"an index from 0 to {num_images - 1}", f"{reference}")
    return [
        (min(reference, other), max(reference, other))
        for other in range(num_images)
        if other != reference
    ]


def name_pairs(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[tuple[str, str]]:
    """Replace the indices of pairs by names.

    Raises:
        InputError: an index without a name.
    """
    named = []
    for first, second in pairs:
        if not (0 <= first < len(names) and 0 <= second < len(names)):
            raise InputError("pairs", f"indices from 0 to {len(names) - 1}", f"({first}, {second})")
        named.append((names[first], names[second]))
    return named


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """Read a pair file; blank lines and lines that begin with ``#`` are passed over.

    Raises:
        InputError: a file that cannot be read as text, a line that does not hold two names.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError("pairs file", "a text file", f"{path} ({reason})") from None
    pairs = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) != 2:
            raise InputError(
                "pairs file", "two names a line", f"{len(words)} in line {number} of {path}"
            )
        pairs.append((words[0], words[1]))
    return pairs


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[tuple[str, str]]) -> None:
    """Write a pair file, whole or not at all.

    Raises:
        InputError: a name that is empty, begins with ``#`` or holds white space, which the format
            cannot carry; a place that cannot be written to.
    """
    lines = []
    for pair in pairs:
        for name in pair:
            if name.split() != [name] or name.startswith("#"):
                raise InputError("pairs", "names without white space or a leading #", repr(name))
        lines.append(f"{pair[0]} {pair[1]}\n")
    target = Path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        partial.write_text("".join(lines), encoding="utf-8")
        partial.replace(target)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise InputError("pairs file", "a writable place", f"{path} ({error.strerror})") from None


def _check_count(num_images: int) -> None:
    if num_images < 0:
        raise InputError("num_images", "0 or more", f"{num_images}")
