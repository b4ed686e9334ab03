"""Registration of two 3-D point sets with known correspondence (Procrustes).

The closed form is Umeyama's (1991): scipy aligns the centred sets, and the scale follows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from matcher.errors import InputError
from matcher.geometry.ransac import expand_mask, finite_rows
from matcher.structures import FloatArray, Pose

__all__ = [
    "Registration",
    "RegistrationEstimate",
    "RegistrationKind",
    "estimate_registration",
    "fit_registration",
]

RegistrationKind = Literal["rigid", "similarity"]

_SAMPLE = 3
_REFINEMENTS = 5
# Two singular values are needed for a rotation; below this ratio the points are on one line.
_COLLINEAR_RATIO = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Registration:
    """A similarity ``target = scale * rotation @ source + translation``.

    Attributes:
        target_from_source: its rotation and translation.
        scale: its scale, > 0; 1 for a rigid registration.
    """

    target_from_source: Pose
    scale: float

    def transform(self, points: npt.ArrayLike) -> FloatArray:
        """Map (..., 3) points from the source frame into the target frame."""
        return self.target_from_source.transform(self.scale * np.asarray(points, dtype=np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class RegistrationEstimate:
    """A registration found among outliers.

    Attributes:
        registration: the similarity, fitted to the inliers.
        inlier_mask: (M,) bool, correspondences within the threshold.
    """

    registration: Registration
    inlier_mask: npt.NDArray[np.bool_]

    @property
    def num_inliers(self) -> int:
        """Number of correspondences within the threshold."""
        return int(np.count_nonzero(self.inlier_mask))


def fit_registration(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    kind: RegistrationKind = "similarity",
    weights: npt.ArrayLike | None = None,
) -> Registration | None:
    """Weighted least squares in closed form.

    Args:
        source: (M, 3).
        target: (M, 3); row i corresponds to row i of ``source``.
        kind: ``"rigid"`` keeps the scale at 1.
        weights: (M,) >= 0, or ``None``: all 1.

    Returns:
        The registration, or ``None`` where it is not unique: fewer than 3 points, or points on
        one line.

    Raises:
        InputError: wrong shapes, NaN, negative weights, an unknown kind.
    """
    _check_kind(kind)
    finite, (a, b) = finite_rows(("source", source, 3), ("target", target, 3))
    if not finite.all():
        raise InputError("source and target", "finite numbers", "NaN or infinity")
    w = np.ones(len(a)) if weights is None else np.asarray(weights, dtype=np.float64)
    if w.shape != (len(a),) or not np.isfinite(w).all() or (w < 0).any():
        raise InputError("weights", f"({len(a)},) finite numbers >= 0", f"shape {w.shape}")
    return _fit(a, b, w, kind) if len(a) >= _SAMPLE and w.sum() > 0 else None


def estimate_registration(
    source: npt.ArrayLike,
    target: npt.ArrayLike,
    *,
    max_relative_error: float = 0.02,
    kind: RegistrationKind = "similarity",
    max_iterations: int = 1_000,
    confidence: float = 0.9999,
    seed: int = 0,
) -> RegistrationEstimate | None:
    """Registration among outliers: RANSAC over triples, then refits to the inliers.

    Args:
        source: (M, 3) points. Rows with NaN in either array count as outliers.
        target: (M, 3) points of the camera the target frame belongs to.
        max_relative_error: an inlier's error is at most this share of its distance from the
            target camera; the error of a pointmap grows with the distance.
        kind: ``"rigid"`` keeps the scale at 1.
        max_iterations: no more hypotheses than this.
        confidence: probability that an all-inlier triple was met, at which the search may stop.
        seed: the same seed and input give the same answer.

    Returns:
        The estimate, or ``None`` with fewer than 3 usable correspondences or no model.
    """
    _check_kind(kind)
    if not max_relative_error > 0:
        raise InputError("max_relative_error", "a positive number", f"{max_relative_error}")
    finite, (a, b) = finite_rows(("source", source, 3), ("target", target, 3))
    if len(a) < _SAMPLE:
        return None
    limits = max_relative_error * np.linalg.norm(b, axis=1)
    best = _search(a, b, limits, kind, max_iterations, confidence, seed)
    if best is None:
        return None
    registration = best
    for _ in range(_REFINEMENTS):
        inliers = _errors(registration, a, b) <= limits
        refined = _fit(a, b, inliers.astype(np.float64), kind)
        if refined is None or np.count_nonzero(_errors(refined, a, b) <= limits) < inliers.sum():
            break
        registration = refined
    return RegistrationEstimate(
        registration, expand_mask(finite, _errors(registration, a, b) <= limits)
    )


def _search(
    source: FloatArray,
    target: FloatArray,
    limits: FloatArray,
    kind: RegistrationKind,
    max_iterations: int,
    confidence: float,
    seed: int,
) -> Registration | None:
    generator = np.random.default_rng(seed)
    best: Registration | None = None
    best_cost, needed, tried = np.inf, float(max_iterations), 0
    while tried < min(needed, max_iterations):
        tried += 1
        rows = generator.choice(len(source), _SAMPLE, replace=False)
        candidate = _fit(source[rows], target[rows], np.ones(_SAMPLE), kind)
        if candidate is None:
            continue
        ratios = _errors(candidate, source, target) / np.maximum(limits, np.finfo(float).tiny)
        cost = float(np.minimum(ratios**2, 1.0).sum())  # truncated squares, as MSAC
        if cost < best_cost:
            best, best_cost = candidate, cost
            all_inlier = np.clip(np.mean(ratios <= 1.0) ** _SAMPLE, 1e-12, 1 - 1e-12)
            needed = np.log(1 - confidence) / np.log(1 - all_inlier)
    return best


def _fit(
    source: FloatArray, target: FloatArray, weights: FloatArray, kind: RegistrationKind
) -> Registration | None:
    share = weights / weights.sum()
    source_mean, target_mean = share @ source, share @ target
    a, b = source - source_mean, target - target_mean
    singular = np.linalg.svd((share[:, None] * b).T @ a, compute_uv=False)
    if not singular[1] > _COLLINEAR_RATIO * singular[0]:
        return None
    rotation = Rotation.align_vectors(b, a, weights=share)[0].as_matrix()
    scale = 1.0
    if kind == "similarity":
        scale = float(share @ np.sum(b * (a @ rotation.T), axis=1) / (share @ np.sum(a**2, axis=1)))
    if not (np.isfinite(scale) and scale > 0):
        return None
    return Registration(Pose(rotation, target_mean - scale * rotation @ source_mean), scale)


def _errors(registration: Registration, source: FloatArray, target: FloatArray) -> FloatArray:
    errors: FloatArray = np.linalg.norm(registration.transform(source) - target, axis=1)
    return errors


def _check_kind(kind: str) -> None:
    if kind not in get_args(RegistrationKind):
        raise InputError("kind", " or ".join(get_args(RegistrationKind)), repr(kind))
