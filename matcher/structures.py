"""The typed data that travels between the parts of Widebase.

Frames and units, everywhere: OpenCV camera axes (x right, y down, z forward);
``cam1_from_cam0`` maps points of camera 0 into camera 1; pixels are x then y, and integer
coordinates are pixel centres (the centre of the top-left pixel is (0, 0)).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from heads.outputs import DenseOutput
from matcher.errors import InputError

__all__ = [
    "Camera",
    "CameraModel",
    "FloatArray",
    "GridMatches",
    "ImageSize",
    "Matches",
    "PairPrediction",
    "Pose",
    "RelativePose",
    "View",
]

FloatArray = npt.NDArray[np.float64]
CameraModel = Literal["PINHOLE", "SIMPLE_RADIAL", "OPENCV"]

_PARAMETER_NAMES: dict[str, tuple[str, ...]] = {
    "PINHOLE": ("fx", "fy", "cx", "cy"),
    "SIMPLE_RADIAL": ("f", "cx", "cy", "k"),
    "OPENCV": ("fx", "fy", "cx", "cy", "k1", "k2", "p1", "p2"),
}
_ROTATION_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class ImageSize:
    """Size of an image in pixels."""

    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(
                "size", "height and width of at least 1", f"{self.height} x {self.width}"
            )

    @property
    def diagonal(self) -> float:
        """Length of the diagonal, pixels."""
        return float(np.hypot(self.height, self.width))


@dataclass(frozen=True, slots=True)
class Camera:
    """Intrinsics of one camera, for the pixels of the original image.

    Attributes:
        model: ``PINHOLE`` (fx, fy, cx, cy), ``SIMPLE_RADIAL`` (f, cx, cy, k) or
            ``OPENCV`` (fx, fy, cx, cy, k1, k2, p1, p2), as COLMAP names them.
        params: the numbers, pixels for focals and principal point.
        size: size of the image they hold for, if known.

    Raises:
        InputError: wrong number of parameters, a number that is not finite, a focal that is not
            positive.
    """

    model: CameraModel
    params: tuple[float, ...]
    size: ImageSize | None = None

    def __post_init__(self) -> None:
        names = _PARAMETER_NAMES.get(self.model)
        if names is None:
            raise InputError(
                "camera model", " or ".join(sorted(_PARAMETER_NAMES)), repr(self.model)
            )
        try:
            params = tuple(float(value) for value in self.params)
        except (TypeError, ValueError):
            raise InputError("camera parameters", "numbers", repr(self.params)) from None
        object.__setattr__(self, "params", params)
        if len(params) != len(names):
            raise InputError(
                "camera parameters",
                f"{len(names)} numbers ({', '.join(names)}) for {self.model}",
                f"{len(params)}",
            )
        for name, value in zip(names, params, strict=True):
            if not np.isfinite(value):
                raise InputError(f"camera {name}", "a finite number", f"{value}")
            if name.startswith("f") and value <= 0:
                raise InputError(f"camera focal {name}", "a positive number of pixels", f"{value}")

    @classmethod
    def pinhole(
        cls, fx: float, fy: float, cx: float, cy: float, size: ImageSize | None = None
    ) -> Camera:
        """A camera without distortion."""
        return cls("PINHOLE", (fx, fy, cx, cy), size)

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike, size: ImageSize | None = None) -> Camera:
        """A pinhole camera from its 3 x 3 intrinsic matrix K (zero skew)."""
        k = np.asarray(matrix, dtype=np.float64)
        if k.shape != (3, 3):
            raise InputError("camera matrix", "shape (3, 3)", f"{k.shape}")
        if not np.allclose([k[0, 1], k[1, 0], k[2, 0], k[2, 1]], 0) or not np.isclose(k[2, 2], 1):
            raise InputError("camera matrix", "[[fx, 0, cx], [0, fy, cy], [0, 0, 1]]", f"{k}")
        return cls.pinhole(k[0, 0], k[1, 1], k[0, 2], k[1, 2], size)

    @property
    def focals(self) -> tuple[float, float]:
        """(fx, fy), pixels."""
        return (
            (self.params[0], self.params[0])
            if self.model == "SIMPLE_RADIAL"
            else (self.params[0], self.params[1])
        )

    @property
    def principal_point(self) -> tuple[float, float]:
        """(cx, cy), pixels."""
        start = 1 if self.model == "SIMPLE_RADIAL" else 2
        return self.params[start], self.params[start + 1]

    @property
    def distortion(self) -> tuple[float, float, float, float]:
        """(k1, k2, p1, p2) in OpenCV's order; zeros for a pinhole."""
        if self.model == "SIMPLE_RADIAL":
            return self.params[3], 0.0, 0.0, 0.0
        if self.model == "OPENCV":
            return self.params[4], self.params[5], self.params[6], self.params[7]
        return 0.0, 0.0, 0.0, 0.0

    @property
    def matrix(self) -> FloatArray:
        """The (3, 3) intrinsic matrix K, without the distortion."""
        (fx, fy), (cx, cy) = self.focals, self.principal_point
        return np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True, eq=False)
