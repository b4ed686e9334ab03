"""VisualSFM's models (``.nvm``, version 3): focals, and which image sees which point."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.core.samples import FloatArray
from matcher.errors import DatasetError

__all__ = ["NvmCamera", "NvmModel", "Observations", "read_nvm"]

_POINT_WORDS = 7
_OBSERVATION_WORDS = 4


@dataclass(frozen=True, slots=True)
class NvmCamera:
    """Focal in pixels; ``radial`` r: an offset m from the middle, in focals, is m (1 + r |m|²)
    without the lens.
    """

    focal: float
    radial: float


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """(N, 2) pixels from the middle of the image, x then y, and (N, 3) the points they show."""

    offsets: FloatArray
    points: FloatArray


class NvmModel:
    """The parts of a model that localization needs; images are found by name without ending."""

    def __init__(
        self, path: Path, cameras: dict[str, NvmCamera], observations: dict[str, Observations]
    ) -> None:
        self._path, self._cameras, self._observations = path, cameras, observations

    def camera(self, image: str) -> NvmCamera:
        """The camera of an image.

        Raises:
            DatasetError: the model lacks it.
        """
        if _stem(image) not in self._cameras:
            raise DatasetError(f"{self._path}: it lacks {image}")
        return self._cameras[_stem(image)]

    def observations(self, image: str) -> Observations:
        """What an image sees.

        Raises:
            DatasetError: the model lacks it, or it was not asked for when the model was read.
        """
        if _stem(image) not in self._observations:
            raise DatasetError(f"{self._path}: it lacks points of {image}")
        return self._observations[_stem(image)]


def read_nvm(path: Path, wanted: Collection[str]) -> NvmModel:
    """A model, with the observations of the images ``wanted`` (their endings do not count).

    Raises:
        DatasetError: absent, of another version, truncated, or broken; the line is named.
    """
    if not path.is_file():
        raise DatasetError(f"no model at {path}")
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = enumerate(file, 1)
        _, header = next(lines, (1, ""))
        if not header.startswith("NVM_V3"):
            raise DatasetError(f"{path}: expected a file that begins with NVM_V3")
        names, cameras = [], {}
        for line, words in _section(lines, path, "images"):
            if len(words) < 11:
                raise DatasetError(f"{path}:{line}: expected a name and 10 numbers")
            focal, radial = _numbers([words[-10], words[-2]], path, line)
            names.append(_stem(" ".join(words[:-10])))
            cameras[names[-1]] = NvmCamera(focal, radial)
        keep = {_stem(name) for name in wanted} & set(names)
        is_kept = [name in keep for name in names]
        rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in keep}
        for line, words in _section(lines, path, "points"):
            if len(words) < _POINT_WORDS or len(words) != _POINT_WORDS + _OBSERVATION_WORDS * int(
                _numbers([words[_POINT_WORDS - 1]], path, line)[0]
            ):
                raise DatasetError(f"{path}:{line}: a point with a broken list of observations")
            point = None
            for start in range(_POINT_WORDS, len(words), _OBSERVATION_WORDS):
                image = int(_numbers([words[start]], path, line)[0])
                if not 0 <= image < len(names):
                    raise DatasetError(f"{path}:{line}: no image {image}")
                if is_kept[image]:
                    point = point or _numbers(words[:3], path, line)
                    offset = _numbers(words[start + 2 : start + 4], path, line)
                    rows[names[image]].append((*offset, *point))
    observations = {}
    for name, entries in rows.items():
        table = np.array(entries, dtype=np.float64).reshape(-1, 5)
        observations[name] = Observations(table[:, :2], table[:, 2:])
    return NvmModel(path, cameras, observations)


def _section(
    lines: Iterator[tuple[int, str]], path: Path, what: str
) -> Iterator[tuple[int, list[str]]]:
    """The lines of a section, which begins with their count."""
    filled = ((line, text.split()) for line, text in lines if text.strip())
    line, words = next(filled, (0, [""]))
    if len(words) != 1 or not words[0].isdigit():
        raise DatasetError(f"{path}:{line}: expected the number of {what}")
    count, read = int(words[0]), 0
    for entry in islice(filled, count):
        read += 1
        yield entry
    if read < count:
        raise DatasetError(f"{path}: truncated: {read} of {count} {what}")


def _numbers(words: list[str], path: Path, line: int) -> list[float]:
    try:
        return [float(word) for word in words]
    except ValueError as error:
        raise DatasetError(f"{path}:{line}: {error}") from None


def _stem(image: str) -> str:
    # The set's models name the .jpg that were mapped, its lists the .png that were published.
    return str(PurePosixPath(image.replace("\\", "/")).with_suffix("")).removeprefix("./")
