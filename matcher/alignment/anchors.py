"""Anchors and the observations of them, as flat arrays over all photographs.

An anchor is the centre of a block of one photograph (its home). Every verified match of a pair
observes two anchors: that of the first photograph is seen by the second, and the other way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.alignment.canonical import CanonicalView
from matcher.alignment.two_view import TwoView
from matcher.geometry.pixels import resize_transform, transform_keypoints
from matcher.structures import FloatArray, ImageSize

__all__ = ["AnchorGrid", "Sightings", "collect_sightings", "make_grids"]

IntArray = npt.NDArray[np.int64]

_VIEW_LONG_SIDE = 512
"""Of the view that stands in where no pointmap tells what the network saw."""


@dataclass(frozen=True, slots=True, eq=False)
class AnchorGrid:
    """The blocks of one photograph.

    Attributes:
        shape: rows and columns of blocks.
        block_px: side of a block, pixels of the view.
        view_from_original: (3, 3) pixels of the photograph to pixels of the network's view.
        canonical: the canonical view, if there is one.
        has_ratios: pixels of a block keep the canonical depth relative to their anchor; otherwise
            all have the anchor's.
    """

    shape: tuple[int, int]
    block_px: int
    view_from_original: FloatArray
    canonical: CanonicalView | None
    has_ratios: bool = True

    @classmethod
    def make(cls, size: ImageSize, canonical: CanonicalView | None, block_px: int) -> AnchorGrid:
        """The grid of a photograph."""
        if canonical is not None:
            rows, columns = canonical.confidence.shape
            view_from_original = np.linalg.inv(canonical.original_from_network).astype(np.float64)
        else:
            scale = min(1.0, _VIEW_LONG_SIDE / max(size.height, size.width))
            view = ImageSize(max(1, round(size.height * scale)), max(1, round(size.width * scale)))
            rows, columns = view.height, view.width
            view_from_original = resize_transform(size, view)
        shape = -(-rows // block_px), -(-columns // block_px)
        return cls(shape, block_px, view_from_original, canonical)

    def __len__(self) -> int:
        return self.shape[0] * self.shape[1]

    @property
    def view_px(self) -> float:
        """Original pixels in a pixel of the view."""
        scale = self.view_from_original
        return float(1 / np.sqrt(scale[0, 0] * scale[1, 1]))

    def locate(self, keypoints: FloatArray) -> tuple[IntArray, FloatArray]:
        """Block of each of (M, 2) original pixels, and its depth relative to the anchor's."""
        view = np.rint(transform_keypoints(self.view_from_original, keypoints)).astype(np.int64)
        limits = [self.shape[1] * self.block_px, self.shape[0] * self.block_px]
        if self.canonical is not None:
            limits = [self.canonical.confidence.shape[1], self.canonical.confidence.shape[0]]
        view = np.clip(view, 0, np.array(limits) - 1)
        block = view[:, 1] // self.block_px * self.shape[1] + view[:, 0] // self.block_px
        if self.canonical is None or not self.has_ratios:
            return block, np.ones(len(block))
        ratio = self.canonical.relative_depth[view[:, 1], view[:, 0]]
        return block, ratio.astype(np.float64)

    def without_ratios(self) -> AnchorGrid:
        """The grid with one depth for all pixels of a block."""
        return replace(self, has_ratios=False)

    def anchor_depths(self) -> FloatArray:
        """(blocks,) depths of the canonical view at the anchors; NaN where nothing is known."""
        if self.canonical is None:
            return np.full(len(self), np.nan)
        depth = self.canonical.anchor_depth.reshape(-1)
        return np.where(np.isfinite(depth) & (depth > 0), depth, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Sightings:
    """K sightings: an anchor at ``home``, met by a match, is seen by photograph ``other``.

    Attributes:
        home: (K,) photograph the anchor belongs to.
        other: (K,) photograph that sees it.
        anchor: (K,) index of the anchor among all anchors of all photographs.
        other_anchor: (K,) the anchor of the match's other end, which lies in ``other``.
        pixel: (K, 2) where the match begins, undistorted original pixels of ``home``.
        seen: (K, 2) where it ends, in ``other``.
        ratio: (K,) depth at ``pixel`` over that of the anchor.
        other_ratio: (K,) the same at ``seen``.
        pair: (K,) which verified pair it comes from.
        num_anchors: of all photographs, seen or not.
    """

    home: IntArray
    other: IntArray
    anchor: IntArray
    other_anchor: IntArray
    pixel: FloatArray
    seen: FloatArray
    ratio: FloatArray
    other_ratio: FloatArray
    pair: IntArray
    num_anchors: int

    def __len__(self) -> int:
        return len(self.home)

    def select(self, rows: npt.NDArray[np.bool_] | IntArray) -> Sightings:
        """Some of the sightings."""
        return Sightings(
            self.home[rows],
            self.other[rows],
            self.anchor[rows],
            self.other_anchor[rows],
            self.pixel[rows],
            self.seen[rows],
            self.ratio[rows],
            self.other_ratio[rows],
            self.pair[rows],
            self.num_anchors,
        )


def make_grids(
    sizes: Sequence[ImageSize], canonical: Sequence[CanonicalView | None], block_px: int
) -> list[AnchorGrid]:
    """The grids of all photographs."""
    return [
        AnchorGrid.make(size, view, block_px) for size, view in zip(sizes, canonical, strict=True)
    ]


def collect_sightings(
    views: Sequence[TwoView], grids: Sequence[AnchorGrid], max_per_pair: int
) -> Sightings:
    """The sightings of verified pairs, from both ends of their matches.

    Args:
        views: verified pairs.
        grids: of all photographs.
        max_per_pair: at most so many matches of a pair, the most confident of each block first.
    """
    offsets = np.concatenate([[0], np.cumsum([len(grid) for grid in grids])])
    parts: list[tuple[npt.NDArray[Any], ...]] = []
    for index, view in enumerate(views):
        matches = view.matches
        i, j = matches.first, matches.second
        block0, ratio0 = grids[i].locate(matches.keypoints0)
        block1, ratio1 = grids[j].locate(matches.keypoints1)
        rows = _spread(block0, matches.confidence, max_per_pair)
        count = np.ones(len(rows), dtype=np.int64)
        anchor0, anchor1 = block0[rows] + offsets[i], block1[rows] + offsets[j]
        pixel0, pixel1 = matches.keypoints0[rows], matches.keypoints1[rows]
        ratio0, ratio1 = ratio0[rows], ratio1[rows]
        pair = index * count
        parts += [
            (i * count, j * count, anchor0, anchor1, pixel0, pixel1, ratio0, ratio1, pair),
            (j * count, i * count, anchor1, anchor0, pixel1, pixel0, ratio1, ratio0, pair),
        ]
    home, other, anchor, other_anchor, pixel, seen, ratio, other_ratio, pair = (
        np.concatenate(column) for column in zip(*parts, strict=True)
    )
    return Sightings(
        home,
        other,
        anchor,
        other_anchor,
        pixel,
        seen,
        ratio,
        other_ratio,
        pair,
        num_anchors=int(offsets[-1]),
    )


def _spread(block: IntArray, confidence: FloatArray, most: int) -> IntArray:
    """Rows of at most so many matches: the best of every block before the second of any."""
    order = np.lexsort((-confidence, block))
    sorted_block = block[order]
    starts = np.flatnonzero(np.concatenate([[True], sorted_block[1:] != sorted_block[:-1]]))
    lengths = np.diff(np.concatenate([starts, [len(block)]]))
    rank = np.empty(len(block), dtype=np.int64)
    rank[order] = np.arange(len(block)) - np.repeat(starts, lengths)
    return np.sort(np.lexsort((-confidence, rank))[:most])