class Pose:
    """A rigid motion ``target_from_source``: ``x_target = rotation @ x_source + translation``.

    Attributes:
        rotation: (3, 3) float64 rotation matrix.
        translation: (3,) float64; metres where the result says it is metric.
    """

    rotation: FloatArray
    translation: FloatArray

    def __post_init__(self) -> None:
        rotation = np.array(self.rotation, dtype=np.float64)
        translation = np.array(self.translation, dtype=np.float64).reshape(-1)
        if rotation.shape != (3, 3) or translation.shape != (3,):
            raise InputError(
                "pose",
                "rotation (3, 3) and translation (3,)",
                f"{rotation.shape} and {translation.shape}",
            )
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE):
            raise InputError("pose rotation", "an orthonormal matrix", f"{rotation.tolist()}")
        if np.linalg.det(rotation) < 0 or not np.isfinite(translation).all():
            raise InputError(
                "pose",
                "a right-handed rotation and a finite translation",
                f"determinant {np.linalg.det(rotation):.3f}, translation {translation}",
            )
        rotation.setflags(write=False)
        translation.setflags(write=False)
        object.__setattr__(self, "rotation", rotation)
        object.__setattr__(self, "translation", translation)

    @classmethod
    def identity(cls) -> Pose:
        """The pose that moves nothing."""
        return cls(np.eye(3), np.zeros(3))

    @classmethod
    def from_matrix(cls, matrix: npt.ArrayLike) -> Pose:
        """A pose from its (4, 4) or (3, 4) matrix."""
        m = np.asarray(matrix, dtype=np.float64)
        if m.shape not in ((4, 4), (3, 4)):
            raise InputError("pose matrix", "shape (4, 4) or (3, 4)", f"{m.shape}")
        return cls(m[:3, :3], m[:3, 3])

    @property
    def matrix(self) -> FloatArray:
        """The (4, 4) homogeneous matrix."""
        matrix = np.eye(4)
        matrix[:3, :3] = self.rotation
        matrix[:3, 3] = self.translation
        return matrix

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.matrix.astype(dtype or np.float64)

    @property
    def inverse(self) -> Pose:
        """``source_from_target``."""
        return Pose(self.rotation.T, -self.rotation.T @ self.translation)

    def __matmul__(self, other: Pose) -> Pose:
        """``c_from_b @ b_from_a`` is ``c_from_a``."""
        return Pose(
            self.rotation @ other.rotation, self.rotation @ other.translation + self.translation
        )

    def transform(self, points: npt.ArrayLike) -> FloatArray:
        """Map (..., 3) points from the source frame into the target frame."""
        mapped: FloatArray = np.asarray(points, dtype=np.float64) @ self.rotation.T
        return mapped + self.translation


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One photograph as the network sees it, and the way back to its own pixels.

    Attributes:
        pixels: (3, H, W) float32 RGB in [-1, 1]; H and W are multiples of the patch size.
        content_size: rows ``[0, height)`` and columns ``[0, width)`` of ``pixels`` show the
            photograph; what lies beyond is padding.
        original_size: size of the photograph, upright (EXIF orientation applied).
        original_from_network: (3, 3) float64, maps homogeneous network pixels to original pixels.
        mask: (H, W) bool, where matches are welcome (never in the padding), or ``None``: everywhere
            in the content.
        name: where the photograph came from, for messages.
        exif_focal: focal length that the photograph's file tells, original pixels, or ``None``.
    """

    pixels: Tensor
    content_size: ImageSize
    original_size: ImageSize
    original_from_network: FloatArray
    mask: Tensor | None = None
    name: str = "image"
    exif_focal: float | None = None

    def __post_init__(self) -> None:
        if self.pixels.ndim != 3 or self.pixels.shape[0] != 3:
            raise InputError("view pixels", "shape (3, H, W)", f"{tuple(self.pixels.shape)}")
        if self.pixels.dtype != torch.float32:
            raise InputError("view pixels", "float32", f"{self.pixels.dtype}")
        if self.original_from_network.shape != (3, 3):
            raise InputError(
                "original_from_network", "shape (3, 3)", f"{self.original_from_network.shape}"
            )
        if (
            self.content_size.height > self.pixels.shape[1]
            or self.content_size.width > self.pixels.shape[2]
        ):
            raise InputError(
                "content_size",
                f"at most {tuple(self.pixels.shape[1:])}",
                f"{(self.content_size.height, self.content_size.width)}",
            )
        if self.mask is not None and self.mask.shape != self.pixels.shape[1:]:
            raise InputError(
                "view mask", f"shape {tuple(self.pixels.shape[1:])}", f"{tuple(self.mask.shape)}"
            )

    @property
    def network_size(self) -> ImageSize:
        """Size of ``pixels``."""
        return ImageSize(int(self.pixels.shape[1]), int(self.pixels.shape[2]))

    @property
    def original_px(self) -> float:
        """Side of the square that a network pixel covers in the photograph, pixels."""
        area = float(np.linalg.det(self.original_from_network[:2, :2]))
        return math.sqrt(abs(area))

    def matchable(self) -> Tensor:
        """(H, W) bool: inside the photograph and inside ``mask``."""
        inside = torch.zeros(self.pixels.shape[1:], dtype=torch.bool, device=self.pixels.device)
        inside[: self.content_size.height, : self.content_size.width] = True
        return inside if self.mask is None else inside & self.mask.to(inside.device)


@dataclass(frozen=True, slots=True, eq=False)
class PairPrediction:
    """What the network says about a batch of pairs; both pointmaps are in camera 0's frame."""

    output0: DenseOutput
    output1: DenseOutput


