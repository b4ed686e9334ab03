"""Red Kitchen, the development set of localization: 30 queries against a map of 16 photographs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, DepthReference, FloatArray, missing_data
from benchmarks.datasets.building import as_matrix, as_rigid
from benchmarks.datasets.localization_pairs import Query, QueryCollector, ReferenceImage
from benchmarks.datasets.number_files import read_lines
from benchmarks.tasks.localization_options import localization_protocols
from matcher.errors import DatasetError, InputError
from matcher.structures import Camera

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "redkitchen"
TITLE = "Red Kitchen (development)"
PUBLISHED = "the development data of this project; frames of 7Scenes (non-commercial use)"
PROTOCOLS: dict[str, Protocol] = localization_protocols(ResizeRule("long", 512, only_shrink=True))
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()

_TREE = (
    "map.jsonl           image, K, cam_from_world, depth, depth_scale, one JSON object a line",
    "queries.jsonl       image, K",
    "queries_gt.jsonl    image, cam_from_world",
    "images/, depth/",
)
_NOTES = (
    "a development set: protocols and defaults may have been looked at on it",
    "ground truth: structure from motion at KinectFusion's scale; every query against all map "
    "images",
)


def read(root: Path) -> Dataset:
    """Every query with every image of the map.

    Raises:
        DatasetError: not there, or nothing can be used.
    """
    for name in ("map.jsonl", "queries.jsonl", "queries_gt.jsonl"):
        if not (root / name).is_file():
            raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = QueryCollector()
    map_images = _entries(root / "map.jsonl", collector)
    queries = _entries(root / "queries.jsonl", collector)
    poses = _entries(root / "queries_gt.jsonl", collector)
    for name in queries:
        collector.add(
            name,
            tuple(map_images),
            partial(_query, root, queries, poses),
            partial(_reference, root, map_images),
        )
    return collector.finish(NAME, TITLE, root, _NOTES)


def _entries(path: Path, collector: QueryCollector) -> dict[str, dict[str, Any]]:
    """The objects of a file by their image; broken lines are problems."""
    entries = {}
    for line, words in read_lines(path):
        try:
            entry = json.loads(" ".join(words))
            if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
                raise DatasetError("expected a JSON object with an image")
        except (json.JSONDecodeError, RecursionError, DatasetError) as error:
            collector.fail(f"{path.name}:{line}", str(error))
            continue
        entries[entry["image"]] = entry
    return entries


def _query(
    root: Path, queries: dict[str, dict[str, Any]], poses: dict[str, dict[str, Any]], name: str
) -> Query:
    if name not in poses:
        raise DatasetError(f"queries_gt.jsonl lacks {name}")
    try:
        camera = Camera.from_matrix(as_matrix("K", queries[name].get("K"), (3, 3)))
    except InputError as error:
        raise DatasetError(str(error)) from None
    return Query(name, root / name, camera, _pose(poses[name]))


def _reference(root: Path, map_images: dict[str, dict[str, Any]], name: str) -> ReferenceImage:
    entry = map_images[name]
    k, depth = as_matrix("K", entry.get("K"), (3, 3)), entry.get("depth")
    if not isinstance(depth, str) or not (root / depth).is_file():
        raise DatasetError(f"no depth image at {depth!r}")
    scale = float(as_matrix("depth_scale", entry.get("depth_scale", 1000.0), ()))
    return ReferenceImage(name, root / name, DepthReference(k, _pose(entry), root / depth, scale))


def _pose(entry: dict[str, Any]) -> FloatArray:
    pose = as_matrix("cam_from_world", entry.get("cam_from_world"), (4, 4))
    return as_rigid("cam_from_world", pose[:3, :3], pose[:3, 3])
