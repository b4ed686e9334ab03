"""Where the keypoints of merged tracks lie, so that moving them breaks no match.

When the keypoint of a match moves by ``d`` in one image, its partner moves by ``A d``, with the
local affine map ``A`` between the two images. The positions at which all matches agree best are a
sparse least-squares problem, reweighted so that single wrong matches do not pull.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
import scipy.sparse.linalg
from scipy.spatial import cKDTree

from matcher.structures import FloatArray

__all__ = ["Links", "local_affine", "settle"]

_NEIGHBOURS = 12
_AFFINE_ROUNDS = 3
_AFFINE_PRIOR_PX2 = 20.0  # weight of "no change of shape" against the squared offsets of neighbours
_SETTLE_ROUNDS = 4
_SCALE_PX = 1.0  # disagreement at which a match counts half
_ANCHOR = 0.02  # pull of a keypoint's own matches, which keeps a track from sliding as a whole


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """E matches between nodes; a node stands for several keypoints of one image.

    Attributes:
        node0: (E,) int64 node of each match in its first image.
        node1: (E,) int64 the same in its second image.
        keypoints0: (E, 2) where the match itself lies, pixels.
        keypoints1: (E, 2) the same in the second image.
        confidence: (E,) of the matches.
        affine: (E, 2, 2) how a step in the first image maps to the second.
    """

    node0: npt.NDArray[np.int64]
    node1: npt.NDArray[np.int64]
    keypoints0: FloatArray
    keypoints1: FloatArray
    confidence: FloatArray
    affine: FloatArray

    def __len__(self) -> int:
        return len(self.node0)

    def select(self, rows: npt.NDArray[np.bool_]) -> Links:
        """Keep the rows of a mask."""
        return Links(
            self.node0[rows],
            self.node1[rows],
            self.keypoints0[rows],
            self.keypoints1[rows],
            self.confidence[rows],
            self.affine[rows],
        )

    def disagreement(self, positions: FloatArray) -> FloatArray:
        """(E,) pixels of the second image by which each match misses (N, 2) node positions."""
        step0, step1 = positions[self.node0] - self.keypoints0, positions[self.node1]
        missed = step1 - self.keypoints1 - np.einsum("eij,ej->ei", self.affine, step0)
        distance: FloatArray = np.linalg.norm(missed, axis=1)
        return distance

    def moved(self, positions: FloatArray) -> FloatArray:
        """(2 E,) pixels from each match's two keypoints to their nodes' (N, 2) positions."""
        gaps = (
            positions[self.node0] - self.keypoints0,
            positions[self.node1] - self.keypoints1,
        )
        distance: FloatArray = np.linalg.norm(np.concatenate(gaps), axis=1)
        return distance


def local_affine(keypoints0: FloatArray, keypoints1: FloatArray, weights: FloatArray) -> FloatArray:
    """How a small step in image 0 maps to image 1 around each match of one pair.

    Args:
        keypoints0: (M, 2) pixels.
        keypoints1: (M, 2) pixels, row i matches row i.
        weights: (M,) how far to trust each match.

    Returns:
        (M, 2, 2), a robust fit to the nearest matches; the identity where there are too few.
    """
    identity = np.eye(2)
    count = min(_NEIGHBOURS + 1, len(keypoints0))
    if count < 4:
        return np.tile(identity, (len(keypoints0), 1, 1))
    _, nearest = cKDTree(keypoints0).query(keypoints0, k=count)
    neighbours = nearest[:, 1:]
    offsets0 = keypoints0[neighbours] - keypoints0[:, None]
    offsets1 = keypoints1[neighbours] - keypoints1[:, None]
    trust = weights[neighbours]
    affine = np.tile(identity, (len(keypoints0), 1, 1))
    for step in range(_AFFINE_ROUNDS):
        missed = offsets1 - np.einsum("mij,mkj->mki", affine, offsets0)
        # The first round has nothing to judge the neighbours by.
        robust = trust / (1 + (missed**2).sum(-1) / 2) if step else trust
        prior = _AFFINE_PRIOR_PX2 * identity
        squares = np.einsum("mk,mki,mkj->mij", robust, offsets0, offsets0) + prior
        products = np.einsum("mk,mki,mkj->mij", robust, offsets1, offsets0) + prior
        affine = products @ np.linalg.inv(squares)
    return affine


def settle(links: Links, num_nodes: int) -> FloatArray:
    """(N, 2) positions of the nodes at which the matches agree best, pixels.

    A node without a match gets NaN.
    """
    mean, pull = _anchors(links, num_nodes)
    anchor = np.repeat(_ANCHOR * pull, 2)
    start = np.nan_to_num(mean)
    jacobian, offset = _equations(links, num_nodes)
    solution = start.reshape(-1)
    weights = links.confidence
    for _ in range(_SETTLE_ROUNDS):
        weighted = jacobian.T @ scipy.sparse.diags(np.repeat(weights, 2))
        normal = (weighted @ jacobian + scipy.sparse.diags(np.maximum(anchor, 1e-9))).tocsr()
        right = weighted @ offset + anchor * start.reshape(-1)
        inverse_diagonal = scipy.sparse.diags(1 / normal.diagonal())
        solution, _ = scipy.sparse.linalg.cg(
            normal, right, x0=solution, rtol=1e-6, maxiter=100, M=inverse_diagonal
        )
        misses = links.disagreement(solution.reshape(-1, 2))
        weights = links.confidence / (1 + (misses / _SCALE_PX) ** 2)
    positions: FloatArray = solution.reshape(-1, 2)
    positions[pull == 0] = np.nan
    return positions


def _anchors(links: Links, num_nodes: int) -> tuple[FloatArray, FloatArray]:
    """(N, 2) mean keypoint of each node and (N,) summed confidence."""
    nodes = np.concatenate([links.node0, links.node1])
    keypoints = np.concatenate([links.keypoints0, links.keypoints1])
    confidence = np.tile(links.confidence, 2)
    pull = np.bincount(nodes, confidence, num_nodes).astype(np.float64)
    sums = [np.bincount(nodes, confidence * keypoints[:, axis], num_nodes) for axis in (0, 1)]
    with np.errstate(invalid="ignore"):
        mean: FloatArray = np.stack(sums, axis=1) / pull[:, None]
    return mean, pull


def _equations(links: Links, num_nodes: int) -> tuple[scipy.sparse.csr_matrix, FloatArray]:
    """(2 E, 2 N) J and (2 E,) b with ``J x - b`` the disagreement of the matches."""
    count = len(links)
    rows, columns, values = [], [], []
    for axis in (0, 1):
        row = 2 * np.arange(count) + axis
        rows.append(row)
        columns.append(2 * links.node1 + axis)
        values.append(np.ones(count))
        for source in (0, 1):
            rows.append(row)
            columns.append(2 * links.node0 + source)
            values.append(-links.affine[:, axis, source])
    shape = (2 * count, 2 * num_nodes)
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    offset: FloatArray = links.keypoints1 - np.einsum("eij,ej->ei", links.affine, links.keypoints0)
    return scipy.sparse.csr_matrix(entries, shape=shape), offset.reshape(-1)
