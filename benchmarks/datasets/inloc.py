"""InLoc: phone photographs in two buildings, against laser scans; a server keeps the poses."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue, published_row
from benchmarks.core.samples import Dataset, FloatArray, PointmapReference, missing_data
from benchmarks.datasets.building import as_rigid, stored_size
from benchmarks.datasets.localization_pairs import (
    Query,
    QueryCollector,
    ReferenceImage,
    find_retrieval,
    spread_retrieval,
)
from benchmarks.datasets.number_files import read_lines
from benchmarks.tasks.localization_options import localization_protocols
from matcher.errors import DatasetError
from matcher.geometry.camera import camera_from_focal

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "inloc"
TITLE = "InLoc"
PUBLISHED = (
    "http://www.ok.sc.e.titech.ac.jp/INLOC (research use); poses are evaluated at "
    "https://www.visuallocalization.net from the submitted file"
)
PROTOCOLS: dict[str, Protocol] = localization_protocols(
    ResizeRule("long", 1200, only_shrink=True), hloc_px=48
)
_RECALLS = ("0.25m 10deg", "0.5m 10deg", "1m 10deg")
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    *published_row(
        "MASt3R top-40",
        [f"DUC1 recall@{recall}" for recall in _RECALLS],
        (56.1, 79.3, 90.9),
        "MASt3R paper",
    ),
    *published_row(
        "MASt3R top-40",
        [f"DUC2 recall@{recall}" for recall in _RECALLS],
        (71.0, 87.0, 91.6),
        "MASt3R paper",
    ),
)

_TREE = (
    "query/iphone7/IMG_0731.JPG ...",
    "database/cutouts/DUC1/024/DUC_cutout_024_0_0.jpg and .jpg.mat (XYZcut) ...",
    "database/alignments/DUC1/transformations/DUC_trans_024.txt ...",
    "pairs-query*.txt        retrieval (optional): query reference",
)
_LISTS = ("pairs-query*.txt", "pairs*/**/pairs-query*.txt")
_SPREAD_REFERENCES = 40
# Millimetres of an equivalent focal over those of the film, times the sensor's long side.
_FOCAL_OVER_LONG_SIDE = 28 / 36
_NOTES = (
    "the queries' poses are not public: a submission file is written, nothing is scored",
    "K: focal 28/36 of the query's long side (4032 px), principal point in the middle",
)


def read(root: Path) -> Dataset:
    """Every query below ``root`` with its references.

    Raises:
        DatasetError: not there, or nothing can be used.
    """
    queries = sorted(
        path.relative_to(root).as_posix()
        for path in (root / "query" / "iphone7").glob("*")
        if path.suffix.lower() in (".jpg", ".jpeg")
    )
    cutouts = root / "database" / "cutouts"
    if not queries or not cutouts.is_dir():
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    retrieval = find_retrieval(root, _LISTS)
    if retrieval is None:
        names = sorted(path.relative_to(root).as_posix() for path in cutouts.glob("*/*/*.jpg"))
        retrieval = spread_retrieval(queries, names, _SPREAD_REFERENCES)

    def read_query(name: str) -> Query:
        size = stored_size(root / name)
        camera = camera_from_focal(_FOCAL_OVER_LONG_SIDE * max(size.height, size.width), size)
        return Query(name, root / name, camera, None, "", Path(name).name)

    @cache
    def read_reference(name: str) -> ReferenceImage:
        scan = root / f"{name}.mat"
        if not scan.is_file():
            raise DatasetError(f"no scan at {scan}")
        return ReferenceImage(name, root / name, PointmapReference(scan, _alignment(root, name)))

    collector = QueryCollector()
    collector.add_all(queries, retrieval, read_query, read_reference)
    return collector.finish(NAME, TITLE, root, _NOTES)


def _alignment(root: Path, name: str) -> FloatArray:
    """world_from_scan (4, 4) of a cutout ``database/cutouts/DUC1/024/DUC_cutout_024_0_0.jpg``."""
    parts = Path(name).parts
    if len(parts) < 3:
        raise DatasetError(f"expected database/cutouts/FLOOR/SCAN/CUTOUT.jpg, got {name}")
    floor, scan, cutout = parts[-3:]
    building = cutout.partition("_")[0]
    folder = root / "database" / "alignments" / floor / "transformations"
    return _last_matrix(folder / f"{building}_trans_{scan}.txt")


@cache
def _last_matrix(path: Path) -> FloatArray:
    """The last (4, 4) matrix of a file: alignments are refined, and the last one is the finest."""
    rows = []
    for _, words in read_lines(path):
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            continue
        if len(numbers) == 4:
            rows.append(numbers)
    if len(rows) < 4:
        raise DatasetError(f"{path}: expected a matrix of 4 lines of 4 numbers, got {len(rows)}")
    matrix = np.array(rows[-4:])
    return as_rigid(str(path), matrix[:3, :3], matrix[:3, 3])
