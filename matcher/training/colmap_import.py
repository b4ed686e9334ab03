"""Training pairs from photographs of one place, through COLMAP (optional extra ``sfm``).

``reconstruct_folder`` runs structure from motion over a folder, ``pairs_from_reconstruction`` turns
any COLMAP model into a pair manifest (see ``matcher.training.manifest``) with undistorted images.
As a program: ``python -m matcher.training.colmap_import IMAGES_DIR OUT_DIR`` does both for every
sub-folder of ``IMAGES_DIR`` and joins the manifests in ``OUT_DIR/pairs.jsonl``.

COLMAP puts (0.5, 0.5) at the centre of the first pixel; everything written here is shifted to
integer pixel centres.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import kornia.feature
import numpy as np
import numpy.typing as npt
import torch

from matcher.errors import DatasetError, InputError, MissingDependencyError
from matcher.structures import Camera, FloatArray, ImageSize, Pose
from matcher.training.manifest import (
    CorrespondencePair,
    PosedView,
    write_correspondences,
    write_pairs,
    write_views,
)

__all__ = [
    "GuidedOptions",
    "SfmOptions",
    "main",
    "pairs_from_reconstruction",
    "reconstruct_folder",
    "symmetric_epipolar_distance",
]

_IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"})
_HALF_PIXEL = 0.5


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


@dataclass(frozen=True, slots=True)
class GuidedOptions:
    """How correspondences are added to those of the tracks, along known epipolar lines.

    Attributes:
        max_features: SIFT features an image.
        max_distance: largest distance to the epipolar line, in both images, pixels.
        ratio: largest ratio of the nearest to the second nearest descriptor distance, both ways,
            among the features in the band around the line.
        max_descriptor_distance: largest distance of two unit RootSIFT descriptors.
        max_depth_ratio: the triangulated depth of an added match must be within this factor of one
            of the ``neighbours`` nearest tracked points in image 0.
        neighbours: see ``max_depth_ratio``.
    """

    max_features: int = 2500
    max_distance: float = 1.5
    ratio: float = 0.9
    max_descriptor_distance: float = 0.6
    max_depth_ratio: float = 1.15
    neighbours: int = 5

    def __post_init__(self) -> None:
        if self.max_features < 1 or self.neighbours < 1:
            raise InputError(
                "guided options", "max_features and neighbours of at least 1", f"{self}"
            )
        if not 0 < self.ratio <= 1:
            raise InputError("ratio", "a number in (0, 1]", f"{self.ratio}")
        if self.max_distance <= 0 or self.max_depth_ratio <= 1:
            raise InputError(
                "guided options", "max_distance above 0, max_depth_ratio above 1", f"{self}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Observations:
    """One registered image: its camera, pose, and tracked points sorted by identifier."""

    view: PosedView
    identifiers: npt.NDArray[np.int64]
    pixels: FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class _Features:
    """SIFT pixels (N, 2) and unit RootSIFT descriptors (N, 128) of one image."""

    pixels: FloatArray
    descriptors: npt.NDArray[np.float32]


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
    pycolmap = _import_pycolmap()
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
    with _quiet(pycolmap):
        pycolmap.set_random_seed(seed)
        _extract_features(pycolmap, database, images, names_by_size, options)
        _match_features(pycolmap, database, options)
        _verify_matches(pycolmap, database, seed)
        found = _map_incrementally(pycolmap, database, images, models, seed, options)
    return [models / str(index) for index in found]


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
    pycolmap = _import_pycolmap()
    target = Path(out_dir)
    (target / "correspondences").mkdir(parents=True, exist_ok=True)
    model = _undistort(pycolmap, reconstruction, Path(image_dir), target)
    observations = _observations(model, target / "images", group or Path(image_dir).resolve().name)
    features = (
        [_detect(item.view.image, guided.max_features) for item in observations] if guided else []
    )
    pairs = []
    for index0, index1 in itertools.combinations(range(len(observations)), 2):
        item0, item1 = observations[index0], observations[index1]
        pixels0, pixels1 = _shared_pixels(item0, item1, max_epipolar_error)
        if len(pixels0) < min_shared_points:
            continue
        if guided:
            added0, added1 = _guided_matches(
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


def symmetric_epipolar_distance(
    pixels0: FloatArray, pixels1: FloatArray, fundamental: FloatArray
) -> FloatArray:
    """The larger of the two distances to the epipolar lines, (N,) pixels.

    Args:
        pixels0: (N, 2) pixels in image 0.
        pixels1: (N, 2) pixels in image 1, row i matches row i.
        fundamental: (3, 3), ``x1.T @ fundamental @ x0 = 0``.
    """
    homogeneous0, homogeneous1 = _homogeneous(pixels0), _homogeneous(pixels1)
    lines1, lines0 = homogeneous0 @ fundamental.T, homogeneous1 @ fundamental
    residual = np.abs(np.sum(lines1 * homogeneous1, axis=1))
    norm1 = np.linalg.norm(lines1[:, :2], axis=1)
    norm0 = np.linalg.norm(lines0[:, :2], axis=1)
    distance: FloatArray = residual / np.maximum(np.minimum(norm0, norm1), 1e-12)
    return distance


def _import_pycolmap() -> Any:
    try:
        import pycolmap
    except ImportError as error:
        raise MissingDependencyError("pycolmap", "sfm", "importing COLMAP models") from error
    return pycolmap


@contextmanager
def _quiet(pycolmap: Any) -> Iterator[None]:
    """No log from COLMAP while this lasts: what matters comes back as values and exceptions."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.Level.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level


