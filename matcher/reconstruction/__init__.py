"""A reconstruction of several photographs, and the files it can be written as."""

from __future__ import annotations

from matcher.reconstruction.filtering import CloudOptions
from matcher.reconstruction.fusion import FusionOptions, fuse_pointmaps
from matcher.reconstruction.match_fusion import MatchFusionOptions, fuse_matches
from matcher.reconstruction.model import (
    DensePoints,
    Reconstruction,
    RegisteredImage,
    SparsePoints,
)
from matcher.reconstruction.point_cloud import PointCloud

__all__ = [
    "CloudOptions",
    "DensePoints",
    "FusionOptions",
    "MatchFusionOptions",
    "PointCloud",
    "Reconstruction",
    "RegisteredImage",
    "SparsePoints",
    "fuse_matches",
    "fuse_pointmaps",
]
