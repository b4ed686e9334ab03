"""Matches of many pairs as tracks: one keypoint an image and scene point, seen in many images.

The network matches every pair on its own, so that one scene point has as many keypoints in an image
as the image has pairs, a few pixels apart. Here the keypoints of an image are gathered in cells;
a track joins the cells that matches connect, never two of one image; and the position of each of
its keypoints is set where all of its matches agree (``matcher.export.positions``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.sparse.csgraph import connected_components

from matcher.errors import InputError
from matcher.export.nodes import gather
from matcher.export.positions import Links, local_affine, settle
from matcher.pair_records import PairRecord
from matcher.structures import FloatArray, ImageSize

__all__ = ["TrackMatches", "Tracks", "check_cell", "default_cell_px", "merge_tracks"]

_CELLS_PER_LONG_SIDE = 128
_SMALLEST_CELL_PX = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class TrackMatches:
    """The matches of two images, as keypoints of tracks.

    Attributes:
        indices: (M, 2) int64, rows of both images' keypoints; sorted, each once.
        confidence: (M,) of the most confident match that was merged into each.
    """

    indices: npt.NDArray[np.int64]
    confidence: FloatArray

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True, slots=True, eq=False)
class Tracks:
    """Keypoints of N images that belong to tracks; a track has at most one in an image.

    Attributes:
        names: of the images, sorted.
        sizes: of the images.
        keypoints: (K, 2) pixels of each image, x then y.
        tracks: (K,) int64 of each image, the track that each keypoint belongs to.
        matches: by two places in ``names``, the smaller first; only pairs that have some.
        num_matches: matches that came in.
        num_kept: those of them that are part of the tracks.
        merge_error_px: mean distance that merging moved the keypoints of matches; NaN with none.
        disagreement_px: mean distance by which the matches miss their tracks' keypoints, after
            the step along the surface that comes with the move is taken off; NaN with none.
    """

    names: tuple[str, ...]
    sizes: tuple[ImageSize, ...]
    keypoints: tuple[FloatArray, ...]
    tracks: tuple[npt.NDArray[np.int64], ...]
    matches: Mapping[tuple[int, int], TrackMatches]
    num_matches: int
    num_kept: int
    merge_error_px: float
    disagreement_px: float

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(T,) number of images that each track is seen in."""
        if not self.tracks:
            return np.zeros(0, np.int64)
        return np.bincount(np.concatenate(self.tracks)).astype(np.int64)

    @property
    def mean_length(self) -> float:
        """Mean number of images of a track; 0 without tracks."""
        return float(self.lengths.mean()) if len(self.lengths) else 0.0


@dataclass(frozen=True, slots=True, eq=False)
class _Collected:
    """The images, and all matches with the node of each keypoint not yet known."""

    names: tuple[str, ...]
    sizes: tuple[ImageSize, ...]
    image0: npt.NDArray[np.int64]
    image1: npt.NDArray[np.int64]
    keypoints0: FloatArray
    keypoints1: FloatArray
    confidence: FloatArray
    affine: FloatArray


def default_cell_px(size: ImageSize) -> float:
    """Side of a cell: 1/128 of the longer side, 8 pixels of an image of 1024.

    Two cells of the network's matching grid at 512 pixels; smaller ones make more and shorter
    tracks, larger ones fewer.
    """
    return max(_SMALLEST_CELL_PX, max(size.height, size.width) / _CELLS_PER_LONG_SIDE)


def check_cell(cell_px: float | None) -> None:
    """Raise ``InputError`` for a cell that is not ``None`` and has no positive side."""
    if cell_px is not None and not (np.isfinite(cell_px) and cell_px > 0):
        raise InputError("cell_px", "a positive number of pixels", f"{cell_px}")


def merge_tracks(records: Iterable[PairRecord], cell_px: float | None = None) -> Tracks:
    """Merge the matches of pairs into tracks.

    Args:
        records: the pairs, each once; their pointmaps are not needed. Wrong matches make wrong
            tracks: verify them first (``matcher.export.verification``).
        cell_px: side of the cells in which an image's keypoints are merged, original pixels; by
            default :func:`default_cell_px` of each image.

    Raises:
        InputError: a ``cell_px`` that is not positive, or a photograph with two sizes.
    """
    check_cell(cell_px)
    collected = _collect(records)
    cells = np.array([cell_px or default_cell_px(size) for size in collected.sizes])
    links, image_of = _with_nodes(collected, cells)
    kept = _without_conflicts(links, image_of)
    links, pair = links.select(kept), _pairs_of(collected, kept)
    positions = settle(links, len(image_of))
    # A match that misses by half a cell joined two places of the scene.
    limit = cells[image_of[links.node1]] / 2
    agrees = links.disagreement(positions) < limit
    return _assemble(collected, links.select(agrees), pair[agrees], positions, image_of)


