"""Cambridge Landmarks: six places filmed with a phone, mapped by VisualSFM.

Each scene's ``reconstruction.nvm`` gives the focal of every photograph, queries included, and the
3-D points. Told the queries' focals, and not told them, are two tasks: two protocols.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, FloatArray, PointReference, missing_data
from benchmarks.datasets.building import as_rigid, stored_size
from benchmarks.datasets.localization_pairs import (
    Query,
    QueryCollector,
    ReferenceImage,
    find_retrieval,
    spread_retrieval,
)
from benchmarks.datasets.number_files import parse_numbers, read_lines
from benchmarks.datasets.nvm_files import NvmModel, read_nvm
from benchmarks.tasks.localization_options import LocalizationOptions, localization_protocols
from matcher.errors import DatasetError
from matcher.geometry.pixels import image_center
from matcher.geometry.pose import quaternion_to_rotation
from matcher.structures import Camera

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "cambridge"
TITLE = "Cambridge Landmarks"
PUBLISHED = (
    "https://www.repository.cam.ac.uk, 'Cambridge Landmarks' of the PoseNet authors, one archive a "
    "scene (non-commercial use)"
)


def _protocols() -> dict[str, Protocol]:
    protocols = localization_protocols(ResizeRule("long", 512, only_shrink=True))
    ours = protocols["ours"]
    assert isinstance(ours.estimator, LocalizationOptions)
    unknown = dataclasses.replace(
        ours,
        name="ours-unknown-focal",
        estimator=dataclasses.replace(ours.estimator, estimate_focal=True),
        note="as ours, but the query's focal is not told: it is estimated with the pose",
    )
    told = dataclasses.replace(ours, note=f"{ours.note}; the query's ground-truth focal is given")
    return {**protocols, "ours": told, unknown.name: unknown}


PROTOCOLS: dict[str, Protocol] = _protocols()
PUBLISHED_VALUES: tuple[PublishedValue, ...] = ()
_SCENES = (
    "KingsCollege",
    "OldHospital",
    "ShopFacade",
    "StMarysChurch",
    "GreatCourt",
    "Street",
)
_TREE = (
    "KingsCollege/dataset_train.txt, dataset_test.txt     three lines of header, then",
    "                                                     image X Y Z W P Q R",
    "KingsCollege/reconstruction.nvm                      focals and 3-D points",
    "KingsCollege/seq1/frame00001.png ...",
    "KingsCollege/pairs-query*.txt                        retrieval (optional): query reference",
    "OldHospital/, ShopFacade/, StMarysChurch/, GreatCourt/",
)
_HEADER_LINES = 3
_SPREAD_REFERENCES = 20
_NOTES = (
    "ground truth: VisualSFM, as published; all test images count, none is sub-sampled",
    "K: focal and radial distortion of reconstruction.nvm (first order), principal point in the "
    "middle",
)


def read(root: Path) -> Dataset:
    """Every test image of every scene below ``root`` with its references.

    Raises:
        DatasetError: no scene is there, or nothing can be used.
    """
    scenes = [scene for scene in _SCENES if (root / scene / "dataset_test.txt").is_file()]
    if not scenes:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = QueryCollector()
    for scene in scenes:
        try:
            _collect(root, scene, collector)
        except DatasetError as error:
            collector.fail(scene, str(error))
    absent = [scene for scene in _SCENES if scene not in scenes and scene != "Street"]
    if absent:
        collector.note(f"scenes not there: {', '.join(absent)}")
    return collector.finish(NAME, TITLE, root, _NOTES)


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """A line of ``dataset_*.txt``: its image, and its pose or why it cannot be read."""

    image: str
    pose: FloatArray | DatasetError


def _collect(root: Path, scene: str, collector: QueryCollector) -> None:
    folder = root / scene
    queries = {listed.image: listed for listed in _read_split(folder / "dataset_test.txt")}
    train = [listed.image for listed in _read_split(folder / "dataset_train.txt")]
    retrieval = find_retrieval(
        root, (f"{scene}/pairs-query*.txt", f"*/{scene}/pairs-query*.txt", f"{scene}_top*.txt")
    ) or spread_retrieval(queries, train, _SPREAD_REFERENCES)
    wanted = {name for names in retrieval.references.values() for name in names}
    model = read_nvm(folder / "reconstruction.nvm", wanted)

    def read_query(name: str) -> Query:
        pose = queries[name].pose
        if isinstance(pose, DatasetError):
            raise DatasetError(str(pose))
        image = folder / name
        return Query(f"{scene}/{name}", image, _camera(model, name, image), pose, scene)

    @lru_cache(maxsize=4096)
    def read_reference(name: str) -> ReferenceImage:
        image = folder / name
        observed = model.observations(name)
        center = np.array(image_center(stored_size(image)))
        reference = PointReference(observed.offsets + center, observed.points)
        return ReferenceImage(f"{scene}/{name}", image, reference)

    collector.add_all(queries, retrieval, read_query, read_reference, f"{scene}/")


def _camera(model: NvmModel, name: str, image: Path) -> Camera:
    found = model.camera(name)
    center = image_center(stored_size(image))
    if not found.radial:
        return Camera.pinhole(found.focal, found.focal, *center)
    # VisualSFM's factor removes the distortion, COLMAP's applies it: to first order the negative.
    return Camera("SIMPLE_RADIAL", (found.focal, *center, -found.radial))


def _read_split(path: Path) -> Iterator[_Listed]:
    if not path.is_file():
        raise DatasetError(f"no file at {path}")
    for line, words in read_lines(path):
        if line <= _HEADER_LINES:
            continue
        try:
            numbers = parse_numbers(words[1:], 7, path, line)
            if not np.linalg.norm(numbers[3:]) > 0:
                raise DatasetError(f"{path}:{line}: a quaternion of length 0")
            rotation = quaternion_to_rotation(numbers[3:])
            yield _Listed(words[0], as_rigid(words[0], rotation, -rotation @ numbers[:3]))
        except DatasetError as error:
            yield _Listed(words[0], error)
