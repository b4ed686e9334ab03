"""Widebase: match two photographs taken from very different viewpoints, and find the pose.

>>> from matcher import Camera, Matcher
>>> matcher = Matcher.from_pretrained("small")              # doctest: +SKIP
>>> pair = matcher.match("a.jpg", "b.jpg")                  # doctest: +SKIP
>>> pair.keypoints0, pair.keypoints1, pair.confidence       # doctest: +SKIP
>>> pose = pair.relative_pose(camera0, camera1)             # doctest: +SKIP
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from matcher.alignment.reconstruct import reconstruct
from matcher.checkpoints import CheckpointInfo
from matcher.encoding_cache import MemoryLimits
from matcher.errors import (
    CheckpointError,
    DatasetError,
    InputError,
    MatcherError,
    MissingDependencyError,
)
from matcher.geometry.relative_solvers import RelativePoseOptions
from matcher.localization import AbsolutePose, LocalizationOptions, ReferenceMap
from matcher.match_store import MatchStore
from matcher.matching import MatchingOptions
from matcher.module import WidebaseModule
from matcher.photographs import Photographs
from matcher.pipeline import EncodedImage, Matcher, PairOptions
from matcher.reconstruction import CloudOptions, PointCloud, Reconstruction
from matcher.results import PairResult
from matcher.structures import Camera, ImageSize, Matches, Pose, RelativePose

try:
    __version__ = version("widebase")
except PackageNotFoundError:  # a checkout that was never installed
    __version__ = "0+unknown"

__all__ = [
    "AbsolutePose",
    "Camera",
    "CheckpointError",
    "CheckpointInfo",
    "CloudOptions",
    "DatasetError",
    "EncodedImage",
    "ImageSize",
    "InputError",
    "LocalizationOptions",
    "MatchStore",
    "Matcher",
    "MatcherError",
    "Matches",
    "MatchingOptions",
    "MemoryLimits",
    "MissingDependencyError",
    "PairOptions",
    "PairResult",
    "Photographs",
    "PointCloud",
    "Pose",
    "Reconstruction",
    "ReferenceMap",
    "RelativePose",
    "RelativePoseOptions",
    "WidebaseModule",
    "__version__",
    "reconstruct",
]
