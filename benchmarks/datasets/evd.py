"""Extreme View Dataset (EVD): planes seen at a grazing angle, with homographies."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, HomographyTruth, missing_data
from benchmarks.datasets.building import PairCollector
from benchmarks.datasets.number_files import read_matrix
from benchmarks.protocols import HOMOGRAPHY_PRESETS

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "evd"
TITLE = "Extreme View Dataset (EVD)"
PUBLISHED = "cmp.felk.cvut.cz/wbs (EVD.zip; for research)"
PROTOCOLS: dict[str, Protocol] = {name: HOMOGRAPHY_PRESETS[name] for name in ("evd", "ours")}
# No published value of the design notes names this set.
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()

_RELEASE = "EVD"
_TREE = (
    f"{_RELEASE}/              or name this folder as the root",
    "    1/adam.png    ...   first photographs",
    "    2/adam.png    ...   second photographs",
    "    h/adam.txt    ...   3 x 3 homographies, second from first",
)
_NUM_PAIRS = 15


def read(root: Path) -> Dataset:
    """Read all pairs.

    Args:
        root: the folder ``EVD``, or the folder that holds it.

    Raises:
        DatasetError: no pair is there.
    """
    folder = root / _RELEASE if (root / _RELEASE).is_dir() else root
    names = sorted(
        {path.stem for part in ("1", "2") for path in (folder / part).glob("*.png")}
        | {path.stem for path in (folder / "h").glob("*.txt")}
    )
    if not names:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    pairs = PairCollector()

    def truth(name: str) -> HomographyTruth:
        return HomographyTruth(read_matrix(folder / "h" / f"{name}.txt", 3, 3), "viewpoint")

    for name in names:
        images = folder / "1" / f"{name}.png", folder / "2" / f"{name}.png"
        pairs.add(name, images, partial(truth, name), group="viewpoint")
    notes = () if len(names) == _NUM_PAIRS else (f"{len(names)} of {_NUM_PAIRS} pairs are there",)
    return pairs.finish(NAME, TITLE, root, kind="homography", notes=notes)
