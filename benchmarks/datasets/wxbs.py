"""WxBS v1.1: pairs that differ in several ways at once, with correspondences marked by hand."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import CorrespondenceTruth, Dataset, missing_data
from benchmarks.datasets.building import PairCollector
from benchmarks.datasets.number_files import read_matrix
from benchmarks.protocols import CORRESPONDENCE_PRESETS

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "wxbs"
TITLE = "WxBS v1.1"
PUBLISHED = "cmp.felk.cvut.cz/wbs (WxBS_v1.1.zip; or the package wxbs-benchmark; for research)"
PROTOCOLS: dict[str, Protocol] = CORRESPONDENCE_PRESETS
PUBLISHED_VALUES: tuple[PublishedValue, ...] = (
    PublishedValue("RoMa", "mAA@10px", 60.8, "RoMa v2 paper"),
    PublishedValue("RoMa v2", "mAA@10px", 55.4, "RoMa v2 paper"),
)

_RELEASE = "WxBS_v1.1"
_CATEGORIES = ("WGABS", "WGALBS", "WGBS", "WGLBS", "WGSBS", "WLABS")
_TREE = (
    f"{_RELEASE}/              or name this folder as the root",
    f"    {' '.join(_CATEGORIES)}",
    "        kremlin/ ...      one folder a pair",
    "            01.png 02.png",
    "            corrs.txt              x1 y1 x2 y2 a line",
    "            crossval_errors.txt    not used",
)
_VALIDATION = frozenset({"kyiv_dolltheater2", "petrzin"})
_NUM_PAIRS = 32


def read(root: Path) -> Dataset:
    """Read the test pairs; the two validation pairs are left out.

    Args:
        root: the folder ``WxBS_v1.1``, or the folder that holds it.

    Raises:
        DatasetError: no pair is there.
    """
    folder = root / _RELEASE if (root / _RELEASE).is_dir() else root
    there = [
        path
        for category in _CATEGORIES
        for path in sorted((folder / category).glob("*"))
        if path.is_dir()
    ]
    tested = [path for path in there if path.name not in _VALIDATION]
    if not tested:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    pairs = PairCollector()
    for pair in tested:
        name, images = f"{pair.parent.name}/{pair.name}", (pair / "01.png", pair / "02.png")
        pairs.add(name, images, partial(_truth, pair), group=pair.parent.name)
    notes = [f"the validation pairs ({', '.join(sorted(_VALIDATION))}) are left out"]
    if len(tested) != _NUM_PAIRS:
        notes.append(f"{len(tested)} of {_NUM_PAIRS} test pairs are there")
    return pairs.finish(NAME, TITLE, root, kind="correspondences", notes=notes)


def _truth(pair: Path) -> CorrespondenceTruth:
    marked = read_matrix(pair / "corrs.txt", 4)
    return CorrespondenceTruth(marked[:, :2], marked[:, 2:])
