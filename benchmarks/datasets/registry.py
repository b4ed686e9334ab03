"""The data sets by name; a reader is imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.core.protocols import Protocol
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset
from matcher.errors import InputError

__all__ = ["DatasetReader", "dataset_names", "find_reader"]

_MODULES = {
    "aachen": "aachen",
    "cambridge": "cambridge",
    "co3d": "co3d",
    "dtu": "dtu",
    "evd": "evd",
    "extreme": "extreme",
    "hpatches": "hpatches",
    "inloc": "inloc",
    "mapfree": "mapfree",
    "megadepth1500": "megadepth1500",
    "pairs": "pairs_jsonl",
    "realestate10k": "realestate10k",
    "redkitchen": "redkitchen",
    "scannet1500": "scannet1500",
    "sevenscenes": "sevenscenes",
    "strecha": "strecha",
    "wxbs": "wxbs",
}


@dataclass(frozen=True, slots=True)
class DatasetReader:
    """A data set that can be read.

    Attributes:
        name: as on the command line.
        title: as in a report.
        protocols: by name; ``ours`` is the default where there is one, otherwise the first.
        homography_protocols: those of a list of homographies, for the open format of pairs.
        published: values of others, to be printed beside ours.
        module: dotted name of the reader.
    """

    name: str
    title: str
    protocols: Mapping[str, Protocol]
    homography_protocols: Mapping[str, Protocol]
    published: tuple[PublishedValue, ...]
    module: str

    def read(self, root: Path) -> Dataset:
        """The pairs below ``root``.

        Raises:
            DatasetError: they are not there, or cannot be read.
        """
        dataset = importlib.import_module(self.module).read(root)
        assert isinstance(dataset, Dataset)
        return dataset

    def protocols_of(self, dataset: Dataset) -> Mapping[str, Protocol]:
        """The protocols that fit what was read."""
        is_other = dataset.kind == "homography" and self.homography_protocols
        return self.homography_protocols if is_other else self.protocols

    def protocol(self, dataset: Dataset, name: str | None = None) -> Protocol:
        """A protocol by name; the default without one.

        Raises:
            InputError: the set has no such protocol.
        """
        known = self.protocols_of(dataset)
        if name is None:
            name = "ours" if "ours" in known else next(iter(known))
        if name not in known:
            raise InputError("--protocol", " or ".join(known), f"{name!r}")
        return known[name]


def dataset_names() -> tuple[str, ...]:
    """Names of all data sets, in alphabetical order."""
    return tuple(sorted(_MODULES))


def find_reader(name: str) -> DatasetReader:
    """The reader of a data set.

    Raises:
        InputError: an unknown name.
    """
    if name not in _MODULES:
        raise InputError("NAME", f"one of {', '.join(dataset_names())}", f"{name!r}")
    dotted = f"benchmarks.datasets.{_MODULES[name]}"
    module = importlib.import_module(dotted)
    return DatasetReader(
        name,
        module.TITLE,
        module.PROTOCOLS,
        getattr(module, "HOMOGRAPHY_PROTOCOLS", {}),
        module.PUBLISHED_VALUES,
        dotted,
    )
