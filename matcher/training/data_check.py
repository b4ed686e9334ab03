"""Look at every file of a manifest before a training does."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from matcher.errors import DatasetError
from matcher.training.manifest import (
    CorrespondencePair,
    PosedView,
    read_correspondences,
    read_record,
)
from matcher.training.manifest_lines import ManifestLine, manifest_texts
from matcher.training.motion import ANY_MOTION, MIN_MATCHES
from matcher.training.photo_files import read_photo
from matcher.training.posed_depth import overlap_table, read_depth

__all__ = ["ManifestReport", "Problem", "check_manifest"]

_OUTSIDE_PX = 0.5


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one line.

    Attributes:
        line: its number, from 1.
        message: with the file it is about.
        is_error: whether a training would end with it; else the pair is only never drawn.
    """

    line: int
    message: str
    is_error: bool


@dataclass(frozen=True, slots=True)
class ManifestReport:
    """What a manifest holds.

    Attributes:
        manifest: the file.
        num_views, num_pairs: lines that can be trained on.
        num_groups: places.
        num_matches: correspondences of all pairs.
        problems: in the order of the lines.
    """

    manifest: Path
    num_views: int
    num_pairs: int
    num_groups: int
    num_matches: int
    problems: tuple[Problem, ...]

    @property
    def is_valid(self) -> bool:
        """Whether a training would not end with an error."""
        return not any(problem.is_error for problem in self.problems)


@dataclass(slots=True)
class _Findings:
    problems: list[Problem] = field(default_factory=list)
    views: dict[str, list[tuple[int, PosedView]]] = field(default_factory=lambda: defaultdict(list))
    groups: set[str] = field(default_factory=set)
    num_views: int = 0
    num_pairs: int = 0
    num_matches: int = 0

    def wrong(self, line: int, message: str) -> None:
        self.problems.append(Problem(line, message, is_error=True))

    def unused(self, line: int, message: str) -> None:
        self.problems.append(Problem(line, message, is_error=False))


def check_manifest(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> ManifestReport:
    """Read every line, picture, depth map and correspondence file of a manifest.

    Args:
        path: views, pairs, or both.
        progress: called after every line with the lines done and the lines in all.

    Raises:
        DatasetError: the manifest itself cannot be read, or holds no line.
    """
    manifest = Path(path)
    texts = list(manifest_texts(manifest))
    if not texts:
        raise DatasetError(f"{manifest}: expected a line of JSON a view or pair, got none")
    findings = _Findings()
    for done, (number, text) in enumerate(texts, start=1):
        try:
            record = read_record(ManifestLine(manifest, number, text))
            if isinstance(record, PosedView):
                _check_view(record, number, findings)
            else:
                _check_pair(record, number, findings)
        except DatasetError as error:
            findings.wrong(number, str(error).removeprefix(f"{manifest}:{number}: "))
        if progress is not None:
            progress(done, len(texts))
    for members in findings.views.values():
        _check_overlap(members, findings)
    return ManifestReport(
        manifest,
        findings.num_views,
        findings.num_pairs,
        len(findings.groups),
        findings.num_matches,
        tuple(sorted(findings.problems, key=lambda problem: problem.line)),
    )


def _check_view(view: PosedView, number: int, findings: _Findings) -> None:
    height, width = read_photo(view.image).shape[:2]
    centre = view.camera.matrix[:2, 2]
    if not ((centre >= 0) & (centre <= (width, height))).all():
        place = " ".join(f"{value:.1f}" for value in centre)
        raise DatasetError(
            f"K: expected a principal point inside the {width} x {height} picture, got {place}"
        )
    if view.depth is None or view.depth_scale is None:
        findings.unused(number, f"a view without depth gives no pair: {view.image}")
        return
    depth = read_depth(view.depth, view.depth_scale)
    if depth.shape != (height, width):
        raise DatasetError(
            f"depth: expected the size of its picture {(height, width)}, got {depth.shape} in "
            f"{view.depth}"
        )
    if not (depth > 0).any():
        raise DatasetError(f"depth: expected a known pixel, got none in {view.depth}")
    findings.num_views += 1
    findings.groups.add(view.group)
    findings.views[view.group].append((number, view))


def _check_pair(pair: CorrespondencePair, number: int, findings: _Findings) -> None:
    ends = read_correspondences(pair.correspondences)
    for path, keypoints in ((pair.image0, ends[0]), (pair.image1, ends[1])):
        height, width = read_photo(path).shape[:2]
        limit = np.array([width - 1, height - 1]) + _OUTSIDE_PX
        outside = int(((keypoints < -_OUTSIDE_PX) | (keypoints > limit)).any(axis=1).sum())
        if outside:
            raise DatasetError(
                f"correspondences: {outside} of {len(keypoints)} outside the {width} x {height} "
                f"picture {path}"
            )
    if len(ends[0]) < MIN_MATCHES:
        findings.unused(
            number,
            f"{len(ends[0])} correspondences in {pair.correspondences}: a pair with fewer than "
            f"{MIN_MATCHES} is never drawn",
        )
        return
    findings.num_pairs += 1
    findings.num_matches += len(ends[0])
    findings.groups.add(pair.group)


def _check_overlap(members: list[tuple[int, PosedView]], findings: _Findings) -> None:
    """Say which views of one place share nothing with any other."""
    if len(members) < 2:
        number, view = members[0]
        findings.unused(number, f"the only view with depth of {view.group!r} gives no pair")
        return
    depths = [
        read_depth(view.depth, view.depth_scale)
        for _, view in members
        if view.depth is not None and view.depth_scale is not None
    ]
    table = overlap_table(
        depths,
        np.stack([view.camera.matrix for _, view in members]),
        np.stack([view.cam_from_world.matrix for _, view in members]),
    )
    shared = np.minimum(table, table.T)
    np.fill_diagonal(shared, 0)
    for (number, view), largest in zip(members, shared.max(axis=1), strict=True):
        if largest < ANY_MOTION.overlap[0]:
            findings.unused(
                number,
                f"zero overlap: shares {largest:.0%} with the nearest other view of "
                f"{view.group!r}: {view.image}",
            )
