"""Photographs in, reconstruction out: matching and alignment in one call."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

from matcher.alignment.options import PointmapOptions
from matcher.alignment.pointmap import align_pointmaps
from matcher.alignment.sparse import align_sparse
from matcher.alignment.sparse_options import SparseOptions
from matcher.errors import InputError
from matcher.images import exif_focal
from matcher.many_pairs import FailedPair
from matcher.pair_records import PairRecord
from matcher.pairing import complete_pairs, name_pairs
from matcher.photographs import Photographs
from matcher.pipeline import Matcher
from matcher.reconstruction import Reconstruction
from matcher.reconstruction.coloring import colored
from matcher.structures import Camera, Pose

__all__ = ["AlignmentMethod", "reconstruct"]

AlignmentMethod = Literal["sparse", "pointmaps"]


def reconstruct(
    matcher: Matcher,
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Photographs,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    cameras: Mapping[str, Camera] | None = None,
    poses: Mapping[str, Pose] | None = None,
    method: AlignmentMethod = "sparse",
    options: SparseOptions | PointmapOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Reconstruction:
    """Match photographs of one place with each other and put them into one world.

    Args:
        matcher: the network; pairs are matched both ways.
        images: a folder, files, or ``Photographs``. Files that are equal to the byte are matched
            once.
        pairs: names of the photographs to match, two by two, as ``Photographs`` names them; all
            pairs where ``None``, which suits some dozens of photographs.
        cameras: by name, where known; kept as they are. Of the others the focal starts from the
            EXIF tags, where the file has any.
        poses: ``cam_from_world`` by name, where known; kept as they are.
        method: ``"sparse"`` aligns verified matches (MASt3R-SfM), ``"pointmaps"`` the network's
            pointmaps (DUSt3R), which must be good ones.
        options: of the method.
        progress: is told (steps done, steps in all); most of them are pairs.

    Returns:
        The photographs that have a place, in colour, and the reason for each that has none. It is
        in metres where the model's pointmaps are and no pose is given.

    Raises:
        InputError: no photograph, or one alone; a name that is not among them; options of the
            other method; a method that is none.
    """
    _check_method(method, options)
    photographs = _photographs(images)
    repeated = {copy: kept for kept, copy in photographs.duplicates()}
    unique = [name for name in photographs.names if name not in repeated]
    if len(unique) < 2:
        raise InputError(
            "images", "at least two different photographs", f"{len(unique)} in {photographs.root}"
        )
    named = _pairs(photographs, unique, repeated, pairs)
    failed: dict[str, str] = {}
    records = _matched(matcher, photographs, named, failed, progress)
    # Pointmaps bring their own focals.
    focals = _told_focals(photographs, unique, cameras or {}) if method == "sparse" else {}
    found = _align(records, len(named), cameras, poses, focals, method, options, progress)
    unregistered = {name: f"same file as {kept}" for name, kept in repeated.items()}
    for name in unique:
        if name not in found.names:
            unregistered[name] = failed.get(name) or found.unregistered.get(
                name, "it was in no pair"
            )
    in_metres = matcher.info.is_metric and _has_pointmap_scale(found, poses)
    result = replace(
        found,
        unregistered=unregistered,
        is_metric=in_metres,
        model=matcher.info.name,
        licence=matcher.info.licence,
    )
    return colored(result, photographs)


def _check_method(method: str, options: SparseOptions | PointmapOptions | None) -> None:
    if method not in get_args(AlignmentMethod):
        raise InputError("method", " or ".join(get_args(AlignmentMethod)), repr(method))
    expected = SparseOptions if method == "sparse" else PointmapOptions
    if options is not None and not isinstance(options, expected):
        raise InputError("options", f"{expected.__name__} for {method}", type(options).__name__)


def _photographs(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Photographs,
) -> Photographs:
    if isinstance(images, Photographs):
        return images
    if isinstance(images, str | os.PathLike):
        return Photographs.from_folder(images)
    return Photographs.from_paths(images)


def _pairs(
    photographs: Photographs,
    unique: Sequence[str],
    repeated: Mapping[str, str],
    pairs: Sequence[tuple[str, str]] | None,
) -> list[tuple[str, str]]:
    """The pairs to match: a copy is replaced by what it is a copy of, and each pair comes once."""
    if pairs is None:
        return name_pairs(unique, complete_pairs(len(unique)))
    chosen: dict[frozenset[str], tuple[str, str]] = {}
    for name0, name1 in pairs:
        for name in (name0, name1):
            if name not in photographs.names:
                raise InputError("pairs", f"photographs of {photographs.root}", name)
        pair = repeated.get(name0, name0), repeated.get(name1, name1)
        if pair[0] != pair[1]:
            chosen.setdefault(frozenset(pair), pair)
    if not chosen:
        raise InputError("pairs", "at least one pair of different photographs", "none")
    return list(chosen.values())


def _told_focals(
    photographs: Photographs, names: Sequence[str], cameras: Mapping[str, Camera]
) -> dict[str, float]:
    """Focals that the files of photographs without a camera tell, pixels."""
    told = {name: exif_focal(photographs.path(name)) for name in names if name not in cameras}
    return {name: focal for name, focal in told.items() if focal is not None}


def _matched(
    matcher: Matcher,
    photographs: Photographs,
    named: Sequence[tuple[str, str]],
    failed: dict[str, str],
    progress: Callable[[int, int], None] | None,
) -> Iterator[PairRecord]:
    """The records, one by one; the reason of what cannot be matched goes into ``failed``."""
    matching = replace(matcher.options.matching, symmetric=True)
    options = replace(matcher.options, matching=matching)
    answers = matcher.match_records(photographs, named, options=options)
    for done, answer in enumerate(answers, 1):
        if isinstance(answer, FailedPair):
            for name in (answer.name0, answer.name1):
                if name in answer.reason:
                    failed[name] = answer.reason
        else:
            yield answer
        if progress is not None:
            progress(done, len(named) + 1)


def _align(
    records: Iterator[PairRecord],
    num_pairs: int,
    cameras: Mapping[str, Camera] | None,
    poses: Mapping[str, Pose] | None,
    focals: Mapping[str, float],
    method: str,
    options: SparseOptions | PointmapOptions | None,
    progress: Callable[[int, int], None] | None,
) -> Reconstruction:
    if isinstance(options, PointmapOptions) or method == "pointmaps":
        pointmap_options = options if isinstance(options, PointmapOptions) else None
        found = align_pointmaps(records, cameras=cameras, poses=poses, options=pointmap_options)
    else:
        found = align_sparse(records, cameras=cameras, poses=poses, focals=focals, options=options)
    if progress is not None:
        progress(num_pairs + 1, num_pairs + 1)
    return found


def _has_pointmap_scale(found: Reconstruction, poses: Mapping[str, Pose] | None) -> bool:
    """Whether the unit of the world is that of pointmaps."""
    has_map = any(image.dense is not None for image in found.images)
    return has_map and not any(image.name in (poses or {}) for image in found.images)
