"""Which parts of two photographs to match again, and how to bring them to one shape.

Matches of the whole photographs say which places correspond, and how the surface around each of
them was foreshortened, turned and scaled from one photograph to the other: an affine map. Crops
are planned after the coarse-to-fine scheme of MASt3R (section 3.4): those that show most of the
matches come first. Unlike there, both crops of a pair are warped, each halfway along that map, so
that the surface looks alike in both, and only what is left of the change of viewpoint is the
network's to overcome. One place may be looked at by several crops where slopes meet.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.neighbourhoods import local_motion
from matcher.structures import FloatArray, ImageSize, Matches

__all__ = ["CropPair", "plan_crops"]

_BoolArray = npt.NDArray[np.bool_]

# Sides of a crop, in long sides of the photograph: small ones see too little around a match, and
# many would be needed for all of a large photograph.
_SMALLEST_SHARE, _LARGEST_SHARE = 0.35, 0.65
# Relative to the side of the crop: how far from the map a match may lie to be seen by the crop, and
# how far it may lie to count in full when the map is fitted.
_REACH, _FIT_SCALE = 0.12, 0.04
_FIT_ROUNDS = 4
_PRIOR_MATCHES = 0.5
_PLAIN_ADVANTAGE = 1.3
_CANDIDATES = 200
_SEEN_AGAIN = 0.15
_LEAST_RIGHT, _LEAST_SHARE = 6.0, 0.03
_LEAST_DETERMINANT, _LARGEST_DETERMINANT, _LARGEST_TILT = 0.03, 30.0, 5.0
_LEAST_TRUST = 0.05
_FEWEST_MATCHES, _FEWEST_FITTED = 12, 3
# Network features forgive this much; below it a crop of a small photograph shows nothing new.
_SAME_TILT, _SAME_SCALE, _SAME_TURN_DEG = 1.25, 1.3, 15.0


@dataclass(frozen=True, slots=True, eq=False)
class CropPair:
    """Two crops to be matched with each other.

    Attributes:
        size: of both; wide or tall as photograph 0.
        crop_from_original0: (3, 3) affine map, pixels of photograph 0 to those of its crop.
        crop_from_original1: (3, 3) the same for photograph 1.
        expected_right: how many right matches the crops show that no crop before them does.
    """

    size: ImageSize
    crop_from_original0: FloatArray
    crop_from_original1: FloatArray
    expected_right: float

    @property
    def original_px(self) -> tuple[float, float]:
        """Side of the square that a pixel of either crop covers in its photograph, pixels."""
        scales = [
            1 / math.sqrt(np.linalg.det(matrix[:2, :2]))
            for matrix in (self.crop_from_original0, self.crop_from_original1)
        ]
        return scales[0], scales[1]

    @property
    def changes_shape(self) -> bool:
        """Whether the photographs show the place so differently that the warp makes up for much."""
        maps = self.crop_from_original0[:2, :2], self.crop_from_original1[:2, :2]
        change = np.linalg.solve(maps[1], maps[0])
        left, stretch, right = np.linalg.svd(change)
        rotation = left @ right
        turn = math.degrees(math.atan2(rotation[1, 0], rotation[0, 0]))
        scale = math.sqrt(stretch[0] * stretch[1])
        return (
            stretch[0] > _SAME_TILT * stretch[1]
            or max(scale, 1 / scale) > _SAME_SCALE
            or abs(turn) > _SAME_TURN_DEG
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Motion:
    """``x1 = centre1 + linear @ (x0 - centre0)``, pixels of the photographs."""

    linear: FloatArray
    centre0: FloatArray
    centre1: FloatArray

    def sides(self, side: float) -> tuple[float, float]:
        """Of a crop in either photograph, pixels; ``side`` is their geometric mean."""
        stretch = float(np.linalg.det(self.linear)) ** 0.25
        return side / stretch, side * stretch

    def shows(self, keypoints0: FloatArray, keypoints1: FloatArray, side: float) -> _BoolArray:
        """(M,) bool, which matches lie in a crop about the centre and go by this map."""
        side0, side1 = self.sides(side)
        near: _BoolArray = np.abs(keypoints0 - self.centre0).max(axis=1) < side0 / 2
        return near & (self.distances(keypoints0, keypoints1) < _REACH * side1)

    def distances(self, keypoints0: FloatArray, keypoints1: FloatArray) -> FloatArray:
        """(M,) of the ends in photograph 1 from where the map puts them."""
        expected = (keypoints0 - self.centre0) @ self.linear.T + self.centre1
        apart: FloatArray = np.linalg.norm(keypoints1 - expected, axis=1)
        return apart


def plan_crops(
    matches: Matches,
    size0: ImageSize,
    size1: ImageSize,
    *,
    max_size: int = 512,
    max_crops: int = 8,
    patch_size: int = 16,
) -> list[CropPair]:
    """Choose pairs of crops, the most useful first.

    Every match is a candidate: a crop about it, under the affine map around it. The one that shows
    most right matches, by their confidence, is taken; what it shows counts little from then on.

    Args:
        matches: of the whole photographs, in their pixels.
        size0: of photograph 0.
        size1: of photograph 1.
        max_size: long side of the views that the matches come from, and of the crops, pixels.
        max_crops: at most so many pairs.
        patch_size: the sides of the crops are multiples of it.

    Returns:
        No pair if no crop would show enough matches that agree.

    Raises:
        InputError: a number that is not positive.
    """
    for name, value, smallest in (
        ("max_size", max_size, patch_size),
        ("max_crops", max_crops, 1),
        ("patch_size", patch_size, 1),
    ):
        if value < smallest:
            raise InputError(name, f"at least {smallest}", f"{value}")
    if len(matches) < _FEWEST_MATCHES:
        return []
    ends = matches.keypoints0.cpu().double().numpy(), matches.keypoints1.cpu().double().numpy()
    weights = matches.confidence.cpu().double().numpy()
    long_side = math.sqrt(max(size0.height, size0.width) * max(size1.height, size1.width))
    side = min(max(max_size, _SMALLEST_SHARE * long_side), _LARGEST_SHARE * long_side)
    coarse = [max(1.0, max(size.height, size.width) / max_size) for size in (size0, size1)]
    around = local_motion(
        matches.keypoints0.cpu() / coarse[0], matches.keypoints1.cpu() / coarse[1]
    )
    linear = around.view1_from_view0.double().numpy() * (coarse[1] / coarse[0])
    candidates = np.flatnonzero(_is_sensible(linear))
    if not len(candidates):
        return []
    trust = _LEAST_TRUST + around.support.double().numpy().max(axis=1)[candidates]
    left, pairs = weights.copy(), list[CropPair]()
    plain = np.eye(2) * (coarse[1] / coarse[0])
    long = max_size // patch_size * patch_size
    short = max(patch_size, 3 * long // 4 // patch_size * patch_size)
    is_wide = size0.width >= size0.height
    size = ImageSize(short, long) if is_wide else ImageSize(long, short)
    least = max(_LEAST_RIGHT, _LEAST_SHARE * float(weights.sum()))
    while len(pairs) < max_crops:
        promising = candidates[np.argsort(-left[candidates] * trust, kind="stable")[:_CANDIDATES]]
        sloped = [_Motion(linear[row], ends[0][row], ends[1][row]) for row in promising]
        unsloped = [_Motion(plain, motion.centre0, motion.centre1) for motion in sloped]
        motions = sloped + unsloped
        shown = [motion.shows(*ends, side) for motion in motions]
        worth = np.array([left[seen].sum() for seen in shown])
        worth[len(sloped) :] /= _PLAIN_ADVANTAGE
        best = int(np.argmax(worth))
        if worth[best] < least:
            break
        motion = _fitted(motions[best], plain, *ends, weights, side)
        seen = motion.shows(*ends, side)
        frames = _frames(motion, long / side, size, size0)
        pairs.append(CropPair(size, *frames, float(left[seen].sum())))
        left[seen | shown[best]] *= _SEEN_AGAIN
    return pairs


def _is_sensible(linear: FloatArray) -> _BoolArray:
    """Which (..., 2, 2) maps a surface could have gone by: no mirror, no collapse."""
    determinant = np.linalg.det(linear)
    stretch = np.linalg.svd(linear, compute_uv=False)
    sensible: _BoolArray = (determinant > _LEAST_DETERMINANT) & (determinant < _LARGEST_DETERMINANT)
    return sensible & (stretch[..., 0] < _LARGEST_TILT * stretch[..., 1])


def _fitted(
    motion: _Motion,
    plain: FloatArray,
    keypoints0: FloatArray,
    keypoints1: FloatArray,
    weights: FloatArray,
    side: float,
) -> _Motion:
    """The map that the matches of a crop agree on, about their middle (Cauchy weights)."""
    for _ in range(_FIT_ROUNDS):
        counted = weights * motion.shows(keypoints0, keypoints1, side)
        if np.count_nonzero(counted) < _FEWEST_FITTED:
            break
        centre0 = counted @ keypoints0 / counted.sum()
        apart = motion.distances(keypoints0, keypoints1) / (_FIT_SCALE * motion.sides(side)[1])
        trusted = counted / (1 + np.square(apart))
        offsets = np.column_stack([keypoints0 - centre0, np.ones(len(keypoints0))])
        # Few matches say little of a slope: as if some more had moved without any.
        spread = _PRIOR_MATCHES * (motion.sides(side)[0] / 4) ** 2
        prior = np.diag([spread, spread, 0.0])
        before = np.vstack([plain.T, np.zeros(2)])
        solved = np.linalg.solve(
            offsets.T @ (offsets * trusted[:, None]) + prior,
            offsets.T @ (keypoints1 * trusted[:, None]) + prior @ before,
        )
        if not _is_sensible(solved[:2].T):
            break
        motion = _Motion(solved[:2].T, centre0, solved[2])
    return motion


def _frames(
    motion: _Motion, zoom: float, size: ImageSize, size0: ImageSize
) -> tuple[FloatArray, FloatArray]:
    """(3, 3) each, photographs to crops of ``size`` about the motion's centre.

    Photograph 1 is turned to photograph 0, and either takes half of the stretch.
    """
    left, stretch, right = np.linalg.svd(motion.linear)
    half0 = zoom * right.T @ np.diag(np.sqrt(stretch)) @ right
    half1 = zoom * right.T @ np.diag(1 / np.sqrt(stretch)) @ left.T
    middle = np.array([size.width - 1, size.height - 1]) / 2
    # Beyond the border of the photograph there is nothing to be seen.
    reach = np.abs(np.linalg.inv(half0)) @ (middle + 0.5)
    last = np.array([size0.width - 1, size0.height - 1])
    centre0 = motion.centre0.clip(np.minimum(reach, last / 2), np.maximum(last - reach, last / 2))
    centre1 = motion.centre1 + motion.linear @ (centre0 - motion.centre0)
    return _about(half0, centre0, middle), _about(half1, centre1, middle)


def _about(linear: FloatArray, centre: FloatArray, middle: FloatArray) -> FloatArray:
    """(3, 3) map that brings ``centre`` to ``middle``."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = middle - linear @ centre
    return matrix
