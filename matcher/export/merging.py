"""From the pairs as they were matched to what is exported: verified, and merged into tracks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from matcher.export.photograph_cameras import PhotographCamera
from matcher.export.tracks import Tracks, check_cell, merge_tracks
from matcher.export.verification import VerificationOptions, VerifiedPairs, verify_pairs
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.structures import Camera

__all__ = ["MergedPairs", "merge_pairs"]


@dataclass(frozen=True, slots=True, eq=False)
class MergedPairs:
    """What is exported.

    Attributes:
        cameras: of every photograph by name, sorted; also of those without a pair.
        tracks: the tracks of the verified matches, of the photographs that have pairs.
        num_pairs: pairs that came in.
        num_verified: those whose matches agree with one geometry.
        unmatched: name of every photograph without a track, with the reason.
    """

    cameras: Mapping[str, PhotographCamera]
    tracks: Tracks
    num_pairs: int
    num_verified: int
    unmatched: Mapping[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all photographs, sorted."""
        return tuple(self.cameras)


def merge_pairs(
    records: Iterable[PairRecord],
    *,
    photographs: Photographs | None = None,
    cameras: Mapping[str, Camera] | None = None,
    cell_px: float | None = None,
    options: VerificationOptions | None = None,
) -> MergedPairs:
    """Take the wrong matches out of the pairs, and merge the others into tracks.

    Args:
        records: the pairs; read once, their pointmaps are not needed.
        photographs: where the photographs are. Those without a pair are listed as well, and focals
            that are not known are read from EXIF; other focals are guessed from the matches.
        cameras: known intrinsics by name, in original pixels.
        cell_px: how widely keypoints are merged, original pixels; see ``merge_tracks``.
        options: when matches agree.

    Raises:
        InputError: a camera for a photograph of another size, or of none; a photograph with two
            sizes; a ``cell_px`` that is not positive.
    """
    check_cell(cell_px)
    pairs = verify_pairs(records, cameras or {}, photographs, options)
    tracks = merge_tracks(pairs.records, cell_px)
    return MergedPairs(
        pairs.cameras, tracks, len(pairs.records), pairs.num_verified, _unmatched(pairs, tracks)
    )


def _unmatched(pairs: VerifiedPairs, tracks: Tracks) -> dict[str, str]:
    counts = dict(zip(tracks.names, map(len, tracks.keypoints), strict=True))
    reasons = pairs.reasons
    found = {}
    for name in pairs.cameras:
        if counts.get(name):
            continue
        if name not in counts:
            found[name] = "it was matched with no other photograph"
        else:
            why = reasons.get(name, "its matches contradict those of other pairs")
            found[name] = f"no pair of it has matches that hold together; one of them: {why}"
    return found