def _collect(records: Iterable[PairRecord]) -> _Collected:
    sizes: dict[str, ImageSize] = {}
    pairs = []
    for record in records:
        for name, size in ((record.name0, record.size0), (record.name1, record.size1)):
            if sizes.setdefault(name, size) != size:
                raise InputError("records", f"one size of {name}", f"{sizes[name]} and {size}")
        keypoints0 = record.matches.keypoints0.numpy().astype(np.float64)
        keypoints1 = record.matches.keypoints1.numpy().astype(np.float64)
        confidence = record.matches.confidence.numpy().astype(np.float64)
        pairs.append((record.names, keypoints0, keypoints1, confidence))
    names = tuple(sorted(sizes))
    place = {name: index for index, name in enumerate(names)}
    columns: list[list[npt.NDArray[np.generic]]] = [[] for _ in range(6)]
    for (name0, name1), keypoints0, keypoints1, confidence in pairs:
        if place[name0] > place[name1]:
            name0, name1, keypoints0, keypoints1 = name1, name0, keypoints1, keypoints0
        columns[0].append(np.full(len(confidence), place[name0], np.int64))
        columns[1].append(np.full(len(confidence), place[name1], np.int64))
        columns[2].append(keypoints0)
        columns[3].append(keypoints1)
        columns[4].append(confidence)
        columns[5].append(local_affine(keypoints0, keypoints1, confidence))
    shapes = ((0,), (0,), (0, 2), (0, 2), (0,), (0, 2, 2))
    types = (np.int64, np.int64, *(np.float64,) * 4)
    joined = [
        np.concatenate([np.zeros(shape, kind), *column])
        for shape, kind, column in zip(shapes, types, columns, strict=True)
    ]
    return _Collected(names, tuple(sizes[name] for name in names), *joined)


def _with_nodes(collected: _Collected, cells: FloatArray) -> tuple[Links, npt.NDArray[np.int64]]:
    """All matches between nodes, and the (N,) image of each node."""
    node0 = np.zeros(len(collected.image0), np.int64)
    node1 = np.zeros(len(collected.image0), np.int64)
    image_of: list[npt.NDArray[np.int64]] = [np.zeros(0, np.int64)]
    total = 0
    for image in range(len(collected.names)):
        rows0 = np.flatnonzero(collected.image0 == image)
        rows1 = np.flatnonzero(collected.image1 == image)
        groups = gather(
            np.concatenate([collected.keypoints0[rows0], collected.keypoints1[rows1]]),
            np.concatenate([collected.confidence[rows0], collected.confidence[rows1]]),
            float(cells[image]),
        )
        node0[rows0] = groups[: len(rows0)] + total
        node1[rows1] = groups[len(rows0) :] + total
        count = int(groups.max()) + 1 if len(groups) else 0
        image_of.append(np.full(count, image, np.int64))
        total += count
    links = Links(
        node0,
        node1,
        collected.keypoints0,
        collected.keypoints1,
        collected.confidence,
        collected.affine,
    )
    return links, np.concatenate(image_of)


def _without_conflicts(links: Links, image_of: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """(E,) matches left when no track may hold two keypoints of one image.

    Tracks grow from the nodes that the most confident matches join; a match that would bring a
    second keypoint of an image into a track is dropped.
    """
    edges, which = np.unique(
        np.stack([links.node0, links.node1], axis=1), axis=0, return_inverse=True
    )
    which = which.reshape(-1)
    strength = np.bincount(which, links.confidence, len(edges))
    order = np.argsort(-strength, kind="stable")
    parent = list(range(len(image_of)))
    # The images of a track as the bits of a number.
    seen = [1 << image for image in image_of.tolist()]
    kept = np.zeros(len(edges), np.bool_)
    ends = edges.tolist()
    for edge in order.tolist():
        root0, root1 = (_root(parent, node) for node in ends[edge])
        if root0 != root1:
            if seen[root0] & seen[root1]:
                continue
            parent[root1] = root0
            seen[root0] |= seen[root1]
        kept[edge] = True
    return kept[which]


def _root(parent: list[int], node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


def _pairs_of(collected: _Collected, kept: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """(E, 2) the images of the matches kept."""
    return np.stack([collected.image0[kept], collected.image1[kept]], axis=1)


def _assemble(
    collected: _Collected,
    links: Links,
    pair: npt.NDArray[np.int64],
    positions: FloatArray,
    image_of: npt.NDArray[np.int64],
) -> Tracks:
    joined = scipy.sparse.coo_matrix(
        (np.ones(len(links)), (links.node0, links.node1)), shape=(len(image_of),) * 2
    )
    _, component = connected_components(joined, directed=False)
    used = np.unique(np.concatenate([links.node0, links.node1]))
    _, track = np.unique(component[used], return_inverse=True)
    images = image_of[used]
    place = np.zeros(len(image_of), np.int64)  # of a node among its image's keypoints
    members = [np.flatnonzero(images == image) for image in range(len(collected.names))]
    for rows in members:
        place[used[rows]] = np.arange(len(rows))
    moved = links.moved(positions)
    missed = links.disagreement(positions)
    return Tracks(
        names=collected.names,
        sizes=collected.sizes,
        keypoints=tuple(positions[used[rows]] for rows in members),
        tracks=tuple(track.reshape(-1)[rows].astype(np.int64) for rows in members),
        matches=_matches(links, pair, place),
        num_matches=len(collected.image0),
        num_kept=len(links),
        merge_error_px=float(moved.mean()) if len(moved) else float("nan"),
        disagreement_px=float(missed.mean()) if len(missed) else float("nan"),
    )


def _matches(
    links: Links, pair: npt.NDArray[np.int64], place: npt.NDArray[np.int64]
) -> dict[tuple[int, int], TrackMatches]:
    found = {}
    order = np.lexsort((pair[:, 1], pair[:, 0]))
    images, first = np.unique(pair[order], axis=0, return_index=True)
    for (image0, image1), rows in zip(
        images.tolist(), np.split(order, first[1:]) if len(first) else [], strict=True
    ):
        ends = np.stack([place[links.node0[rows]], place[links.node1[rows]]], axis=1)
        indices, which = np.unique(ends, axis=0, return_inverse=True)
        confidence = np.zeros(len(indices))
        np.maximum.at(confidence, which.reshape(-1), links.confidence[rows])
        found[(image0, image1)] = TrackMatches(indices, confidence)
    return found
