"""Keypoints of all pairs of an image, gathered around the most confident ones."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from matcher.structures import FloatArray

__all__ = ["gather"]


def gather(keypoints: FloatArray, confidence: FloatArray, cell_px: float) -> npt.NDArray[np.int64]:
    """Which keypoints of one image become one.

    The most confident keypoint of every cell of a grid is a candidate; candidates that have a more
    confident one within half a cell give way to it, so that no cell border divides neighbours.
    Every keypoint then goes to the nearest candidate left.

    Args:
        keypoints: (K, 2) pixels of one image, from all of its pairs.
        confidence: (K,) of their matches.
        cell_px: side of a cell, pixels.

    Returns:
        (K,) the group of each keypoint, numbered from 0 without gaps.
    """
    if not len(keypoints):
        return np.zeros(0, np.int64)
    # The most confident first; of equals, the first in the image, so that order does not matter.
    order = np.lexsort((keypoints[:, 0], keypoints[:, 1], -confidence))
    cells = np.floor(keypoints[order] / cell_px).astype(np.int64)
    _, first = np.unique(cells, axis=0, return_index=True)
    candidates = keypoints[order[np.sort(first)]]
    kept = candidates[_strongest(candidates, cell_px / 2)]
    _, nearest = cKDTree(kept).query(keypoints)
    _, groups = np.unique(nearest, return_inverse=True)
    return groups.reshape(-1).astype(np.int64)


def _strongest(candidates: FloatArray, radius: float) -> npt.NDArray[np.bool_]:
    """Candidates, strongest first, that remain when each removes the weaker ones around it."""
    kept = np.ones(len(candidates), np.bool_)
    pairs = cKDTree(candidates).query_pairs(radius, output_type="ndarray")
    # By the stronger end: whoever is still there when its turn comes stays for good.
    for strong, weak in pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))].tolist():
        if kept[strong]:
            kept[weak] = False
    return kept
