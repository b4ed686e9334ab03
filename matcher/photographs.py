"""A folder of photographs, and what each of them is called in pair files, stores and maps."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from matcher.errors import InputError

__all__ = ["PHOTOGRAPH_SUFFIXES", "Photographs", "file_sha256"]

PHOTOGRAPH_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs below one folder.

    Attributes:
        root: the folder.
        names: of the photographs, relative to ``root``, with forward slashes, each once.

    Raises:
        InputError: a name that appears twice.
    """

    root: Path
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        seen: set[str] = set()
        for name in self.names:
            if name in seen:
                raise InputError("photographs", "names that appear once", f"{name} twice")
            seen.add(name)

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_folder(cls, folder: str | os.PathLike[str]) -> Photographs:
        """All photographs in a folder and its sub-folders by name; hidden ones are left out.

        Raises:
            InputError: no such folder, or no photograph in it.
        """
        root = Path(folder)
        if not root.is_dir():
            raise InputError("folder", "a folder of photographs", f"{root}")
        found = sorted(
            path.relative_to(root).as_posix()
            for path in root.rglob("*")
            if path.suffix.lower() in PHOTOGRAPH_SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(root).parts)
        )
        if not found:
            raise InputError(
                "folder",
                f"photographs ({', '.join(sorted(PHOTOGRAPH_SUFFIXES))})",
                f"none in {root}",
            )
        return cls(root, tuple(found))

    @classmethod
    def from_paths(cls, paths: Iterable[str | os.PathLike[str]]) -> Photographs:
        """Named files, in the order given; names are relative to the folder they share.

        Raises:
            InputError: no file, a file that is not there, the same file twice.
        """
        files = [Path(path) for path in paths]
        if not files:
            raise InputError("images", "at least one photograph", "none")
        for file in files:
            if not file.is_file():
                raise InputError("images", "files that exist", f"{file}")
        resolved = [file.resolve() for file in files]
        root = Path(os.path.commonpath([str(file.parent) for file in resolved]))
        return cls(root, tuple(file.relative_to(root).as_posix() for file in resolved))

    def path(self, name: str) -> Path:
        """The file of a photograph.

        Raises:
            InputError: a name that is not among them.
        """
        if name not in self.names:
            raise InputError("photograph", f"a name among the {len(self)} of {self.root}", name)
        return self.root / name

    def duplicates(self) -> list[tuple[str, str]]:
        """(kept, duplicate) names of files that are equal to the byte; the first name is kept."""
        kept: dict[tuple[int, str], str] = {}
        sizes = [(self.root / name).stat().st_size for name in self.names]
        repeated = {size for size in sizes if sizes.count(size) > 1}
        found = []
        for name, size in zip(self.names, sizes, strict=True):
            if size not in repeated:
                continue
            key = (size, file_sha256(self.root / name))
            if key in kept:
                found.append((kept[key], name))
            else:
                kept[key] = name
        return found


def file_sha256(path: Path) -> str:
    """Hexadecimal hash of a file's bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
