"""Fit how sure a model may be of its matches, on pairs with known truth.

Three kinds of pairs: views of rendered scenes, two warps of one photograph, and views or
photographs of different places, of which every match is wrong. None of them should have been
trained on. Each pair counts the same, however many matches it has.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import expit

from matcher.calibration import (
    MATCH_FEATURES,
    PAIR_FEATURES,
    ConfidenceCalibration,
    LogisticMapping,
)
from matcher.errors import InputError
from matcher.geometry.pixels import to_original
from matcher.images import prepare_view
from matcher.model.network import TwoViewNetwork
from matcher.structures import FloatArray
from matcher.synthetic.pairs import correspondences
from matcher.training.augment import photometric
from matcher.training.sources import (
    DepthGroup,
    ScenePool,
    find_photos,
    homography_views,
    read_photo,
)
from matcher.view_matching import PairOptions, match_evidence

__all__ = [
    "CalibrationOptions",
    "CalibrationReport",
    "KnownPair",
    "draw_known_pairs",
    "expected_calibration_error",
    "fit_calibration",
]

ByteImage = npt.NDArray[np.uint8]
_RIDGE = 1e-3
_LEAST_OVERLAP = 0.1
_LEAST_PAIRS = 8
_LEAST_OF_A_KIND = 3


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """How the pairs are drawn and matched.

    Attributes:
        num_pairs: of all kinds together.
        unrelated_share: of pairs without a common place.
        image_size: long side of the photographs' views, pixels.
        radius_px: a match is right within so many pixels of the network's view.
        seed: of all randomness.
    """

    num_pairs: int = 240
    unrelated_share: float = 0.2
    image_size: int = 512
    radius_px: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_pairs < _LEAST_PAIRS or self.image_size < 64:
            raise InputError("calibration options", f"{_LEAST_PAIRS} pairs of 64 pixels", f"{self}")
        if not 0 < self.unrelated_share < 1 or not self.radius_px > 0:
            raise InputError("calibration options", "a share in (0, 1), a radius > 0", f"{self}")


@dataclass(frozen=True, slots=True, eq=False)
class KnownPair:
    """Two images and where every pixel of the first lies in the second.

    Attributes:
        image0: (H, W, 3) uint8 RGB.
        image1: (H1, W1, 3) uint8 RGB.
        target: (H, W, 2) pixels of image 1, x then y.
        visible: (H, W) bool, where ``target`` holds.
    """

    image0: ByteImage
    image1: ByteImage
    target: FloatArray
    visible: npt.NDArray[np.bool_]

    @property
    def overlap(self) -> float:
        """Share of image 0 that is seen in image 1."""
        return float(self.visible.mean())


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """How well the mapping fits on a third of the pairs, which it was not fitted to.

    Attributes:
        num_pairs, num_matches: seen in all.
        share_right: of the matches of pairs with a common place.
        expected_calibration_error: of the match probability, 15 bins of equal width.
        match_auc, pair_auc: area under the ROC curve of match and overlap score.
    """

    num_pairs: int
    num_matches: int
    share_right: float
    expected_calibration_error: float
    match_auc: float
    pair_auc: float


def draw_known_pairs(
    scene_pools: Sequence[str], photos: Sequence[str], options: CalibrationOptions
) -> Iterator[KnownPair]:
    """Pairs of all kinds, the sources in turn.

    Args:
        scene_pools: folders written by ``matcher.synthetic.pool``.
        photos: folders of photographs.
        options: how many, and the seed.

    Raises:
        InputError: no source. DatasetError: one that cannot be read.
    """
    random = np.random.default_rng(options.seed)
    pool = ScenePool(scene_pools) if scene_pools else None
    files = find_photos(photos) if photos else []
    if pool is None and len(files) < 2:
        raise InputError("scene_pools, photos", "at least one source", "none")
    shape = (options.image_size * 3 // 4, options.image_size)
    for number in range(options.num_pairs):
        related = random.random() >= options.unrelated_share
        if pool is not None and (number % 2 == 0 or not files):
            yield _from_scenes(random, pool, related)
        else:
            yield _from_photos(random, files, shape, related)


def _from_scenes(random: np.random.Generator, pool: ScenePool, related: bool) -> KnownPair:
    group = pool.draw_group(random)
    first, second = (int(index) for index in random.choice(len(group.images), 2, replace=False))
    if related:
        return _seen(random, group, first, second)
    other = pool.draw_group(random)
    while other.images[0].shape == group.images[0].shape and np.array_equal(
        other.images[0], group.images[0]
    ):
        other = pool.draw_group(random)
    return _unrelated(group.images[first], other.images[second])


def _seen(random: np.random.Generator, group: DepthGroup, first: int, second: int) -> KnownPair:
    cam1_from_cam0 = group.cam_from_world[second] @ np.linalg.inv(group.cam_from_world[first])
    found = correspondences(
        torch.from_numpy(group.depths[first]),
        torch.from_numpy(group.intrinsics[first]),
        torch.from_numpy(group.depths[second]),
        torch.from_numpy(group.intrinsics[second]),
        torch.from_numpy(cam1_from_cam0),
        tolerance=0.02,
    )
    return KnownPair(
        photometric(random, group.images[first]),
        photometric(random, group.images[second]),
        found.target.double().numpy(),
        found.valid.numpy(),
    )


def _from_photos(
    random: np.random.Generator, files: Sequence[Path], shape: tuple[int, int], related: bool
) -> KnownPair:
    first, second = (int(index) for index in random.choice(len(files), 2, replace=False))
    photo = read_photo(files[first])
    views = homography_views(random, photo, shape)
    if not related:
        other = homography_views(random, read_photo(files[second]), shape)
        return _unrelated(views.image0, other.image1)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    grid = np.stack([columns, rows, np.ones(shape)], axis=-1)
    target, on_photo = (
        mapped[..., :2] / mapped[..., 2:]
        for mapped in (grid @ matrix.T for matrix in (views.view1_from0, views.photo_from0))
    )
    size = photo.shape
    visible = ((target >= 0) & (target <= [shape[1] - 1, shape[0] - 1])).all(axis=-1)
    visible &= ((on_photo >= 0) & (on_photo <= [size[1] - 1, size[0] - 1])).all(axis=-1)
    return KnownPair(views.image0, views.image1, target, np.asarray(visible))


def _unrelated(image0: ByteImage, image1: ByteImage) -> KnownPair:
    nowhere = np.zeros(image0.shape[:2], dtype=bool)
    return KnownPair(image0, image1, np.zeros((*nowhere.shape, 2)), nowhere)


@dataclass(frozen=True, slots=True, eq=False)
class _Observed:
    """One pair's features and what was right."""

    match: FloatArray
    right: npt.NDArray[np.bool_]
    pair: FloatArray
    overlap: float


