"""The matches of a collection in a folder: written pair by pair, whole at every moment.

    manifest.json       the model, the options, the photographs with their hashes
    journal.jsonl       one line a pair: its file's size and hash, or why it failed
    pairs/3f/...        one file a pair

A pair counts from the moment its line is in the journal. Whatever interrupts a run leaves a store
that can be read and gone on with.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from matcher.checkpoints import CheckpointInfo
from matcher.errors import DatasetError, InputError
from matcher.many_pairs import FailedPair
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.record_files import PointmapPrecision, pack_record, unpack_record
from matcher.store_folder import (
    FolderLock,
    Journal,
    locked,
    read_journal,
    write_whole,
    writing,
)
from matcher.store_manifest import StoreManifest, check_empty
from matcher.view_matching import PairOptions

__all__ = ["MatchStore", "distinct_pairs"]

_log = logging.getLogger(__name__)

_JOURNAL, _PAIRS = "journal.jsonl", "pairs"


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a pair's record is and what its file holds."""

    names: tuple[str, str]
    num_bytes: int
    sha256: str
    num_matches: int


class MatchStore:
    """Matches of a collection on disk; made by ``create``, ``resume`` and ``open``.

    The two orders of a pair are one pair, which keeps the order it was stored in. One program may
    write while others read; readers see what was there when they opened it. Close a store that is
    written, or use it as a context manager.
    """

    def __init__(
        self, path: Path, manifest: StoreManifest, lock: FolderLock | None, journal: Journal | None
    ) -> None:
        self.path = path
        self._manifest = manifest
        self._lock = lock
        self._journal = journal
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._failures: dict[tuple[str, str], FailedPair] = {}
        self._damaged: list[tuple[str, str]] = []
        for entry in read_journal(path / _JOURNAL):
            self._note(entry)

    @classmethod
    def open(
        cls, path: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None
    ) -> MatchStore:
        """Open a store for reading.

        Args:
            path: its folder.
            images: the folder of the photographs, if it has moved.

        Raises:
            InputError: no store there, or one of another format.
        """
        folder = Path(path)
        manifest = StoreManifest.read(folder)
        if images is not None:
            if not Path(images).is_dir():
                raise InputError("images", "a folder of photographs", f"{images}")
            manifest = manifest.moved(Path(images))
        return cls(folder, manifest, None, None)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        photographs: Photographs,
        info: CheckpointInfo,
        options: PairOptions,
        *,
        pointmaps: PointmapPrecision = "none",
    ) -> MatchStore:
        """Begin a store, and open it for writing.

        Args:
            path: its folder, which is made; it may exist if it is empty.
            photographs: what pairs will be of; each is read for its hash.
            info: whose weights match them.
            options: how they are matched.
            pointmaps: whether they are kept, and how exactly.

        Raises:
            InputError: a folder that holds something, or cannot be written.
        """
        folder = Path(path)
        check_empty(folder)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        with locked(folder) as lock:
            check_empty(folder)  # somebody else may have been here until now
            manifest = StoreManifest.of(photographs, info, options, pointmaps)
            manifest.write(folder)
            return cls(folder, manifest, lock, Journal(folder / _JOURNAL))

    @classmethod
    def resume(
        cls,
        path: str | os.PathLike[str],
        photographs: Photographs,
        info: CheckpointInfo,
        options: PairOptions,
        *,
        pointmaps: PointmapPrecision = "none",
    ) -> MatchStore:
        """Open a store for writing, or begin it; the arguments are those of ``create``.

        Every pair's file is read and checked: those that are damaged are missing again, and in
        ``damaged``. Photographs may be added; those that were there must not have changed.

        Raises:
            InputError: a store of another model, other options or changed photographs; one that is
                being written; a folder that cannot be written.
        """
        folder = Path(path)
        if not StoreManifest.is_in(folder):
            return cls.create(folder, photographs, info, options, pointmaps=pointmaps)
        with locked(folder) as lock:
            manifest = StoreManifest.read(folder)
            asked = StoreManifest.of(photographs, info, options, pointmaps)
            extended = manifest.extended(asked)
            if extended != manifest:
                extended.write(folder)
            for leftover in (folder / _PAIRS).glob("*/.*.tmp"):
                leftover.unlink()
            store = cls(folder, extended, lock, Journal(folder / _JOURNAL))
            store.verify()
            return store

    def __enter__(self) -> MatchStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let others write; reading goes on to work."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, names: tuple[str, str]) -> bool:
        return _key(names) in self._entries

    @property
    def photographs(self) -> Photographs:
        """What the pairs are of."""
        return Photographs(self._manifest.root, tuple(self._manifest.photographs))

    @property
    def info(self) -> CheckpointInfo:
        """Whose weights matched the pairs: name, licence, hash, whether they are metric."""
        return self._manifest.info

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.info.name

    @property
    def licence(self) -> str:
        """Licence of the model's weights."""
        return self.info.licence

    @property
    def options(self) -> PairOptions:
        """How the pairs were matched."""
        return self._manifest.options

    @property
    def pointmaps(self) -> PointmapPrecision:
        """Whether pointmaps are kept, and how exactly."""
        return self._manifest.pointmaps

    @property
    def damaged(self) -> list[tuple[str, str]]:
        """Pairs whose file was found to be damaged since the store was opened; they are missing."""
        return list(self._damaged)

    def pair_names(self) -> list[tuple[str, str]]:
        """The pairs that are there, in the order they were added."""
        return [entry.names for entry in self._entries.values()]

    def failures(self) -> list[FailedPair]:
        """The pairs that could not be matched, with the reason; a later success removes one."""
        return list(self._failures.values())

    def num_matches(self, name0: str, name1: str) -> int:
        """How many matches a pair has, without reading them.

        Raises:
            InputError: a pair that is not there.
        """
        return self._entry((name0, name1)).num_matches

    def missing(self, pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
        """Those of some pairs that are not there, each once, in their order; failures are."""
        return [names for names in distinct_pairs(pairs) if names not in self]

    def records(self, keep_pointmaps: bool = True) -> Iterator[PairRecord]:
        """All pairs, in the order they were added; those that are damaged are logged and left out.

        Args:
            keep_pointmaps: whether to read them, where they are kept.
        """
        for names in self.pair_names():
            try:
                yield self.record(*names, keep_pointmaps=keep_pointmaps)
            except DatasetError as error:
                _log.warning("%s", error)

    def record(self, name0: str, name1: str, *, keep_pointmaps: bool = True) -> PairRecord:
        """One pair.

        Raises:
            InputError: a pair that is not there.
            DatasetError: its file is damaged or gone; it counts as missing from then on.
        """
        entry = self._entry((name0, name1))
        return unpack_record(self._checked(entry), keep_pointmaps=keep_pointmaps)

    def verify(self) -> list[tuple[str, str]]:
        """Read every file and compare its hash; gives the pairs that are damaged or gone."""
        found = []
        for entry in list(self._entries.values()):
            try:
                self._checked(entry)
            except DatasetError as error:
                _log.warning("%s", error)
                found.append(entry.names)
        return found

    def add(self, record: PairRecord) -> None:
        """Write a pair; it takes the place of an earlier one of the same photographs.

        Raises:
            InputError: a store opened for reading, photographs it does not know, no room on the
                disk: the store is then as it was before.
        """
        journal = self._writable(record.names)
        packed = pack_record(record, self.pointmaps)
        digest = hashlib.sha256(packed).hexdigest()
        entry = {
            "pair": record.names,
            "bytes": len(packed),
            "sha256": digest,
            "matches": len(record),
        }
        with writing(self.path):
            file = self._file(_key(record.names))
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, packed)
            journal.append(entry)
        self._note(entry)

    def add_failure(self, failure: FailedPair) -> None:
        """Write down why a pair could not be matched.

        Raises:
            InputError: as ``add``.
        """
        journal = self._writable((failure.name0, failure.name1))
        entry = {"pair": (failure.name0, failure.name1), "failed": failure.reason}
        with writing(self.path):
            journal.append(entry)
        self._note(entry)

    def _writable(self, names: tuple[str, str]) -> Journal:
        if self._journal is None:
            raise InputError("store", "a store opened with create or resume", "one for reading")
        for name in names:
            if name not in self._manifest.photographs:
                raise InputError("record", f"photographs that {self.path} knows", name)
        return self._journal

    def _note(self, entry: dict[str, Any]) -> None:
        name0, name1 = entry["pair"]
        key = _key((name0, name1))
        if "failed" in entry:
            if key not in self._entries:
                self._failures[key] = FailedPair(name0, name1, entry["failed"])
        else:
            self._failures.pop(key, None)
            self._entries[key] = _Entry(
                (name0, name1), entry["bytes"], entry["sha256"], entry["matches"]
            )

    def _file(self, key: tuple[str, str]) -> Path:
        name = hashlib.sha256("\0".join(key).encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return self.path / _PAIRS / name[:2] / f"{name}.safetensors"

    def _entry(self, names: tuple[str, str]) -> _Entry:
        entry = self._entries.get(_key(names))
        if entry is None:
            raise InputError("pair", f"one of the {len(self)} of {self.path}", " ".join(names))
        return entry

    def _checked(self, entry: _Entry) -> bytes:
        """A pair's file, if it is what was written."""
        key = _key(entry.names)
        file = self._file(key)
        try:
            content = file.read_bytes()
        except OSError:
            content = b""
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            del self._entries[key]
            self._damaged.append(entry.names)
            raise DatasetError(
                f"the stored pair {' '.join(entry.names)} is damaged ({file}): match it again"
            )
        return content


def distinct_pairs(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Every pair once, the two orders being one, in the order in which they first come."""
    distinct: dict[tuple[str, str], tuple[str, str]] = {}
    for names in pairs:
        distinct.setdefault(_key(names), names)
    return list(distinct.values())


def _key(names: tuple[str, str]) -> tuple[str, str]:
    """Equal for both orders."""
    return (names[0], names[1]) if names[0] <= names[1] else (names[1], names[0])
