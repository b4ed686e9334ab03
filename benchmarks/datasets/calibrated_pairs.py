"""Pair lists as text, a pair a line with its calibration, as SuperGlue and glue-factory write them.

SuperGlue: ``imgA imgB rotA rotB K0(9) K1(9) T_0to1(16)``, 38 words; the rotations are quarter
turns that make the photographs upright. glue-factory: ``imgA imgB K0(9) K1(9) R(9) t(3)``, 32
words. Matrices row by row, for the stored photographs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.core.samples import FloatArray, PoseTruth
from benchmarks.datasets.building import PairCollector, as_rigid, stored_size
from benchmarks.datasets.number_files import parse_numbers, read_lines
from matcher.errors import DatasetError

__all__ = ["collect_calibrated_pairs"]

_SUPERGLUE_WORDS, _GLUE_FACTORY_WORDS = 38, 32
# A principal point farther from the middle, relative to the side, belongs to another image size.
_MOST_OFF_CENTRE = 0.25


def collect_calibrated_pairs(
    path: Path, images: Path, collector: PairCollector, group_of: Callable[[str], str]
) -> None:
    """Add the pairs of a list.

    Args:
        path: the list.
        images: folder that its names are relative to.
        collector: takes pairs and problems.
        group_of: scene of an image's name.

    Raises:
        DatasetError: the list is absent or no text.
    """
    for number, words in read_lines(path):
        if len(words) not in (_SUPERGLUE_WORDS, _GLUE_FACTORY_WORDS):
            collector.fail(
                f"line {number}",
                f"expected {_SUPERGLUE_WORDS} or {_GLUE_FACTORY_WORDS} words, got {len(words)}",
            )
            continue
        name0, name1 = words[:2]
        collector.add(
            f"{name0}--{name1}",
            (images / name0, images / name1),
            _Line(path, number, words, images),
            group_of(name0),
        )


class _Line:
    """Makes the truth of a line."""

    def __init__(self, path: Path, number: int, words: Sequence[str], images: Path) -> None:
        self.path, self.number, self.words, self.images = path, number, words, images

    def __call__(self) -> PoseTruth:
        is_superglue = len(self.words) == _SUPERGLUE_WORDS
        first = 4 if is_superglue else 2
        if is_superglue and any(float(turn) != 0 for turn in self._numbers(2, 4)):
            raise DatasetError(
                f"line {self.number}: asks for a turned photograph; turn image, K and pose on disk"
            )
        k0, k1 = (self._numbers(at, at + 9).reshape(3, 3) for at in (first, first + 9))
        rest = self._numbers(first + 18, len(self.words))
        if is_superglue:
            matrix = rest.reshape(4, 4)
            rotation, translation = matrix[:3, :3], matrix[:3, 3]
        else:
            rotation, translation = rest[:9].reshape(3, 3), rest[9:]
        for name, k, image in zip(("K0", "K1"), (k0, k1), self.words[:2], strict=True):
            self._check_size(name, k, self.images / image)
        pose = as_rigid(f"line {self.number}, T_0to1", rotation, translation)
        return PoseTruth(k0, k1, pose)

    def _numbers(self, start: int, stop: int) -> FloatArray:
        return parse_numbers(self.words[start:stop], stop - start, self.path, self.number)

    def _check_size(self, name: str, k: FloatArray, image: Path) -> None:
        size = stored_size(image)
        off = np.abs(np.array([k[0, 2] / size.width, k[1, 2] / size.height]) - 0.5)
        if (off > _MOST_OFF_CENTRE).any():
            raise DatasetError(
                f"line {self.number}: {name} with its principal point at "
                f"({k[0, 2]:.0f}, {k[1, 2]:.0f}) is not for {size.width} x {size.height} pixels"
            )
