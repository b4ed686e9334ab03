"""The lines of a manifest, read one by one with errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from matcher.errors import DatasetError
from matcher.structures import Camera, FloatArray, Pose

__all__ = ["ManifestLine", "manifest_texts", "one_line"]


class ManifestLine:
    """One record being read: typed access to its fields, errors that name file and line."""

    def __init__(self, manifest: Path, number: int, text: str) -> None:
        self.manifest = manifest
        self.number = number
        try:
            fields = json.loads(text)
        except ValueError as error:
            raise self.error(f"not JSON ({one_line(error)})") from error
        if not isinstance(fields, dict):
            raise self.error(f"expected a JSON object, got {type(fields).__name__}")
        self.fields: dict[str, Any] = fields

    def error(self, problem: str) -> DatasetError:
        """The error to raise for a problem of this line."""
        return DatasetError(f"{self.manifest}:{self.number}: {problem}")

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.fields.get(key) is not None

    def text(self, key: str) -> str:
        """A field that is a string."""
        value = self.fields.get(key)
        if not isinstance(value, str) or not value:
            raise self.error(f"{key}: expected a string, got {value!r}")
        return value

    def file(self, key: str) -> Path:
        """A field that names a file, relative to the manifest."""
        path = self.manifest.parent / self.text(key)
        if not path.is_file():
            raise self.error(f"{key}: no such file: {path}")
        return path

    def number_of(self, key: str) -> float:
        """A field that is a number."""
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(f"{key}: expected a number, got {value!r}")
        return float(value)

    def matrix(self, key: str, size: int) -> FloatArray:
        """A field that is a square matrix of finite numbers."""
        try:
            matrix = np.asarray(self.fields.get(key), dtype=np.float64)
        except (TypeError, ValueError):
            raise self.error(f"{key}: expected {size} x {size} numbers") from None
        if matrix.shape != (size, size):
            raise self.error(f"{key}: expected {size} x {size} numbers, got shape {matrix.shape}")
        if not np.isfinite(matrix).all():
            raise self.error(f"{key}: expected finite numbers, got NaN or infinity")
        return matrix

    def camera(self, key: str) -> Camera:
        """A field that is a 3 x 3 camera matrix."""
        return Camera.from_matrix(self.matrix(key, 3))

    def pose(self, key: str) -> Pose:
        """A field that is a 4 x 4 rigid motion."""
        matrix = self.matrix(key, 4)
        if not np.allclose(matrix[3], (0.0, 0.0, 0.0, 1.0)):
            raise self.error(f"{key}: expected the last row 0 0 0 1, got {matrix[3].tolist()}")
        return Pose.from_matrix(matrix)

    def group(self) -> str:
        """The place; the folder of the manifest where the line names none."""
        return self.text("group") if self.has("group") else self.manifest.resolve().parent.name


def manifest_texts(manifest: Path) -> Iterator[tuple[int, str]]:
    """(number, text) of every line that is not blank; the first has number 1.

    Raises:
        DatasetError: the manifest cannot be read.
    """
    try:
        lines = manifest.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{manifest}: cannot read the manifest: {one_line(error)}") from error
    for number, text in enumerate(lines, start=1):
        if text.strip():
            yield number, text


def one_line(error: Exception) -> str:
    """An error's message without line breaks."""
    return " ".join(str(error).split())