def _names_by_size(image_dir: Path) -> dict[tuple[int, ...], list[str]]:
    if not image_dir.is_dir():
        raise DatasetError(f"{image_dir}: no such folder of images")
    names: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for path in sorted(image_dir.iterdir()):
        if path.suffix.lower() in _IMAGE_SUFFIXES:
            # COLMAP reads the stored pixels and does not turn them as EXIF says.
            names[_read_gray(path).shape].append(path.name)
    return dict(names)


def _read_gray(path: Path) -> npt.NDArray[np.uint8]:
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
        with _quiet(pycolmap):
            pycolmap.undistort_images(out_dir, source, image_dir, num_threads=1)
            return pycolmap.Reconstruction(out_dir / "sparse")
    except (ValueError, RuntimeError, OSError) as error:
        raise DatasetError(
            f"{source}: cannot read this COLMAP model or its images in {image_dir}: "
            f"{' '.join(str(error).split())}"
        ) from error


def _observations(model: Any, image_dir: Path, group: str) -> list[_Observations]:
    observations = []
    for image in sorted(model.images.values(), key=lambda image: str(image.name)):
        if not image.has_pose:
            continue
        path = image_dir / str(image.name)
        if not path.is_file():
            raise DatasetError(f"{path}: the undistorted image is missing")
        camera = model.cameras[image.camera_id]
        matrix = camera.calibration_matrix()
        matrix[:2, 2] -= _HALF_PIXEL
        size = ImageSize(int(camera.height), int(camera.width))
        view = PosedView(
            image=path,
            camera=Camera.from_matrix(matrix, size),
            cam_from_world=Pose.from_matrix(image.cam_from_world().matrix()),
            group=group,
        )
        points = [point for point in image.points2D if point.has_point3D()]
        identifiers = np.array([point.point3D_id for point in points], dtype=np.int64)
        pixels = np.array([point.xy for point in points], dtype=np.float64).reshape(-1, 2)
        pixels -= _HALF_PIXEL
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
    fundamental = _fundamental(item0.view, item1.view)
    keep = symmetric_epipolar_distance(pixels0, pixels1, fundamental) <= max_epipolar_error
    return pixels0[keep], pixels1[keep]


