"""HPatches: sequences of planes, under a change of viewpoint or of light, with homographies."""

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

NAME = "hpatches"
TITLE = "HPatches"
PUBLISHED = "github.com/hpatches/hpatches-dataset (hpatches-sequences-release.tar.gz, 1.3 GB; MIT)"
PROTOCOLS: dict[str, Protocol] = {
    name: HOMOGRAPHY_PRESETS[name] for name in ("ours", "glue-factory", "loftr")
}
# No published value of the design notes names this set.
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()

_RELEASE = "hpatches-sequences-release"
_TREE = (
    f"{_RELEASE}/          or name this folder as the root",
    "    i_ajuntament/  ...  v_yuri/",
    "        1.ppm 2.ppm 3.ppm 4.ppm 5.ppm 6.ppm",
    "        H_1_2 H_1_3 H_1_4 H_1_5 H_1_6",
)
# Photographs too large for the methods of the time; every evaluation since leaves them out.
_LEFT_OUT = frozenset(
    {
        "i_contruction",
        "i_crownnight",
        "i_dc",
        "i_pencils",
        "i_whitebuilding",
        "v_artisans",
        "v_astronautis",
        "v_talent",
    }
)
_NUM_SEQUENCES = 108
_TARGETS = (2, 3, 4, 5, 6)
_KINDS = {"i": "illumination", "v": "viewpoint"}


def read(root: Path) -> Dataset:
    """Read the pairs 1-2 to 1-6 of every sequence that is scored.

    Args:
        root: the release folder, or the folder that holds it.

    Raises:
        DatasetError: no sequence is there.
    """
    folder = root / _RELEASE if (root / _RELEASE).is_dir() else root
    there = sorted(path for path in folder.glob("[iv]_*") if path.is_dir())
    scored = [path for path in there if path.name not in _LEFT_OUT]
    if not scored:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    pairs = PairCollector()
    for sequence in scored:
        _add_sequence(pairs, sequence)
    notes = [
        f"{len(there) - len(scored)} of the {len(_LEFT_OUT)} sequences that are by custom left out "
        "(too large) were there and are left out"
    ]
    if len(scored) != _NUM_SEQUENCES:
        notes.append(f"{len(scored)} of {_NUM_SEQUENCES} sequences are there")
    return pairs.finish(NAME, TITLE, root, kind="homography", notes=notes)


def _add_sequence(pairs: PairCollector, sequence: Path) -> None:
    kind = _KINDS[sequence.name[0]]

    def truth(number: int) -> HomographyTruth:
        return HomographyTruth(read_matrix(sequence / f"H_1_{number}", 3, 3), kind)

    for number in _TARGETS:
        images = sequence / "1.ppm", sequence / f"{number}.ppm"
        pairs.add(f"{sequence.name}/1_{number}", images, partial(truth, number), group=kind)
