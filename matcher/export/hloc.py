"""Matches of many pairs as hloc's files: ``features.h5``, ``matches.h5``, and the pair file.

Layout: ``features.h5`` has a group of each image's name with ``keypoints`` (K, 2), ``scores`` (K,)
and ``image_size`` (width, height); slashes in a name make nested groups. ``matches.h5`` has a group
of both names, their slashes as dashes, with ``matches0`` (K0,), rows of the second image's
keypoints or -1, and ``matching_scores0`` (K0,). hloc's pixels are ours, integer = pixel centre: it
adds COLMAP's half pixel when it imports keypoints.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from matcher.errors import InputError, MissingDependencyError
from matcher.export.merging import MergedPairs, merge_pairs
from matcher.export.tracks import TrackMatches, Tracks
from matcher.export.verification import VerificationOptions
from matcher.pair_records import PairRecord
from matcher.pairing import write_pairs
from matcher.photographs import Photographs
from matcher.structures import Camera

__all__ = ["FEATURES", "MATCHES", "PAIRS", "write_hloc"]

FEATURES, MATCHES, PAIRS = "features.h5", "matches.h5", "pairs.txt"


def write_hloc(
    records: Iterable[PairRecord],
    folder: str | os.PathLike[str],
    *,
    photographs: Photographs | None = None,
    cameras: Mapping[str, Camera] | None = None,
    cell_px: float | None = None,
    options: VerificationOptions | None = None,
) -> MergedPairs:
    """Write the matches of many pairs as ``features.h5``, ``matches.h5`` and ``pairs.txt``.

    As for COLMAP, wrong matches are taken out pair by pair and the rest becomes tracks, so that a
    keypoint is shared by all pairs of its image.

    Args:
        records: the pairs; their pointmaps are not needed.
        folder: made if it is not there; files of these names are replaced once all are whole.
        photographs: those without a pair get an entry without keypoints.
        cameras: known intrinsics by name, in original pixels, for the check of the pairs.
        cell_px: how widely keypoints are merged, original pixels; see ``merge_tracks``.
        options: when matches agree.

    Returns:
        what was written. ``pairs.txt`` has the pairs with matches left.

    Raises:
        InputError: the files cannot be written (a full disk), or two names that hloc cannot tell
            apart; the files that were there are as they were.
        MissingDependencyError: h5py is not installed.
    """
    h5py = _import_h5py()
    merged = merge_pairs(
        records, photographs=photographs, cameras=cameras, cell_px=cell_px, options=options
    )
    tracks = merged.tracks
    names = tuple(sorted({*merged.names, *(photographs.names if photographs else ())}))
    pairs = [(tracks.names[index0], tracks.names[index1]) for index0, index1 in tracks.matches]
    _check_names(names)
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        # Inside the target, so that the renames cannot cross file systems.
        with tempfile.TemporaryDirectory(prefix=".writing-", dir=target) as made:
            staging = Path(made)
            with h5py.File(staging / FEATURES, "w") as file:
                _write_features(file, names, tracks)
            with h5py.File(staging / MATCHES, "w") as file:
                for (index0, index1), matches in tracks.matches.items():
                    group = file.create_group(
                        f"{_flat(tracks.names[index0])}/{_flat(tracks.names[index1])}"
                    )
                    _write_matches(group, matches, len(tracks.keypoints[index0]))
            write_pairs(staging / PAIRS, pairs)
            for name in (FEATURES, MATCHES, PAIRS):
                (staging / name).replace(target / name)
    except OSError as error:
        reason = " ".join(str(error.strerror or error).split())
        raise InputError("folder", "a folder that can be written", f"{target}: {reason}") from error
    return merged


def _import_h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise MissingDependencyError("h5py", "hloc", "writing hloc's files") from None
    return h5py


def _flat(name: str) -> str:
    return name.replace("/", "-")


def _check_names(names: tuple[str, ...]) -> None:
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(_flat(name), name)
        if other != name:
            raise InputError("names", "names that differ in more than / and -", f"{other}, {name}")


def _write_features(file: Any, names: tuple[str, ...], tracks: Tracks) -> None:
    place = {name: index for index, name in enumerate(tracks.names)}
    scores = _scores(tracks)
    for name in names:
        group = file.create_group(name)
        index = place.get(name)
        keypoints = np.zeros((0, 2)) if index is None else tracks.keypoints[index]
        group.create_dataset("keypoints", data=keypoints.astype(np.float32))
        values = np.zeros(0) if index is None else scores[index]
        group.create_dataset("scores", data=values.astype(np.float32))
        if index is not None:
            size = tracks.sizes[index]
            group.create_dataset("image_size", data=np.array([size.width, size.height]))


def _scores(tracks: Tracks) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
    """The confidence of each keypoint's most confident match."""
    scores = [np.zeros(len(keypoints)) for keypoints in tracks.keypoints]
    for images, matches in tracks.matches.items():
        for image, rows in zip(images, matches.indices.T, strict=True):
            np.maximum.at(scores[image], rows, matches.confidence)
    return scores


def _write_matches(group: Any, matches: TrackMatches, num_keypoints0: int) -> None:
    partner = np.full(num_keypoints0, -1, np.int32)
    scores = np.zeros(num_keypoints0, np.float32)
    # A track has one keypoint an image, so that no row is met twice.
    partner[matches.indices[:, 0]] = matches.indices[:, 1]
    scores[matches.indices[:, 0]] = matches.confidence
    group.create_dataset("matches0", data=partner)
    group.create_dataset("matching_scores0", data=scores)