def _fundamental(view0: PosedView, view1: PosedView) -> FloatArray:
    relative = view1.cam_from_world @ view0.cam_from_world.inverse
    x, y, z = relative.translation
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    inverse0, inverse1 = (np.linalg.inv(view.camera.matrix) for view in (view0, view1))
    fundamental: FloatArray = inverse1.T @ cross @ relative.rotation @ inverse0
    return fundamental


def _homogeneous(pixels: FloatArray) -> FloatArray:
    return np.concatenate([pixels, np.ones((len(pixels), 1))], axis=1)


def _detect(image: Path, max_features: int) -> _Features:
    sift = cv2.SIFT_create(nfeatures=max_features, contrastThreshold=0.02)  # type: ignore[attr-defined]
    keypoints, descriptors = sift.detectAndCompute(_read_gray(image), None)
    if not keypoints:
        return _Features(np.zeros((0, 2)), np.zeros((0, 128), dtype=np.float32))
    pixels = np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64)
    root = np.sqrt(descriptors / np.maximum(descriptors.sum(1, keepdims=True), 1e-6))
    return _Features(pixels, root.astype(np.float32))


def _guided_matches(
    view0: PosedView,
    view1: PosedView,
    features0: _Features,
    features1: _Features,
    tracked0: FloatArray,
    tracked1: FloatArray,
    options: GuidedOptions,
) -> tuple[FloatArray, FloatArray]:
    """Mutual nearest features near each other's epipolar lines, at the depth of their tracks."""
    nothing = np.zeros((0, 2)), np.zeros((0, 2))
    if min(len(features0.pixels), len(features1.pixels)) < 2:
        return nothing
    fundamental = _fundamental(view0, view1)
    distances = _banded_descriptor_distances(features0, features1, fundamental, options)
    first, second = torch.from_numpy(features0.descriptors), torch.from_numpy(features1.descriptors)
    _, rows = kornia.feature.match_smnn(first, second, options.ratio, distances)
    if len(rows) == 0:
        return nothing
    rows = rows[distances[rows[:, 0], rows[:, 1]] <= options.max_descriptor_distance]
    pixels0 = features0.pixels[rows[:, 0].numpy()]
    pixels1 = features1.pixels[rows[:, 1].numpy()]
    if len(pixels0) == 0:
        return nothing
    keep = _plausible_depth(view0, view1, (pixels0, pixels1), (tracked0, tracked1), options)
    return pixels0[keep], pixels1[keep]


def _banded_descriptor_distances(
    features0: _Features, features1: _Features, fundamental: FloatArray, options: GuidedOptions
) -> torch.Tensor:
    """(N0, N1) distances of the descriptors, 2 (the largest possible) off the epipolar bands."""
    homogeneous0 = torch.from_numpy(_homogeneous(features0.pixels)).float()
    homogeneous1 = torch.from_numpy(_homogeneous(features1.pixels)).float()
    # Scale is free; without this, float32 would run short of exponents.
    matrix = torch.from_numpy(fundamental / np.linalg.norm(fundamental)).float()
    lines1, lines0 = homogeneous0 @ matrix.T, homogeneous1 @ matrix
    residual = (lines1 @ homogeneous1.T).abs_()
    limit1 = options.max_distance * lines1[:, :2].norm(dim=1, keepdim=True)
    limit0 = options.max_distance * lines0[:, :2].norm(dim=1)
    inside = (residual <= limit1) & (residual <= limit0)
    first, second = torch.from_numpy(features0.descriptors), torch.from_numpy(features1.descriptors)
    distances = (2.0 - 2.0 * first @ second.T).clamp_(min=0.0).sqrt_()
    return distances.masked_fill_(~inside, 2.0)


