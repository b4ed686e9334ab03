"""Training pairs with known poses, from a COLMAP model of photographs of one place."""

from __future__ import annotations

import itertools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matcher.colmap import (
    camera_from_pycolmap,
    import_pycolmap,
    observations_of,
    pose_of,
    quiet,
    reason_of,
)
from matcher.errors import DatasetError, InputError
from matcher.structures import FloatArray
from matcher.training.guided_matches import (
    GuidedOptions,
    detect,
    fundamental_matrix,
    guided_matches,
    symmetric_epipolar_distance,
)
from matcher.training.manifest import (
    CorrespondencePair,
    PosedView,
    write_correspondences,
    write_pairs,
    write_views,
)

__all__ = ["pairs_from_reconstruction"]


@dataclass(frozen=True, slots=True, eq=False)
class _Observations:
    """One registered image: its camera, pose, and tracked points sorted by identifier."""

    view: PosedView
    identifiers: npt.NDArray[np.int64]
    pixels: FloatArray


def pairs_from_reconstruction(
    reconstruction: Any,
    image_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    *,
    min_shared_points: int = 40,
    max_epipolar_error: float = 2.0,
    guided: GuidedOptions | None = None,
    group: str | None = None,
) -> list[CorrespondencePair]:
    """Turn a COLMAP model into undistorted images and a manifest of pairs.

    Two images make a pair when at least ``min_shared_points`` tracks see both, also where the two
    were never matched directly.

    Args:
        reconstruction: folder of a COLMAP model, or a ``pycolmap.Reconstruction``.
        image_dir: folder that the model's image names are relative to.
        out_dir: receives ``images/``, ``correspondences/``, ``pairs.jsonl`` and ``views.jsonl``.
        min_shared_points: tracks that a pair must share.
        max_epipolar_error: observations farther than this from the epipolar line of their partner,
            under the model's poses, are left out, pixels.
        guided: add SIFT matches along the epipolar lines to those of the tracks.
        group: name of the place; by default the name of ``image_dir``.

    Returns:
        the pairs, as written to ``pairs.jsonl``; empty if no two images share enough points.

    Raises:
        DatasetError: the model or an image cannot be read.
        InputError: ``min_shared_points`` or ``max_epipolar_error`` is not positive.
        MissingDependencyError: pycolmap is not installed.
    """
    if min_shared_points < 1:
        raise InputError("min_shared_points", "at least 1", f"{min_shared_points}")
    if max_epipolar_error <= 0:
        raise InputError("max_epipolar_error", "a positive number", f"{max_epipolar_error}")
    pycolmap = import_pycolmap("importing COLMAP models")
    target = Path(out_dir)
    (target / "correspondences").mkdir(parents=True, exist_ok=True)
    model = _undistort(pycolmap, reconstruction, Path(image_dir), target)
    observations = _observations(model, target / "images", group or Path(image_dir).resolve().name)
    features = (
        [detect(item.view.image, guided.max_features) for item in observations] if guided else []
    )
    pairs = []
    for index0, index1 in itertools.combinations(range(len(observations)), 2):
        item0, item1 = observations[index0], observations[index1]
        pixels0, pixels1 = _shared_pixels(item0, item1, max_epipolar_error)
        if len(pixels0) < min_shared_points:
            continue
        if guided:
            added0, added1 = guided_matches(
                item0.view, item1.view, features[index0], features[index1], pixels0, pixels1, guided
            )
            pixels0, pixels1 = np.concatenate([pixels0, added0]), np.concatenate([pixels1, added1])
        path = target / "correspondences" / f"{index0:05d}_{index1:05d}.npz"
        write_correspondences(path, pixels0, pixels1)
        pairs.append(
            CorrespondencePair(
                image0=item0.view.image,
                image1=item1.view.image,
                camera0=item0.view.camera,
                camera1=item1.view.camera,
                correspondences=path,
                group=item0.view.group,
                cam1_from_cam0=item1.view.cam_from_world @ item0.view.cam_from_world.inverse,
            )
        )
    write_views(target / "views.jsonl", [item.view for item in observations])
    write_pairs(target / "pairs.jsonl", pairs)
    return pairs


def _undistort(pycolmap: Any, reconstruction: Any, image_dir: Path, out_dir: Path) -> Any:
    """Write ``out_dir/images`` without distortion; the model that belongs to them."""
    out_dir.mkdir(parents=True, exist_ok=True)
    if isinstance(reconstruction, pycolmap.Reconstruction):
        source = out_dir / "model"
        source.mkdir(exist_ok=True)
        reconstruction.write(source)
    else:
        source = Path(reconstruction)
    try:
        with quiet(pycolmap):
            pycolmap.undistort_images(out_dir, source, image_dir, num_threads=1)
            return pycolmap.Reconstruction(out_dir / "sparse")
    except (ValueError, RuntimeError, OSError) as error:
        raise DatasetError(
            f"{source}: cannot read this COLMAP model or its images in {image_dir}: "
            f"{reason_of(error)}"
        ) from error


def _observations(model: Any, image_dir: Path, group: str) -> list[_Observations]:
    observations = []
    for image in sorted(model.images.values(), key=lambda image: str(image.name)):
        pose = pose_of(image)
        if pose is None:
            continue
        path = image_dir / str(image.name)
        if not path.is_file():
            raise DatasetError(f"{path}: the undistorted image is missing")
        camera = camera_from_pycolmap(model.cameras[image.camera_id], str(image.name))
        assert camera.size is not None  # what comes from a COLMAP camera has its size
        size = camera.size
        view = PosedView(image=path, camera=camera, cam_from_world=pose, group=group)
        pixels, identifiers = observations_of(image)
        inside = (pixels >= 0).all(1) & (pixels <= (size.width - 1, size.height - 1)).all(1)
        # A track may pass twice through one image: the first observation stands for it.
        unique, first = np.unique(identifiers[inside], return_index=True)
        observations.append(_Observations(view, unique, pixels[inside][first]))
    return observations


def _shared_pixels(
    item0: _Observations, item1: _Observations, max_epipolar_error: float
) -> tuple[FloatArray, FloatArray]:
    """The (N, 2) pixels in both images of the points that both see."""
    _, rows0, rows1 = np.intersect1d(
        item0.identifiers, item1.identifiers, assume_unique=True, return_indices=True
    )
    pixels0, pixels1 = item0.pixels[rows0], item1.pixels[rows1]
    fundamental = fundamental_matrix(item0.view, item1.view)
    keep = symmetric_epipolar_distance(pixels0, pixels1, fundamental) <= max_epipolar_error
    return pixels0[keep], pixels1[keep]
