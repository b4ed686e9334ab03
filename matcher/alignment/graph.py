"""The graph whose nodes are photographs and whose edges are pairs that show a common place."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from scipy.sparse import csgraph

from matcher.errors import InputError
from matcher.pair_records import PairRecord
from matcher.structures import ImageSize

__all__ = ["PairGraph", "connected_components", "spanning_tree"]

_NAMED_AT_MOST = 3


def connected_components(num: int, edges: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Groups of nodes that edges connect, the largest first.

    Args:
        num: number of nodes.
        edges: (i, j) indices of two nodes; direction and repetition mean nothing.

    Returns:
        Sorted indices of each group; among groups of one size, the one with the smallest index
        comes first. Every node is in exactly one of them.

    Raises:
        InputError: an index out of range.
    """
    rows, columns = _checked_ends(num, list(edges))
    if num == 0:
        return []
    adjacency = sparse.coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(num, num))
    count, labels = csgraph.connected_components(adjacency, directed=False)
    groups = [np.flatnonzero(labels == label).tolist() for label in range(count)]
    return sorted(groups, key=lambda group: (-len(group), group[0]))


def spanning_tree(
    num: int, weighted_edges: Iterable[tuple[int, int, float]]
) -> list[tuple[int, int]]:
    """The edges that connect what can be connected, without a circle, of greatest total weight.

    Args:
        num: number of nodes.
        weighted_edges: (i, j, weight) with finite weights; of two edges between the same nodes
            the heavier one counts, of equally heavy edges the first.

    Returns:
        Edges as they were given, the heaviest first: ``num`` minus the number of components.

    Raises:
        InputError: an index out of range, an edge from a node to itself, a weight that is not
            finite.
    """
    edges = list(weighted_edges)
    rows, columns = _checked_ends(num, [(i, j) for i, j, _ in edges])
    weights = np.array([weight for _, _, weight in edges], dtype=np.float64)
    if not np.isfinite(weights).all():
        raise InputError("weighted_edges", "finite weights", "NaN or infinity")
    if (rows == columns).any():
        raise InputError("weighted_edges", "edges between two nodes", "a node with itself")
    # The tree depends on the order of the weights alone. Ranks as costs keep every sign of weight
    # apart from the zero that means "no edge" to scipy, and make ties deterministic.
    best: dict[tuple[int, int], int] = {}
    order = np.argsort(-weights, kind="stable")
    for edge in order.tolist():
        best.setdefault((min(edges[edge][:2]), max(edges[edge][:2])), edge)
    if not best:
        return []
    ends = np.array(list(best), dtype=np.int64)
    costs = sparse.coo_matrix(
        (np.arange(1, len(best) + 1, dtype=np.float64), (ends[:, 0], ends[:, 1])), shape=(num, num)
    )
    tree = csgraph.minimum_spanning_tree(costs.tocsr()).tocoo()
    kept = {(int(i), int(j)) for i, j in zip(tree.row, tree.col, strict=True)}
    return [edges[edge][:2] for ends_, edge in best.items() if ends_ in kept]