def _plausible_depth(
    view0: PosedView,
    view1: PosedView,
    pixels: tuple[FloatArray, FloatArray],
    tracked: tuple[FloatArray, FloatArray],
    options: GuidedOptions,
) -> npt.NDArray[np.bool_]:
    """Which matches lie in front of both cameras, at about the depth of a tracked neighbour."""
    depth0, depth1 = _triangulated_depths(view0, view1, *pixels)
    known, _ = _triangulated_depths(view0, view1, *tracked)
    offsets = np.linalg.norm(pixels[0][:, None] - tracked[0][None], axis=2)
    nearest = np.argsort(offsets, axis=1)[:, : options.neighbours]
    with np.errstate(divide="ignore", invalid="ignore"):
        log_ratio = np.abs(np.log(depth0[:, None] / known[nearest]))
    # A feature that a track already uses adds nothing.
    new = offsets.min(axis=1) > 1.0
    agrees = (log_ratio <= np.log(options.max_depth_ratio)).any(axis=1)
    plausible: npt.NDArray[np.bool_] = new & (depth0 > 0) & (depth1 > 0) & agrees
    return plausible


def _triangulated_depths(
    view0: PosedView, view1: PosedView, pixels0: FloatArray, pixels1: FloatArray
) -> tuple[FloatArray, FloatArray]:
    relative = view1.cam_from_world @ view0.cam_from_world.inverse
    projection0 = view0.camera.matrix @ np.eye(3, 4)
    projection1 = view1.camera.matrix @ relative.matrix[:3]
    homogeneous = cv2.triangulatePoints(projection0, projection1, pixels0.T, pixels1.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        points = (homogeneous[:3] / homogeneous[3]).T
    return points[:, 2], relative.transform(points)[:, 2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Reconstruct every sub-folder of a folder of images; one summary line a place."""
    parser = argparse.ArgumentParser(
        prog="python -m matcher.training.colmap_import",
        description="Make training pairs from photographs, one folder a place.",
    )
    parser.add_argument("images_dir", type=Path, help="holds one folder of images a place")
    parser.add_argument("out_dir", type=Path, help="receives pairs.jsonl and one folder a place")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--max-features", type=int, default=SfmOptions().max_features)
    parser.add_argument("--min-shared-points", type=int, default=40)
    parser.add_argument("--guided", action="store_true", help="add matches along epipolar lines")
    parser.add_argument("--reuse", action="store_true", help="keep models already in OUT_DIR")
    parsed = parser.parse_args(arguments)
    if not parsed.images_dir.is_dir():
        raise DatasetError(f"{parsed.images_dir}: no such folder of images")
    pairs: list[CorrespondencePair] = []
    for place in sorted(path for path in parsed.images_dir.iterdir() if path.is_dir()):
        pairs += _import_place(place, parsed)
        # After every place, so that a run cut short leaves something to train on.
        write_pairs(parsed.out_dir / "pairs.jsonl", pairs)
    return 0


def _import_place(place: Path, parsed: argparse.Namespace) -> list[CorrespondencePair]:
    work = parsed.out_dir / place.name
    known = sorted((work / "models").glob("*")) if parsed.reuse else []
    models = known or reconstruct_folder(
        place, work, parsed.seed, SfmOptions(max_features=parsed.max_features)
    )
    pairs: dict[tuple[str, str], CorrespondencePair] = {}
    for model in models:
        for pair in pairs_from_reconstruction(
            model,
            place,
            work / f"pairs{model.name}",
            min_shared_points=parsed.min_shared_points,
            guided=GuidedOptions() if parsed.guided else None,
            group=place.name,
        ):
            # Models may overlap; the largest comes first and has the better poses.
            pairs.setdefault((pair.image0.name, pair.image1.name), pair)
    images = {name for names in pairs for name in names}
    print(  # noqa: T201 - the output of a program
        f"{place.name}: {len(models)} models, {len(images)} images in {len(pairs)} pairs",
        flush=True,
    )
    return list(pairs.values())


if __name__ == "__main__":
    raise SystemExit(main())