def _check_pixel_rows(name: str, value: Tensor, rows: int) -> None:
    if value.shape != (rows, 2):
        raise InputError(name, f"shape ({rows}, 2)", f"{tuple(value.shape)}")


@dataclass(frozen=True, slots=True, eq=False)
class GridMatches:
    """Matches between integer pixels of two network-sized maps.

    Attributes:
        pixels0: (M, 2) int64, x then y, in map 0.
        pixels1: (M, 2) int64, the same in map 1; row i matches row i.
        similarity: (M,) float32, cosine of the two descriptors (or minus the squared distance of
            two 3-D points).
        num_seeds: from how many pixels the search that found them started; 0 where nobody counted.
    """

    pixels0: Tensor
    pixels1: Tensor
    similarity: Tensor
    num_seeds: int = 0

    def __post_init__(self) -> None:
        rows = int(self.similarity.shape[0])
        _check_pixel_rows("pixels0", self.pixels0, rows)
        _check_pixel_rows("pixels1", self.pixels1, rows)

    def __len__(self) -> int:
        return int(self.similarity.shape[0])

    def select(self, rows: Tensor) -> GridMatches:
        """Keep the rows of a boolean mask or an index tensor."""
        return replace(
            self,
            pixels0=self.pixels0[rows],
            pixels1=self.pixels1[rows],
            similarity=self.similarity[rows],
        )


