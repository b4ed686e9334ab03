"""7Scenes: seven rooms filmed with a Kinect.

Poses are KinectFusion's, as published with the set. Pseudo ground truth from structure from motion
exists too, and numbers against the one are not comparable with numbers against the other.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import numpy as np

from benchmarks.core.protocols import Protocol, ResizeRule
from benchmarks.core.published import PublishedValue
from benchmarks.core.samples import Dataset, DepthReference, FloatArray, missing_data
from benchmarks.datasets.building import as_rigid, scale_intrinsics, stored_size
from benchmarks.datasets.localization_pairs import (
    Query,
    QueryCollector,
    ReferenceImage,
    find_retrieval,
    inverse_pose,
    spread_retrieval,
)
from benchmarks.datasets.number_files import read_lines, read_matrix
from benchmarks.tasks.localization_options import localization_protocols
from matcher.errors import DatasetError
from matcher.structures import Camera, ImageSize

__all__ = ["NAME", "PROTOCOLS", "PUBLISHED", "PUBLISHED_VALUES", "TITLE", "read"]

NAME = "sevenscenes"
TITLE = "7Scenes"
PUBLISHED = (
    "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes "
    "(Microsoft Research; non-commercial use)"
)
PROTOCOLS: dict[str, Protocol] = localization_protocols(ResizeRule("long", 512, only_shrink=True))
_SCENES = ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
_DUST3R = ((3, 0.97), (3, 0.95), (2, 1.37), (3, 1.01), (4, 1.14), (4, 1.34), (11, 2.84))
PUBLISHED_VALUES: tuple[PublishedValue, ...] = tuple(
    PublishedValue("DUSt3R", f"{scene} median {unit}", float(value), "DUSt3R paper")
    for scene, values in zip(_SCENES, _DUST3R, strict=True)
    for unit, value in zip(("translation cm", "rotation deg"), values, strict=True)
)

_TREE = (
    "chess/TrainSplit.txt, TestSplit.txt              'sequence1', one a line",
    "chess/seq-01/frame-000000.color.png, .depth.png, .pose.txt ...",
    "fire/, heads/, office/, pumpkin/, redkitchen/, stairs/",
    "chess_top10.txt or chess/pairs-query*.txt        retrieval (optional): query reference",
)
_SIZE = ImageSize(480, 640)
_COLOR_K = np.array([[525.0, 0.0, 319.5], [0.0, 525.0, 239.5], [0.0, 0.0, 1.0]])
_DEPTH_K = np.array([[585.0, 0.0, 319.5], [0.0, 585.0, 239.5], [0.0, 0.0, 1.0]])
_INVALID_DEPTH = 65535
_SPREAD_REFERENCES = 20
_NOTES = (
    "ground truth: KinectFusion poses as published (not the structure-from-motion pseudo ground "
    "truth)",
    "K: focal 525 for colour, 585 for depth at 640 x 480, principal point in the middle; depth is "
    "raw, read along each colour pixel's ray with both cameras taken to stand at one place "
    "(depth.proj.png, already registered to colour, is read with 525 where it is there)",
)


def read(root: Path) -> Dataset:
    """Every test frame of every scene below ``root`` with its references.

    Raises:
        DatasetError: no scene is there, or nothing can be used.
    """
    scenes = [scene for scene in _SCENES if (root / scene / "TestSplit.txt").is_file()]
    if not scenes:
        raise missing_data(TITLE, root, _TREE, PUBLISHED)
    collector = QueryCollector()
    for scene in scenes:
        _collect(root, scene, collector)
    absent = [scene for scene in _SCENES if scene not in scenes]
    if absent:
        collector.note(f"scenes not there: {', '.join(absent)}")
    return collector.finish(NAME, TITLE, root, _NOTES)


def _collect(root: Path, scene: str, collector: QueryCollector) -> None:
    folder = root / scene
    try:
        queries = _frames(folder, "TestSplit.txt")
        frames = _frames(folder, "TrainSplit.txt")
    except DatasetError as error:
        collector.fail(scene, str(error))
        return
    retrieval = find_retrieval(
        root,
        (
            f"{scene}_top*.txt",
            f"*/{scene}_top*.txt",
            f"{scene}/pairs-query*.txt",
        ),
    ) or spread_retrieval(queries, frames, _SPREAD_REFERENCES)

    def read_query(name: str) -> Query:
        image = folder / name
        return Query(
            f"{scene}/{name}",
            image,
            Camera.from_matrix(_scaled(_COLOR_K, image)),
            _cam_from_world(image),
            scene,
        )

    @lru_cache(maxsize=4096)
    def read_reference(name: str) -> ReferenceImage:
        return ReferenceImage(f"{scene}/{name}", folder / name, _reference(folder / name))

    collector.add_all(queries, retrieval, read_query, read_reference, f"{scene}/")


def _frames(folder: Path, split: str) -> list[str]:
    """``seq-01/frame-000000.color.png`` ... of the sequences of a split."""
    names: list[str] = []
    for line, words in read_lines(folder / split):
        number = re.fullmatch(r"(?:sequence|seq-?)(\d+)", words[0])
        if number is None:
            raise DatasetError(f"{folder / split}:{line}: expected 'sequence1', got {words[0]!r}")
        sequence = folder / f"seq-{int(number.group(1)):02d}"
        found = sorted(sequence.glob("frame-*.color.png"))
        if not found:
            raise DatasetError(f"no frame-*.color.png in {sequence}")
        names.extend(f"{sequence.name}/{path.name}" for path in found)
    return names


def _reference(image: Path) -> DepthReference:
    pose, k = _cam_from_world(image), _scaled(_COLOR_K, image)
    registered = _beside(image, "depth.proj.png")
    if registered.is_file():
        return DepthReference(k, pose, registered, 1000.0, _INVALID_DEPTH)
    depth = _beside(image, "depth.png")
    if not depth.is_file():
        raise DatasetError(f"no depth image at {depth}")
    depth_k = scale_intrinsics(_DEPTH_K, _SIZE, stored_size(depth))
    return DepthReference(k, pose, depth, 1000.0, _INVALID_DEPTH, depth_k)


def _cam_from_world(image: Path) -> FloatArray:
    path = _beside(image, "pose.txt")
    matrix = read_matrix(path, 4, 4)
    return inverse_pose(as_rigid(str(path), matrix[:3, :3], matrix[:3, 3]))


def _scaled(k: FloatArray, image: Path) -> FloatArray:
    return scale_intrinsics(k, _SIZE, stored_size(image))


def _beside(image: Path, ending: str) -> Path:
    return image.with_name(image.name.replace("color.png", ending))
