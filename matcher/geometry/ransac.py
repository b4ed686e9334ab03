"""What every robust estimator of this package shares: its options and the care for its input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import poselib

from matcher.errors import InputError
from matcher.structures import Camera, FloatArray

__all__ = [
    "Estimator",
    "RansacOptions",
    "expand_mask",
    "finite_rows",
    "poselib_camera",
    "poselib_options",
    "usac_params",
]

Estimator = Literal["poselib", "magsac"]
_LARGEST_SEED = 2**31 - 1


@dataclass(frozen=True, slots=True)
class RansacOptions:
    """How a robust estimator searches.

    Attributes:
        max_error_px: a correspondence further than this from the model is an outlier; pixels.
        max_iterations: no more hypotheses than this.
        min_iterations: no fewer (PoseLib only).
        confidence: probability that the best model was met, at which the search may stop.
        seed: the same seed and input give the same answer, bit by bit.
        estimator: ``"poselib"`` (LO-RANSAC) or ``"magsac"`` (OpenCV's MAGSAC++).
        progressive: the correspondences come with the likeliest first, and samples are drawn from
            those before the rest (PROSAC); few right ones among many wrong are found sooner.

    Raises:
        InputError: a value out of its range.
    """

    max_error_px: float = 1.0
    max_iterations: int = 20_000
    min_iterations: int = 1_000
    confidence: float = 0.9999
    seed: int = 0
    estimator: Estimator = "poselib"
    progressive: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.max_error_px) and self.max_error_px > 0):
            raise InputError("max_error_px", "a positive number of pixels", f"{self.max_error_px}")
        if self.max_iterations < 1:
            raise InputError("max_iterations", "at least 1", f"{self.max_iterations}")
        if self.min_iterations < 0:
            raise InputError("min_iterations", "at least 0", f"{self.min_iterations}")
        if not 0 < self.confidence < 1:
            raise InputError("confidence", "a number in (0, 1)", f"{self.confidence}")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise InputError("seed", f"an integer in [0, {_LARGEST_SEED}]", f"{self.seed}")
        if self.estimator not in get_args(Estimator):
            raise InputError("estimator", " or ".join(get_args(Estimator)), repr(self.estimator))


def poselib_options(options: RansacOptions) -> dict[str, Any]:
    """The options as PoseLib names them; its threshold has two names, by what is estimated."""
    return {
        **poselib.RansacOptions(),
        "max_epipolar_error": options.max_error_px,
        "max_reproj_error": options.max_error_px,
        "max_iterations": options.max_iterations,
        "min_iterations": min(options.min_iterations, options.max_iterations),
        "success_prob": options.confidence,
        "seed": options.seed,
        "progressive_sampling": options.progressive,
    }


def poselib_camera(camera: Camera) -> dict[str, Any]:
    """The pinhole part of a camera as PoseLib names it (keypoints come to it undistorted)."""
    # PoseLib reads the size from the dictionary but does not use it for a pinhole camera.
    return {
        "model": "PINHOLE",
        "width": camera.size.width if camera.size else -1,
        "height": camera.size.height if camera.size else -1,
        "params": [*camera.focals, *camera.principal_point],
    }


def usac_params(options: RansacOptions) -> cv2.UsacParams:
    """OpenCV's USAC set up as MAGSAC++ (what ``cv2.USAC_MAGSAC`` selects), with our seed."""
    params = cv2.UsacParams()
    params.sampler = cv2.SAMPLING_PROSAC if options.progressive else cv2.SAMPLING_UNIFORM
    params.score = cv2.SCORE_METHOD_MAGSAC
    params.loMethod = cv2.LOCAL_OPTIM_SIGMA
    params.final_polisher = cv2.MAGSAC
    params.confidence = options.confidence
    params.maxIterations = options.max_iterations
    params.threshold = options.max_error_px
    params.randomGeneratorState = options.seed
    params.isParallel = False
    return params


def finite_rows(
    *columns: tuple[str, npt.ArrayLike, int],
) -> tuple[npt.NDArray[np.bool_], list[FloatArray]]:
    """Rows of several arrays in which every number is finite.

    Args:
        columns: (argument name, array of shape (M, D), D) for each; M is the same for all.

    Returns:
        (M,) bool, and the float64 arrays with only those rows.

    Raises:
        InputError: a wrong shape, or arrays of different lengths.
    """
    arrays: list[FloatArray] = []
    for name, value, dimension in columns:
        array = np.asarray(value, dtype=np.float64)
        rows = len(arrays[0]) if arrays else "M"
        if array.ndim != 2 or array.shape[1] != dimension or (arrays and len(array) != rows):
            raise InputError(name, f"shape ({rows}, {dimension})", f"{array.shape}")
        arrays.append(array)
    finite = np.ones(len(arrays[0]), dtype=np.bool_)
    for array in arrays:
        finite &= np.isfinite(array).all(axis=1)
    return finite, [array[finite] for array in arrays]


def expand_mask(rows: npt.NDArray[np.bool_], mask_of_rows: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """(M,) bool from a mask over the rows that ``rows`` selected out of M."""
    full = np.zeros(len(rows), dtype=np.bool_)
    full[rows] = np.asarray(mask_of_rows, dtype=np.bool_)
    return full
