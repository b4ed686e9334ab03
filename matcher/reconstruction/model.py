"""Several photographs as one reconstruction: cameras, poses, points.

World frame: of whatever made the reconstruction; metres only where ``is_metric`` says so. Cameras
and keypoints are in the pixels of the original photographs, integer = pixel centre.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from matcher.errors import InputError
from matcher.structures import Camera, FloatArray, ImageSize, Pose

if TYPE_CHECKING:
    from matcher.images import RgbArray
    from matcher.reconstruction.filtering import CloudOptions
    from matcher.reconstruction.point_cloud import PointCloud

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
            self.observation_point.min() >= 0 and self.observation_point.max() < count
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
        if len(seen) and not (seen.min() >= 0 and seen.max() < len(names)):
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

    # What follows is written elsewhere in this package, in modules that need these types.

    def cloud(self, options: CloudOptions | None = None) -> PointCloud:
        """The points worth showing: of the pointmaps, or else the triangulated ones."""
        from matcher.reconstruction.filtering import filtered_cloud

        return filtered_cloud(self, options)

    def write_ply(
        self, path: str | os.PathLike[str], *, options: CloudOptions | None = None
    ) -> None:
        """Write :meth:`cloud` as binary PLY, in this world frame.

        Raises:
            InputError: a path that cannot be written.
        """
        from matcher.reconstruction.ply import write_ply

        write_ply(path, self.cloud(options), comments=self._origin_lines())

    def write_glb(
        self, path: str | os.PathLike[str], *, options: CloudOptions | None = None
    ) -> None:
        """Write :meth:`cloud` and the cameras as glTF 2.0 binary, with y up.

        Raises:
            InputError: a path that cannot be written.
        """
        from matcher.reconstruction.glb import write_glb

        extras = {"model": self.model, "licence": self.licence} if self.model else {}
        write_glb(path, self.cloud(options), cameras=self.images, extras=extras)

    def write_colmap(self, folder: str | os.PathLike[str], *, binary: bool = True) -> None:
        """Write cameras, poses and triangulated points as a COLMAP model.

        Raises:
            InputError: a folder that cannot be written.
        """
        from matcher.reconstruction.colmap_model import write_model

        write_model(self, folder, binary=binary)

    def draw(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        size: ImageSize | None = None,
        options: CloudOptions | None = None,
    ) -> RgbArray:
        """Draw the points and the cameras, seen from behind them and above.

        Args:
            path: where to write the picture (.png, .jpg, ...); ``None`` only returns it.
            size: of the picture.
            options: which points are drawn.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: a path that cannot be written.
        """
        from matcher.images.writing import check_picture_path, write_picture
        from matcher.reconstruction.still import draw_cloud

        if path is not None:
            check_picture_path(path)
        picture = draw_cloud(self.cloud(options), self.images, size=size)
        if path is not None:
            write_picture(path, picture)
        return picture

    def write_html(
        self,
        path: str | os.PathLike[str],
        *,
        title: str = "Reconstruction",
        options: CloudOptions | None = None,
    ) -> None:
        """Write one HTML file in which the points and cameras can be turned and walked around.

        Raises:
            InputError: a path that cannot be written.
        """
        from matcher.reconstruction.viewer import write_html

        write_html(path, self, self.cloud(options), title=title)

    def _origin_lines(self) -> list[str]:
        unit = "metres" if self.is_metric else "an arbitrary unit"
        lines = [f"world frame of the reconstruction, {unit}"]
        if self.model:
            text = f"model {self.model}, licence {self.licence}"
            lines.append(text.encode("ascii", "replace").decode())
        return lines