@dataclass(frozen=True, slots=True, eq=False)
class Matches:
    """Correspondences in the pixels of the two original photographs.

    Attributes:
        keypoints0: (M, 2) float32, x then y, pixels of original image 0.
        keypoints1: (M, 2) float32, the same in image 1; row i matches row i.
        confidence: (M,) float32 in (0, 1].
    """

    keypoints0: Tensor
    keypoints1: Tensor
    confidence: Tensor

    def __post_init__(self) -> None:
        rows = int(self.confidence.shape[0])
        _check_pixel_rows("keypoints0", self.keypoints0, rows)
        _check_pixel_rows("keypoints1", self.keypoints1, rows)
        for name in ("keypoints0", "keypoints1", "confidence"):
            if getattr(self, name).dtype != torch.float32:
                raise InputError(name, "float32", f"{getattr(self, name).dtype}")
        if rows and not bool(((self.confidence > 0) & (self.confidence <= 1)).all()):
            raise InputError("confidence", "values in (0, 1]", "values outside")

    def __len__(self) -> int:
        return int(self.confidence.shape[0])

    def select(self, rows: Tensor) -> Matches:
        """Keep the rows of a boolean mask or an index tensor."""
        return Matches(self.keypoints0[rows], self.keypoints1[rows], self.confidence[rows])

    @classmethod
    def empty(cls) -> Matches:
        """No match at all."""
        return cls(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))


@dataclass(frozen=True, slots=True, eq=False)
class RelativePose:
    """Where the second camera stood, or why that cannot be said.

    Attributes:
        cam1_from_cam0: the pose, or ``None`` when there is no answer.
        inlier_mask: (M,) bool, which matches agree with the pose (all false without one).
        reason: ``None`` with a pose; otherwise one sentence that says why there is none.
        method: the solver that answered, for instance ``"essential"`` or ``"shared_focal"``.
        is_metric: whether the length of the translation is in metres; otherwise it is 1.
        camera0: the camera used for image 0 (given, or estimated); ``None`` without an answer.
        camera1: the same for image 1.
    """

    cam1_from_cam0: Pose | None
    inlier_mask: npt.NDArray[np.bool_]
    reason: str | None = None
    method: str = ""
    is_metric: bool = False
    camera0: Camera | None = None
    camera1: Camera | None = None

    def __post_init__(self) -> None:
        if (self.cam1_from_cam0 is None) != (self.reason is not None):
            raise InputError(
                "relative pose", "either a pose or a reason", "both" if self.reason else "neither"
            )

    def __bool__(self) -> bool:
        return self.cam1_from_cam0 is not None

    @property
    def num_inliers(self) -> int:
        """Number of matches that agree with the pose."""
        return int(np.count_nonzero(self.inlier_mask))

    @classmethod
    def none(cls, num_matches: int, reason: str) -> RelativePose:
        """No answer, for ``num_matches`` matches, because of ``reason``."""
        return cls(None, np.zeros(num_matches, dtype=np.bool_), reason)


def as_keypoints(name: str, value: npt.ArrayLike | Sequence[Sequence[float]]) -> FloatArray:
    """(M, 2) float64 keypoints from anything array-like; raises ``InputError`` otherwise."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(name, "shape (M, 2)", f"{array.shape}")
    if not np.isfinite(array).all():
        raise InputError(name, "finite numbers", "NaN or infinity")
    return array
