"""What the alignment needs of many pairs: their matches, and one canonical view a photograph.

Pairs are read once, one after the other, so that their pointmaps need not be in memory together.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.alignment.canonical import CanonicalSum, CanonicalView
from matcher.errors import InputError
from matcher.pair_records import PairRecord
from matcher.structures import FloatArray, ImageSize

__all__ = ["Observations", "PairMatches", "gather_observations"]


@dataclass(frozen=True, slots=True, eq=False)
class PairMatches:
    """Matches between photographs ``first`` < ``second`` (indices), in original pixels.

    Attributes:
        first: index of photograph 0.
        second: index of photograph 1.
        keypoints0: (M, 2) float64, x then y.
        keypoints1: (M, 2) float64.
        confidence: (M,) float64 in (0, 1].
        reason: why there are no matches, or ``None``.
    """

    first: int
    second: int
    keypoints0: FloatArray
    keypoints1: FloatArray
    confidence: FloatArray
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.confidence)

    def select(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> PairMatches:
        """Some of the matches."""
        return PairMatches(
            self.first,
            self.second,
            self.keypoints0[rows],
            self.keypoints1[rows],
            self.confidence[rows],
            self.reason,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """All photographs and pairs.

    Attributes:
        names: of the photographs, in the order in which the pairs name them.
        sizes: of the photographs.
        pairs: one entry for every two photographs that were matched.
        canonical: canonical view of each photograph, ``None`` where no pair had its pointmap.
    """

    names: tuple[str, ...]
    sizes: tuple[ImageSize, ...]
    pairs: tuple[PairMatches, ...]
    canonical: tuple[CanonicalView | None, ...]

    def __len__(self) -> int:
        return len(self.names)


def gather_observations(records: Iterable[PairRecord], block_px: int = 8) -> Observations:
    """Read all pairs once.

    Args:
        records: pairs; two records of the same photographs, in either order, are put together.
        block_px: side of an anchor's block, pixels of the pointmaps.

    Raises:
        InputError: no pair at all, one photograph with two sizes, keypoints that are not finite.
    """
    sizes: dict[str, ImageSize] = {}
    sums: dict[str, CanonicalSum] = {}
    parts: dict[tuple[int, int], list[PairMatches]] = {}
    for record in records:
        for name, size in ((record.name0, record.size0), (record.name1, record.size1)):
            if sizes.setdefault(name, size) != size:
                raise InputError("records", "one size a photograph", f"two sizes of {name}")
        _add_pointmaps(record, sums, block_px)
        order = list(sizes)
        pair = _as_pair(record, order.index(record.name0), order.index(record.name1))
        parts.setdefault((pair.first, pair.second), []).append(pair)
    if not parts:
        raise InputError("records", "at least one pair of photographs", "none")
    return Observations(
        tuple(sizes),
        tuple(sizes.values()),
        tuple(_joined(pairs) for pairs in parts.values()),
        tuple(sums[name].finish() if name in sums else None for name in sizes),
    )


def _add_pointmaps(record: PairRecord, sums: dict[str, CanonicalSum], block_px: int) -> None:
    maps = record.pointmaps
    if maps is None:
        return
    views = [(record.name0, maps.points0, maps.confidence0, maps.original0_from_network)]
    if maps.points1_in_camera1 is not None:
        # The confidence of the same pixels in camera 0's frame stands in for their own.
        views.append(
            (
                record.name1,
                maps.points1_in_camera1,
                maps.confidence1,
                maps.original1_from_network,
            )
        )
    for name, points, confidence, original_from_network in views:
        if name not in sums:
            sums[name] = CanonicalSum(original_from_network, block_px)
        elif not np.allclose(sums[name].original_from_network, original_from_network):
            raise InputError("records", "pointmaps of one size a photograph", f"two of {name}")
        sums[name].add(points, confidence)


def _as_pair(record: PairRecord, index0: int, index1: int) -> PairMatches:
    keypoints0 = record.matches.keypoints0.numpy().astype(np.float64)
    keypoints1 = record.matches.keypoints1.numpy().astype(np.float64)
    confidence = record.matches.confidence.numpy().astype(np.float64)
    if not (np.isfinite(keypoints0).all() and np.isfinite(keypoints1).all()):
        raise InputError("records", "finite keypoints", f"NaN in {record.name0}, {record.name1}")
    if index0 < index1:
        return PairMatches(index0, index1, keypoints0, keypoints1, confidence, record.reason)
    return PairMatches(index1, index0, keypoints1, keypoints0, confidence, record.reason)


def _joined(pairs: list[PairMatches]) -> PairMatches:
    if len(pairs) == 1:
        return pairs[0]
    return PairMatches(
        pairs[0].first,
        pairs[0].second,
        np.concatenate([pair.keypoints0 for pair in pairs]),
        np.concatenate([pair.keypoints1 for pair in pairs]),
        np.concatenate([pair.confidence for pair in pairs]),
        next((pair.reason for pair in pairs if pair.reason), None)
        if not any(map(len, pairs))
        else None,
    )
