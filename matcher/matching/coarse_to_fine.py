"""Which crops of two large photographs to match in full resolution (MASt3R paper, section 3.4).

A coarse match of the shrunken photographs says which places correspond. Windows of the network's
size are laid over both photographs with overlap; each takes its partner window where its coarse
matches lie in the other photograph; the pairs that cover most of the matches well are chosen one
after the other. Running the network on the crops is the caller's part; the matches of all crops,
in pixels of the photographs, come together in :func:`merge_matches`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from matcher.errors import InputError
from matcher.structures import FloatArray, ImageSize, Matches, as_keypoints

__all__ = [
    "CropBox",
    "CropPair",
    "add_matches",
    "choose_covering",
    "merge_matches",
    "partner_box",
    "plan_crops",
    "window_grid",
]

_PATCH = 16
_MIN_MATCHES = 10
_BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CropBox:
    """Columns ``[left, right)`` and rows ``[top, bottom)`` of a photograph, pixels."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> ImageSize:
        """Height and width of the crop."""
        return ImageSize(self.bottom - self.top, self.right - self.left)

    @property
    def centre(self) -> tuple[float, float]:
        """(x, y) halfway between the edges, pixels."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def contains(self, keypoints: FloatArray) -> _BoolArray:
        """(M,) bool: which of the (M, 2) pixels lie inside."""
        x, y = keypoints[:, 0], keypoints[:, 1]
        inside: _BoolArray = (
            (x >= self.left) & (x < self.right) & (y >= self.top) & (y < self.bottom)
        )
        return inside

    def weigh(self, keypoints: FloatArray) -> FloatArray:
        """(M,) Gaussian of the distance from the centre: 1 there, exp(-1/2) halfway to an edge."""
        extent = np.array([self.right - self.left, self.bottom - self.top], dtype=np.float64)
        offset = (keypoints - np.array(self.centre)) / extent
        weight: FloatArray = np.exp(-2.0 * np.square(offset).sum(axis=1))
        return weight


@dataclass(frozen=True, slots=True)
class CropPair:
    """Two crops to be matched with each other.

    Attributes:
        box0: crop of photograph 0.
        box1: crop of photograph 1.
        num_coarse_matches: coarse matches that have both ends inside.
    """

    box0: CropBox
    box1: CropBox
    num_coarse_matches: int


def plan_crops(
    size0: ImageSize,
    size1: ImageSize,
    keypoints0: npt.ArrayLike,
    keypoints1: npt.ArrayLike,
    crop_size0: ImageSize,
    crop_size1: ImageSize,
    *,
    overlap: float = 0.5,
    coverage: float = 0.9,
    window_side: int | None = None,
    max_crops: int | None = None,
) -> list[CropPair]:
    """Choose pairs of crops, the most useful first.

    Args:
        size0: size of photograph 0.
        size1: size of photograph 1.
        keypoints0: (M, 2) coarse matches in photograph 0, original pixels, x then y.
        keypoints1: (M, 2) the same in photograph 1.
        crop_size0: size of the crops of photograph 0; cut to the photograph where it is smaller.
        crop_size1: the same for photograph 1.
        overlap: neighbouring windows share at least this part of their width and height.
        coverage: stop when the chosen crops cover this part of what all windows would.
        window_side: longer side of the windows the grids are made of, each then brought to the
            size of a crop about its centre; ``None``: the longest side of the crops.
        max_crops: at most so many pairs; ``None``: no limit.

    Returns:
        No pair if no window holds enough coarse matches.

    Raises:
        InputError: arrays that do not fit together, or a share outside its range.
    """
    points0, points1 = (
        as_keypoints("keypoints0", keypoints0),
        as_keypoints("keypoints1", keypoints1),
    )
    if len(points0) != len(points1):
        raise InputError("keypoints1", f"{len(points0)} rows, as keypoints0", f"{len(points1)}")
    if not 0 < coverage <= 1:
        raise InputError("coverage", "a share in (0, 1]", f"{coverage}")
    if max_crops is not None and max_crops < 1:
        raise InputError("max_crops", "at least 1, or None", f"{max_crops}")
    if window_side is None:
        window_side = max(crop_size0.height, crop_size0.width, crop_size1.height, crop_size1.width)
    pairs, weights = _paired_windows(
        window_grid(size0, window_side, overlap),
        (size0, size1),
        (points0, points1),
        (crop_size0, crop_size1),
    )
    swapped, swapped_weights = _paired_windows(
        window_grid(size1, window_side, overlap),
        (size1, size0),
        (points1, points0),
        (crop_size1, crop_size0),
    )
    pairs += [CropPair(pair.box1, pair.box0, pair.num_coarse_matches) for pair in swapped]
    if not pairs:
        return []
    chosen = choose_covering(np.stack(weights + swapped_weights), coverage)
    return [pairs[row] for row in chosen[:max_crops]]


def window_grid(size: ImageSize, max_side: int, overlap: float) -> list[CropBox]:
    """Overlapping windows of the photograph's own shape, row by row.

    Args:
        size: size of the photograph.
        max_side: longer side of a window, pixels; both sides are multiples of 16.
        overlap: least share of a window that it has in common with the next, in [0, 1).

    Raises:
        InputError: a window smaller than a patch, an overlap outside its range.
    """
    if max_side < _PATCH:
        raise InputError("max_side", f"at least {_PATCH} pixels", f"{max_side}")
    if not 0 <= overlap < 1:
        raise InputError("overlap", "a share in [0, 1)", f"{overlap}")
    scale = max_side / max(size.height, size.width)
    height = min(size.height, max(_PATCH, int(size.height * scale) // _PATCH * _PATCH))
    width = min(size.width, max(_PATCH, int(size.width * scale) // _PATCH * _PATCH))
    return [
        CropBox(left, top, left + width, top + height)
        for top in _window_starts(size.height, height, overlap)
        for left in _window_starts(size.width, width, overlap)
    ]


def partner_box(
    box: CropBox,
    keypoints: FloatArray,
    other_keypoints: FloatArray,
    other_size: ImageSize,
    crop_size: ImageSize,
) -> CropBox | None:
    """Crop of the other photograph about the mean of the matches of a window.

    Args:
        box: the window.
        keypoints: (M, 2) coarse matches in the window's photograph, pixels.
        other_keypoints: (M, 2) the same in the other photograph.
        other_size: size of the other photograph.
        crop_size: size of the crop.

    Returns:
        ``None`` if the window holds fewer than ten matches.
    """
    inside = box.contains(keypoints)
    if np.count_nonzero(inside) < _MIN_MATCHES:
        return None
    x, y = other_keypoints[inside].mean(axis=0)
    return _box_about(float(x), float(y), crop_size, other_size)


def choose_covering(weights: npt.ArrayLike, coverage: float) -> list[int]:
    """Rows that together cover the columns best, chosen greedily.

    A column is covered by as much as its largest weight among the chosen rows. The row that adds
    most comes first (the first one among equals), and so on until ``coverage`` of what all rows
    cover is reached.

    Args:
        weights: (rows, columns) of at least 0.
        coverage: share in (0, 1].
    """
    table = np.asarray(weights, dtype=np.float64)
    covered = np.zeros(table.shape[1])
    target = coverage * float(table.max(axis=0, initial=0.0).sum())
    chosen: list[int] = []
    while len(chosen) < len(table) and float(covered.sum()) < target:
        gain = np.maximum(table - covered, 0.0).sum(axis=1)
        best = int(gain.argmax())
        if gain[best] <= 0:
            break
        chosen.append(best)
        covered = np.maximum(covered, table[best])
    return chosen


def merge_matches(
    matches: Sequence[Matches], cell_px: float | tuple[float, float] = 1.5
) -> Matches:
    """Matches of several crops as one set without near duplicates.

    The most confident match is kept first (the first one among equals); a later one is dropped if
    one of its ends falls into a cell of photograph 0, or of photograph 1, that a kept one has
    taken. So the photographs play the same part, and swapping them swaps the answer.

    Args:
        matches: in pixels of the two photographs.
        cell_px: side of a cell, pixels; or one for each photograph.

    Returns:
        The most confident first.

    Raises:
        InputError: a cell that is not positive.
    """
    sides = cell_px if isinstance(cell_px, tuple) else (cell_px, cell_px)
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise InputError("cell_px", "a positive number of pixels", f"{cell_px}")
    if not matches:
        return Matches.empty()
    together = Matches(
        torch.cat([part.keypoints0 for part in matches]),
        torch.cat([part.keypoints1 for part in matches]),
        torch.cat([part.confidence for part in matches]),
    )
    ordered = together.select(torch.argsort(together.confidence, descending=True, stable=True))
    cells = (
        _cell_numbers(ordered.keypoints0, sides[0]),
        _cell_numbers(ordered.keypoints1, sides[1]),
    )
    return ordered.select(_rows_without_common_cell(*cells))


def add_matches(fine: Matches, coarse: Matches, cell_px: float) -> Matches:
    """All of ``fine``, and those of ``coarse`` that have neither end near one of them.

    Args:
        fine: matches to be kept.
        coarse: further matches of the same photographs, less exact.
        cell_px: side of the cells, pixels: nothing is added where ``fine`` has taken a cell.

    Raises:
        InputError: a cell that is not positive.
    """
    if not (math.isfinite(cell_px) and cell_px > 0):
        raise InputError("cell_px", "a positive number of pixels", f"{cell_px}")
    count = len(fine)
    is_free = torch.ones(len(coarse), dtype=torch.bool, device=coarse.confidence.device)
    for ends in ((fine.keypoints0, coarse.keypoints0), (fine.keypoints1, coarse.keypoints1)):
        cells = _cell_numbers(torch.cat(ends), cell_px)
        is_free &= ~torch.isin(cells[count:], cells[:count])
    added = coarse.select(is_free)
    return Matches(
        torch.cat([fine.keypoints0, added.keypoints0]),
        torch.cat([fine.keypoints1, added.keypoints1]),
        torch.cat([fine.confidence, added.confidence]),
    )


def _paired_windows(
    windows: Sequence[CropBox],
    sizes: tuple[ImageSize, ImageSize],
    keypoints: tuple[FloatArray, FloatArray],
    crop_sizes: tuple[ImageSize, ImageSize],
) -> tuple[list[CropPair], list[FloatArray]]:
    """Windows of the first photograph with their partners, and how well each sees each match.

    The weight of a match counts its distance from the middle in both crops; 0 outside the window.
    """
    pairs, weights = [], []
    for window in windows:
        box = _box_about(*window.centre, crop_sizes[0], sizes[0])
        partner = partner_box(box, keypoints[0], keypoints[1], sizes[1], crop_sizes[1])
        if partner is not None:
            inside = box.contains(keypoints[0])
            both = inside & partner.contains(keypoints[1])
            pairs.append(CropPair(box, partner, int(np.count_nonzero(both))))
            weights.append(box.weigh(keypoints[0]) * partner.weigh(keypoints[1]) * inside)
    return pairs, weights


def _box_about(x: float, y: float, crop_size: ImageSize, size: ImageSize) -> CropBox:
    """The crop with its centre at (x, y), moved inside the photograph."""
    width, height = min(crop_size.width, size.width), min(crop_size.height, size.height)
    left = min(max(math.floor(x - width / 2), 0), size.width - width)
    top = min(max(math.floor(y - height / 2), 0), size.height - height)
    return CropBox(left, top, left + width, top + height)


def _window_starts(length: int, window: int, overlap: float) -> list[int]:
    """First at 0, last at the end, evenly spaced, no step longer than the overlap allows."""
    if window >= length:
        return [0]
    count = 1 + math.ceil((length - window) / ((1 - overlap) * window))
    return [round(float(start)) for start in np.linspace(0, length - window, count)]


def _cell_numbers(keypoints: Tensor, cell_px: float) -> Tensor:
    """(M,) number of the cell that each keypoint lies in, counting only cells that have one."""
    cells = torch.floor(keypoints.double() / cell_px).to(torch.int64)
    numbers: Tensor = torch.unique(cells, dim=0, return_inverse=True)[1]
    return numbers


def _rows_without_common_cell(cells0: Tensor, cells1: Tensor) -> Tensor:
    """Greedy choice, in order, of rows that share neither cell with a row chosen before."""
    chosen = torch.zeros(len(cells0), dtype=torch.bool, device=cells0.device)
    left = torch.arange(len(cells0), device=cells0.device)
    # What comes first in both of its cells is sure to be chosen; the first row left always does.
    while len(left):
        first = _is_first(cells0[left]) & _is_first(cells1[left])
        chosen[left[first]] = True
        taken0 = torch.isin(cells0[left], cells0[left[first]])
        taken1 = torch.isin(cells1[left], cells1[left[first]])
        left = left[~(taken0 | taken1)]
    return chosen.nonzero()[:, 0]


def _is_first(cells: Tensor) -> Tensor:
    """(M,) bool, whether no earlier row has the same number."""
    rows = torch.arange(len(cells), device=cells.device)
    first = torch.full((int(cells.max()) + 1,), len(cells), device=cells.device)
    return first.scatter_reduce_(0, cells, rows, "amin")[cells] == rows
