"""Where a photograph was taken: retrieval, reference maps, absolute poses."""

from __future__ import annotations

from matcher.localization.answer import AbsolutePose, UsedReference
from matcher.localization.correspondences import Correspondences, gather
from matcher.localization.lifting import (
    DepthPoints,
    Lifted,
    MatchArrays,
    PointmapPoints,
    PointSource,
    TrackedPoints,
)
from matcher.localization.localizer import Localizer
from matcher.localization.options import LocalizationOptions
from matcher.localization.reference_map import ReferenceMap
from matcher.localization.references import Reference
from matcher.localization.retrieval import RetrievalIndex
from matcher.localization.solve import solve_pose

__all__ = [
    "AbsolutePose",
    "Correspondences",
    "DepthPoints",
    "Lifted",
    "LocalizationOptions",
    "Localizer",
    "MatchArrays",
    "PointSource",
    "PointmapPoints",
    "Reference",
    "ReferenceMap",
    "RetrievalIndex",
    "TrackedPoints",
    "UsedReference",
    "gather",
    "solve_pose",
]
