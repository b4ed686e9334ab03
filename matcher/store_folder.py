"""What keeps a folder of results whole: a lock, and a journal that is only ever appended to.

Every line of the journal carries its own checksum. A program that is killed, or a disk that fills
up, leaves at worst a torn last line, which is passed over and cut off before the next one.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matcher.errors import InputError
from matcher.files import replaced

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

__all__ = [
    "LOCK_NAME",
    "FolderLock",
    "Journal",
    "locked",
    "read_journal",
    "write_whole",
    "writing",
]

LOCK_NAME = "lock"

_log = logging.getLogger(__name__)


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """The entries of a journal, oldest first; damaged lines are passed over.

    A torn last line is nothing to worry about; any other damage is logged as a warning.
    """
    content = path.read_bytes() if path.is_file() else b""
    lines = content.split(b"\n")
    damaged = 0
    for line in lines[:-1]:
        entry = _entry(line)
        if entry is None:
            damaged += 1
        else:
            yield entry
    if damaged:
        _log.warning("%d damaged lines in %s: what they say is lost", damaged, path)


def _entry(line: bytes) -> dict[str, Any] | None:
    checksum, _, body = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        return None
    entry: dict[str, Any] = json.loads(body)
    return entry


class Journal:
    """A journal that is being written.

    Args:
        path: the file; a torn last line is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        content = path.read_bytes()
        self._length = content.rfind(b"\n") + 1
        os.ftruncate(self._file, self._length)

    def append(self, entry: dict[str, Any]) -> None:
        """Write one entry, to the disk itself; if that fails, none of it stays.

        Raises:
            OSError: what the system says, for instance of a full disk.
        """
        body = json.dumps(entry).encode()
        line = b"%08x %b\n" % (zlib.crc32(body), body)
        try:
            os.lseek(self._file, self._length, os.SEEK_SET)
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except OSError:
            os.ftruncate(self._file, self._length)
            raise
        self._length += len(line)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._file)


class FolderLock:
    """Held while a folder is written; the system lets go of it when the program ends, however.

    Args:
        path: the file that stands for the lock; it stays behind, empty.

    Raises:
        InputError: another program holds it.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if sys.platform == "win32":
                msvcrt.locking(self._file, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise InputError(
                "store", "a folder that nobody else writes to", f"{path.parent}, which is in use"
            ) from None

    def release(self) -> None:
        """Let others write."""
        os.close(self._file)


@contextmanager
def locked(folder: Path) -> Iterator[FolderLock]:
    """A lock that is let go of if something is raised; what the system refuses, as one line."""
    with writing(folder):
        lock = FolderLock(folder / LOCK_NAME)
        try:
            yield lock
        except BaseException:
            lock.release()
            raise


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """What the system refuses, as one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            "store", "a folder that can be written to", f"{folder}: {reason}"
        ) from None


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file, on the disk itself, whole or not at all."""
    with replaced(path) as temporary, temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
