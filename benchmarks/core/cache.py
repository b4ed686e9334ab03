"""Predictions on disk: exported once, evaluated as often as wanted.

One HDF5 file per data set, resize rule and method. The root carries the run's configuration as
JSON; a file that was written under another one is refused, never mixed. Every pair is a group with
its arrays (float32) and a digest over them, flushed when it is complete, so that an interrupted run
loses at most the pair it was in, and a damaged pair is found out and done again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from benchmarks.core.predictions import MatchPrediction
from benchmarks.core.protocols import ScoredFrame
from matcher.errors import InputError, MissingDependencyError
from matcher.structures import ImageSize

try:
    import h5py
except ImportError:  # an extra
    h5py = None

__all__ = ["CachedAnswer", "PredictionCache"]

_FORMAT = 1
_ARRAYS = ("keypoints0", "keypoints1", "confidence", "points0")
_UNREADABLE = (OSError, KeyError, ValueError, RuntimeError, TypeError)


@dataclass(frozen=True, slots=True, eq=False)
class CachedAnswer:
    """A prediction in pixels of the stored photographs, and the sizes of its photographs."""

    prediction: MatchPrediction
    frame: ScoredFrame


def _digest(prediction: MatchPrediction, sizes: tuple[int, ...]) -> str:
    digest = hashlib.sha256(f"{prediction.failure} {sizes}".encode())
    for name in _ARRAYS:
        digest.update(getattr(prediction, name).astype(np.float32).tobytes())
    return digest.hexdigest()


class PredictionCache:
    """The predictions of one method under one configuration; a context manager.

    Args:
        path: the file; made if it is not there.
        configuration: everything that decides a prediction, as plain values. A file of another
            configuration is refused.

    Raises:
        InputError: the file belongs to another run, or the folder cannot be written.
        MissingDependencyError: h5py is not installed.
    """

    def __init__(self, path: Path, configuration: Mapping[str, Any]) -> None:
        if h5py is None:
            raise MissingDependencyError("h5py", "bench", "the prediction cache")
        self.path = path
        self.configuration = json.loads(json.dumps(configuration))  # as it comes back
        self.was_damaged = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
        except InputError:
            raise
        except OSError as error:
            raise InputError("cache", "a file that can be written", f"{path}: {error}") from None

    def _open(self) -> Any:
        try:
            file = h5py.File(self.path, "a")
        except OSError as error:
            if not self.path.exists() or isinstance(error, PermissionError | BlockingIOError):
                raise
            # A truncated file cannot be opened at all: it is kept aside, not deleted.
            _put_aside(self.path)
            self.was_damaged = True
            file = h5py.File(self.path, "a")
        stored = file.attrs.get("configuration")
        if stored is None:
            file.attrs["configuration"] = json.dumps(self.configuration, sort_keys=True)
            file.attrs["format"] = _FORMAT
            file.flush()
        else:
            theirs = json.loads(stored)
            if theirs != self.configuration or file.attrs.get("format") != _FORMAT:
                file.close()
                raise InputError(
                    "cache",
                    "predictions of this very configuration",
                    f"{self.path}, which differs in {_difference(theirs, self.configuration)}; "
                    "name another --cache or remove the file",
                )
        return file

    def __enter__(self) -> PredictionCache:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; everything stored is on disk already."""
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return self.load(name) is not None

    def load(self, name: str) -> CachedAnswer | None:
        """The answer to a pair; ``None`` if there is none, or it is damaged."""
        key = _key(name)
        try:
            if key not in self._file:
                return None
            group = self._file[key]
            arrays = {entry: group[entry][()].astype(np.float64) for entry in _ARRAYS}
            prediction = MatchPrediction(
                **arrays,
                pair_score=float(group.attrs["pair_score"]),
                seconds=float(group.attrs["seconds"]),
                failure=str(group.attrs["failure"]),
            )
            sizes = tuple(int(side) for side in group.attrs["sizes"])
            intact = group.attrs["sha256"] == _digest(prediction, sizes)
            frame = ScoredFrame(*(ImageSize(*sizes[i : i + 2]) for i in range(0, 8, 2)))
        except _UNREADABLE:
            return None
        return CachedAnswer(prediction, frame) if intact else None

    def store(self, name: str, answer: CachedAnswer) -> None:
        """Write one pair, in place of what there was, and flush.

        Raises:
            InputError: the disk is full or the file is gone.
        """
        key, prediction, frame = _key(name), answer.prediction, answer.frame
        ends = (frame.stored0, frame.stored1, frame.resized0, frame.resized1)
        sizes = tuple(side for size in ends for side in (size.height, size.width))
        with self._writing():
            if key in self._file:
                del self._file[key]
            group = self._file.create_group(key)
            for entry in _ARRAYS:
                group.create_dataset(entry, data=getattr(prediction, entry).astype(np.float32))
            group.attrs["name"] = name
            group.attrs["sizes"] = sizes
            group.attrs["pair_score"] = prediction.pair_score
            group.attrs["seconds"] = prediction.seconds
            group.attrs["failure"] = prediction.failure
            group.attrs["sha256"] = _digest(
                prediction, sizes
            )  # last: without it the pair is not there
            self._file.flush()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                "cache", "a file that can be written", f"{self.path}: {reason}"
            ) from None


def _put_aside(path: Path) -> None:
    """Rename a file that cannot be read, so that nothing is lost."""
    for number in range(1000):
        aside = path.with_suffix(f".damaged{number}")
        if not aside.exists():
            os.replace(path, aside)
            return
    raise InputError("cache", "fewer than 1000 damaged files beside it", f"{path}")


def _key(name: str) -> str:
    """A pair's name may hold slashes, which HDF5 would take for groups."""
    return hashlib.sha256(name.encode()).hexdigest()


def _difference(theirs: Any, ours: Any) -> str:
    if not isinstance(theirs, dict) or not isinstance(ours, dict):
        return "its configuration"
    keys = sorted(set(theirs) | set(ours))
    differing = [key for key in keys if theirs.get(key) != ours.get(key)]
    return ", ".join(differing) or "its format"
