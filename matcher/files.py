"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from matcher.errors import InputError

__all__ = ["checked_target", "replaced", "written"]


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file to write, which takes the place of ``path`` if nothing is raised."""
    # Beside the target, so that the rename cannot cross file systems.
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def checked_target(path: str | os.PathLike[str], suffixes: Collection[str]) -> Path:
    """The path of a file to write, if one can be written there.

    Raises:
        InputError: another suffix, a folder that does not exist, or the path is a folder.
    """
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        raise InputError("path", f"a name that ends in {', '.join(suffixes)}", repr(target.name))
    if not target.parent.is_dir():
        raise InputError("path", "a file in a folder that exists", f"{target}")
    if target.is_dir():
        raise InputError("path", "a file", f"the folder {target}")
    return target


@contextmanager
def written(path: str | os.PathLike[str], suffixes: Collection[str]) -> Iterator[BinaryIO]:
    """A stream whose content takes the place of ``path`` if nothing is raised.

    Raises:
        InputError: as :func:`checked_target`, or the system refuses the file (a full disk).
    """
    target = checked_target(path, suffixes)
    try:
        with replaced(target) as temporary, temporary.open("wb") as stream:
            yield stream
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise InputError("path", "a file that can be written", f"{target}: {reason}") from error