def _checked_ends(
    num: int, edges: Sequence[tuple[int, int]]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    ends = np.array(edges, dtype=np.int64).reshape(-1, 2)
    if ((ends < 0) | (ends >= num)).any():
        raise InputError("edges", f"indices from 0 to {num - 1}", f"{ends.min()} to {ends.max()}")
    return ends[:, 0], ends[:, 1]


@dataclass(frozen=True, slots=True, eq=False)
class PairGraph:
    """Photographs and the pairs among them.

    Attributes:
        names: of all photographs that the pairs name, in order of first appearance.
        sizes: of the photographs.
        records: the pairs that count as edges.
        ends: (i, j) of each record, indices into ``names``.
        dropped: why each of the other pairs is no edge, by its two names.
    """

    names: tuple[str, ...]
    sizes: tuple[ImageSize, ...]
    records: tuple[PairRecord, ...]
    ends: tuple[tuple[int, int], ...]
    dropped: dict[tuple[str, str], str]

    @classmethod
    def from_records(
        cls, records: Iterable[PairRecord], *, min_matches: int = 1, min_overlap: float = 0.0
    ) -> PairGraph:
        """Pairs with enough matches as edges.

        Args:
            records: the pairs.
            min_matches: a pair with fewer is no edge.
            min_overlap: a pair whose overlap score is known and lower is no edge.

        Raises:
            InputError: one photograph with two sizes.
        """
        sizes: dict[str, ImageSize] = {}
        kept: list[PairRecord] = []
        dropped: dict[tuple[str, str], str] = {}
        for record in records:
            for name, size in zip(record.names, (record.size0, record.size1), strict=True):
                if sizes.setdefault(name, size) != size:
                    raise InputError("records", "one size a photograph", f"two of {name}")
            why = _why_no_edge(record, min_matches, min_overlap)
            if why is None:
                kept.append(record)
            else:
                dropped[record.names] = why
        index = {name: position for position, name in enumerate(sizes)}
        ends = tuple((index[record.name0], index[record.name1]) for record in kept)
        return cls(tuple(sizes), tuple(sizes.values()), tuple(kept), ends, dropped)

    def components(self) -> list[list[int]]:
        """Indices of the photographs that edges connect, the largest group first."""
        return connected_components(len(self.names), self.ends)

    def without(self, reasons: dict[tuple[str, str], str]) -> PairGraph:
        """The graph less some of its edges, given by their two names with the reason."""
        kept = [row for row, record in enumerate(self.records) if record.names not in reasons]
        return PairGraph(
            self.names,
            self.sizes,
            tuple(self.records[row] for row in kept),
            tuple(self.ends[row] for row in kept),
            {**self.dropped, **reasons},
        )

    def largest(self) -> tuple[PairGraph, dict[str, str]]:
        """The largest component as a graph, and why each other photograph is not in it."""
        groups = self.components()
        if not groups:
            return self, {}
        members = {self.names[node] for node in groups[0]}
        nodes = [node for node, name in enumerate(self.names) if name in members]
        position = {node: index for index, node in enumerate(nodes)}
        rows = [row for row, (i, _) in enumerate(self.ends) if i in position]
        graph = PairGraph(
            tuple(self.names[node] for node in nodes),
            tuple(self.sizes[node] for node in nodes),
            tuple(self.records[row] for row in rows),
            tuple((position[self.ends[row][0]], position[self.ends[row][1]]) for row in rows),
            self.dropped,
        )
        reasons = {}
        for group in groups[1:]:
            for node in group:
                reasons[self.names[node]] = self._why_apart(node, group, len(groups[0]))
        return graph, reasons

    def _why_apart(self, node: int, group: list[int], largest: int) -> str:
        if len(group) > 1:
            others = [self.names[other] for other in group if other != node]
            listed = ", ".join(others[:_NAMED_AT_MOST])
            more = len(others) - _NAMED_AT_MOST
            return (
                f"no pair connects it to the {largest} reconstructed photographs; it belongs to "
                f"another group of {len(group)}, with {listed}" + (f" and {more} more" * (more > 0))
            )
        return self.why_alone(self.names[node])

    def why_alone(self, name: str) -> str:
        """One sentence about a photograph without an edge, with the most frequent reason."""
        whys = [why for names, why in self.dropped.items() if name in names]
        common = max(dict.fromkeys(whys), key=whys.count) if whys else "it was in no pair"
        return f"no pair connects it to any other photograph: {common}"


def _why_no_edge(record: PairRecord, min_matches: int, min_overlap: float) -> str | None:
    if len(record) < min_matches:
        return record.reason or f"fewer than {min_matches} matches"
    if record.overlap_score is not None and record.overlap_score < min_overlap:
        return f"overlap score below {min_overlap:g}"
    return None
