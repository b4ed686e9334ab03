"""What all pairs of a match store have in common: the model, the options, the photographs."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from matcher.checkpoints import CheckpointInfo
from matcher.errors import InputError
from matcher.photographs import Photographs, file_sha256
from matcher.record_files import PointmapPrecision
from matcher.store_folder import LOCK_NAME, write_whole, writing
from matcher.view_matching import PairOptions

__all__ = ["StoreManifest", "StoredPhotograph", "check_empty"]

_FORMAT = 1
_NAME = "manifest.json"
_MODEL_FIELDS = ("name", "licence", "is_metric", "sha256")


@dataclass(frozen=True, slots=True)
class StoredPhotograph:
    """What a photograph's file was when its pairs were matched.

    Attributes:
        name: as ``Photographs`` names it.
        num_bytes: of the file, or ``None``: there was none.
        sha256: hexadecimal hash of the file, or ``None``.
    """

    name: str
    num_bytes: int | None
    sha256: str | None

    @classmethod
    def of(cls, photographs: Photographs, name: str) -> StoredPhotograph:
        """The file as it is now."""
        path = photographs.root / name
        try:
            return cls(name, path.stat().st_size, file_sha256(path))
        except OSError:
            return cls(name, None, None)


@dataclass(frozen=True, slots=True)
class StoreManifest:
    """What all pairs of a store have in common.

    Attributes:
        info: whose weights matched them, and their licence.
        options: how they were matched.
        pointmaps: whether they are kept.
        root: the folder of the photographs.
        photographs: by name.
    """

    info: CheckpointInfo
    options: PairOptions
    pointmaps: PointmapPrecision
    root: Path
    photographs: Mapping[str, StoredPhotograph]

    def __post_init__(self) -> None:
        if self.pointmaps not in get_args(PointmapPrecision):
            raise InputError(
                "pointmaps", " or ".join(get_args(PointmapPrecision)), f"{self.pointmaps!r}"
            )

    @classmethod
    def of(
        cls,
        photographs: Photographs,
        info: CheckpointInfo,
        options: PairOptions,
        pointmaps: PointmapPrecision,
    ) -> StoreManifest:
        """The manifest of a new store; every photograph is read for its hash."""
        entries = {name: StoredPhotograph.of(photographs, name) for name in photographs.names}
        return cls(info, options, pointmaps, photographs.root.resolve(), entries)

    def extended(self, asked: StoreManifest) -> StoreManifest:
        """The same with what another has besides, if pairs of both may lie in one store.

        Raises:
            InputError: another model, other options, a photograph that changed.
        """
        mine, theirs = self._essence(), asked._essence()
        for key, value in mine.items():
            if value != theirs[key]:
                raise InputError(
                    "store", f"{key} {theirs[key]}, as asked", f"a store written with {value}"
                )
        for name, entry in asked.photographs.items():
            known = self.photographs.get(name, entry)
            if known != entry and known.sha256 is not None:
                raise InputError(
                    "photographs",
                    "files that did not change since they were matched",
                    f"{name}, which did: take another store",
                )
        photographs = {**self.photographs, **asked.photographs}
        return dataclasses.replace(self, root=asked.root, photographs=photographs)

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether a folder is a store."""
        return (folder / _NAME).is_file()

    @classmethod
    def read(cls, folder: Path) -> StoreManifest:
        """The manifest of a store.

        Raises:
            InputError: there is none that can be read.
        """
        try:
            text = (folder / _NAME).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(
                "store", "a folder of matches", f"{folder} without a readable {_NAME} ({reason})"
            ) from None
        return cls.from_json(text)

    def write(self, folder: Path) -> None:
        """Replace the manifest of a store, whole or not at all.

        Raises:
            InputError: the system refuses it.
        """
        with writing(folder):
            write_whole(folder / _NAME, self.to_json().encode())

    def moved(self, root: Path) -> StoreManifest:
        """The same with the photographs in another folder."""
        return dataclasses.replace(self, root=root.resolve())

    def _essence(self) -> dict[str, Any]:
        """What must be equal, by what to call it."""
        options = json.loads(json.dumps(self.options.to_dict()))
        flat = {f"matching.{key}": value for key, value in options.pop("matching").items()}
        weights = f"{self.info.name} ({self.info.sha256[:12] or 'no hash'})"
        return {"model": weights, **options, **flat, "pointmaps": self.pointmaps}

    def to_json(self) -> str:
        """The manifest as text."""
        values = {
            "format": _FORMAT,
            "model": {name: getattr(self.info, name) for name in _MODEL_FIELDS},
            "options": self.options.to_dict(),
            "pointmaps": self.pointmaps,
            "root": str(self.root),
            "photographs": [dataclasses.asdict(entry) for entry in self.photographs.values()],
        }
        return json.dumps(values, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> StoreManifest:
        """The manifest in a text.

        Raises:
            InputError: text that holds none, or one of another format.
        """
        try:
            values: dict[str, Any] = json.loads(text)
            if values["format"] != _FORMAT:
                raise InputError("store", f"format {_FORMAT}", f"format {values['format']}")
            entries = [StoredPhotograph(**entry) for entry in values["photographs"]]
            return cls(
                CheckpointInfo(**values["model"]),
                PairOptions.from_dict(values["options"]),
                values["pointmaps"],
                Path(values["root"]),
                {entry.name: entry for entry in entries},
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError("store", "a manifest", f"other text ({error!r})") from None


def check_empty(folder: Path) -> None:
    """Whether a store may begin in a folder.

    Raises:
        InputError: it holds something, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError("store", "a folder", f"the file {folder}")
    if folder.is_dir():
        found = {entry.name for entry in folder.iterdir()} - {LOCK_NAME}
        # A manifest that was being written when its program was killed is no obstacle.
        if any(not name.startswith(f".{_NAME}.") for name in found):
            raise InputError("store", "a folder that is empty or does not exist", f"{folder}")
