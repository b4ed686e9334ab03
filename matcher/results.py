"""What matching a pair gives: matches, the pose that follows from them, a picture, a file."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from matcher.checkpoints import CheckpointInfo
from matcher.drawing import draw_matches, write_picture
from matcher.errors import InputError
from matcher.files import replaced
from matcher.geometry.relative import estimate_relative_pose
from matcher.geometry.relative_solvers import RelativePoseOptions
from matcher.images import RgbArray
from matcher.pointmaps import Pointmaps, RefinedPointmaps, refine_pointmaps, sample_points
from matcher.structures import Camera, ImageSize, Matches, RelativePose

__all__ = ["PairResult"]


@dataclass(frozen=True, slots=True, eq=False)
class PairResult:
    """The matches of two photographs and what follows from them.

    Attributes:
        matches: correspondences in original pixels.
        image0: (H0, W0, 3) uint8 RGB, the photograph as matched.
        image1: (H1, W1, 3) uint8 RGB.
        info: which weights answered, and their licence.
        pointmaps: both pointmaps, or ``None`` where the network was not asked.
        reason: ``None`` with matches; otherwise one sentence that says why there are none.
        seconds: wall-clock time of reading, encoding and matching.
        overlap_score: probability that both photographs show a common place; ``None`` where the
            model's confidence was never calibrated, or nothing could be matched.
        exif_focals: focal lengths that the photographs' files tell, pixels, or ``None`` each.
        quarter_turns1: by which photograph 1 was turned (counter-clockwise) to look like
            photograph 0; see ``PairOptions.turns``. All pixels here are those of the photograph as
            given.
    """

    matches: Matches
    image0: RgbArray
    image1: RgbArray
    info: CheckpointInfo
    pointmaps: Pointmaps | None
    reason: str | None
    seconds: float
    overlap_score: float | None = None
    exif_focals: tuple[float | None, float | None] = (None, None)
    quarter_turns1: int = 0

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def keypoints0(self) -> Tensor:
        """(M, 2) float32, x then y, pixels of photograph 0."""
        return self.matches.keypoints0

    @property
    def keypoints1(self) -> Tensor:
        """(M, 2) float32, x then y, pixels of photograph 1; row i matches row i."""
        return self.matches.keypoints1

    @property
    def confidence(self) -> Tensor:
        """(M,) float32 in (0, 1]."""
        return self.matches.confidence

    @property
    def size0(self) -> ImageSize:
        """Size of photograph 0."""
        return ImageSize(*self.image0.shape[:2])

    @property
    def size1(self) -> ImageSize:
        """Size of photograph 1."""
        return ImageSize(*self.image1.shape[:2])

    def relative_pose(
        self,
        camera0: Camera | None = None,
        camera1: Camera | None = None,
        *,
        options: RelativePoseOptions | None = None,
    ) -> RelativePose:
        """Where the second camera stood relative to the first.

        The solver follows from what is known: both cameras, one, or none. A focal that is not given
        comes from the photograph's EXIF tags, or from its pointmap and the matches. Where the
        matches lie on one plane, which two motions explain, the pointmap tells which.

        Args:
            camera0: intrinsics of photograph 0, in its own pixels.
            camera1: intrinsics of photograph 1.
            options: solver, threshold, seed.

        Returns:
            ``cam1_from_cam0`` and the inliers; without an answer, ``cam1_from_cam0`` is ``None``
            and ``reason`` says why.
        """
        if self.reason is not None:
            return RelativePose.none(len(self), self.reason)
        keypoints0 = self.keypoints0.numpy().astype(np.float64)
        keypoints1 = self.keypoints1.numpy().astype(np.float64)
        maps, (focal0, focal1) = self.pointmaps, self.exif_focals
        points0 = points1 = points1_in_camera1 = None
        if maps is not None:
            points0 = sample_points(maps.points0, keypoints0, maps.original0_from_network)
            points1 = sample_points(maps.points1, keypoints1, maps.original1_from_network)
            own1 = maps.points1_in_camera1
            if own1 is not None:
                points1_in_camera1 = sample_points(own1, keypoints1, maps.original1_from_network)
            focal0 = focal0 or (maps.focal0() if camera0 is None else None)
            focal1 = focal1 or (maps.focal1() if camera1 is None else None)
        return estimate_relative_pose(
            keypoints0,
            keypoints1,
            camera0=camera0,
            camera1=camera1,
            size0=self.size0,
            size1=self.size1,
            options=options,
            points0=points0,
            points1=points1,
            points1_in_camera1=points1_in_camera1,
            focal0_guess=focal0,
            focal1_guess=focal1,
            is_metric=maps is not None and self.info.is_metric,
        )

    def refined_pointmaps(self, pose: RelativePose) -> RefinedPointmaps:
        """The pointmaps brought to where the rays of the matches meet.

        A pointmap guesses depth from what places look like; matches and a pose with a baseline
        measure it. See ``refine_pointmaps``.

        Args:
            pose: what ``relative_pose`` gave for these matches.

        Returns:
            Pointmaps in camera 0's frame, in the unit of the pose's translation; or none, and why.

        Raises:
            InputError: a pose of other matches, or a result without pointmaps.
        """
        if self.reason is not None:
            return RefinedPointmaps(None, 0, self.reason)
        if self.pointmaps is None:
            raise InputError("result", "one that kept its pointmaps", "none")
        return refine_pointmaps(
            self.pointmaps,
            self.keypoints0.numpy().astype(np.float64),
            self.keypoints1.numpy().astype(np.float64),
            pose,
        )

    def draw(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        pose: RelativePose | None = None,
        max_matches: int = 200,
    ) -> RgbArray:
        """Draw the two photographs and their matches.

        Args:
            path: where to write the picture (.png, .jpg, ...); ``None`` only returns it.
            pose: its inliers are drawn on top, the rest faintly.
            max_matches: draw at most so many, spread over the picture.

        Returns:
            (H, W, 3) uint8 RGB.

        Raises:
            InputError: a path that cannot be written.
        """
        picture = draw_matches(
            self.image0,
            self.image1,
            self.keypoints0.numpy(),
            self.keypoints1.numpy(),
            self.confidence.numpy(),
            inlier_mask=pose.inlier_mask if pose else None,
            max_matches=max_matches,
        )
        if path is not None:
            write_picture(path, picture)
        return picture

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the matches as ``.npz``, in one step.

        Arrays: ``keypoints0`` (M, 2), ``keypoints1`` (M, 2), ``confidence`` (M,), ``size0`` and
        ``size1`` (height, width), ``model``, ``licence``, ``sha256`` (strings).

        Raises:
            InputError: another suffix, or a folder that is not there.
        """
        target = Path(path)
        if target.suffix != ".npz":
            raise InputError("path", "a name that ends in .npz", f"{target.name}")
        if not target.parent.is_dir():
            raise InputError("path", "a file in a folder that exists", f"{target}")
        try:
            with replaced(target) as temporary, temporary.open("wb") as stream:
                np.savez_compressed(
                    stream,
                    keypoints0=self.keypoints0.numpy(),
                    keypoints1=self.keypoints1.numpy(),
                    confidence=self.confidence.numpy(),
                    size0=np.array(self.image0.shape[:2]),
                    size1=np.array(self.image1.shape[:2]),
                    model=np.array(self.info.name),
                    licence=np.array(self.info.licence),
                    sha256=np.array(self.info.sha256),
                )
        except (OSError, zipfile.LargeZipFile) as error:
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
            raise InputError("path", "a file that can be written", f"{target}: {reason}") from None

    def to_dict(self) -> dict[str, Any]:
        """The numbers as plain values, for JSON; confidences rounded to six digits."""
        return {
            "keypoints0": self.keypoints0.tolist(),
            "keypoints1": self.keypoints1.tolist(),
            "confidence": [round(value, 6) for value in self.confidence.tolist()],
            "size0": list(self.image0.shape[:2]),
            "size1": list(self.image1.shape[:2]),
            "num_matches": len(self),
            "overlap_score": None if self.overlap_score is None else round(self.overlap_score, 6),
            "quarter_turns1": self.quarter_turns1,
            "reason": self.reason,
            "model": self.info.name,
            "licence": self.info.licence,
            "seconds": round(self.seconds, 3),
        }

    def to_json(self) -> str:
        """``to_dict`` as one line of JSON."""
        return json.dumps(self.to_dict())
