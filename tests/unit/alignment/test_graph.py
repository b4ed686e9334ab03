"""Components and spanning trees of pairs."""

from __future__ import annotations

import pytest
import torch

from matcher.alignment.graph import PairGraph, connected_components, spanning_tree
from matcher.errors import InputError
from matcher.pair_records import PairRecord
from matcher.structures import ImageSize, Matches

SIZE = ImageSize(60, 80)


def record(
    name0: str,
    name1: str,
    matches: int = 10,
    overlap: float | None = None,
    size0: ImageSize = SIZE,
    reason: str | None = None,
) -> PairRecord:
    keypoints = torch.arange(2.0 * matches).reshape(matches, 2)
    return PairRecord(
        name0,
        name1,
        Matches(keypoints, keypoints, torch.full((matches,), 0.5)),
        size0,
        SIZE,
        overlap,
        reason,
    )


def test_components_come_largest_first_and_hold_every_node() -> None:
    assert connected_components(7, [(5, 6), (4, 2), (2, 0), (0, 4)]) == [
        [0, 2, 4],
        [5, 6],
        [1],
        [3],
    ]


def test_no_node_has_no_component() -> None:
    assert connected_components(0, []) == []
    assert connected_components(2, []) == [[0], [1]]


@pytest.mark.parametrize("edge", [(0, 3), (-1, 1)])
def test_an_edge_to_a_node_that_is_not_there(edge: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="indices from 0 to 2"):
        connected_components(3, [edge])
    with pytest.raises(InputError, match="indices from 0 to 2"):
        spanning_tree(3, [(*edge, 1.0)])


def test_the_tree_is_the_heaviest() -> None:
    edges = [(0, 1, 1.0), (1, 2, 5.0), (2, 0, 4.0), (2, 3, 0.0), (3, 1, -2.0)]
    assert spanning_tree(4, edges) == [(1, 2), (2, 0), (2, 3)]


def test_negative_and_zero_weights_are_edges_too() -> None:
    assert spanning_tree(3, [(0, 1, 0.0), (2, 1, -3.0)]) == [(0, 1), (2, 1)]


def test_of_parallel_edges_the_heavier_counts_and_ties_go_to_the_first() -> None:
    assert spanning_tree(2, [(0, 1, 1.0), (1, 0, 2.0)]) == [(1, 0)]
    assert spanning_tree(3, [(0, 1, 1.0), (1, 2, 1.0), (0, 2, 1.0)]) == [(0, 1), (1, 2)]


def test_a_tree_of_each_component() -> None:
    assert spanning_tree(5, [(0, 1, 1.0), (2, 3, 2.0)]) == [(2, 3), (0, 1)]
    assert spanning_tree(3, []) == []


def test_weights_must_be_finite_and_edges_between_two_nodes() -> None:
    with pytest.raises(InputError, match="finite weights"):
        spanning_tree(2, [(0, 1, float("nan"))])
    with pytest.raises(InputError, match="a node with itself"):
        spanning_tree(2, [(1, 1, 1.0)])


def test_two_places_are_two_components_and_the_smaller_is_explained() -> None:
    graph = PairGraph.from_records(
        [
            record("a", "x", matches=2),
            record("x", "y"),
            record("a", "b"),
            record("c", "b"),
            record("z", "a", overlap=0.1),
        ],
        min_matches=5,
        min_overlap=0.3,
    )
    largest, reasons = graph.largest()
    assert largest.names == ("a", "b", "c")
    assert largest.ends == ((0, 1), (2, 1))
    assert [found.names for found in largest.records] == [("a", "b"), ("c", "b")]
    assert list(reasons) == ["x", "y", "z"]
    assert "no pair connects it to the 3" in reasons["x"]
    assert "another group of 2, with y" in reasons["x"]
    assert "overlap score below 0.3" in reasons["z"]


def test_a_pair_without_matches_passes_its_reason_on() -> None:
    graph = PairGraph.from_records([record("a", "b", 0, reason="the image is blank")])
    largest, reasons = graph.largest()
    assert largest.names == ("a",)
    assert largest.records == ()
    assert "the image is blank" in reasons["b"]


def test_edges_can_be_taken_out() -> None:
    graph = PairGraph.from_records([record("a", "b"), record("b", "c")])
    rest = graph.without({("b", "c"): "no pose agrees"})
    assert rest.ends == ((0, 1),)
    assert rest.largest()[1] == {"c": "no pair connects it to any other photograph: no pose agrees"}


def test_no_record_is_an_empty_graph() -> None:
    largest, reasons = PairGraph.from_records([]).largest()
    assert (largest.names, reasons) == ((), {})


def test_a_photograph_has_one_size() -> None:
    with pytest.raises(InputError, match="two of a"):
        PairGraph.from_records([record("a", "b"), record("a", "c", size0=ImageSize(9, 9))])
