"""One photograph of a map: where it was taken, and what it knows about the world."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from matcher.errors import InputError
from matcher.localization.lifting import DepthPoints, Lifted, MatchArrays, PointSource, check_aspect
from matcher.structures import Camera, ImageSize, Pose

__all__ = [
    "DEPTH_SUFFIXES",
    "DepthFile",
    "Reference",
    "common_root",
    "photograph_size",
    "read_depth",
    "summary",
]

DEPTH_SUFFIXES = (".png", ".tif", ".tiff", ".npy")
_EXIF_ORIENTATION, _FIRST_TURNED = 0x0112, 5
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A photograph whose place is known.

    Attributes:
        name: as the map calls it.
        path: its file.
        camera: intrinsics in its own pixels; ``None`` only where the map is a single photograph.
        cam_from_world: its pose.
        size: of the photograph.
        points: what it knows, or ``None``: the map is a single photograph.
    """

    name: str
    path: Path
    camera: Camera | None
    cam_from_world: Pose
    size: ImageSize
    points: PointSource | None


@dataclass(frozen=True, slots=True, eq=False)
class DepthFile:
    """A depth map that is read when it is needed.

    Attributes:
        path: a 16-bit PNG or TIFF, or a NumPy array.
        depth_scale: stored units in one unit of the map (1000 for millimetres in a map in metres).
        camera: of the photograph.
        cam_from_world: pose of the photograph.
        size: of the photograph.
    """

    path: Path
    depth_scale: float
    camera: Camera
    cam_from_world: Pose
    size: ImageSize

    def lift(self, matches: MatchArrays) -> Lifted:
        """The matches whose depth is known, away from the edges of surfaces.

        Raises:
            InputError: the file is gone, broken, or of another aspect than the photograph.
        """
        depth = read_depth(self.path) / np.float32(self.depth_scale)
        return DepthPoints(depth, self.camera, self.cam_from_world, self.size).lift(matches)

    def check(self) -> None:
        """Raise ``InputError`` if the file could not be used."""
        depth = read_depth(self.path)
        check_aspect(f"depth map {self.path.name}", ImageSize(*depth.shape), self.size)
        if not (depth > 0).any():
            raise InputError(f"depth map {self.path.name}", "a depth somewhere", "none at all")


def read_depth(path: Path) -> npt.NDArray[np.float32]:
    """(H, W) stored depths of a 16-bit PNG, a TIFF, or a ``.npy`` file.

    Raises:
        InputError: no such file, another kind of file, or more than one channel.
    """
    argument = f"depth map {path.name}"
    if path.suffix.lower() not in DEPTH_SUFFIXES:
        raise InputError(argument, f"a file that ends in {', '.join(DEPTH_SUFFIXES)}", f"{path}")
    if not path.is_file():
        raise InputError(argument, "a file", f"nothing at {path}")
    try:
        if path.suffix.lower() == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:
            depth = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    except (OSError, EOFError, ValueError, cv2.error) as error:
        raise InputError(argument, "a depth map", " ".join(str(error).split())) from None
    if depth is None or depth.ndim != 2 or not depth.size or depth.dtype == np.bool_:
        shape = "a broken file" if depth is None else f"{depth.dtype} of shape {depth.shape}"
        raise InputError(argument, "one number a pixel", shape)
    if depth.dtype == np.uint8:
        raise InputError(argument, "16 bits a pixel or floats", "8 bits")
    return np.asarray(depth, dtype=np.float32)


def photograph_size(path: Path) -> ImageSize:
    """Size of a photograph, upright, from the header of its file.

    Raises:
        InputError: no such file, or not a photograph.
    """
    if not path.is_file():
        raise InputError("photograph", "a file", f"nothing at {path}")
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            turned = picture.getexif().get(_EXIF_ORIENTATION, 1)
    # Image decoders fail with whatever type their parser meets: all of it is a broken file.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError("photograph", "an image file that Pillow reads", reason) from None
    is_turned = isinstance(turned, int) and turned >= _FIRST_TURNED
    return ImageSize(width, height) if is_turned else ImageSize(height, width)


def summary(missing: Mapping[str, str]) -> str:
    """What is missing, in one line: how many, and why the first few."""
    first = [f"{name}: {reason}" for name, reason in list(missing.items())[:_MOST_NAMED]]
    more = "; ..." if len(missing) > _MOST_NAMED else ""
    return "; ".join(first) + more


def common_root(paths: Sequence[Path]) -> Path:
    """The folder that files share."""
    return Path(os.path.commonpath([str(Path(os.path.abspath(path)).parent) for path in paths]))
