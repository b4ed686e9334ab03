"""Which matches of a pair agree with one epipolar geometry, and whether that means anything.

PoseLib's LO-RANSAC searches, with focals that are known or guessed: of ten tourists' photographs of
one church it keeps 29 pairs with known focals (25 right) and 24 with guessed ones (23 right), where
fundamental matrices keep 21. COLMAP's own search takes four times as long where most matches are
wrong (1.2 s against 0.3 s), and calls 96 of 3,604 matches of two photographs that share nothing
verified; what is left after this search it classifies quickly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from matcher.errors import InputError
from matcher.export.photograph_cameras import PhotographCamera, photograph_cameras
from matcher.geometry.relative import estimate_relative_pose
from matcher.geometry.relative_solvers import RelativePoseOptions
from matcher.geometry.support import required_inliers
from matcher.pair_records import PairRecord
from matcher.photographs import Photographs
from matcher.structures import Camera, ImageSize

__all__ = ["VerificationOptions", "VerifiedPairs", "verify_pair", "verify_pairs"]

# How many times what chance explains (``required_inliers``) must agree. A wrong pair harms a
# reconstruction more than a right one helps; a factor of 1.5 keeps 35 of the church, 26 right.
_CHANCE_FACTOR = 2.0


@dataclass(frozen=True, slots=True)
class VerificationOptions:
    """When a match agrees, and when a pair counts.

    Attributes:
        max_error: Sampson error up to which a match agrees, in shares of the longer side of the
            larger photograph: a match is exact to a share of what the network saw. 0.002 are
            2 pixels of 1,024.
        min_inliers: fewer give no answer; many matches ask for more (``required_inliers``).
        max_iterations: no more RANSAC hypotheses than this.
        seed: the same seed and input give the same answer.

    Raises:
        InputError: a value out of its range.
    """

    max_error: float = 0.002
    min_inliers: int = 15
    max_iterations: int = 20_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.max_error < 1:
            raise InputError(
                "max_error", "a share of the photograph in (0, 1)", f"{self.max_error}"
            )
        self.relative_pose(1.0)  # checks the rest

    def max_error_px(self, size0: ImageSize, size1: ImageSize) -> float:
        """The limit for one pair, original pixels."""
        return self.max_error * max(size0.height, size0.width, size1.height, size1.width)

    def relative_pose(self, max_error_px: float) -> RelativePoseOptions:
        """The same as options of the relative pose."""
        return RelativePoseOptions(
            max_epipolar_error_px=max_error_px,
            min_inliers=self.min_inliers,
            max_iterations=self.max_iterations,
            seed=self.seed,
        )


@dataclass(frozen=True, slots=True, eq=False)
class VerifiedPairs:
    """Pairs with only the matches that agree, and the cameras they agree under.

    Attributes:
        records: all pairs, in their order, without pointmaps; ``reason`` says why one is empty.
        cameras: of every photograph by name, sorted; also of those without a pair.
    """

    records: tuple[PairRecord, ...]
    cameras: Mapping[str, PhotographCamera]

    @property
    def num_verified(self) -> int:
        """Number of pairs with matches left."""
        return sum(len(record) > 0 for record in self.records)

    @property
    def reasons(self) -> dict[str, str]:
        """Why a photograph's first pair that was given up was, by name."""
        reasons: dict[str, str] = {}
        for record in self.records:
            if record.reason is not None:
                for name in record.names:
                    reasons.setdefault(name, record.reason)
        return reasons


def verify_pairs(
    records: Iterable[PairRecord],
    cameras: Mapping[str, Camera],
    photographs: Photographs | None = None,
    options: VerificationOptions | None = None,
) -> VerifiedPairs:
    """Keep the right matches of many pairs.

    Args:
        records: the pairs; read once, their pointmaps are not needed.
        cameras: known intrinsics by name, in original pixels.
        photographs: where the files are; gives focals from EXIF, and photographs without a pair.
        options: thresholds.

    Raises:
        InputError: as ``photograph_cameras``.
    """
    options = options or VerificationOptions()
    pairs = [replace(record, pointmaps=None) for record in records]
    found = photograph_cameras(pairs, cameras, photographs, seed=options.seed)
    left = tuple(
        verify_pair(pair, found[pair.name0].camera, found[pair.name1].camera, options)
        for pair in pairs
    )
    return VerifiedPairs(left, found)


def verify_pair(
    record: PairRecord,
    camera0: Camera,
    camera1: Camera,
    options: VerificationOptions | None = None,
) -> PairRecord:
    """The pair with the matches that agree with one essential matrix, without pointmaps.

    Args:
        record: the pair.
        camera0: intrinsics of photograph 0, known or guessed.
        camera1: the same of photograph 1.
        options: thresholds.
    """
    options = options or VerificationOptions()
    mask = np.zeros(len(record), np.bool_)
    reason = record.reason
    if reason is None:
        limit = options.max_error_px(record.size0, record.size1)
        found = estimate_relative_pose(
            record.matches.keypoints0.numpy(),
            record.matches.keypoints1.numpy(),
            camera0=camera0,
            camera1=camera1,
            size0=record.size0,
            size1=record.size1,
            options=options.relative_pose(limit),
            confidence=record.matches.confidence.numpy(),
        )
        reason = found.reason or _by_chance(record, found.num_inliers, limit, options)
        if reason is None:
            mask = found.inlier_mask.copy()
    left = record.matches.select(torch.from_numpy(mask))
    return replace(record, matches=left, reason=reason, pointmaps=None)


def _by_chance(
    record: PairRecord, agreeing: int, limit: float, options: VerificationOptions
) -> str | None:
    """Why the matches that agree could agree by chance, or ``None``."""
    chance = required_inliers(len(record), record.size0, record.size1, limit, options.min_inliers)
    needed = int(np.ceil(_CHANCE_FACTOR * chance))
    if agreeing >= needed:
        return None
    return (
        f"{agreeing} of {len(record)} matches agree on a pose, which chance could do; {needed} are "
        "needed"
    )
