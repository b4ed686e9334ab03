"""Aachen Day-Night v1.1: a city by day and by night; the queries' poses are kept by a server."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, PointReference, missing_data
from benchmarks.datasets.localization_pairs import (
    Query,
    QueryCollector,
    ReferenceImage,
    find_retrieval,
    spread_retrieval,
)
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.tasks.localization_options import localization_protocols
from matcher.colmap import observations_of, open_model
from matcher.errors import DatasetError, MatcherError
from matcher.geometry.pixels import camera_from_colmap
from matcher.structures import Camera, ImageSize

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "aachen"
TITLE = "Aachen Day-Night v1.1"
PUBLISHED = (
    "https://www.visuallocalization.net/datasets (research use); poses are evaluated there from "
    "the submitted file"
)
PROTOCOLS: dict[str, Protocol] = localization_protocols(
    ResizeRule("long", 512, only_shrink=True), hloc_px=12
)
_RECALLS = ("0.25m 2deg", "0.5m 5deg", "5m 10deg")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row(
        "MASt3R top-20",
        [f"day recall@{recall}" for recall in _RECALLS],
        (83.4, 95.3, 99.4),
        "MASt3R paper",
    ),
    *published_row(
        "MASt3R top-20",
        [f"night recall@{recall}" for recall in _RECALLS],
        (76.4, 91.6, 100.0),
        "MASt3R paper",
    ),
)

_TREE = (
    "images_upright/db/, query/, sequences/",
    "3D-models/aachen_v_1_1/cameras.bin, images.bin, points3D.bin",
    "queries/day_time_queries_with_intrinsics.txt     name model w h params",
    "queries/night_time_queries_with_intrinsics.txt",
    "pairs-query*.txt                                 retrieval (optional): query reference",
)
_LISTS = ("pairs-query*.txt", "pairs*/**/pairs-query*.txt", "queries/pairs-query*.txt")
_SPREAD_REFERENCES = 50
_NOTES = ("the queries' poses are not public: a submission file is written, nothing is scored",)


def read(root: Path) -> Dataset:
    """Every query below ``root`` with its references; pycolmap reads the map.

    Raises:
        DatasetError: not there, or nothing can be used.
        MissingDependencyError: pycolmap is not installed.
    """
    lists = {
        time: root / "queries" / f"{time}_time_queries_with_intrinsics.txt"
        for time in ("day", "night")
    }
    model = root / "3D-models" / "aachen_v_1_1"
    present = [time for time, path in lists.items() if path.is_file()]
    if not present or not (model / "images.bin").is_file():
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = QueryCollector()
    queries = {
        query.name: query
        for time in present
        for query in _queries(root, lists[time], time, collector)
    }
    for time in lists:
        if time not in present:
            collector.note(f"no {time} queries: {lists[time].name} is not there")
    retrieval = find_retrieval(root, _LISTS)
    mapped = _Map(model)
    if retrieval is None:
        retrieval = spread_retrieval(queries, mapped.names, _SPREAD_REFERENCES)

    @cache
    def read_reference(name: str) -> ReferenceImage:
        return ReferenceImage(name, root / "images_upright" / name, mapped.reference(name))

    collector.add_all(queries, retrieval, queries.__getitem__, read_reference)
    return collector.finish(NAME, TITLE, root, _NOTES)


def _queries(root: Path, path: Path, group: str, collector: QueryCollector) -> Iterator[Query]:
    for line, words in read_lines(path):
        try:
            if len(words) < 5:
                raise DatasetError(f"{path}:{line}: expected name, model, w, h and parameters")
            width, height, *parameters = parse_numbers(words[2:], len(words) - 2, path, line)
            size = ImageSize(int(height), int(width))
            camera = camera_from_colmap(Camera(words[1], tuple(parameters), size))  # type: ignore[arg-type]
        except MatcherError as error:
            collector.fail(words[0], str(error))
            continue
        image = root / "images_upright" / words[0]
        yield Query(words[0], image, camera, None, group, Path(words[0]).name)


class _Map:
    """A COLMAP model, read once."""

    def __init__(self, folder: Path) -> None:
        self._model: Any = open_model(folder, "reading Aachen's 3-D model")
        self._ids = {image.name: number for number, image in self._model.images.items()}
        self.names = tuple(sorted(self._ids))

    def reference(self, name: str) -> PointReference:
        """The keypoints of an image that have a 3-D point."""
        if name not in self._ids:
            raise DatasetError(f"the 3-D model lacks {name}")
        keypoints, identifiers = observations_of(self._model.images[self._ids[name]])
        if not len(identifiers):
            raise DatasetError(f"the 3-D model has no point in {name}")
        points = [self._model.points3D[number].xyz for number in identifiers.tolist()]
        return PointReference(keypoints, np.array(points, dtype=np.float64))
