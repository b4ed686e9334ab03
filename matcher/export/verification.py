"""Which matches of a pair agree with one epipolar geometry, and whether that means anything.

PoseLib's LO-RANSAC does the search. COLMAP's own takes tens of times as long on pairs in which most
matches are wrong, as they are for two unrelated photographs; what is left after this search it
classifies in no time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import poselib
import torch

from matcher.errors import InputError
from matcher.geometry.ransac import RansacOptions, poselib_options
from matcher.geometry.relative import estimate_relative_pose
from matcher.geometry.relative_solvers import RelativePoseOptions
from matcher.geometry.support import required_inliers
from matcher.pair_records import PairRecord
from matcher.structures import Camera, ImageSize

__all__ = ["VerificationOptions", "Verified", "verify", "verify_all"]

_MIN_MATCHES_FUNDAMENTAL = 8
# How many times what chance explains (``required_inliers``) must agree. A wrong pair harms a
# reconstruction more than a right one helps: of ten tourists' photographs of one church, these
# leave 29 pairs of which 25 are right, and 20 of which 19 are; a factor of 1.5 leaves 35, 26 right.
_ESSENTIAL_FACTOR = 2.0
_FUNDAMENTAL_FACTOR = 2.5  # it has two degrees of freedom more to collect wrong matches with


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
class Verified:
    """What is left of a pair.

    Attributes:
        record: with only the matches that agree, and without pointmaps.
        num_matches: how many there were.
        reason: ``None`` with matches left; otherwise one sentence that says why there are none.
    """

    record: PairRecord
    num_matches: int
    reason: str | None


def verify(
    record: PairRecord,
    camera0: Camera | None,
    camera1: Camera | None,
    options: VerificationOptions | None = None,
) -> Verified:
    """Keep the matches of a pair that agree with one essential or fundamental matrix.

    Args:
        record: the pair.
        camera0: known intrinsics of photograph 0, or ``None``.
        camera1: the same of photograph 1. With both known, the matrix is essential.
        options: thresholds.
    """
    options = options or VerificationOptions()
    if record.reason is not None or not len(record):
        mask, reason = np.zeros(len(record), np.bool_), record.reason or "no match at all"
    elif camera0 is not None and camera1 is not None:
        mask, reason = _by_essential(record, camera0, camera1, options)
        reason = reason or _by_chance(record, mask, _ESSENTIAL_FACTOR, options)
    else:
        mask, reason = _by_fundamental(record, options)
        reason = reason or _by_chance(record, mask, _FUNDAMENTAL_FACTOR, options)
    if reason is not None:
        mask[:] = False
    left = record.matches.select(torch.from_numpy(mask))
    kept = replace(record, matches=left, reason=reason, pointmaps=None)
    return Verified(kept, len(record), reason)


def verify_all(
    records: Iterable[PairRecord],
    cameras: Mapping[str, Camera],
    options: VerificationOptions | None = None,
) -> Iterator[Verified]:
    """:func:`verify` for every pair, with the cameras known by name."""
    for record in records:
        yield verify(record, cameras.get(record.name0), cameras.get(record.name1), options)


def _by_essential(
    record: PairRecord, camera0: Camera, camera1: Camera, options: VerificationOptions
) -> tuple[npt.NDArray[np.bool_], str | None]:
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
    return found.inlier_mask.copy(), found.reason


def _by_fundamental(
    record: PairRecord, options: VerificationOptions
) -> tuple[npt.NDArray[np.bool_], str | None]:
    limit = options.max_error_px(record.size0, record.size1)
    mask = np.zeros(len(record), np.bool_)
    if len(record) < _MIN_MATCHES_FUNDAMENTAL:
        return mask, f"{len(record)} matches; at least {_MIN_MATCHES_FUNDAMENTAL} are needed"
    ransac = RansacOptions(
        max_error_px=limit, max_iterations=options.max_iterations, seed=options.seed
    )
    _, info = poselib.estimate_fundamental(
        record.matches.keypoints0.double().numpy(),
        record.matches.keypoints1.double().numpy(),
        poselib_options(ransac),
    )
    mask[:] = info["inliers"]
    return mask, None


def _by_chance(
    record: PairRecord, mask: npt.NDArray[np.bool_], factor: float, options: VerificationOptions
) -> str | None:
    """Why the matches that agree could agree by chance, or ``None``."""
    limit = options.max_error_px(record.size0, record.size1)
    chance = required_inliers(len(record), record.size0, record.size1, limit, options.min_inliers)
    needed, agreeing = int(np.ceil(factor * chance)), int(mask.sum())
    if agreeing >= needed:
        return None
    return (
        f"{agreeing} of {len(record)} matches agree on an epipolar geometry, which chance could "
        f"do; {needed} are needed"
    )
