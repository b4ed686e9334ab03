"""Several photographs as one reconstruction: cameras, poses, points.

World frame: of whatever made the reconstruction; metres only where ``is_metric`` says so. Cameras
and keypoints are in the pixels of the original photographs, integer = pixel centre.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.structures import Camera, FloatArray, ImageSize, Pose

__all__ = ["DensePoints", "Reconstruction", "RegisteredImage", "SparsePoints"]


@dataclass(frozen=True, slots=True, eq=False)
class DensePoints:
    """The pointmap of one photograph, at the size the network saw it.

    Attributes:
        points: (h, w, 3) float32, world frame.
        confidence: (h, w) float32, the network's, > 1; 0 where a point was rejected.
        colors: (h, w, 3) uint8 RGB.
        original_from_network: (3, 3), pixels of the pointmap to pixels of the photograph.
    """

    points: npt.NDArray[np.float32]
    confidence: npt.NDArray[np.float32]
    colors: npt.NDArray[np.uint8]
    original_from_network: FloatArray

    def __post_init__(self) -> None:
        rows, columns = self.confidence.shape
        for name in ("points", "colors"):
            if getattr(self, name).shape != (rows, columns, 3):
                raise InputError(
                    f"dense {name}", f"shape ({rows}, {columns}, 3)", f"{getattr(self, name).shape}"
                )


@dataclass(frozen=True, slots=True, eq=False)
class RegisteredImage:
    """A photograph whose place is known.

    Attributes:
        name: as ``Photographs`` names it.
        camera: intrinsics, in original pixels.
        cam_from_world: its pose.
        size: of the photograph.
        dense: its pointmap, or ``None``.
    """

    name: str
    camera: Camera
    cam_from_world: Pose
    size: ImageSize
    dense: DensePoints | None = None

    @property
    def center(self) -> FloatArray:
        """(3,) where the camera stood, world frame."""
        return self.cam_from_world.inverse.translation


@dataclass(frozen=True, slots=True, eq=False)
class SparsePoints:
    """P triangulated points and the T keypoints that observe them.

    Attributes:
        positions: (P, 3) float64, world frame.
        colors: (P, 3) uint8 RGB.
        errors_px: (P,) float64, mean reprojection error of its observations, original pixels.
        observation_point: (T,) int64, which point is observed.
        observation_image: (T,) int64, by which of the reconstruction's images.
        observation_keypoint: (T, 2) float64, where, x then y, original pixels.
    """

    positions: FloatArray
    colors: npt.NDArray[np.uint8]
    errors_px: FloatArray
    observation_point: npt.NDArray[np.int64]
    observation_image: npt.NDArray[np.int64]
    observation_keypoint: FloatArray

    def __post_init__(self) -> None:
        count, observations = len(self.positions), len(self.observation_point)
        shapes = {
            "positions": (count, 3),
            "colors": (count, 3),
            "errors_px": (count,),
            "observation_image": (observations,),
            "observation_keypoint": (observations, 2),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(name, f"shape {shape}", f"{getattr(self, name).shape}")
        if observations and not (
            0 <= self.observation_point.min() and self.observation_point.max() < count
        ):
            raise InputError("observation_point", f"indices from 0 to {count - 1}", "others")

    def __len__(self) -> int:
        return len(self.positions)

    @classmethod
    def empty(cls) -> SparsePoints:
        """No point at all."""
        return cls(
            np.zeros((0, 3)),
            np.zeros((0, 3), np.uint8),
            np.zeros(0),
            np.zeros(0, np.int64),
            np.zeros(0, np.int64),
            np.zeros((0, 2)),
        )

    @property
    def track_lengths(self) -> npt.NDArray[np.int64]:
        """(P,) number of observations of each point."""
        return np.bincount(self.observation_point, minlength=len(self)).astype(np.int64)


@dataclass(frozen=True, slots=True, eq=False)
class Reconstruction:
    """Photographs in one world frame.

    Attributes:
        images: the registered photographs.
        points: triangulated points; may be empty.
        unregistered: name of every photograph that has no place, with the reason.
        is_metric: whether the world is in metres.
        model: name of the weights that made it, empty if none did.
        licence: of these weights.

    Raises:
        InputError: a name that appears twice, an observation by an image that is not there.
    """

    images: tuple[RegisteredImage, ...]
    points: SparsePoints = field(default_factory=SparsePoints.empty)
    unregistered: Mapping[str, str] = field(default_factory=dict)
    is_metric: bool = False
    model: str = ""
    licence: str = ""

    def __post_init__(self) -> None:
        names = [image.name for image in self.images]
        if len(set(names)) < len(names):
            raise InputError("images", "names that appear once", f"{sorted(names)}")
        seen = self.points.observation_image
        if len(seen) and not (0 <= seen.min() and seen.max() < len(names)):
            raise InputError("observation_image", f"indices from 0 to {len(names) - 1}", "others")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the registered photographs, in order."""
        return tuple(image.name for image in self.images)

    def image(self, name: str) -> RegisteredImage:
        """The registered photograph of a name.

        Raises:
            InputError: it is not registered; the message says why, if that is known.
        """
        for image in self.images:
            if image.name == name:
                return image
        why = self.unregistered.get(name, "it is not part of the reconstruction")
        raise InputError("name", "a registered photograph", f"{name}: {why}")

    def cam1_from_cam0(self, name0: str, name1: str) -> Pose:
        """Relative pose of two registered photographs."""
        return self.image(name1).cam_from_world @ self.image(name0).cam_from_world.inverse
