"""Structure from motion over a folder of photographs of one place, by COLMAP."""

from __future__ import annotations

import itertools
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import kornia.feature
import numpy as np
import numpy.typing as npt
import torch

from matcher.colmap import import_pycolmap, quiet
from matcher.errors import DatasetError, InputError
from matcher.photographs import PHOTOGRAPH_SUFFIXES

__all__ = ["SfmOptions", "read_gray", "reconstruct_folder"]


@dataclass(frozen=True, slots=True)
class SfmOptions:
    """How ``reconstruct_folder`` works.

    Attributes:
        max_features: SIFT features an image.
        ratio: largest ratio of the nearest to the second nearest descriptor distance.
        min_model_size: smallest number of registered images worth keeping.
        threads: CPU threads that COLMAP may use.
    """

    max_features: int = 3000
    ratio: float = 0.8
    min_model_size: int = 2
    threads: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= 1:
            raise InputError("ratio", "a number in (0, 1]", f"{self.ratio}")
        for name in ("max_features", "min_model_size", "threads"):
            if getattr(self, name) < 1:
                raise InputError(name, "at least 1", f"{getattr(self, name)}")


def reconstruct_folder(
    image_dir: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    options: SfmOptions | None = None,
) -> list[Path]:
    """Structure from motion over the images of one folder.

    SIFT with affine shape, exhaustive matching, incremental mapping. Images of one size share one
    camera with radial distortion.

    Args:
        image_dir: folder of photographs of one place (its sub-folders are not searched).
        out_dir: receives ``database.db`` and ``models/<n>``; what was there is replaced.
        seed: seed of every random choice.
        options: how to work; by default ``SfmOptions()``.

    Returns:
        the folders of the COLMAP models, largest first; empty if nothing could be reconstructed.

    Raises:
        DatasetError: no such folder, or an image in it cannot be read.
        MissingDependencyError: pycolmap is not installed.
    """
    pycolmap = import_pycolmap("structure from motion")
    options = options or SfmOptions()
    images = Path(image_dir)
    names_by_size = _names_by_size(images)
    database = Path(out_dir) / "database.db"
    models = Path(out_dir) / "models"
    shutil.rmtree(models, ignore_errors=True)
    database.unlink(missing_ok=True)
    models.mkdir(parents=True)
    if sum(map(len, names_by_size.values())) < 2:
        return []
    with quiet(pycolmap):
        pycolmap.set_random_seed(seed)
        _extract_features(pycolmap, database, images, names_by_size, options)
        _match_features(pycolmap, database, options)
        _verify_matches(pycolmap, database, seed)
        found = _map_incrementally(pycolmap, database, images, models, seed, options)
    return [models / str(index) for index in found]


def _names_by_size(image_dir: Path) -> dict[tuple[int, ...], list[str]]:
    if not image_dir.is_dir():
        raise DatasetError(f"{image_dir}: no such folder of images")
    names: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for path in sorted(image_dir.iterdir()):
        if path.suffix.lower() in PHOTOGRAPH_SUFFIXES:
            # COLMAP reads the stored pixels and does not turn them as EXIF says.
            names[read_gray(path).shape].append(path.name)
    return dict(names)


def read_gray(path: Path) -> npt.NDArray[np.uint8]:
    """The stored pixels (H, W) of an image, not turned as EXIF says.

    Raises:
        DatasetError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION)
    if image is None:
        raise DatasetError(f"{path}: cannot read this image")
    return np.asarray(image, dtype=np.uint8)


def _extract_features(
    pycolmap: Any,
    database: Path,
    image_dir: Path,
    names_by_size: dict[tuple[int, ...], list[str]],
    options: SfmOptions,
) -> None:
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.num_threads = options.threads
    extraction.use_gpu = False
    extraction.sift.max_num_features = options.max_features
    extraction.sift.estimate_affine_shape = True
    for names in names_by_size.values():
        pycolmap.extract_features(
            database,
            image_dir,
            image_names=names,
            camera_mode=pycolmap.CameraMode.SINGLE,
            extraction_options=extraction,
        )


def _match_features(pycolmap: Any, database_path: Path, options: SfmOptions) -> None:
    # COLMAP's own matcher takes a second a pair without a GPU; this one takes a tenth.
    with pycolmap.Database.open(database_path) as database:
        descriptors = {}
        for image in database.read_all_images():
            values = torch.from_numpy(
                np.asarray(database.read_descriptors(image.image_id).data, dtype=np.float32)
            )
            descriptors[image.image_id] = torch.nn.functional.normalize(values, dim=1)
        for id0, id1 in itertools.combinations(sorted(descriptors), 2):
            first, second = descriptors[id0], descriptors[id1]
            if min(len(first), len(second)) < 2:
                continue
            distances = (2.0 - 2.0 * first @ second.T).clamp_(min=0.0).sqrt_()
            _, matches = kornia.feature.match_smnn(first, second, options.ratio, distances)
            database.write_matches(id0, id1, matches.numpy().astype(np.uint32))


def _verify_matches(pycolmap: Any, database: Path, seed: int) -> None:
    verification = pycolmap.GeometricVerifierOptions()
    verification.num_threads = 1
    two_view = pycolmap.TwoViewGeometryOptions()
    two_view.ransac.random_seed = seed
    pycolmap.geometric_verification(
        database, verifier_options=verification, two_view_geometry_options=two_view
    )


def _map_incrementally(
    pycolmap: Any, database: Path, images: Path, models: Path, seed: int, options: SfmOptions
) -> list[int]:
    """The identifiers of the models found, largest first."""
    mapping = pycolmap.IncrementalPipelineOptions()
    mapping.num_threads = options.threads
    mapping.random_seed = seed
    mapping.extract_colors = False
    mapping.min_model_size = options.min_model_size
    # Wide pairs often see a point in these two images only.
    mapping.triangulation.ignore_two_view_tracks = False
    found = pycolmap.incremental_mapping(database, images, models, options=mapping)
    return sorted(found, key=lambda index: (-found[index].num_reg_images(), index))
