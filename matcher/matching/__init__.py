"""Matching: reciprocal search in dense maps, choice of matches, subpixel ends, crops."""

from __future__ import annotations

from matcher.matching.cells import CellNearest
from matcher.matching.crops import CropPair, plan_crops
from matcher.matching.merge import add_matches, merge_matches
from matcher.matching.nearby import NearbyNearest
from matcher.matching.nearest import FaissNearest, Metric, NearestNeighbour, TorchNearest
from matcher.matching.options import MatchingOptions, SearchBackend
from matcher.matching.reciprocal import (
    reciprocal_from_starts,
    reciprocal_matches,
    reciprocal_points,
    union_matches,
)
from matcher.matching.sampled import SampledNearest
from matcher.matching.seeds import descriptor_sharpness, is_sharp, seed_pixels
from matcher.matching.select import select_matches, top_k_rows
from matcher.matching.subpixel import (
    SubpixelMatches,
    refine_patches,
    refine_soft_argmax,
    refine_subpixel,
)
from matcher.matching.walk import SearchFactory, build_search

__all__ = [
    "CellNearest",
    "CropPair",
    "FaissNearest",
    "MatchingOptions",
    "Metric",
    "NearbyNearest",
    "NearestNeighbour",
    "SampledNearest",
    "SearchBackend",
    "SearchFactory",
    "SubpixelMatches",
    "TorchNearest",
    "add_matches",
    "build_search",
    "descriptor_sharpness",
    "is_sharp",
    "merge_matches",
    "plan_crops",
    "reciprocal_from_starts",
    "reciprocal_matches",
    "reciprocal_points",
    "refine_patches",
    "refine_soft_argmax",
    "refine_subpixel",
    "seed_pixels",
    "select_matches",
    "top_k_rows",
    "union_matches",
]
