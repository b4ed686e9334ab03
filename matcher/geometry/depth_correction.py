"""A depth map brought to the depths that are known at some of its pixels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.distance import cdist

from matcher.errors import InputError
from matcher.structures import FloatArray

__all__ = ["correct_depth"]

_SPACING_PX = 8
_RADIUS = 0.05  # of the long side: how far along the picture a known depth speaks
_LOG_DEPTH = 0.1  # how far along the (logarithm of the) depth
_PRIOR_WEIGHT, _LITTLE = 2.0, 1e-6
_ROUNDS = 3
# Less disagreement than this is none: a surface far from the usual factor must not lose its say.
_SMALLEST_SPREAD = 0.02
_CHUNK = 512


def correct_depth(
    depth: npt.ArrayLike,
    pixels: npt.ArrayLike,
    known: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
) -> FloatArray:
    """Multiply a depth map by a factor that is smooth on every surface of it.

    The logarithm of the factor is a mean over the known pixels, weighted by a Gaussian of their
    distance in the picture and another of their distance in depth, so that a correction does not
    run over the edge of a surface. Far from all known pixels the factor is their weighted median.
    Known depths that disagree with those around them lose their weight (Cauchy).

    Args:
        depth: (H, W) positive depths, in any unit; what is not finite or not positive stays.
        pixels: (M, 2) pixels of the map, x then y, inside it.
        known: (M,) their true depths, > 0, in the unit of the result.
        weights: (M,) >= 0, how far each is trusted; ``None``: 1 each.

    Returns:
        (H, W) depths.

    Raises:
        InputError: wrong shapes, no pixel, pixels outside, numbers that are not finite, or no
            known pixel where the map itself has a depth.
    """
    values = np.asarray(depth, dtype=np.float64)
    if values.ndim != 2:
        raise InputError("depth", "shape (H, W)", f"{values.shape}")
    places = np.asarray(pixels, dtype=np.float64)
    true = np.asarray(known, dtype=np.float64)
    trust = np.ones_like(true) if weights is None else np.asarray(weights, dtype=np.float64)
    if true.ndim != 1 or places.shape != (len(true), 2) or trust.shape != true.shape:
        raise InputError(
            "pixels, known, weights", "shapes (M, 2), (M,), (M,)", f"{places.shape}, {true.shape}"
        )
    if not all(np.isfinite(array).all() for array in (places, true, trust)):
        raise InputError("pixels, known, weights", "finite numbers", "NaN or infinity")
    if (true <= 0).any() or (trust < 0).any():
        raise InputError("known, weights", "depths > 0 and weights >= 0", "others")
    last = np.array([values.shape[1] - 1, values.shape[0] - 1])
    if ((places < -0.5) | (places > last + 0.5)).any():
        raise InputError("pixels", f"inside {values.shape[1]} x {values.shape[0]}", "some outside")
    usable = np.isfinite(values) & (values > 0)
    logarithm = np.log(_without_holes(values, usable))
    nearest = places.round().astype(int).clip(0, last)
    has_depth = usable[nearest[:, 1], nearest[:, 0]] & (trust > 0)
    if not has_depth.any():
        raise InputError("pixels", "some where the map has a depth", "none")
    places, trust, nearest = places[has_depth], trust[has_depth], nearest[has_depth]
    at_places = logarithm[nearest[:, 1], nearest[:, 0]]
    factor = np.log(true[has_depth]) - at_places
    scale = _RADIUS * max(values.shape)
    known_features = np.column_stack([places / scale, at_places / _LOG_DEPTH])
    counted = trust
    for _ in range(_ROUNDS):
        around = _smooth(known_features, known_features, factor, counted, _LITTLE)
        residual = factor - around
        spread = max(_SMALLEST_SPREAD, 1.48 * _weighted_median(np.abs(residual), trust))
        counted = trust / (1 + np.square(residual / (2 * spread)))
    rows = np.arange(0, values.shape[0] + _SPACING_PX - 1, _SPACING_PX).clip(0, last[1])
    columns = np.arange(0, values.shape[1] + _SPACING_PX - 1, _SPACING_PX).clip(0, last[0])
    y, x = np.meshgrid(rows, columns, indexing="ij")
    features = np.stack([x / scale, y / scale, logarithm[y, x] / _LOG_DEPTH], axis=2)
    lattice = _smooth(
        features.reshape(-1, 3), known_features, factor, counted, _PRIOR_WEIGHT
    ).reshape(y.shape)
    place = np.meshgrid(
        np.interp(np.arange(values.shape[0]), *_positions(rows)),
        np.interp(np.arange(values.shape[1]), *_positions(columns)),
        indexing="ij",
    )
    everywhere = ndimage.map_coordinates(lattice, place, order=1, mode="nearest")
    return np.where(usable, np.exp(logarithm + everywhere), values)


def _without_holes(values: FloatArray, usable: npt.NDArray[np.bool_]) -> FloatArray:
    """The map with the nearest usable depth where there is none: the lattice may lie in a hole."""
    if not usable.any():
        return np.ones_like(values)
    nearest = ndimage.distance_transform_edt(~usable, return_distances=False, return_indices=True)
    filled: FloatArray = values[tuple(nearest)]
    return filled


def _positions(lattice: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Pixels of the lattice, each once, and their numbers in it."""
    pixels, numbers = np.unique(lattice, return_index=True)
    return pixels, numbers.astype(np.float64)


def _smooth(
    features: FloatArray, known: FloatArray, factor: FloatArray, weights: FloatArray, prior: float
) -> FloatArray:
    """(N,) weighted means of ``factor`` around ``features``; ``prior``: weight of its median."""
    usual = _weighted_median(factor, weights)
    parts = []
    for start in range(0, len(features), _CHUNK):
        part = features[start : start + _CHUNK]
        kernel = np.exp(-0.5 * cdist(part, known, "sqeuclidean")) * weights
        total = kernel.sum(axis=1) + prior
        parts.append((kernel @ factor + prior * usual) / total)
    return np.concatenate(parts)


def _weighted_median(values: FloatArray, weights: FloatArray) -> float:
    order = np.argsort(values)
    passed = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(passed, passed[-1] / 2)]])
