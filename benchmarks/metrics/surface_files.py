"""The files of a measured surface: its points, where the scanner could see, and the table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from benchmarks.core.samples import FloatArray
from benchmarks.metrics.surface import ObservedVolume
from matcher.errors import DatasetError, MissingDependencyError

__all__ = ["read_observed_volume", "read_plane", "read_points"]


def read_points(path: Path) -> FloatArray:
    """(N, 3) vertices of a PLY file.

    Raises:
        DatasetError: absent, broken, or without points.
        MissingDependencyError: trimesh is not installed.
    """
    try:
        import trimesh
    except ImportError:
        raise MissingDependencyError("trimesh", "train", "reading a PLY file") from None
    if not path.is_file():
        raise DatasetError(f"no point cloud at {path}")
    try:
        loaded: Any = trimesh.load(path, process=False)
        points = np.asarray(loaded.vertices, dtype=np.float64)
    # trimesh's parsers raise whatever they trip over.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path}: cannot be read as PLY ({reason})") from None
    if points.ndim != 2 or points.shape[1:] != (3,) or not len(points):
        raise DatasetError(f"{path}: expected points (N, 3), got {points.shape}")
    return points


def read_observed_volume(path: Path) -> ObservedVolume:
    """``ObsMask``, ``BB`` (2, 3) and ``Res`` of a MATLAB file; raises ``DatasetError``."""
    values = _read_mat(path, ("ObsMask", "BB", "Res"))
    mask, box = values[0].astype(np.bool_), values[1].astype(np.float64)
    cell = values[2].astype(np.float64).reshape(-1)
    if mask.ndim != 3 or box.shape != (2, 3) or len(cell) != 1 or not cell[0] > 0:
        raise DatasetError(
            f"{path}: expected ObsMask (X, Y, Z), BB (2, 3), Res > 0; "
            f"got {mask.shape}, {box.shape}, {cell}"
        )
    return ObservedVolume(mask, box[0], float(cell[0]))


def read_plane(path: Path) -> FloatArray:
    """(4,) ``P`` of a MATLAB file; raises ``DatasetError``."""
    plane: FloatArray = _read_mat(path, ("P",))[0].astype(np.float64).reshape(-1)
    if plane.shape != (4,) or not np.isfinite(plane).all():
        raise DatasetError(f"{path}: P: expected 4 finite numbers, got {plane.shape}")
    return plane


def _read_mat(path: Path, names: tuple[str, ...]) -> list[Any]:
    if not path.is_file():
        raise DatasetError(f"no file at {path}")
    try:
        values = loadmat(path, variable_names=list(names))
        return [np.asarray(values[name]) for name in names]
    # A broken file fails wherever scipy's reader meets it.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{path}: cannot read {', '.join(names)} ({reason})") from None