@torch.inference_mode()
def _observe(network: TwoViewNetwork, pair: KnownPair, options: CalibrationOptions) -> _Observed:
    patch = network.config.patch_size
    view0, view1 = (
        prepare_view(image, max_size=options.image_size, patch_size=patch)
        for image in (pair.image0, pair.image1)
    )
    device = next(network.parameters()).device
    encoded = network.encode_each([view0.pixels.to(device), view1.pixels.to(device)])
    prediction = network.decode_each([encoded[0]], [encoded[1]])[0]
    evidence = match_evidence(view0, view1, prediction, PairOptions())
    ends0, ends1 = (
        to_original(pixels.cpu().numpy().astype(np.float64), view.original_from_network)
        for pixels, view in (
            (evidence.matches.pixels0, view0),
            (evidence.matches.pixels1, view1),
        )
    )
    rows = np.clip(np.rint(ends0[:, 1]), 0, pair.visible.shape[0] - 1).astype(int)
    columns = np.clip(np.rint(ends0[:, 0]), 0, pair.visible.shape[1] - 1).astype(int)
    error = np.linalg.norm(pair.target[rows, columns] - ends1, axis=1)
    radius = options.radius_px * view1.original_px
    return _Observed(
        evidence.features.match.double().cpu().numpy(),
        pair.visible[rows, columns] & (error <= radius),
        evidence.features.pair.double().cpu().numpy(),
        pair.overlap,
    )


