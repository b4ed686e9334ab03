"""Queries against the references of a map: what the readers of localization sets share.

Which references a query is matched with is half of a result. Official retrieval lists (hloc's
format: ``query reference``, one pair a line) are read where they are; without one, references are
spread evenly over the map, the same for every query: choosing those near the query's true pose
would tell the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.core.samples import Dataset, FloatArray, LocalizationTruth, PairSample
from benchmarks.datasets.number_files import read_lines
from benchmarks.tasks.reference_points import Reference
from matcher.errors import DatasetError, MatcherError
from matcher.structures import Camera

__all__ = [
    "Query",
    "QueryCollector",
    "ReferenceImage",
    "Retrieval",
    "evenly_spaced",
    "find_retrieval",
    "inverse_pose",
    "spread_retrieval",
]


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """A photograph to localize.

    Attributes:
        name: unique in its data set, as retrieval lists write it.
        image: the stored photograph.
        camera: integer pixels at pixel centres.
        cam_from_world: (4, 4) metres; ``None`` where a server keeps it.
        group: scene.
        submitted_as: how a submission calls it; by default as ``name``.
    """

    name: str
    image: Path
    camera: Camera
    cam_from_world: FloatArray | None = None
    group: str = ""
    submitted_as: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceImage:
    """A photograph of the map."""

    name: str
    image: Path
    reference: Reference


@dataclass(frozen=True, slots=True)
class Retrieval:
    """References of each query.

    Attributes:
        references: query -> names, best first.
        problems: (file and line, why) of broken lines.
        note: where the references came from.
    """

    references: Mapping[str, tuple[str, ...]]
    problems: tuple[tuple[str, str], ...] = ()
    note: str = ""


def find_retrieval(
    root: Path, patterns: Sequence[str], most: int | None = None
) -> Retrieval | None:
    """The first list below ``root`` that matches one of the glob ``patterns``, in their order.

    Args:
        root: where to look.
        patterns: as :meth:`Path.glob` takes them.
        most: references kept of each query, in the order of the list.
    """
    found = next((path for pattern in patterns for path in sorted(root.glob(pattern))), None)
    if found is None:
        return None
    references: dict[str, list[str]] = {}
    problems = []
    for line, words in read_lines(found):
        if len(words) < 2:
            reason = f"expected 'query reference', got {' '.join(words)!r}"
            problems.append((f"{found.name}:{line}", reason))
            continue
        names = references.setdefault(words[0], [])
        if words[1] not in names and (most is None or len(names) < most):
            names.append(words[1])
    note = f"references: {found.relative_to(root)}" + ("" if most is None else f", first {most}")
    return Retrieval(
        {name: tuple(names) for name, names in references.items()}, tuple(problems), note
    )


def spread_retrieval(queries: Iterable[str], references: Sequence[str], count: int) -> Retrieval:
    """``count`` evenly spaced references, the same for every query."""
    chosen = evenly_spaced(references, count)
    note = (
        f"references: no retrieval list was found; every query against the same {len(chosen)} of "
        f"{len(references)} map images, evenly spaced: not comparable with published values"
    )
    return Retrieval(dict.fromkeys(queries, chosen), (), note)


def evenly_spaced(names: Sequence[str], count: int) -> tuple[str, ...]:
    """At most ``count`` of the names, in their order, first and last among them."""
    if len(names) <= count:
        return tuple(names)
    rows = np.unique(np.rint(np.linspace(0, len(names) - 1, count)).astype(int))
    return tuple(names[row] for row in rows)


def inverse_pose(pose: FloatArray) -> FloatArray:
    """(4, 4) inverse of a (4, 4) rigid motion."""
    inverse = np.eye(4)
    inverse[:3, :3] = pose[:3, :3].T
    inverse[:3, 3] = -pose[:3, :3].T @ pose[:3, 3]
    return inverse


class QueryCollector:
    """Gathers queries with their references, and the reasons of those that cannot be used."""

    def __init__(self) -> None:
        self._samples: list[PairSample] = []
        self._problems: list[tuple[str, str]] = []
        self._notes: list[str] = []
        self._left_out: list[tuple[str, str]] = []

    def add(
        self,
        name: str,
        references: Sequence[str],
        read_query: Callable[[str], Query],
        read_reference: Callable[[str], ReferenceImage],
        prefix: str = "",
    ) -> None:
        """A query; a problem where it, or every one of its references, cannot be read.

        ``prefix`` goes before its name there.
        """
        if not references:
            self.fail(prefix + name, "no reference in the retrieval list")
            return
        try:
            query = read_query(name)
        except MatcherError as error:
            self.fail(prefix + name, str(error))
            return
        left_out = []
        before = len(self._samples)
        for reference in references:
            try:
                self._samples.append(_pair(query, read_reference(reference)))
            except MatcherError as error:
                left_out.append((f"{prefix}{name}--{reference}", _line(error)))
        if len(self._samples) == before:
            self.fail(prefix + name, f"none of {len(references)} references: {left_out[0][1]}")
        else:
            self._left_out.extend(left_out)

    def add_all(
        self,
        queries: Iterable[str],
        retrieval: Retrieval,
        read_query: Callable[[str], Query],
        read_reference: Callable[[str], ReferenceImage],
        prefix: str = "",
    ) -> None:
        """Every query of a retrieval; ``prefix`` goes before the notes and problems of its file."""
        self._problems.extend((f"{prefix}{place}", why) for place, why in retrieval.problems)
        self.note(f"{prefix and prefix.rstrip('/') + ': '}{retrieval.note}")
        for query in queries:
            self.add(query, retrieval.references.get(query, ()), read_query, read_reference, prefix)

    def fail(self, name: str, reason: str) -> None:
        """A query (or a line of a list) that cannot be used; it will count as a failure."""
        self._problems.append((name, _line(reason)))

    def note(self, note: str) -> None:
        """Something a reader of the numbers must know."""
        if note and note not in self._notes:
            self._notes.append(note)

    def finish(self, name: str, title: str, root: Path, notes: Iterable[str] = ()) -> Dataset:
        """The data set.

        Raises:
            DatasetError: not one query can be used.
        """
        if not self._samples:
            first = f"; the first: {': '.join(self._problems[0])}" if self._problems else ""
            count = len(self._problems)
            raise DatasetError(f"{title}: no usable query in {root} ({count} broken){first}")
        if self._left_out:
            first = ": ".join(self._left_out[0])
            self.note(f"{len(self._left_out)} references left out, the first: {first}")
        return Dataset(
            name,
            title,
            tuple(self._samples),
            "localization",
            root,
            tuple(self._problems),
            (*notes, *self._notes),
        )


def _pair(query: Query, reference: ReferenceImage) -> PairSample:
    truth = LocalizationTruth(
        query.submitted_as or query.name,
        query.camera.model,
        query.camera.params,
        reference.reference,
        query.cam_from_world,
    )
    return PairSample(
        f"{query.name}--{reference.name}",
        query.image,
        reference.image,
        truth,
        query.group,
        query.name,
    )


def _line(reason: object) -> str:
    return " ".join(str(reason).split())
