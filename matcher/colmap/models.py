"""COLMAP models on disk, and what their images hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.colmap.binary import check_whole
from matcher.colmap.library import import_pycolmap, quiet, reason_of
from matcher.errors import DatasetError
from matcher.geometry.pixels import keypoints_from_colmap
from matcher.structures import FloatArray, Pose

__all__ = ["observations_of", "open_model", "pose_of"]


def open_model(folder: Path, purpose: str) -> Any:
    """The ``pycolmap.Reconstruction`` in a folder, binary or text.

    Args:
        folder: of the model.
        purpose: what it is read for, for the message where pycolmap is not installed.

    Raises:
        DatasetError: no such folder, a file of the model is not there or cannot be read.
        MissingDependencyError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap(purpose)
    is_binary = _is_binary(folder)
    try:
        if is_binary:
            for path in sorted(folder.glob("*.bin")):
                check_whole(path)
        with quiet(pycolmap):
            model = pycolmap.Reconstruction()
            (model.read_binary if is_binary else model.read_text)(str(folder))
    except DatasetError:
        raise
    except Exception as error:  # pycolmap raises whatever its checks and streams throw
        raise DatasetError(f"{folder}: cannot read the COLMAP model ({reason_of(error)})") from None
    return model


def _is_binary(folder: Path) -> bool:
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder of a COLMAP model")
    stems = ("cameras", "images", "points3D")
    lacking = {
        suffix: [stem + suffix for stem in stems if not (folder / (stem + suffix)).is_file()]
        for suffix in (".bin", ".txt")
    }
    if all(lacking.values()):
        # The format of which more is there is the one that was meant.
        missing = min(lacking.values(), key=len)
        raise DatasetError(f"{folder}: not a whole COLMAP model, {', '.join(missing)} missing")
    return not lacking[".bin"]


def pose_of(image: Any) -> Pose | None:
    """``cam_from_world`` of a ``pycolmap.Image``, or ``None``: it is not registered."""
    if not getattr(image, "has_pose", True):
        return None
    pose = image.cam_from_world
    # A property before the frames of pycolmap 3.12, a method since.
    return Pose.from_matrix((pose() if callable(pose) else pose).matrix())


def observations_of(image: Any) -> tuple[FloatArray, npt.NDArray[np.int64]]:
    """The keypoints of a ``pycolmap.Image`` that have a 3-D point.

    Returns:
        (T, 2) keypoints in our pixels and (T,) int64 identifiers of the points.
    """
    seen = [(point.xy, point.point3D_id) for point in image.points2D if point.has_point3D()]
    keypoints = np.array([xy for xy, _ in seen], dtype=np.float64).reshape(-1, 2)
    identifiers = np.array([number for _, number in seen], dtype=np.int64)
    return keypoints_from_colmap(keypoints), identifiers
