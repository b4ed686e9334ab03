"""Where training pairs come from: posed depth, single photographs, sparse matches.

Every source draws one pair of a given (height, width) from a random generator.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np

from matcher.training.homographies import (
    HomographyViews,
    SinglePhotos,
    homography_pair,
    homography_views,
)
from matcher.training.matched_photos import MatchedPhotos
from matcher.training.motion import ANY_MOTION, Motion
from matcher.training.photo_files import find_photos, read_photo
from matcher.training.posed_depth import DepthGroup, PosedDepth, ScenePool, posed_groups
from matcher.training.samples import TrainingSample

__all__ = [
    "DepthGroup",
    "HomographyViews",
    "MatchedPhotos",
    "PairSource",
    "PosedDepth",
    "ScenePool",
    "SinglePhotos",
    "find_photos",
    "homography_pair",
    "homography_views",
    "posed_groups",
    "read_photo",
]


class PairSource(Protocol):
    """Something that draws training pairs."""

    def draw(
        self,
        random: np.random.Generator,
        shape: tuple[int, int],
        num_matches: int,
        motion: Motion = ANY_MOTION,
    ) -> TrainingSample:
        """One pair of (height, width) images, of those that ``motion`` allows.

        Raises:
            DatasetError: a file that cannot be read, or nothing usable in many draws; the message
                names the file or the source.
        """
        ...