def fit_calibration(
    network: TwoViewNetwork,
    pairs: Iterator[KnownPair],
    options: CalibrationOptions | None = None,
) -> tuple[ConfidenceCalibration, CalibrationReport]:
    """Match the pairs and fit both mappings; two thirds fit, one third judges.

    Args:
        network: with descriptors; in evaluation mode.
        pairs: with known truth.
        options: as they were drawn with.

    Raises:
        InputError: pairs of which all, or none, have a common place; too few.
    """
    options = options or CalibrationOptions()
    seen = [_observe(network, pair, options) for pair in pairs]
    clear = [entry for entry in seen if entry.overlap == 0 or entry.overlap >= _LEAST_OVERLAP]
    kinds = [[e for e in clear if (e.overlap > 0) == related] for related in (True, False)]
    if min(map(len, kinds)) < _LEAST_OF_A_KIND:
        raise InputError(
            "pairs",
            f"at least {_LEAST_OF_A_KIND} both with and without a common place",
            f"{len(kinds[0])} with and {len(kinds[1])} without",
        )
    fitted = [entry for kind in kinds for row, entry in enumerate(kind) if row % 3]
    judged = [entry for kind in kinds for entry in kind[::3]]
    match = _fit(MATCH_FEATURES, *_matches(fitted))
    pair = _fit(PAIR_FEATURES, *_pairs(fitted))
    calibration = ConfidenceCalibration(match, pair, options.radius_px)
    features, right, weight = _matches(judged)
    sure = _predict(match, features)
    pair_features, related_flags, _ = _pairs(judged)
    report = CalibrationReport(
        len(seen),
        sum(len(entry.right) for entry in seen),
        float(np.mean([entry.right.mean() for entry in seen if entry.overlap > 0])),
        expected_calibration_error(sure, right, weight),
        _roc_area(sure, right, weight),
        _roc_area(_predict(pair, pair_features), related_flags, np.ones(len(related_flags))),
    )
    return calibration, report


def _matches(
    entries: Sequence[_Observed],
) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    weight = [np.full(len(e.right), 1.0 / max(1, len(e.right))) for e in entries]
    return (
        np.concatenate([entry.match for entry in entries]),
        np.concatenate([entry.right for entry in entries]),
        np.concatenate(weight),
    )


def _pairs(entries: Sequence[_Observed]) -> tuple[FloatArray, npt.NDArray[np.bool_], FloatArray]:
    related = np.array([entry.overlap > 0 for entry in entries])
    return np.stack([entry.pair for entry in entries]), related, np.ones(len(entries))


def _fit(
    names: tuple[str, ...], features: FloatArray, label: npt.NDArray[np.bool_], weight: FloatArray
) -> LogisticMapping:
    """Weighted logistic regression with a slight ridge, by L-BFGS."""
    weight = weight / weight.sum()
    means = weight @ features
    scales = np.sqrt(weight @ (features - means) ** 2).clip(1e-3)
    design = np.concatenate([(features - means) / scales, np.ones((len(features), 1))], axis=1)
    signs = np.where(label, 1.0, -1.0)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = signs * (design @ parameters)
        value = float(weight @ np.logaddexp(0, -margin))
        slope = -(weight * signs * expit(-margin)) @ design
        ridge = _RIDGE * parameters.copy()
        ridge[-1] = 0
        return value + 0.5 * float(ridge @ parameters), slope + ridge

    found = minimize(loss, np.zeros(design.shape[1]), jac=True, method="L-BFGS-B")
    *weights, bias = (float(value) for value in found.x)
    return LogisticMapping(names, tuple(means), tuple(scales), tuple(weights), bias)


def _predict(mapping: LogisticMapping, features: FloatArray) -> FloatArray:
    probability = mapping.probability(torch.from_numpy(features))
    return np.asarray(probability.double().numpy(), dtype=np.float64)


def expected_calibration_error(
    confidence: FloatArray,
    right: npt.NDArray[np.bool_],
    weight: FloatArray | None = None,
    num_bins: int = 15,
) -> float:
    """Mean distance between confidence and accuracy over bins of equal width, in [0, 1].

    Args:
        confidence: (M,) in [0, 1].
        right: (M,).
        weight: (M,) of the matches; ``None``: all the same.
        num_bins: bins between 0 and 1.
    """
    if not len(confidence):
        return float("nan")
    weight = np.ones(len(confidence)) if weight is None else weight
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gap = np.bincount(bins, weight * (confidence - right), minlength=num_bins)
    return float(np.abs(gap).sum() / weight.sum())


def _roc_area(score: FloatArray, label: npt.NDArray[np.bool_], weight: FloatArray) -> float:
    """Probability that a positive outscores a negative, ties counting half."""
    values, position = np.unique(score, return_inverse=True)
    positive = np.bincount(position, weight * label, minlength=len(values))
    negative = np.bincount(position, weight * ~label, minlength=len(values))
    below = np.concatenate([[0.0], np.cumsum(negative)[:-1]])
    total = positive.sum() * negative.sum()
    return float(positive @ (below + 0.5 * negative) / total) if total else float("nan")
