"""OpenCV's features with the ratio test among mutual nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.core.predictions import MatchPrediction, MethodInfo
from benchmarks.methods.base import NO_MATCHES, MethodOptions, Peer, index_matches
from matcher.errors import MissingDependencyError
from matcher.images import RgbArray

__all__ = ["PEERS", "ClassicalMethod", "mutual_ratio_matches"]

_LICENCE = "Apache-2.0"
_NUM_FEATURES = 4096


def mutual_ratio_matches(
    features0: npt.NDArray[Any], features1: npt.NDArray[Any], ratio: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Nearest neighbours that choose each other and are clearly nearer than the second nearest.

    Args:
        features0: (M, D) float32, compared by Euclidean distance, or uint8 strings of bits,
            compared by Hamming distance.
        features1: (N, D) of the same type.
        ratio: the nearest must be closer than this share of the second nearest's distance.

    Returns:
        (K, 2) indexes into both, in the order of the first, and (K,) 1 minus the ratio of the two
        nearest distances of each, which is above 1 - ``ratio``.
    """
    if min(len(features0), len(features1)) < 2:
        return np.zeros((0, 2), dtype=np.int64), np.zeros(0)
    is_binary = features0.dtype == np.uint8
    rows0, rows1 = _rows(features0), _rows(features1)
    # OpenCV's SIFT descriptors are whole numbers up to 255, and bits are 0 or 1: all products and
    # sums stay below 2 ** 24, so that float32 is exact and one matrix product is the whole search.
    norms0, norms1 = rows0.square().sum(dim=1), rows1.square().sum(dim=1)
    squared = torch.addmm(norms1[None], rows0, rows1.T, alpha=-2)
    nearest, index = squared.topk(2, dim=1, largest=False)
    nearest = (nearest + norms0[:, None]).clamp(min=0)
    # Squared distances of bits are Hamming distances already.
    limit = ratio if is_binary else ratio**2
    is_clear = nearest[:, 0] < limit * nearest[:, 1]
    back = (squared + norms0[:, None]).argmin(dim=0)
    here = torch.arange(len(rows0))
    kept = is_clear & (back[index[:, 0]] == here)
    shares = nearest[kept, 0].double() / nearest[kept, 1].double()
    matches = torch.stack([here[kept], index[kept, 0]], dim=1).numpy()
    return matches, (1 - (shares if is_binary else shares.sqrt())).numpy()


def _rows(features: npt.NDArray[Any]) -> torch.Tensor:
    if features.dtype == np.uint8:
        features = np.unpackbits(features, axis=1)
    return torch.from_numpy(np.array(features, dtype=np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class ClassicalMethod:
    """A detector and descriptor of OpenCV, matched by ``mutual_ratio_matches``.

    Attributes:
        info: who it is.
        detector: of OpenCV.
        ratio: of the ratio test.
    """

    info: MethodInfo
    detector: cv2.Feature2D
    ratio: float

    def match(self, image0: RgbArray, image1: RgbArray) -> MatchPrediction:
        """Match two (H, W, 3) uint8 RGB images."""
        (points0, features0), (points1, features1) = map(self._describe, (image0, image1))
        if features0 is None or features1 is None:
            return MatchPrediction.failed(NO_MATCHES)
        matches, confidence = mutual_ratio_matches(features0, features1, self.ratio)
        ends = cv2.KeyPoint.convert(points0), cv2.KeyPoint.convert(points1)
        return index_matches(*ends, matches, confidence)

    def _describe(self, image: RgbArray) -> tuple[Sequence[cv2.KeyPoint], npt.NDArray[Any] | None]:
        """Keypoints, and their descriptors; OpenCV gives ``None`` where it found nothing."""
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        return self.detector.detectAndCompute(grey, None)


def _classical(name: str, detector: cv2.Feature2D, ratio: float, settings: str) -> ClassicalMethod:
    info = MethodInfo(
        name,
        _LICENCE,
        f"OpenCV {cv2.__version__}",
        f"{settings}, ratio {ratio}, mutual nearest neighbours; confidence 1 - ratio",
    )
    return ClassicalMethod(info, detector, ratio)


def _sift(_: MethodOptions) -> ClassicalMethod:
    return _classical("sift", cv2.SIFT.create(_NUM_FEATURES), 0.8, f"{_NUM_FEATURES} features")


def _orb(_: MethodOptions) -> ClassicalMethod:
    detector = cv2.ORB.create(_NUM_FEATURES, fastThreshold=7)
    return _classical("orb", detector, 0.85, f"{_NUM_FEATURES} features, fastThreshold 7")


def _akaze(_: MethodOptions) -> ClassicalMethod:
    create = _find_akaze()
    assert create is not None, "only built when nothing is missing"
    return _classical("akaze", create(), 0.85, "MLDB, threshold 0.001")


def _find_akaze() -> Callable[[], cv2.Feature2D] | None:
    """OpenCV 4 has it; in OpenCV 5 only the builds with the contributed modules do."""
    for home in (cv2, getattr(cv2, "xfeatures2d", None)):
        if hasattr(home, "AKAZE_create"):
            create: Callable[[], cv2.Feature2D] = getattr(home, "AKAZE_create")  # noqa: B009
            return create
    return None


class _NotInThisOpenCvError(MissingDependencyError):
    """The contributed modules come by another build of OpenCV, which no extra can bring."""

    def __str__(self) -> str:
        return f"{self.purpose} is not in OpenCV {cv2.__version__}; {self.package} has it"


def _akaze_missing() -> MissingDependencyError | None:
    if _find_akaze() is not None:
        return None
    package = "opencv-contrib-python (installed in place of opencv-python)"
    return _NotInThisOpenCvError(package, "bench", "AKAZE")


def _nothing_missing() -> MissingDependencyError | None:
    return None


PEERS = (
    Peer("sift", "SIFT, mutual, ratio test", _LICENCE, _sift, _nothing_missing),
    Peer("orb", "ORB, mutual, ratio test", _LICENCE, _orb, _nothing_missing),
    Peer("akaze", "AKAZE, mutual, ratio test", _LICENCE, _akaze, _akaze_missing),
)
